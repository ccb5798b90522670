"""`tickets up` as a user runs it: the lines it prints, the pages' examples, a restart on its data, a clean stop."""

import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import psycopg
import pytest
from support.up import PROGRAMS, TICKETS, Up, end, kill, runs, start, wait_until_it_answers
from typer.testing import CliRunner

from service.__main__ import app
from service.local.claims import claim_port
from service.local.postgres import EmbeddedPostgres
from service.local.processes import free_port, wait_for

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    up = start(tmp_path_factory.mktemp("up") / "data", "--workers", "2", "--pin")
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


HOSTS = [
    ("127.0.0.1:{port}", {}, 200),
    ("localhost:{port}", {}, 200),
    ("localhost", {}, 200),
    ("rebound.example:{port}", {}, 404),  # a name that somebody's DNS gives to this machine
    ("127.0.0.1.rebound.example", {}, 404),
    ("localhost:{port}", {"origin": "http://localhost:3000"}, 404),  # a page of another origin
    ("localhost:{port}", {"origin": "null"}, 404),
]


@pytest.mark.parametrize(("host", "headers", "status"), HOSTS)
def test_the_page_gets_the_demo_credentials_by_this_machines_names_alone(
    up: Up, host: str, headers: dict[str, str], status: int
) -> None:
    url = f"http://127.0.0.1:{up.http_port}/docs/credentials.json"
    answer = httpx2.get(url, headers={**headers, "host": host.format(port=up.http_port)})
    assert answer.status_code == status
    if status == 200:
        kept = up.credentials()
        tokens = kept["handoff_token"], kept["helpdesk_token"], kept["itsm_api_key"]
        assert tuple(answer.json()["schemes"].values()) == tokens
        assert answer.json()["path"] == {"project_id": kept["handoff_project_id"]}
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_what_it_prints_is_short_and_works_as_it_stands(up: Up) -> None:
    lines = up.output.read_text().splitlines()
    assert len(lines) == 9
    assert max(map(len, lines)) < 200
    pasted = "\n".join(line for line in lines if line.startswith("  "))
    assert set(json.loads(shell(f'PATH="{TICKETS.parent}:$PATH"\n{pasted}'))) == {"tickets", "total", "limit", "offset"}


