"""A `tickets up` as a user runs it, and what may happen to what it has started."""

import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

from service.local.processes import free_port, wait_for

TICKETS = Path(sys.executable).with_name("tickets")


@dataclass
class Up:
    """A running `tickets up`."""

    data_dir: Path
    http_port: int
    grpc_port: int
    process: subprocess.Popen[bytes]
    output: Path

    def credentials(self) -> dict[str, str]:
        credentials: dict[str, str] = json.loads((self.data_dir / "credentials.json").read_text())
        return credentials

    def here(self, text: str) -> str:
        """A documented command with this instance's ports and data folder."""
        for documented, actual in (
            ("127.0.0.1:8080", f"127.0.0.1:{self.http_port}"),
            ("127.0.0.1:50051", f"127.0.0.1:{self.grpc_port}"),
            (".tickets/", f"{self.data_dir}/"),
            ("tickets env", f"tickets env --data-dir {self.data_dir}"),
            ("$PWD/.venv/bin", str(TICKETS.parent)),
        ):
            text = text.replace(documented, actual)
        return text

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def start(data_dir: Path, *options: str) -> Up:
    http_port, grpc_port = free_port(), free_port()
    output = data_dir.with_suffix(".out")
    ports = ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    with output.open("wb") as file:
        command = [str(TICKETS), "up", "--data-dir", str(data_dir), *ports, *options]
        process = subprocess.Popen(command, stdout=file, stderr=file)

    def ready() -> bool:
        assert process.poll() is None, output.read_text()
        return "\nready: " in "\n" + output.read_text()

    try:
        wait_for(ready, what="tickets up", timeout=60)
    except BaseException:
        process.terminate()
        process.wait(30)
        raise
    return Up(data_dir, http_port, grpc_port, process, output)


PROGRAMS = {"PostgreSQL": "postgres", "service process": "python", "Envoy": "envoy"}


def child(up: Up, name: str) -> psutil.Process | None:
    """A running child: PostgreSQL, a service process or Envoy."""
    for process in psutil.Process(up.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith(PROGRAMS[name]) and runs(process):
                return process
    return None


def kill(up: Up, name: str) -> None:
    """Kill a child, and return when it is said."""
    said = len(up.output.read_text())
    killed = child(up, name)
    assert killed is not None
    killed.kill()
    line = re.compile(rf"^{name} was killed by signal 9; starting it again in [0-9.]+ s$", re.MULTILINE)
    wait_for(lambda: bool(line.search(up.output.read_text()[said:])), what="a line that says so", timeout=30)


def wait_until_it_answers(up: Up, children: int) -> None:
    """Wait until all children run again, and REST is answered."""
    headers = {"x-api-key": up.credentials()["itsm_api_key"]}

    def answers() -> bool:
        if len(psutil.Process(up.process.pid).children()) < children:
            return False
        with suppress(httpx2.TransportError):
            return httpx2.get(f"http://127.0.0.1:{up.http_port}/api/v1/tickets", headers=headers).status_code == 200
        return False

    wait_for(answers, what="an answer", timeout=30, interval=0.1)


def end(up: Up, number: signal.Signals) -> None:
    """End it by a signal: it says that all is well if it can, and nothing it has started outlives it."""
    children = psutil.Process(up.process.pid).children(recursive=True)
    assert children
    code = up.stop(number)
    assert code == (-number if number == signal.SIGKILL else 0), up.output.read_text()
    if number == signal.SIGKILL:  # the kernel ends those of a parent that was killed, in its own time
        wait_for(lambda: not any(map(runs, children)), what="all that it started to end", timeout=30)
    assert not any(map(runs, children))


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; what has no parent any more may stay a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
