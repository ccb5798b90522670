"""The two distributions, built and installed apart from the checkout: what is in them, what they need; they run."""

import asyncio
import email.message
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import httpx2
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from support.clients import token
from support.system import Service, World

from service.local.processes import free_port, wait_for

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "service/client"
STUBS = ROOT / "gen/python/tickets"
UPPER_BOUNDS = {"<", "<=", "==", "===", "~=", "!="}
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

# What --strict must find, or the types would not be seen: an ignore that is not needed is an error too.
TYPED = """\
from typing import assert_type

from tickets.client import AsyncTicketsClient, TicketsClient, helpdesk
from tickets.helpdesk.v1 import ticket_service_pb2, ticket_service_pb2_grpc


def blocking(client: TicketsClient) -> None:
    assert_type(client.helpdesk.tickets.get("1"), helpdesk.Ticket)
    client.helpdesk.tickets.update("1", title=None)  # type: ignore[arg-type]
    client.helpdesk.tickets.create(description="No title")  # type: ignore[call-arg]


async def asynchronous(client: AsyncTicketsClient) -> None:
    assert_type([ticket.status async for ticket in client.helpdesk.tickets.list()], list[helpdesk.Status])
    await client.helpdesk.tickets.get(1)  # type: ignore[arg-type]


assert_type(ticket_service_pb2.CreateTicketRequest(title="A").title, str)
ticket_service_pb2.CreateTicketRequest(title=1)  # type: ignore[arg-type]
print(ticket_service_pb2_grpc.TicketServiceStub.__name__)
"""


@dataclass(frozen=True)
class Wheel:
    """A built wheel."""

    path: Path

    @property
    def names(self) -> set[str]:
        with zipfile.ZipFile(self.path) as archive:
            return set(archive.namelist())

    @property
    def metadata(self) -> email.message.Message:
        [name] = [name for name in self.names if name.endswith(".dist-info/METADATA")]
        with zipfile.ZipFile(self.path) as archive:
            return email.message_from_bytes(archive.read(name))

    @property
    def requirements(self) -> list[Requirement]:
        return [Requirement(line) for line in self.metadata.get_all("Requires-Dist", [])]


