"""Processes of the service that need not import it again: two seconds of a core, which each start would take.

One process has imported everything and waits. For each start it forks a keeper, which forks the process that serves,
waits for its end and says how it ended. Both forks come before gRPC has begun anything. `tickets up`, which has its own
tests, starts the service as a user does.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

# A message is an environment, or a pid or an exit code in digits.
_MESSAGE_BYTES = 2**18


class Started:
    """A process of the service, to be used like a `subprocess.Popen`."""

    def __init__(self, keeper: socket.socket) -> None:
        self._keeper = keeper
        self.returncode: int | None = None
        self.pid = int(keeper.recv(_MESSAGE_BYTES))

    def poll(self) -> int | None:
        """Its exit code, or less than 0: the signal that ended it. None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._keeper], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("serve", timeout or 0)
            self.returncode = int(self._keeper.recv(_MESSAGE_BYTES))
            self._keeper.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # in this moment
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to stop."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def serve(environment: Mapping[str, str], log: Path) -> Started:
    """Start `tickets serve` with this environment, which appends what it logs to a file."""
    keeper, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, log.open("ab") as file:
        socket.send_fds(_prepared(), [json.dumps(dict(environment)).encode()], [theirs.fileno(), file.fileno()])
    return Started(keeper)


@cache
def _prepared() -> socket.socket:
    """The way to the process that has imported everything, which ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # Isolated, as `service_command` starts it.
        command = [sys.executable, "-I", __file__, str(theirs.fileno())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _wait_for_starts(control: socket.socket) -> None:
    """Fork for each environment that comes. Returns in the process that is to serve, and at the end of them all."""
    while True:
        message, [*files], _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 2)
        if not message:
            raise SystemExit
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
        # Those whose process has ended.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
    control.close()
    report, log = files
    pid = os.fork()
    if pid:
        with socket.socket(fileno=report) as test:
            os.close(log)
            test.send(str(pid).encode())
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with suppress(BrokenPipeError):  # nobody waits for it
                test.send(str(code).encode())
        os._exit(0)
    os.close(report)
    os.dup2(log, sys.stderr.fileno())
    os.close(log)
    os.environ.clear()
    os.environ.update(json.loads(message))


if __name__ == "__main__":
    gc.disable()
    import service.server  # noqa: F401 - what takes the time
    from service.__main__ import serve as serve_here

    gc.freeze()
    _wait_for_starts(socket.socket(fileno=int(sys.argv[1])))
    serve_here()
