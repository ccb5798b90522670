"""gen/openapi.json as others read it: a linter, what compares it with the baseline, and two generators of clients."""

import copy
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.tools import require

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BASELINE = ROOT / "protos" / "openapi.baseline.json"
DOCUMENT = ROOT / "gen" / "openapi.json"
STEPS = [
    f"ok {api} {step}"
    for api in ("handoff", "helpdesk", "itsm")
    for step in ("create", "list", "read", "change", *(["clear"] if api == "itsm" else []), "error")
]
_SECONDS = 900  # the first time everything is downloaded and compiled


def run(folder: str, *command: str, environment: Mapping[str, str] = os.environ) -> str:
    done = subprocess.run(
        command, cwd=HERE / folder, env={**environment}, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(folder: str, tool: str, *commands: Sequence[str]) -> None:
    require(tool)
    for command in commands:
        run(folder, *command)


@pytest.fixture(scope="session")
def go() -> None:
    built("go", "go", ["go", "build", "-o", "out/", "tool"])


@pytest.fixture(scope="session")
def typescript() -> None:
    built("typescript", "npm", ["npm", "ci", "--silent"])


# The document


@pytest.mark.usefixtures("typescript")
def test_a_second_validator_finds_nothing() -> None:
    run("typescript", "npm", "run", "--silent", "lint")


def compared(document: Path) -> subprocess.CompletedProcess[str]:
    options = ["--fail-on", "WARN", "--severity-levels", "severity.txt", "--format", "singleline"]
    command = ["out/oasdiff", "breaking", *options, str(BASELINE), str(document)]
    return subprocess.run(command, cwd=HERE / "go", capture_output=True, text=True, timeout=_SECONDS, check=False)


@pytest.mark.usefixtures("go")
def test_nothing_that_clients_may_use_is_removed_or_changed() -> None:
    done = compared(DOCUMENT)
    assert done.returncode == 0, f"{done.stdout}\nIf it is meant: `make baseline`."


def paths(document: Any) -> Any:
    return document["paths"]


def schema(document: Any, name: str) -> Any:
    return document["components"]["schemas"][name]


def without_member(document: Any) -> None:
    del schema(document, "ItsmTicket")["properties"]["priority"]
    schema(document, "ItsmTicket")["required"].remove("priority")


def with_null(document: Any) -> None:
    schema(document, "HelpdeskTicket")["properties"]["title"]["type"] = ["string", "null"]


def with_required(document: Any) -> None:
    schema(document, "ItsmNewTicket")["properties"]["team"] = {"type": "string"}
    schema(document, "ItsmNewTicket")["required"].append("team")


BREAKS: Mapping[str, tuple[Callable[[Any], Any], str]] = {
    "an operation": (lambda d: paths(d)["/api/v1/webhooks/{webhook_id}"].pop("delete"), "removed"),
    "a path": (lambda d: paths(d).pop("/api/projects/{project_id}/events"), "path-removed"),
    "a parameter": (lambda d: paths(d)["/api/v1/tickets"]["get"]["parameters"].pop(), "parameter-removed"),
    "a member of an answer": (without_member, "response-required-property-removed"),
    "a member that was always there": (
        lambda d: schema(d, "ItsmTicket")["required"].remove("priority"),
        "property-became-optional",
    ),
    "null in an answer": (with_null, "property-became-nullable"),
    "the type of a member": (
        lambda d: schema(d, "HandoffTicket")["properties"].update(title={"type": "integer"}),
        "type-changed",
    ),
    "a word of a vocabulary": (
        lambda d: schema(d, "ItsmNewTicket")["properties"]["priority"]["enum"].remove("low"),
        "enum-value-removed",
    ),
    "a bound": (
        lambda d: schema(d, "ItsmNewTicket")["properties"]["subject"].update(maxLength=10),
        "max-length-decreased",
    ),
    "what a request must have": (with_required, "new-required-request-property"),
    "a status": (lambda d: paths(d)["/api/v1/tickets"]["post"]["responses"].pop("409"), "status-removed"),
    "a header of an answer": (
        lambda d: paths(d)["/api/v1/tickets"]["post"]["responses"]["201"]["headers"].pop("ETag"),
        "header-removed",
    ),
    "an event of webhooks": (lambda d: d["webhooks"].pop("ticket.closed"), "webhook-removed"),
    "the credential": (
        lambda d: paths(d)["/api/v1/tickets"]["post"].update(security=[{"helpdeskToken": []}]),
        "security",
    ),
}


@pytest.mark.usefixtures("go")
@pytest.mark.parametrize("what", BREAKS)
def test_a_break_is_seen(what: str, tmp_path: Path) -> None:
    change, rule = BREAKS[what]
    document = copy.deepcopy(json.loads(BASELINE.read_text()))
    change(document)
    broken = tmp_path / "openapi.json"
    broken.write_text(json.dumps(document))
    done = compared(broken)
    assert (done.returncode, rule in done.stdout) == (1, True), done.stdout + done.stderr


# Clients


@pytest.mark.usefixtures("go")
def test_a_client_of_oapi_codegen_works(environment: Mapping[str, str]) -> None:
    run("go", "out/oapi-codegen", "--config", "generate.yaml", str(DOCUMENT))
    run("go", "go", "vet", ".")
    run("go", "go", "build", "-o", "out/client", ".")
    assert run("go", "out/client", environment=environment).splitlines() == STEPS


@pytest.mark.usefixtures("typescript")
def test_a_client_of_openapi_typescript_works(environment: Mapping[str, str]) -> None:
    run("typescript", "npm", "run", "--silent", "generate")
    run("typescript", "npm", "run", "--silent", "build")
    assert run("typescript", "node", "out/client.js", environment=environment).splitlines() == STEPS
