"""deploy/grpc-gateway answers the documented requests as Envoy does: status, body, and the promised headers."""

import json
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support import up
from support.go import go

from service.local.processes import free_port, wait_for

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "deploy/grpc-gateway"
HEADERS = (
    *("content-type", "etag", "allow", "www-authenticate", "retry-after", "idempotent-replayed", "ratelimit-policy"),
    *("x-request-id", "accept-encoding", "cache-control", "x-accel-buffering"),
)
# What two answers to a write cannot have in common, nor two that say when they are from.
VARYING = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\b[a-z]+_[0-9A-Z]{26}\b|\b(TKT|HO)-[0-9]+"
    r"|(?<=.number.:)[0-9]+|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"
)
VERSION = re.compile("[0-9]+")

pytestmark = pytest.mark.clients


@dataclass(frozen=True)
class Case:
    """A request; names in braces are those of `Made`. `own` has headers beside the credential, or instead of it."""

    verb: str
    path: str
    status: int
    content: Any = None
    own: Mapping[str, str] = field(default_factory=dict)
    api: str = "itsm"


def handoff(verb: str, path: str, status: int, content: Any = None, **own: str) -> Case:
    return Case(verb, path, status, content, own, "handoff")


def helpdesk(verb: str, path: str, status: int, content: Any = None, **own: str) -> Case:
    return Case(verb, path, status, content, own, "helpdesk")


ITSM, DESK, BOARD = "/api/v1/tickets", "/api/v1/helpdesk/tickets", "/api/projects/{project}/tickets"
TICKET = {"subject": "Laptop", "description": "It stays dark.", "metadata": {"floor": 4}}
TITLE = {"title": "Laptop", "tags": ["a"]}
HANDOFF = {"title": "Login", "description": "500 on /login", "request_type": "bug"}

