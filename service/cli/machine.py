"""tickets status, doctor, logs, env: the `tickets up` of a data folder, seen from another shell."""

import os
import select
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import DATA_DIR, DataDir, fail, load_settings, one_line_failures, run, settings_of
from service.local.checks import Check, doctor, status
from service.local.instance import LogName, as_exports, log_file, running_instance, shell_variables
from service.transport import logs

_FOLLOW_MILLISECONDS = 200
_MARKS = {True: "ok", False: "bad", None: "note"}


def show_status(data_dir: DataDir = DATA_DIR) -> None:
    """Say what runs, and whether it answers; exit code 1 where something does not."""
    _show(run(status(data_dir, settings_of(data_dir))))


def show_doctor(
    data_dir: DataDir = DATA_DIR,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="To be free, unless `tickets up` runs.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="To be free, unless `tickets up` runs.")] = 50051,
) -> None:
    """Check settings, database, schema, keys, clock, ports and gateway; exit code 1 where something is bad."""
    logs.configure("error")  # a check says itself what is wrong
    load_settings()  # all of them, as a process of the service reads them
    settings = settings_of(data_dir)
    with one_line_failures():
        if running_instance(data_dir) is None:
            settings = load_settings(pool_size=1)  # the next `tickets up` starts its own database
    _show(run(doctor(data_dir, settings, (http_port, grpc_port))))


def show_logs(
    name: Annotated[LogName, typer.Argument(help="Whose log.")] = "service",
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written.")] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Print the end of a log of `tickets up`."""
    path = log_file(data_dir, name)
    if not path.exists():
        fail(f"there is no {path}: run `tickets up` first")
    with one_line_failures():
        text = path.read_bytes()
    sys.stdout.buffer.write(b"".join(text.splitlines(keepends=True)[-lines:] if lines else []))
    sys.stdout.flush()
    if follow:
        _follow(path, len(text))


def show_env(data_dir: DataDir = DATA_DIR) -> None:
    """Print what the examples of the pages need, for a shell: eval "$(tickets env)"."""
    with one_line_failures():
        try:
            variables = shell_variables(data_dir)
        except FileNotFoundError:
            fail(f"nothing was started in {data_dir}: run `tickets up` first")
    sys.stdout.write(as_exports(variables))


def _follow(path: Path, position: int) -> None:
    with suppress(KeyboardInterrupt):
        reader = select.poll()
        reader.register(sys.stdout.fileno(), 0)
        # This ends when the reader of the output has left, as `head` does, though nothing more is written.
        while not reader.poll(_FOLLOW_MILLISECONDS):
            with suppress(FileNotFoundError):  # moved away, and not there again yet
                position = _printed(path, position)


def _printed(path: Path, position: int) -> int:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < position:  # rotated
            position = 0
        file.seek(position)
        sys.stdout.buffer.write(file.read())
        sys.stdout.flush()
        return file.tell()


def _show(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        sys.stdout.write(f"{_MARKS[check.is_good]:5} {check.name:{width}}  {check.words}\n")
    if any(check.is_good is False for check in checks):
        raise SystemExit(1)
