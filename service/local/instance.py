"""The `tickets up` of a data folder: where it listens, whether it runs, and what a shell needs to call it."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import orjson

from service.local.demo import CREDENTIALS_FILE, damaged, kept_credentials, write_private

_FILE = "up.json"
LogName: TypeAlias = Literal["service", "gateway", "database"]
_LOGS: Mapping[LogName, str] = {"service": "service.log", "gateway": "envoy.log", "database": "postgres.log"}


class Instance(NamedTuple):
    """A running `tickets up`."""

    pid: int
    rest_url: str
    grpc_target: str
    workers: int


def write_instance(data_dir: Path, instance: Instance) -> None:
    """Note where it listens."""
    write_private(data_dir / _FILE, orjson.dumps(instance._asdict()))


def forget_instance(data_dir: Path) -> None:
    """It has stopped."""
    (data_dir / _FILE).unlink(missing_ok=True)


def running_instance(data_dir: Path) -> Instance | None:
    """The one that runs on a data folder; None when none does."""
    try:
        instance = Instance(**orjson.loads((data_dir / _FILE).read_bytes()))
        if instance.pid <= 0:  # to the kernel these are many processes
            return None
        os.kill(instance.pid, 0)
    except (FileNotFoundError, ProcessLookupError, ValueError, TypeError, OverflowError):
        return None
    except PermissionError:  # another user's process
        pass
    return instance


def log_file(data_dir: Path, name: LogName) -> Path:
    """Where a part of `tickets up` logs."""
    return data_dir / _LOGS[name]


def log_files(data_dir: Path) -> list[Path]:
    """All logs of a data folder."""
    return [data_dir / name for name in _LOGS.values()]


def shell_variables(data_dir: Path) -> dict[str, str]:
    """What the examples of the pages use.

    Raises FileNotFoundError where nothing was started yet, RuntimeError for a damaged file.
    """
    credentials = kept_credentials(data_dir)
    instance = running_instance(data_dir)
    if instance is not None:
        credentials |= {"rest_url": instance.rest_url, "grpc_target": instance.grpc_target}
    if not credentials:
        raise FileNotFoundError(data_dir / CREDENTIALS_FILE)
    try:
        variables = {"REST": credentials["rest_url"], "GRPC": f"http://{credentials['grpc_target']}"}
        if "itsm_api_key" in credentials:
            variables |= {
                "ITSM": f"X-API-Key: {credentials['itsm_api_key']}",
                "HELPDESK": f"Authorization: Bearer {credentials['helpdesk_token']}",
                "HANDOFF": f"Authorization: Bearer {credentials['handoff_token']}",
                "PROJECT": credentials["handoff_project_id"],
            }
    except KeyError:
        raise damaged(data_dir / CREDENTIALS_FILE) from None
    return variables


def as_exports(variables: Mapping[str, str]) -> str:
    """The lines that set variables in a POSIX shell."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
