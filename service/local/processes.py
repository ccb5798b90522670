"""Child processes that end with their parent, and waiting for what they do."""

import contextlib
import ctypes
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_STDERR: Final = 2


# Below those that a system gives to connections of its own: nobody gets one by chance between a look and its use.
_PORTS = range(20_000, 32_000)


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
    """Sleep until a check holds; TimeoutError naming what was waited for when it does not in time."""
    deadline = time.monotonic() + timeout
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:g} s")
        time.sleep(interval)


class Child:
    """A child process that dies with its parent."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log_file: Path | None,
        *,
        user: pwd.struct_passwd | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._log_file = log_file
        # Private: a log may quote statements and their values.
        log = _STDERR if log_file is None else os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._process = subprocess.Popen(  # noqa: S603 the programs of our own wheels
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd="/",
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

    def check(self) -> None:
        """Raise when it has exited."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} exited with {self._process.returncode}{self._last_words()}")

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
        for number, grace in steps:
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
                return
        self._process.kill()
        self._process.wait()

    def _last_words(self) -> str:
        if self._log_file is None:
            return ""
        lines = self._log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
        return "\n".join([f"; the end of {self._log_file}:", *lines])


def kill_with_parent(number: signal.Signals = signal.SIGINT) -> Callable[[], None] | None:
    """Make the function that, in a new child, asks Linux to send it this signal when its parent ends."""
    # Linux means the parent thread: a child started by a short-lived thread would die with that thread.
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()
    pr_set_pdeathsig = 1

    def pact() -> None:
        prctl(pr_set_pdeathsig, number)
        if os.getppid() != parent:  # it went before we asked
            os._exit(1)

    return pact