def run(*words: str, **environment: str) -> tuple[int, list[str]]:
    """A command's exit code, and its lines."""
    done = CliRunner().invoke(app, words, env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output.splitlines()


def test_status_and_doctor_say_that_all_is_well(up: Up) -> None:
    folder = ("--data-dir", str(up.data_dir))
    for command in ("status", "doctor"):
        code, lines = run(command, *folder)
        assert (code, [line for line in lines if not line.startswith("ok ")]) == (0, [])
        names = {line[6:].partition("  ")[0] for line in lines}
        assert {"database", "clock", "schema", "encryption keys", "gateway", "service"} <= names
    # What is wrong is one line that says so.
    code, lines = run("doctor", *folder, TICKETS_JWKS="/nowhere.json", TICKETS_PORT="1")
    bad = [line.split(maxsplit=1)[1].split(": ", 1)[1] for line in lines if line.startswith("bad")]
    assert (code, bad) == (1, ["/nowhere.json: No such file or directory; no token is valid until it can be read"])
    assert "note  settings         TICKETS_PORT: there is no such setting" in lines


def test_logs_are_shown_by_part(up: Up) -> None:
    folder = ("--data-dir", str(up.data_dir))
    code, lines = run("logs", "-n", "3", *folder)
    assert (code, len(lines)) == (0, 3)
    assert all("event" in json.loads(line) for line in lines)
    assert run("logs", "nonsense", *folder)[0] == 2


def test_the_examples_of_the_pages_answer_as_pasted(up: Up) -> None:
    (setup, *front), more = (code_blocks(page, "sh|json") for page in ("README.md", "protos/README.md"))
    assert front
    assert more
    blocks = [*front, *more]
    assert [kind for kind, _ in blocks] == ["sh", "json"] * (len(blocks) // 2)
    commands, pasted = [text for _, text in blocks[::2]], [text for _, text in blocks[1::2]]
    # One after the other in one shell, as a reader pastes them.
    answered = shell(up.here("\nprintf '\\0'\n".join([setup[1], *commands]))).split("\0")
    assert answered.pop(0) == ""
    for command, answer, example in zip(commands, answered, pasted, strict=True):
        assert [shape(value) for value in json_values(answer)] == [shape(value) for value in json_values(example)], (
            command
        )


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


def shapes(text: str) -> list[Any]:
    """The forms of the JSON values of a text."""
    return [shape(value) for value in json_values(text)]


def shape(value: Any) -> Any:
    """The form of a JSON value: names and types, whatever the values. A list has the form of its first item."""
    if isinstance(value, dict):
        return {name: shape(part) for name, part in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


def test_admin_commands_work_beside_it(up: Up) -> None:
    def tickets(*words: str) -> Any:
        done = CliRunner().invoke(app, [*words, "--data-dir", str(up.data_dir)])
        assert (done.exit_code, done.stderr) == (0, "")
        return json.loads(done.stdout)

    account = tickets("admin", "create-account")
    key = tickets("admin", "create-api-key", "--account", account["id"], "--scopes", "tickets:read", "--test")
    url = f"http://127.0.0.1:{up.http_port}/api/v1/tickets"
    assert httpx2.get(url, headers={"x-api-key": key["key"]}).json()["total"] == 0
    # A credential is kept with the key in the data directory.
    options = ("--account", account["id"], "--provider", "zendesk", "--url", "https://acme.zendesk.com")
    command = [str(TICKETS), "admin", "link-provider", *options, "--data-dir", str(up.data_dir)]
    given = "ada@example.com/token:secret\n"
    linked = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    assert json.loads(linked.stdout)["provider"] == "zendesk"
    token = tickets("token", "--sub", "per_9", "--tenant", "ten_x", "--scope", "helpdesk:read")["token"]
    listed = httpx2.get(
        f"http://127.0.0.1:{up.http_port}/api/v1/helpdesk/tickets", headers={"authorization": f"Bearer {token}"}
    )
    assert listed.json() == {"tickets": [], "next_cursor": None}


def test_native_grpc_passes_through_the_gateway_too(up: Up) -> None:
    listed = shell(
        # The gateway has no reflection.
        f"{TICKETS.parent}/buf curl --schema {ROOT / 'protos'} --protocol grpc --http2-prior-knowledge -d '{{}}' "
        f"-H 'x-api-key: {up.credentials()['itsm_api_key']}' "
        f"http://127.0.0.1:{up.http_port}/tickets.itsm.v1.TicketService/ListTickets"
    )
    assert int(json.loads(listed)["total"]) >= 1


def workers_of(up: Up) -> list[psutil.Process]:
    return [child for child in psutil.Process(up.process.pid).children() if "serve" in child.cmdline()]


def test_each_process_has_a_private_socket_and_they_share_one_port(up: Up) -> None:
    workers = {worker.pid for worker in workers_of(up)}
    assert len(workers) == 2
    sockets = [up.data_dir / "sockets" / f"worker-{number}" for number in (1, 2)]
    assert {listener_of(path) for path in sockets} == workers
    assert stat.S_IMODE((up.data_dir / "sockets").stat().st_mode) == 0o700
    open_sockets = (one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN)
    listening = {one.pid for one in open_sockets if one.laddr and one.laddr.port == up.grpc_port}
    # (Who listens is only told to root: other users cannot look into a process.)
    assert listening in (workers, {None})


def test_each_pinned_process_has_a_core_of_its_own(up: Up) -> None:
    cores = [worker.cpu_affinity() for worker in workers_of(up)]
    assert all(len(of_one) == 1 for of_one in cores)
    assert len({*map(tuple, cores)}) == min(2, len(os.sched_getaffinity(0)))


def listener_of(path: Path) -> int:
    """The process that listens at a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid


def test_secrets_stay_in_the_memory_of_the_processes(up: Up) -> None:
    for worker in workers_of(up):
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        if os.geteuid() != 0:
            with pytest.raises(psutil.AccessDenied):
                worker.environ()


# What dies is started again.


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_killed_is_started_again(up: Up, name: str) -> None:
    before = {process.pid for process in psutil.Process(up.process.pid).children()}
    kill(up, name)
    wait_until_it_answers(up, len(before))
    now = {process.pid for process in psutil.Process(up.process.pid).children()}
    assert (len(now), len(now - before)) == (len(before), 1)


def test_processes_of_a_killed_postgresql_that_live_on_are_ended(up: Up) -> None:
    children = len(psutil.Process(up.process.pid).children())
    with psycopg.connect((up.data_dir / "database-url").read_text()) as connection:
        # It cannot see that its server is gone.
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()
        kill(up, "PostgreSQL")
        wait_until_it_answers(up, children)
        assert not runs(backend)


# What it refuses: one line on stderr, exit code 1, and nothing left running.


def refusal(data_dir: Path, *options: str, **environment: str) -> str:
    """The line with which a `tickets up` in this process ends at once."""
    arguments = ["up", "--data-dir", str(data_dir), "--no-demo", *options]
    done = CliRunner().invoke(app, arguments, env=environment)
    code = 2 if done.stderr.startswith("TICKETS_") else 1  # a setting
    assert (done.exit_code, done.stdout) == (code, ""), done.output
    assert done.stderr.endswith("\n")
    assert done.stderr.count("\n") == 1
    return done.stderr[:-1]


def free_ports() -> list[str]:
    return ["--http-port", str(free_port()), "--grpc-port", str(free_port())]


@pytest.mark.parametrize("option", ["--http-port", "--grpc-port"])
def test_a_port_that_is_in_use_is_refused(up: Up, tmp_path: Path, option: str) -> None:
    port = str(up.http_port if option == "--http-port" else up.grpc_port)
    assert refusal(tmp_path / "data", *free_ports(), option, port) == f"port {port} is in use"
    assert not (tmp_path / "data").exists()


def test_a_port_of_an_instance_that_is_still_starting_is_refused(tmp_path: Path) -> None:
    # Nothing listens on it yet, so it could be bound, and later shared.
    with claim_port("127.0.0.1", port := free_port()):
        assert refusal(tmp_path / "data", *free_ports(), "--grpc-port", str(port)) == f"port {port} is in use"


def test_a_data_folder_that_is_in_use_is_refused(up: Up) -> None:
    assert refusal(up.data_dir, *free_ports()) == f"{up.data_dir} is in use by another process"


def test_a_process_that_dies_at_once_is_reported(up: Up, tmp_path: Path) -> None:
    line = refusal(
        tmp_path / "data",
        *free_ports(),
        TICKETS_DATABASE_URL=(up.data_dir / "database-url").read_text(),
        TICKETS_ENCRYPTION_KEYS=(up.data_dir / "encryption-key").read_text(),
        TICKETS_METRICS_LISTEN=f"127.0.0.1:{up.http_port}",
    )
    listen = f"TICKETS_METRICS_LISTEN: cannot listen on 127.0.0.1:{up.http_port}: Address already in use"
    assert line == f"service process exited with 2: {listen}"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({}, "none of them encrypted the secrets in this database"),
        ({"TICKETS_ENCRYPTION_KEYS": "no key"}, "not a comma-separated list of Fernet keys"),
    ],
    ids=["others", "none"],
)
def test_encryption_keys_that_do_not_fit_the_database_are_refused(
    up: Up, tmp_path: Path, keys: dict[str, str], reason: str
) -> None:
    url = (up.data_dir / "database-url").read_text()
    line = refusal(tmp_path / "data", *free_ports(), TICKETS_DATABASE_URL=url, **keys)
    assert line == f"TICKETS_ENCRYPTION_KEYS: {reason}"


def test_wrong_settings_are_refused_before_anything_starts(tmp_path: Path) -> None:
    line = refusal(tmp_path / "data", *free_ports(), TICKETS_POOL_SIZE="0", TICKETS_RATE_LIMIT_READS="many")
    assert line == (
        "TICKETS_POOL_SIZE: Input should be greater than or equal to 1; "
        "TICKETS_RATE_LIMIT_READS: Input should be a rate and a burst, such as 500/1000, each up to 999999999"
    )
    assert not (tmp_path / "data").exists()


# How it ends, and what is there when it starts again.


def test_its_children_stop_with_it_and_it_starts_again_on_its_data(up: Up) -> None:
    before = up.credentials()
    ticket = {"subject": "VPN is down", "description": "Since nine."}
    url = f"http://127.0.0.1:{up.http_port}/api/v1/tickets"
    headers = {"x-api-key": before["itsm_api_key"]}
    # A process may still be on its way back from what a test before this one has killed.
    wait_for(
        lambda: httpx2.post(url, headers=headers, json=ticket).status_code == 201,
        what="a ticket to be made",
        timeout=30,
        interval=0.2,
    )
    end(up, signal.SIGKILL)
    again = start(up.data_dir)
    up.process, up.http_port, up.grpc_port = again.process, again.http_port, again.grpc_port
    after = up.credentials()
    same = {"itsm_api_key", "handoff_project_id", "handoff_user_id", "helpdesk_tenant_id"}
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    url = f"http://127.0.0.1:{up.http_port}/api/v1/tickets"
    assert httpx2.get(url, headers={"x-api-key": after["itsm_api_key"]}).json()["total"] >= 1

    # PostgreSQL is being started again, and nothing else takes a signal.
    kill(up, "PostgreSQL")
    for process in psutil.Process(up.process.pid).children():
        process.suspend()
    end(up, signal.SIGTERM)


def test_a_postgresql_that_hangs_is_stopped(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A short name, for its socket.
    server = EmbeddedPostgres(tmp_path_factory.mktemp("hangs") / "data", settings={"fsync": "off"})
    server.start()
    with psycopg.connect(server.url) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        postmaster = psutil.Process(backend.ppid())
        hanging = [postmaster, *postmaster.children()]
        for process in hanging:
            process.suspend()
        server.stop(grace=0.1)
    assert backend in hanging
    assert not any(map(runs, hanging))
