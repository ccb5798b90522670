"""Child processes: what is reported of one that exits, and waiting."""

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from service.local.processes import Child, kill_with_parent, last_log_lines, wait_for


def test_the_last_lines_of_a_log_are_those_after_the_offset(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"of an earlier run\n")
    offset = log.stat().st_size
    assert last_log_lines(log, 1, offset=offset) == []
    with log.open("ab") as file:
        file.write(b"one\ntw\xff\n\n  \nthree\n\n")
    assert last_log_lines(log, 1, offset=offset) == ["three"]
    assert last_log_lines(log, 9, offset=offset) == ["one", "tw\ufffd", "three"]
    assert last_log_lines(log, 9) == ["of an earlier run", "one", "tw\ufffd", "three"]


def test_only_the_end_of_a_large_log_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 99 + b"\n" + b"y" * 99 + b"\n" * 100_000 + b"end\n")
    assert last_log_lines(log, 10) == ["end"]


def test_a_child_that_exits_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = "import sys; print('not this', *range(9), 'why', sep='\\n'); sys.exit(3)"
    child = Child("The program", [sys.executable, "-c", program], log)
    with pytest.raises(RuntimeError) as failure:
        child.wait(timeout=30)
    lines = [f"The program exited with 3; the end of {log}:", *map(str, range(9)), "why"]
    assert str(failure.value).splitlines() == lines


def test_a_childs_python_is_not_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Child("env", ["/usr/bin/env"], log).wait(timeout=30)
    assert "PATH=" in log.read_text()
    assert "PYTHON" not in log.read_text()


def test_a_check_that_never_holds_is_reported() -> None:
    with pytest.raises(TimeoutError, match=r"^waited 0\.05 s for it to answer$"):
        wait_for(lambda: False, what="it to answer", timeout=0.05, interval=0.01)


def test_a_thread_cannot_be_a_childs_parent() -> None:
    made: list[Callable[[], None] | None] = [kill_with_parent(signal.SIGTERM)]
    thread = threading.Thread(target=lambda: made.append(kill_with_parent(signal.SIGTERM)))
    thread.start()
    thread.join()
    assert (made[0] is not None) == (sys.platform == "linux")
    assert made[1] is None
