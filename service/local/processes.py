"""Child processes: how they are started and killed with their parent, what their logs end with; waiting for them."""

import contextlib
import ctypes
import os
import pwd
import random
import signal
import site
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

_STDERR: Final = 2
_LOG_LINES: Final = 10
_LOG_TAIL_BYTES: Final = 64 * 1024
_PR_SET_PDEATHSIG: Final = 1
# They lie below the ports that a system gives to outgoing connections: none of those takes one between look and use.
_PORTS: Final = range(20_000, 32_000)


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nothing listens on now. Raises OSError when there seems to be none."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError("no free port")


def wait_for(check: Callable[[], bool], *, what: str, timeout: float, interval: float = 0.02) -> None:
    """Call a check every `interval` seconds until it is true. Raises TimeoutError; `what` is like "it to answer"."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(interval)


def pin(pid: int, number: int) -> None:
    """Keep a process that has just started on one of the cores that this one may use, counted round and round."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cores[number % len(cores)]})


def service_command(*arguments: str) -> list[str]:
    """Return the command line that runs `tickets` with these arguments in an isolated Python.

    It ignores the working directory, PYTHONPATH, PYTHONHOME and every other PYTHON* variable, any of which may lead to
    another package called `service`, and the user's site folder unless this package lies there itself.
    """
    in_user_site = site.ENABLE_USER_SITE and Path(__file__).is_relative_to(site.getusersitepackages())
    return [sys.executable, "-EP" if in_user_site else "-I", "-m", "service", *arguments]


class Child:
    """A child process that is killed with its parent, in a session of its own: Ctrl-C reaches the parent alone."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log_file: Path | None,
        *,
        user: pwd.struct_passwd | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = Path("/"),
    ) -> None:
        """Start it; with `cwd=None` in the parent's own directory."""
        self.name = name
        self._log_file = log_file
        self._log_start = log_file.stat().st_size if log_file is not None and log_file.exists() else 0
        # The file is private: a log may quote statements and their values.
        log = _STDERR if log_file is None else os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603 the programs of our own wheels
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_program_environment() if env is None else env,
                cwd=cwd,
                start_new_session=True,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
                preexec_fn=kill_with_parent(),  # noqa: PLW1509 it calls one C function that is already loaded
            )
        finally:
            if log != _STDERR:
                os.close(log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, or less than 0: the signal that killed it. None while it runs."""
        return self._process.poll()

    def check(self) -> None:
        """Raise when it has exited."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} exited with {self._process.returncode}{self._end_of_log()}")

    def exited(self) -> str | None:
        """How it exited, in one line; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        if code < 0:
            return f"{self.name} was killed by signal {-code}"
        lines = [] if self._log_file is None else last_log_lines(self._log_file, 1, offset=self._log_start)
        return ": ".join([f"{self.name} exited with {code}", *lines])

    def wait(self, timeout: float) -> None:
        """Wait for a child that is to exit by itself, and raise when it fails."""
        try:
            self._process.wait(timeout)
        except BaseException:
            self.stop()
            raise
        if self._process.returncode != 0:
            self.check()

    def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal in turn and give it its time, then SIGKILL; return when the process is gone."""
        Child.stop_all([self], *steps)

    @staticmethod
    def stop_all(children: Iterable["Child"], *steps: tuple[signal.Signals, float]) -> None:
        """Stop children at the same time, as `stop` does."""
        left = [child._process for child in children]
        for number, grace in steps:
            for process in left:
                process.send_signal(number)
            until = time.monotonic() + grace
            for process in left:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(until - time.monotonic(), 0))
            left = [process for process in left if process.poll() is None]
        for process in left:
            process.kill()
        for process in left:
            process.wait()

    def _end_of_log(self) -> str:
        if self._log_file is None:
            return ""
        return "\n".join([f"; the end of {self._log_file}:", *last_log_lines(self._log_file, _LOG_LINES)])


def last_log_lines(log_file: Path, count: int, *, offset: int = 0) -> list[str]:
    """Return up to `count` last lines of a log, without blank ones and without what stands before the offset."""
    with log_file.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if offset > size:  # the log was rotated
            offset = 0
        file.seek(max(offset, size - _LOG_TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-count:]


def kill_with_parent(signal_number: signal.Signals = signal.SIGINT) -> Callable[[], None] | None:
    """Return a `preexec_fn` that makes Linux send the child this signal when its parent dies.

    None on other systems, and outside the main thread: Linux takes the thread that forked for the parent, so a child
    of a short-lived thread would be killed with that thread.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def request_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # the parent died before the request
            os._exit(1)

    return request_signal


def _program_environment() -> dict[str, str]:
    # `envoy` is a Python script that starts the real one: it must not import what a caller's PYTHONPATH names. And the
    # database's password and the encryption keys, which a caller may have set, are for the service alone.
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TICKETS_"))}