def build(project: Path, target: str, directory: Path) -> Path:
    """Build a wheel or an sdist without a download: hatchling is installed."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    [built] = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def client_wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return Wheel(build(CLIENT, "wheel", tmp_path_factory.mktemp("client")))


@pytest.fixture(scope="module")
def service_wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return Wheel(build(ROOT, "wheel", tmp_path_factory.mktemp("service")))


def environment(directory: Path, wheels: Iterable[Wheel], *, extra: str = "") -> Path:
    """A fresh environment with these wheels and what they require, and nothing else; returns its Python.

    What they require is linked from the environment of the tests, so that nothing is downloaded.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(directory)], check=True)
    python = directory / "bin/python"
    install = ["uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(python)]
    run(*install, *[str(wheel.path) for wheel in wheels])
    ours = {wheel.metadata["Name"] for wheel in wheels}
    needed = [requirement for wheel in wheels for requirement in wheel.requirements]
    for name in closure(needed, extra) - ours:
        link(name, directory / f"lib/{PYTHON}/site-packages")
    run("uv", "pip", "check", "--quiet", "--python", str(python))
    return python


def run(command: str, *args: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(command), *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def closure(requirements: Iterable[Requirement], extra: str = "") -> set[str]:
    """The names of the distributions that are required, those that they require, and so on."""
    found = set[tuple[str, str]]()
    waiting = [(requirement, extra) for requirement in requirements]
    while waiting:
        requirement, of = waiting.pop()
        if requirement.marker is None or requirement.marker.evaluate({"extra": of}):
            name = canonicalize_name(requirement.name)
            fresh = {(name, wanted) for wanted in ("", *requirement.extras)} - found
            found |= fresh
            lines = distribution(name).requires or []
            waiting += [(Requirement(line), wanted) for line in lines for _, wanted in fresh]
    return {name for name, _ in found}


def link(name: str, target: Path) -> None:
    """Link an installed distribution's files into another environment: hard, for those that look where they are."""
    source = Path(sysconfig.get_path("purelib"))
    # Programs lie beside Python: `../../../bin/envoy`.
    files = {file for file in distribution(name).files or () if (source / file).exists()}
    for folder in {file.parent for file in files}:
        (target / folder).mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            (target / file).hardlink_to(source / file)
        except OSError:  # on another disk
            shutil.copy2(source / file, target / file)


# What is in them


def test_the_client_needs_three_distributions(client_wheel: Wheel) -> None:
    assert {requirement.name for requirement in client_wheel.requirements} == {
        "grpcio",
        "protobuf",
        "googleapis-common-protos",
    }


def test_nothing_is_capped_but_in_the_lock(client_wheel: Wheel, service_wheel: Wheel) -> None:
    for requirement in (*client_wheel.requirements, *service_wheel.requirements):
        if requirement.name != client_wheel.metadata["Name"]:
            assert not {part.operator for part in requirement.specifier} & UPPER_BOUNDS, requirement


def test_the_service_has_the_stubs_of_its_own_version(client_wheel: Wheel, service_wheel: Wheel) -> None:
    version = client_wheel.metadata["Version"]
    assert service_wheel.metadata["Version"] == version
    [needed] = [line for line in service_wheel.requirements if line.name == client_wheel.metadata["Name"]]
    assert str(needed.specifier) == f"=={version}"


def test_lower_bounds_are_what_the_generated_code_asks_for(client_wheel: Wheel) -> None:
    code = "".join(path.read_text() for path in STUBS.rglob("*_pb2*.py"))
    asked = {
        "protobuf": set(re.findall(r"Protobuf Python Version: ([\d.]+)", code)),
        "grpcio": set(re.findall(r"GRPC_GENERATED_VERSION = '([\d.]+)'", code)),
    }
    bounds = {line.name: line.specifier for line in client_wheel.requirements}
    for name, versions in asked.items():
        [bound] = bounds[name]
        assert Version(bound.version) == max(map(Version, versions)), name


def test_each_has_its_own_files(client_wheel: Wheel, service_wheel: Wheel) -> None:
    stubs = {f"tickets/{path.relative_to(STUBS)}" for path in STUBS.rglob("*") if path.suffix in (".py", ".pyi")}
    client = {f"tickets/client/{path.name}" for path in (CLIENT / "tickets/client").glob("*.py")}
    packages = {name.split("/")[1] for name in stubs | client}
    markers = {f"tickets/{name}/py.typed" for name in packages}
    code = {name for name in client_wheel.names if ".dist-info/" not in name}
    # `tickets` is a namespace: with a file of its own in it, whoever else has a portion of it would lose theirs.
    assert code == stubs | client | markers
    assert {name.split("/")[0] for name in service_wheel.names if ".dist-info/" not in name} == {
        "service",
        "tickets_launcher.py",
    }
    assert not [name for name in service_wheel.names if name.startswith("service/client")]
    for wheel in (client_wheel, service_wheel):
        assert [name for name in wheel.names if name.endswith(".dist-info/licenses/LICENSE")]
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_clients_sdist_makes_the_same_wheel(client_wheel: Wheel, tmp_path: Path) -> None:
    sdist = build(CLIENT, "sdist", tmp_path / "sdist")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    [source] = (tmp_path / "source").iterdir()
    assert Wheel(build(source, "wheel", tmp_path / "wheel")).names == client_wheel.names


# The client alone


@pytest.fixture(scope="module")
def client_python(client_wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("environment") / "client", [client_wheel])


@pytest.fixture
async def examples(tmp_path: Path, service: Service, world: World) -> list[Path]:
    """The programs of the client's README as files, for the service that runs and credentials of its own."""
    project_id = await world.project()
    credentials = {
        "helpdesk_token": token(world.person("read", "write", "agent")),
        "itsm_api_key": (await world.program()).key,
        "handoff_project_id": project_id,
        "handoff_token": token(await world.member(project_id, "member")),
    }
    (tmp_path / "credentials.json").write_text(json.dumps(credentials))
    programs = re.findall(r"```python\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)
    paths = [tmp_path / f"example_{number}.py" for number in range(len(programs))]
    for path, program in zip(paths, programs, strict=True):
        path.write_text(program.replace("127.0.0.1:50051", service.target).replace(".tickets/", f"{tmp_path}/"))
    assert paths
    return paths


async def test_the_clients_examples_run_with_the_client_alone(client_python: Path, examples: list[Path]) -> None:
    for path in examples:
        command = [str(client_python), "-I", "-W", "error::DeprecationWarning", str(path)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_only_the_client_is_there(client_python: Path) -> None:
    names = ("service", "pydantic", "sqlalchemy", "psycopg", "httpx2", "typing_extensions")
    script = f"from importlib.util import find_spec; print([name for name in {names} if find_spec(name)])"
    done = subprocess.run([client_python, "-I", "-c", script], check=True, capture_output=True, text=True)
    # Newer releases of grpcio need typing_extensions themselves.
    assert done.stdout.strip() in ("[]", "['typing_extensions']")


async def test_the_clients_examples_are_typed_for_those_who_install_it(
    client_python: Path, examples: list[Path], tmp_path: Path
) -> None:
    typed = tmp_path / "typed.py"
    typed.write_text(TYPED)
    # An empty configuration: not the project's own.
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}"]
    files = [str(path) for path in (*examples, typed)]
    command = [sys.executable, "-m", "mypy", *options, "--python-executable", str(client_python), *files]
    done = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


# The service


@pytest.fixture(scope="module")
def tickets(client_wheel: Wheel, service_wheel: Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `tickets` command of an environment that has the service and what it needs on one machine."""
    directory = tmp_path_factory.mktemp("environment") / "service"
    return environment(directory, [client_wheel, service_wheel], extra="local").with_name("tickets")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder in which someone else has a package called `service`, which `python -m service` would find first."""
    folder = tmp_path / "theirs"
    (folder / "service").mkdir(parents=True)
    for file in ("__init__.py", "__main__.py"):
        (folder / "service" / file).write_text("print('their service')\n")
    return folder


def clean_environment(**more: str) -> Mapping[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TICKETS_", "PYTHON"))}
    return {**clean, **more}


def test_a_program_beside_their_package_imports_theirs(tickets: Path, theirs: Path) -> None:
    command = [str(tickets.with_name("python")), "-c", "import service"]
    done = subprocess.run(command, cwd=theirs, env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout == "their service\n"


def test_the_installed_service_runs_in_their_folder(tickets: Path, theirs: Path, tmp_path: Path) -> None:
    """Its processes too: each would run theirs if it looked into the folder or on PYTHONPATH."""
    output = tmp_path / "output"
    port = free_port()
    command = [str(tickets), "up", "--http-port", str(port), "--grpc-port", str(free_port())]
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=theirs, env=clean_environment(PYTHONPATH="."), stdout=file, stderr=file)

    def ready() -> bool:
        assert process.poll() is None, output.read_text()
        return "\nready: " in output.read_text()

    try:
        wait_for(ready, what="tickets up", timeout=60)
        for path in ("/docs", "/docs/docs.js", "/openapi.json", "/docs/credentials.json"):
            assert httpx2.get(f"http://127.0.0.1:{port}{path}").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        ended = process.wait(timeout=30)
    said = output.read_text()
    assert (ended, "their service" in said) == (0, False), said
    assert "data in .tickets" in said
    assert (theirs / ".tickets/credentials.json").is_file()
