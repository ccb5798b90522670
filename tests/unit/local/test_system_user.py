"""The system user that PostgreSQL runs as when we are root: made once, and there before PostgreSQL starts."""

import pwd
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.local import claims
from service.local.postgres import make_system_user


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_SHARED_FOLDER", tmp_path)


def test_the_user_is_made_by_one_process_at_a_time() -> None:
    inside: list[int] = []
    most: list[int] = []

    def find_server() -> Any:
        inside.append(1)
        time.sleep(0.05)
        most.append(len(inside))
        inside.pop()
        return SimpleNamespace(system_user="root")

    threads = [threading.Thread(target=make_system_user, args=[find_server]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1, 1]


def _fail(error: Exception) -> Any:
    raise error


def test_a_user_who_cannot_be_made_is_one_line() -> None:
    useradd = subprocess.CalledProcessError(1, ["useradd"], stderr="useradd: Permission denied.\n")
    for error, reason in (
        (useradd, "useradd: Permission denied."),
        (FileNotFoundError(2, "No such file or directory", "useradd"), "No such file or directory: 'useradd'"),
    ):
        with pytest.raises(RuntimeError) as failure:
            make_system_user(lambda error=error: _fail(error))  # type: ignore[misc] # a lambda's default has no type
        assert str(failure.value).startswith("PostgreSQL needs a system user to run as, because this is root: ")
        assert str(failure.value).endswith(reason)


def test_an_id_that_no_user_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = pwd.struct_passwd(("pgserver", "x", 59_999, 59_999, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda _: replaced)
    with pytest.raises(RuntimeError, match="uid not found: 59999"):
        make_system_user(lambda: SimpleNamespace(system_user="pgserver"))