CASES = {
    "itsm: create": Case("POST", ITSM, 201, TICKET),
    "itsm: create, by HTTP/1.0's form type": Case(
        "POST", ITSM, 201, TICKET, {"content-type": "application/x-www-form-urlencoded"}
    ),
    "itsm: problems": Case("POST", ITSM, 422, {"subject": "", "priority": "soon"}),
    "itsm: not JSON": Case("POST", ITSM, 422, "{"),
    "itsm: no body": Case("POST", ITSM, 422),
    "itsm: the request id of the caller": Case("GET", ITSM, 200, own={"x-request-id": "mine-1"}),
    "itsm: no key": Case("GET", ITSM, 401, own={"x-api-key": ""}),
    "itsm: an unknown key": Case("GET", ITSM, 401, own={"x-api-key": "itsm_sk_live_nobody"}),
    "itsm: read": Case("GET", ITSM + "/{itsm}", 200),
    "itsm: read, HEAD": Case("HEAD", ITSM + "/{itsm}", 200),
    "itsm: read, not modified": Case("GET", ITSM + "/{itsm}", 304, own={"if-none-match": '"1"'}),
    "itsm: none": Case("GET", ITSM + "/00000000-0000-4000-8000-000000000000", 404),
    "itsm: no UUID": Case("GET", ITSM + "/x:y", 422),
    "itsm: list": Case("GET", ITSM + "?limit=2&offset=1", 200),
    "itsm: list, HEAD": Case("HEAD", ITSM + "?limit=2", 200),
    "itsm: a metadata filter": Case("GET", ITSM + "?metadata.floor=3", 200),
    "itsm: a metadata filter that nothing has": Case("GET", ITSM + "?metadata.floor=99", 200),
    "itsm: an escaped metadata filter": Case("GET", ITSM + "?metadata%2Efloor=%33", 200),
    "itsm: a metadata filter without a name": Case("GET", ITSM + "?metadata.=3", 422),
    "itsm: an unknown query is ignored": Case("GET", ITSM + "?colour=red&status[open]=x", 200),
    "itsm: the last of a query counts": Case("GET", ITSM + "?limit=1&limit=2", 200),
    "itsm: a bad query": Case("GET", ITSM + "?limit=0", 422),
    "itsm: words": Case("GET", ITSM + "?q=laptop+dark", 200),
    "itsm: a semicolon is no separator": Case("GET", ITSM + "?q=laptop;limit=1", 200),
    "itsm: a slash at the end": Case("GET", ITSM + "/?limit=1", 200),
    "itsm: slashes": Case("GET", "/api//v1/tickets?limit=1", 200),
    "itsm: a query does not replace the path": Case("GET", ITSM + "/{itsm}?ticket_id=x", 200),
    "itsm: a query is no body": Case("POST", ITSM + "?body.data=e30=", 201, TICKET),
    "itsm: clear": Case("PATCH", ITSM + "/{itsm}", 200, {"priority": None}),
    "itsm: stale": Case("PATCH", ITSM + "/{itsm}", 412, {"priority": "low"}, {"if-match": '"9"'}),
    "itsm: history": Case("GET", ITSM + "/{itsm}/events", 200),
    "itsm: webhooks": Case("GET", "/api/v1/webhooks", 200),
    "itsm: no such event": Case("POST", "/api/v1/webhooks", 400, {"url": "https://a.example", "events": ["x"]}),
    "itsm: no webhook": Case("DELETE", "/api/v1/webhooks/00000000-0000-4000-8000-000000000000", 404),
    "itsm: a watch's head": Case("HEAD", "/api/v1/events", 200),
    "itsm: a watch from nowhere": Case("GET", "/api/v1/events?cursor=x", 422),
    "itsm: a watch without a key": Case("GET", "/api/v1/events", 401, own={"x-api-key": ""}),
    "itsm: no such path": Case("GET", "/api/v1/nothing", 404),
    "itsm: no such verb": Case("PUT", ITSM, 405),
    "itsm: no such verb of a ticket": Case("DELETE", ITSM + "/{itsm}", 405),
    "itsm: a verb is not overridden": Case(
        "POST",
        ITSM + "/{itsm}",
        405,
        "",
        {"x-http-method-override": "GET", "content-type": "application/x-www-form-urlencoded"},
    ),
    "itsm: too large": Case("POST", ITSM, 413, "x" * (2**20 + 1)),
    "itsm: compressed": Case("POST", ITSM, 415, "x", {"content-encoding": "gzip"}),
    "itsm: long headers": Case("GET", ITSM, 431, own={"x-long": "x" * 17_000}),
    "itsm: an escaped slash": Case("GET", ITSM + "/a%2Fb", 400),
    "itsm: a backslash": Case("GET", ITSM + "?q=a\\b", 400),
    "itsm: a path that is no text": Case("GET", ITSM + "/%00", 400),
    "itsm: a filter that is no text": Case("GET", ITSM + "?metadata.a=%ff", 400),
    "itsm: too many filters": Case("GET", ITSM + "?" + "&".join(f"metadata.{n}=x" for n in range(11)), 422),
    "itsm: a query that is no text": Case("GET", ITSM + "?q=%ff", 400),
    "itsm: a query that is not escaped": Case("GET", ITSM + "?q=%zz", 400),
    "helpdesk: create": helpdesk("POST", DESK, 201, TITLE),
    "helpdesk: problems": helpdesk("POST", DESK, 400, {"title": "", "colour": "red"}),
    "helpdesk: read": helpdesk("GET", DESK + "/{helpdesk}", 200),
    "helpdesk: list": helpdesk("GET", DESK + "?status=open,pending&limit=2", 200),
    "helpdesk: list, each value apart": helpdesk("GET", DESK + "?status=open&status=pending&limit=2", 200),
    "helpdesk: an unknown query": helpdesk("GET", DESK + "?colour=red", 400),
    "helpdesk: an unknown query of a write": helpdesk("POST", DESK + "?colour=red", 400, TITLE),
    "helpdesk: change": helpdesk("PATCH", DESK + "/{helpdesk}", 200, {"title": "Laptop"}),
    "helpdesk: stale by query": helpdesk("DELETE", DESK + "/{helpdesk}?etag=%229%22", 412),
    "helpdesk: comment": helpdesk("POST", DESK + "/{helpdesk}/comments", 201, {"body": "Yes"}),
    "helpdesk: sla": helpdesk("GET", DESK + "/{helpdesk}/sla", 200),
    "helpdesk: no token": helpdesk("GET", DESK, 401, authorization=""),
    "helpdesk: a bad token": helpdesk("GET", DESK, 401, authorization="Bearer x"),
    "helpdesk: none": helpdesk("GET", DESK + "/TKT-99999999", 404),
    "helpdesk: no such path": helpdesk("GET", "/api/v1/helpdesk/nothing", 404),
    "helpdesk: no such verb": helpdesk("GET", DESK + "/{helpdesk}/close", 405),
    "helpdesk: a watch with an unknown query": helpdesk("GET", "/api/v1/helpdesk/events?colour=red", 400),
    "handoff: create": handoff("POST", BOARD, 201, HANDOFF),
    "handoff: problems": handoff("POST", BOARD, 400, {**HANDOFF, "request_type": "x"}),
    "handoff: a complete list": handoff("GET", "/api/tickets?slim=1", 200),
    "handoff: a complete list, HEAD": handoff("HEAD", "/api/tickets", 200),
    "handoff: a page": handoff("GET", BOARD + "?limit=3", 200),
    "handoff: a bad page": handoff("GET", BOARD + "?limit=0", 400),
    "handoff: an unknown query is ignored": handoff("GET", BOARD + "?colour=red&limit=1", 200),
    "handoff: read": handoff("GET", BOARD + "/{handoff}", 200),
    "handoff: bulk": handoff(
        "POST", BOARD + "/bulk", 200, {"ticket_ids": ["{handoff}"], "action": "move", "stage": "up_next"}
    ),
    "handoff: bulk is no ticket": handoff("GET", BOARD + "/bulk", 405),
    "handoff: not a member": handoff("GET", "/api/projects/00000000-0000-4000-8000-000000000000/tickets", 403),
    "handoff: no such path": handoff("GET", "/api/nothing", 404),
    "nowhere": handoff("GET", "/nowhere", 404),
}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The gateway, built."""
    built = tmp_path_factory.mktemp("gateway") / "grpc-gateway"
    go("build", "-o", str(built), ".", cwd=PROGRAM)
    return built


@contextmanager
def serve(program: Path, upstream: int) -> Iterator[str]:
    """Run it; its URL."""
    port = free_port()
    argv = [str(program), "-listen", f"127.0.0.1:{port}", "-upstream", f"dns:///127.0.0.1:{upstream}"]
    with subprocess.Popen(argv) as process:

        def listens() -> bool:
            assert process.poll() is None
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return True
            return False

        wait_for(listens, what="the gateway", timeout=10)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@dataclass(frozen=True)
class Both:
    """Envoy and the gateway before the same service, and tickets to ask for."""

    envoy: str
    gateway: str
    credentials: Mapping[str, Mapping[str, str]]
    made: Mapping[str, str]

    def ask(self, url: str, case: Case) -> httpx2.Response:
        headers = {"x-request-id": "same", **self.credentials[case.api], **case.own}
        text = case.content if isinstance(case.content, str) else json.dumps(case.content)
        content = None if case.content is None else self.filled(text)
        return httpx2.request(case.verb, url + self.filled(case.path), headers=headers, content=content)

    def filled(self, text: str) -> str:
        for name, value in self.made.items():
            text = text.replace("{" + name + "}", value)
        return text


@pytest.fixture(scope="session")
def both(program: Path, running: up.Up) -> Iterator[Both]:
    told = running.credentials()
    credentials = {"itsm": {"x-api-key": told["itsm_api_key"]}}
    for api in ("helpdesk", "handoff"):
        credentials[api] = {"authorization": f"Bearer {told[f'{api}_token']}"}
    envoy = f"http://127.0.0.1:{running.http_port}"
    board = f"/api/projects/{told['handoff_project_id']}/tickets"
    made = {"project": told["handoff_project_id"]}
    # More handoff tickets than a piece of a complete list has.
    creations = [("itsm", ITSM, {**TICKET, "metadata": {"floor": 3}, "priority": "high"}), ("helpdesk", DESK, TITLE)]
    for api, path, body in [*creations, *[("handoff", board, HANDOFF)] * 25]:
        answer = httpx2.post(envoy + path, headers=credentials[api], json=body).raise_for_status().json()
        made[api] = answer.get("ticket", answer)["id"]
    with serve(program, running.grpc_port) as gateway:
        yield Both(envoy, gateway, credentials, made)


@pytest.mark.parametrize("name", CASES)
def test_it_answers_as_envoy_does(both: Both, name: str) -> None:
    case = CASES[name]
    expected, got = both.ask(both.envoy, case), both.ask(both.gateway, case)
    assert (expected.status_code, got.status_code) == (case.status, case.status), got.text
    assert _plain(case, got) == _plain(case, expected)
    assert _headers(case, got) == _headers(case, expected)
    if case.verb == "HEAD":
        assert got.headers.get("content-length") == expected.headers.get("content-length")


def test_a_key_is_the_same_key_at_both(both: Both) -> None:
    case = Case("POST", ITSM, 201, TICKET, {"idempotency-key": str(uuid.uuid4())})
    first, again = both.ask(both.envoy, case), both.ask(both.gateway, case)
    assert (first.content, again.status_code) == (again.content, 201)
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "idempotency-key"])
def test_two_headers_of_which_one_counts_are_refused(both: Both, name: str) -> None:
    headers = [(name, "Bearer a"), (name, "Bearer b")]
    answers = [httpx2.get(url + ITSM, headers=headers) for url in (both.envoy, both.gateway)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(400, answers[0].json())] * 2


def test_a_watch_sends_lines_and_resumes_anywhere(both: Both) -> None:
    headers = both.credentials["itsm"]
    with httpx2.stream("GET", both.gateway + "/api/v1/events", headers=headers, timeout=30) as watch:
        assert (watch.status_code, watch.headers["content-type"]) == (200, "application/x-ndjson")
        lines = watch.iter_lines()
        begun = json.loads(next(lines))
        made = both.ask(both.gateway, Case("POST", ITSM, 201, TICKET)).json()
        seen = next(line for line in lines if (json.loads(line)["event"] or {}).get("ticket_id") == made["id"])
    for url in (both.envoy, both.gateway):
        query = {"cursor": begun["cursor"]}
        with httpx2.stream("GET", url + "/api/v1/events", headers=headers, params=query, timeout=30) as watch:
            assert next(line for line in watch.iter_lines() if json.loads(line).get("event")) == seen


@pytest.mark.parametrize("path", [ITSM, "/api/v1/events"])
def test_a_service_that_is_away_is_503(program: Path, path: str) -> None:
    with serve(program, free_port()) as gateway:
        answer = httpx2.get(gateway + path, headers={"x-api-key": "x"})
        other = httpx2.get(f"{gateway}/api/tickets")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json() == {"detail": "The service is currently unavailable"}
    assert (other.status_code, other.headers["retry-after"]) == (503, "1")
    assert other.json() == {"error": "The service is currently unavailable", "code": "unavailable", "retryAfter": 1}


def _plain(case: Case, answer: httpx2.Response) -> Any:
    """The body: of a read byte for byte, of anything else without what varies."""
    if not answer.content or (case.verb == "GET" and answer.is_success and not case.path.endswith("/sla")):
        return answer.content
    return json.loads(VARYING.sub("0", answer.text))


def _headers(case: Case, answer: httpx2.Response) -> Mapping[str, str | None]:
    headers = {name: answer.headers.get(name) for name in HEADERS} | {"limited": str("ratelimit" in answer.headers)}
    if case.verb != "GET":
        headers["etag"] = VERSION.sub("0", headers["etag"] or "")
    return headers
