"""What `tickets status`, `env` and `logs` know of a data folder, and logs that are kept short."""

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from service.__main__ import app, main
from service.cli import operators
from service.cli.machine import show_logs
from service.local.demo import CREDENTIALS_FILE
from service.local.instance import Instance, forget_instance, running_instance, shell_variables, write_instance
from service.local.processes import free_port, last_log_lines
from service.local.rotation import rotate

HERE = Instance(os.getpid(), "http://127.0.0.1:1", "127.0.0.1:2", 1)


def test_an_instance_is_found_while_its_process_runs(tmp_path: Path) -> None:
    assert running_instance(tmp_path) is None
    write_instance(tmp_path, HERE)
    assert running_instance(tmp_path) == HERE
    ended = subprocess.Popen(["true"])
    ended.wait()
    write_instance(tmp_path, HERE._replace(pid=ended.pid))
    assert running_instance(tmp_path) is None
    write_instance(tmp_path, HERE)
    forget_instance(tmp_path)
    assert running_instance(tmp_path) is None


def test_the_variables_are_for_any_shell(tmp_path: Path) -> None:
    kept = {"itsm_api_key": "k", "helpdesk_token": "h's", "handoff_token": "t", "handoff_project_id": "p"}
    (tmp_path / CREDENTIALS_FILE).write_bytes(orjson.dumps({**kept, "rest_url": "old", "grpc_target": "old"}))
    write_instance(tmp_path, HERE)  # where it listens now
    done = CliRunner().invoke(app, ["env", "--data-dir", str(tmp_path)])
    script = done.stdout + 'printf "%s\\n" "$REST" "$GRPC" "$ITSM" "$HELPDESK" "$HANDOFF" "$PROJECT"'
    printed = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert printed == [
        *("http://127.0.0.1:1", "http://127.0.0.1:2"),
        *("X-API-Key: k", "Authorization: Bearer h's", "Authorization: Bearer t", "p"),
    ]


def test_without_demo_data_they_are_where_it_listens(tmp_path: Path) -> None:
    write_instance(tmp_path, HERE)
    assert shell_variables(tmp_path) == {"REST": "http://127.0.0.1:1", "GRPC": "http://127.0.0.1:2"}


@pytest.mark.parametrize("command", ["env", "logs", "status"])
def test_without_an_instance_a_command_says_so(tmp_path: Path, command: str) -> None:
    done = CliRunner().invoke(app, [command, "--data-dir", str(tmp_path)])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)


@pytest.mark.parametrize("was_up", [False, True], ids=["a new folder", "a folder of before"])
def test_doctor_misses_no_database_that_up_would_start(tmp_path: Path, was_up: bool) -> None:
    if was_up:
        (tmp_path / "database-url").write_text("postgresql://127.0.0.1:1/none")
    ports = ("--http-port", str(free_port()), "--grpc-port", str(free_port()))
    done = CliRunner(env={"TICKETS_DATABASE_URL": None}).invoke(app, ["doctor", "--data-dir", str(tmp_path), *ports])
    lines = [" ".join(line.split()) for line in done.output.splitlines()]
    assert "note database TICKETS_DATABASE_URL is empty: `tickets up` starts one of its own" in lines
    assert (done.exit_code, [line for line in lines if line.startswith("bad")]) == (0, [])


