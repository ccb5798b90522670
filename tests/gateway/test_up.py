"""`tickets up` as a user runs it: the lines it prints, the pages' examples, a restart on its data, a clean stop."""

import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from service.local.processes import free_port, wait_for

ROOT = Path(__file__).parents[2]
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
        """A documented command, for this instance's ports and data."""
        for documented, actual in (
            ("127.0.0.1:8080", f"127.0.0.1:{self.http_port}"),
            ("127.0.0.1:50051", f"127.0.0.1:{self.grpc_port}"),
            (".tickets/", f"{self.data_dir}/"),
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

    wait_for(ready, what="tickets up", timeout=60)
    return Up(data_dir, http_port, grpc_port, process, output)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = start(tmp_path_factory.mktemp("up") / "data", "--workers", "2")
    yield up
    if up.process.poll() is None:
        up.stop()


def shell(script: str) -> str:
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_credentials_are_written_for_their_owner_alone(up: Up) -> None:
    path = up.data_dir / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(up.credentials()) == {
        "itsm_api_key",
        "handoff_token",
        "handoff_user_id",
        "handoff_project_id",
        "helpdesk_token",
        "helpdesk_tenant_id",
        "grpc_target",
        "rest_url",
    }


def test_every_printed_line_works_as_it_stands(up: Up) -> None:
    lines = [line for line in up.output.read_text().splitlines() if line.startswith(("curl ", "buf "))]
    assert len(lines) == 12
    for line in lines:
        answer = json.loads(shell(f'PATH="{TICKETS.parent}:$PATH"; {line}'))
        assert answer
        assert {"error", "detail", "code"}.isdisjoint(answer), answer


def test_the_examples_of_the_pages_answer_as_pasted(up: Up) -> None:
    (setup, *front), more = (code_blocks(page, "sh|json") for page in ("README.md", "protos/README.md"))
    for blocks in (front, more):
        assert blocks
        for (kind, command), (answer_kind, pasted) in zip(blocks[::2], blocks[1::2], strict=True):
            assert (kind, answer_kind) == ("sh", "json")
            answers = json_values(shell(up.here(setup[1]) + up.here(command)))
            assert [shape(answer) for answer in answers] == [shape(answer) for answer in json_values(pasted)], command


def test_the_programs_of_the_clients_page_run(up: Up) -> None:
    programs = [program for _, program in code_blocks("service/client/README.md", "python")]
    assert len(programs) == 2
    for program in programs:
        done = subprocess.run(
            [sys.executable, "-c", up.here(program)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def code_blocks(page: str, languages: str) -> list[tuple[str, str]]:
    """The code blocks of a page in these languages (`sh|json`), each with its language."""
    return re.findall(rf"```({languages})\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


def json_values(text: str) -> list[Any]:
    """The JSON values of a text, one after the other."""
    decoder, values = json.JSONDecoder(), list[Any]()
    while text := text.lstrip():
        value, end = decoder.raw_decode(text)
        values.append(value)
        text = text[end:]
    return values


def shape(value: Any) -> Any:
    """The form of a JSON value: members and types, whatever the values; a list is as its first item."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def test_admin_commands_work_beside_it(up: Up) -> None:
    def tickets(*words: str, given: str = "") -> Any:
        command = [str(TICKETS), *words, "--data-dir", str(up.data_dir)]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    account = tickets("admin", "create-account")
    assert tickets("admin", "create-tenant")["id"].startswith("ten_")
    key = tickets("admin", "create-api-key", "--account", account["id"], "--scopes", "tickets:read", "--test")
    url = f"http://127.0.0.1:{up.http_port}/api/v1/tickets"
    assert httpx2.get(url, headers={"x-api-key": key["key"]}).json()["total"] == 0
    # A credential is kept with the key in the data directory.
    words = ("--account", account["id"], "--provider", "zendesk", "--url", "https://acme.zendesk.com")
    assert tickets("admin", "link-provider", *words, given="ada@example.com/token:secret\n")["provider"] == "zendesk"
    assert tickets("admin", "deliveries", "--account", account["id"]) == {"deliveries": [], "next_cursor": None}
    assert tickets("admin", "unlink-provider", "--account", account["id"]) == {}
    token = tickets("token", "--sub", "per_9", "--tenant", "ten_x", "--scope", "helpdesk:read")["token"]
    listed = httpx2.get(
        f"http://127.0.0.1:{up.http_port}/api/v1/helpdesk/tickets", headers={"authorization": f"Bearer {token}"}
    )
    assert listed.json() == {"tickets": [], "next_cursor": None}


def test_native_grpc_passes_through_the_gateway_too(up: Up) -> None:
    listed = shell(
        f"{TICKETS.parent}/buf curl --protocol grpc --http2-prior-knowledge -d '{{}}' "
        f"-H 'x-api-key: {up.credentials()['itsm_api_key']}' "
        f"http://127.0.0.1:{up.http_port}/tickets.itsm.v1.TicketService/ListTickets"
    )
    assert int(json.loads(listed)["total"]) >= 1


def test_a_process_that_dies_is_replaced(up: Up) -> None:
    workers = [child for child in psutil.Process(up.process.pid).children() if "serve" in child.cmdline()]
    assert len(workers) == 2
    workers[0].kill()
    headers = {"x-api-key": up.credentials()["itsm_api_key"]}

    def replaced() -> bool:
        # Meanwhile the other process answers.
        assert httpx2.get(f"http://127.0.0.1:{up.http_port}/api/v1/tickets", headers=headers).status_code == 200
        now = [child for child in psutil.Process(up.process.pid).children() if "serve" in child.cmdline()]
        return len(now) == 2 and workers[0] not in now

    wait_for(replaced, what="another process", timeout=30, interval=0.2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_it_stops_its_children_and_starts_again_on_its_data(up: Up, number: int) -> None:
    before = up.credentials()
    children = psutil.Process(up.process.pid).children(recursive=True)
    assert up.stop(number) == 0, up.output.read_text()
    assert not [child for child in children if child.is_running()]
    again = start(up.data_dir)
    up.process, up.http_port, up.grpc_port = again.process, again.http_port, again.grpc_port
    after = up.credentials()
    same = {"itsm_api_key", "handoff_project_id", "handoff_user_id", "helpdesk_tenant_id"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    url = f"http://127.0.0.1:{up.http_port}/api/v1/tickets"
    assert httpx2.get(url, headers={"x-api-key": after["itsm_api_key"]}).json()["total"] >= 1


def test_a_port_that_is_taken_is_told(up: Up, tmp_path: Path) -> None:
    command = [str(TICKETS), "up", "--data-dir", str(tmp_path / "data"), "--http-port", str(up.http_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"port {up.http_port} is in use\n")


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    up = start(tmp_path / "data", "--no-demo")
    children = psutil.Process(up.process.pid).children(recursive=True)
    assert children
    up.process.kill()
    up.process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    again = start(tmp_path / "data", "--no-demo")
    assert again.stop() == 0
