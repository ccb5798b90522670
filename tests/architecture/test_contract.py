"""Tables that must be complete, and what is generated or documented and must be fresh."""

import re
import subprocess
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from grpc_reflection.v1alpha import reflection_pb2

from service.access.policy import POLICIES
from service.errors import REASONS
from service.server import DESCRIPTORS
from service.settings import Settings

ROOT = Path(__file__).parents[2]


def package_of(descriptor: Any) -> str:
    """The package of the typed services; a REST service stands beside them."""
    package: str = descriptor.file.package
    return package.replace(".rest.", ".")


def test_every_served_method_has_a_policy_and_no_other_has() -> None:
    served = {(package_of(descriptor), method.name) for descriptor in DESCRIPTORS for method in descriptor.methods} | {
        ("grpc.reflection.v1alpha", method.name)
        for method in reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods
    }
    assert set(POLICIES) == served


def test_the_typed_services_and_the_rest_service_have_the_same_methods() -> None:
    for package in ("tickets.handoff.v1", "tickets.helpdesk.v1", "tickets.itsm.v1"):
        services = [descriptor for descriptor in DESCRIPTORS if package_of(descriptor) == package]
        typed, rest = ([s for s in services if (s.name == "TicketRest") == is_rest] for is_rest in (False, True))
        # Each method in one of the typed services: POLICIES and the client find it by package and name.
        assert sorted(method.name for service in typed for method in service.methods) == sorted(
            method.name for service in rest for method in service.methods
        )


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


def test_every_reason_is_documented_for_generated_clients() -> None:
    proto = (ROOT / "protos/tickets/errors/v1/error.proto").read_text()
    told = proto[proto.index("Stable reason") : proto.index("string code")]
    by_status = {
        reason: status
        for status, reasons in re.findall(r"([A-Z_]+): ((?:(?![A-Z_]+: )[^\0])*)", told.replace("//", ""))
        for reason in re.findall(r"`([a-z_]+)`", reasons)
        if reason not in ("issues", "retry_after")
    }
    assert by_status == {name: reason.status.name for name, reason in REASONS.items()}


# contracts/errors.md, written down a second time on purpose: gRPC status, handoff and helpdesk HTTP, ITSM HTTP.
CONTRACT = {
    "unauthenticated": ("UNAUTHENTICATED", 401, 401),
    "token_expired": ("UNAUTHENTICATED", 401, 401),
    "invalid_token": ("UNAUTHENTICATED", 401, 401),
    "forbidden": ("PERMISSION_DENIED", 403, 403),
    "missing_scope": ("PERMISSION_DENIED", 403, 403),
    "suspended": ("PERMISSION_DENIED", 403, 403),
    "not_found": ("NOT_FOUND", 404, 404),
    "validation_error": ("INVALID_ARGUMENT", 400, 422),
    "unknown_event": ("INVALID_ARGUMENT", 400, 400),
    "url_refused": ("INVALID_ARGUMENT", 400, 400),
    "provider_rejected": ("FAILED_PRECONDITION", 400, 400),
    "reconnect_required": ("UNAUTHENTICATED", 401, 401),
    "already_exists": ("ALREADY_EXISTS", 409, 409),
    "invalid_transition": ("ABORTED", 409, 409),
    "roles_incomplete": ("FAILED_PRECONDITION", 409, 409),
    "stale": ("ABORTED", 412, 412),
    "idempotency_mismatch": ("ALREADY_EXISTS", 409, 409),
    "cursor_expired": ("OUT_OF_RANGE", 410, 410),
    "payload_too_large": ("INVALID_ARGUMENT", 413, 413),
    "unsupported_media_type": ("INVALID_ARGUMENT", 415, 415),
    "rate_limited": ("RESOURCE_EXHAUSTED", 429, 429),
    "unavailable": ("UNAVAILABLE", 503, 503),
    "deadline_exceeded": ("DEADLINE_EXCEEDED", 504, 504),
    "internal": ("INTERNAL", 500, 500),
}


def test_the_reasons_are_those_of_the_contract() -> None:
    assert {name: (reason.status.name, reason.http, reason.itsm_http) for name, reason in REASONS.items()} == CONTRACT


def test_gen_is_fresh(tmp_path: Path) -> None:
    """Fails when a proto changed and `make gen` was not run. What needs other tools is in `make test-clients`."""
    made = tmp_path / "gen"
    subprocess.run(["make", "--silent", "gen-python", f"GEN={made}", "READY="], cwd=ROOT, check=True)
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    kept = sorted(
        path.relative_to(ROOT / "gen")
        for path in [ROOT / "gen/tickets.binpb", ROOT / "gen/openapi.json", *(ROOT / "gen/python").rglob("*")]
        if path.is_file() and path.suffix != ".pyc"
    )
    assert names == kept
    assert [name for name in names if (made / name).read_bytes() != (ROOT / "gen" / name).read_bytes()] == []


def test_the_page_of_deployment_lists_every_setting() -> None:
    page = (ROOT / "deploy/README.md").read_text()
    table = re.findall(r"^\| `TICKETS_([A-Z_]+)` \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
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