def test_doctor_looks_at_all_that_a_start_reads(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    given = {
        "TICKETS_DATABASE_URL": None,
        "TICKETS_OTLP_ENDPOINT": "127.0.0.1:4317",
        "TICKETS_OTLP_CA": "/nowhere.pem",
        "TICKETS_RATE_LIMIT_FILE": str(file / "buckets"),
    }
    ports = ("--http-port", str(free_port()), "--grpc-port", str(free_port()))
    done = CliRunner(env=given).invoke(app, ["doctor", "--data-dir", str(tmp_path), *ports])
    bad = [line for line in done.output.splitlines() if line.startswith("bad")]
    assert done.exit_code == 1
    assert [name in line for name, line in zip(("OTLP_CA", "RATE_LIMIT_FILE"), bad, strict=True)] == [True, True]


_GARBAGE = (b"", b"\xff\xfe", b"[]", b"\x00")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("env", "credentials.json"),
        ("token --sub ada", "development-key.pem"),
        ("status", "database-url"),
        ("doctor", "database-url"),
        ("migrate", "database-url"),
        ("purge", "database-url"),
        ("admin accounts", "database-url"),
        ("admin accounts", "encryption-key"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, command: str, name: str) -> None:
    contents = (b"", b"\xff\xfe") if name in ("database-url", "encryption-key") else _GARBAGE
    for content in contents:
        (tmp_path / "database-url").write_text("postgresql://127.0.0.1:1/none")
        (tmp_path / name).write_bytes(content)
        done = CliRunner(env={"TICKETS_DATABASE_URL": None}).invoke(
            app, [*command.split(), "--data-dir", str(tmp_path)]
        )
        line = f"{tmp_path / name} is damaged: it is not what `tickets up` wrote\n"
        assert (done.exit_code, done.output) == (1, line), content


def test_a_folder_that_is_none_is_named_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for command in ("env", "status", "doctor", "token --sub ada"):
        done = CliRunner().invoke(app, [*command.split(), "--data-dir", str(file)])
        assert (done.exit_code, done.output.count("\n")) == (1, 1), command
        assert str(file) in done.output


def test_no_process_has_a_number_below_one(tmp_path: Path) -> None:
    for pid in (0, -1):
        write_instance(tmp_path, HERE._replace(pid=pid))
        assert running_instance(tmp_path) is None


def test_without_a_database_it_is_said_that_none_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKETS_DATABASE_URL", raising=False)
    monkeypatch.setenv("PGHOST", str(tmp_path))
    done = CliRunner().invoke(app, ["admin", "accounts", "--data-dir", str(tmp_path)])
    hint = " (TICKETS_DATABASE_URL is not set, so that a `tickets up` must run on --data-dir)\n"
    assert (done.exit_code, done.output.count("\n"), done.output.endswith(hint)) == (1, 1, True)


def test_a_credential_is_asked_for_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(operators, "getpass", lambda words: words + "typed ")
    monkeypatch.setattr(sys, "stdin", Terminal("not read"))
    assert operators.credential() == "Credential: typed"
    monkeypatch.setattr(sys, "stdin", io.StringIO(" piped\nmore\n"))
    assert operators.credential() == "piped"


def test_a_log_that_is_too_long_is_moved_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    assert not rotate(log)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", buffering=1) as file:
        file.write("first\n" * 10)
        assert not rotate(log, max_bytes=60)
        file.write("second\n")
        assert rotate(log, max_bytes=60)
        file.write("third\n")
    before = tmp_path / "service.log.1"
    assert before.read_text() == "first\n" * 10 + "second\n"
    assert log.read_text() == "third\n"
    assert stat.S_IMODE(before.stat().st_mode) == 0o600
    # Who looked for what was written since then finds it.
    assert last_log_lines(log, 5, offset=60) == ["third"]


def test_following_a_log_ends_with_whoever_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "service.log").write_text("before\n")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        show_logs("service", lines=0, follow=True, data_dir=tmp_path)  # nothing is written meanwhile


def test_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_instance(tmp_path, HERE)
    monkeypatch.setattr(sys, "argv", ["tickets", "env", "--data-dir", str(tmp_path)])
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main()
        full.flush()  # nothing is left to be written
    assert (ended.value.code, capsys.readouterr().err) == (1, "No space left on device\n")


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (["admin", "add-member", "--project", "p", "--user", "u", "--role", "boss"], "'viewer', 'member'"),
        (["admin", "link-provider", "--account", "a", "--url", "u", "--provider", "none"], "'freshservice', 'zendesk'"),
        (["admin", "deliveries", "--state", "lost"], "'queued', 'dead'"),
    ],
)
def test_an_option_with_choices_names_them(monkeypatch: pytest.MonkeyPatch, words: list[str], choices: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2
    assert choices in done.stderr


def test_a_shell_completes_commands_and_choices() -> None:
    environment = {"_TICKETS_COMPLETE": "complete_bash", "COMP_WORDS": "tickets logs ga", "COMP_CWORD": "2"}
    done = CliRunner().invoke(app, [], prog_name="tickets", env=environment)
    assert done.stdout.split() == ["gateway"]
