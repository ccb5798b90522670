"""Requests of the documented endpoints: such as a command allows, and then with something wrong."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import quote

from support.fuzz import Endpoint, Party, PathValues
from support.fuzz_values import CHANCES, NEAR_MISSES, mangled, odd_json, odd_text, valid
from support.fuzz_values import near_misses as value_near

# Beyond it the gateway looks at nothing but the size.
MAX_QUERY = 2000
_ADDRESSES = ("url", "domain")
_NO_CONTROLS = dict.fromkeys((*range(0x20), 0x7F), "?")


@dataclass
class Request:
    """One request, before it is bytes or a message."""

    endpoint: Endpoint
    # The values of the route's variables, the members of the query, and headers.
    path: PathValues = ()
    query: list[tuple[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    # Names and JSON texts, as an object may have a member twice; None: no body.
    body: list[tuple[str, str]] | None = None
    # Instead of the object.
    content: bytes | None = None

    def target(self) -> str:
        """Path and query, escaped."""
        path = self.endpoint.path
        for value in self.path:
            before, _, after = path.partition("{")
            # An empty one or one of dots alone would be another path.
            path = before + (quote(value, safe="") or "-") + after.partition("}")[2]
        query = "&".join(f"{quote(name, safe='.')}={quote(value, safe=':+')}" for name, value in self.query)
        return f"{path}?{query}" if query else path

    def payload(self) -> bytes:
        """The body."""
        if self.content is not None or self.body is None:
            return self.content or b""
        members = ",".join(f"{json.dumps(name)}:{text}" for name, text in self.body)
        return b"{%b}" % members.encode("utf-8", "surrogatepass")

    def head(self) -> list[tuple[str, str]]:
        """The headers."""
        given = {"host": "tickets", "content-type": "application/json", **self.headers}
        return [*given.items(), *([("content-length", str(len(self.payload())))] if self.payload() else [])]

    def http(self) -> bytes:
        """As HTTP/1.1."""
        lines = [f"{self.endpoint.verb} {self.target()} HTTP/1.1", *(f"{name}: {value}" for name, value in self.head())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + self.payload()


def sections(
    random: Random, endpoint: Endpoint, party: Party, chances: Sequence[float] = CHANCES
) -> dict[str, dict[str, Any]]:
    """The sections of a command that it may accept, as JSON values."""
    hints: dict[str, Sequence[str]] = {
        "cursor": party.cursors.get(endpoint.path, ()),
        "account_id": [party.other_account_id],
        "project_id": [party.project_id],
        "ticket_ids": [],
    }
    given = {
        name: valid(random, model, hints, chances)
        for name, model in endpoint.sections().items()
        if name != "path" and (endpoint.command.model_fields[name].is_required() or random.random() < 0.8)
    }
    given.setdefault("query", {}).pop("cursor" if not hints["cursor"] else "", None)
    if endpoint.name == "BulkUpdateTickets":
        own = party.names["/api/projects/{project}/tickets"]
        given["body"]["ticket_ids"] = sorted({random.choice(own)[-1] for _ in range(3)})
    given["header"] = {name: value for name, value in given.get("header", {}).items() if value is not None}
    known = party.names.get(endpoint.collection)
    if known:
        names = endpoint.command.sections().get("path", ())
        given["path"] = dict(zip(names, random.choice(known), strict=True))
    return given


def valid_request(random: Random, endpoint: Endpoint, party: Party, chances: Sequence[float] = CHANCES) -> Request:
    """A request that may succeed; of what it may leave out it has so much as one of the chances says."""
    given = sections(random, endpoint, party, chances)
    request = Request(
        endpoint,
        tuple(map(str, given.get("path", {}).values())),
        [pair for name, value in given.get("query", {}).items() for pair in _query(name, value)],
        {**party.credential(random, endpoint.api)},
    )
    request.headers |= given.get("header", {})
    if "body" in given:
        request.body = [(name, json.dumps(value)) for name, value in given["body"].items()]
    return request


def _query(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    if isinstance(value, dict):
        return [(f"{name}.{member}", str(text)) for member, text in value.items()]
    if isinstance(value, bool):
        return [(name, str(value).lower())]
    return [(name, ",".join(map(str, value)) if isinstance(value, list) else str(value)[:MAX_QUERY])]


def near_misses(endpoint: Endpoint) -> Sequence[tuple[str, str, int]]:
    """All near misses of an endpoint: section, member, and which."""
    return [
        (section, name, which)
        for section, model in endpoint.sections().items()
        if section in ("query", "body")
        for name in model.model_fields
        for which in range(NEAR_MISSES)
    ]


def near_miss(random: Random, endpoint: Endpoint, party: Party, miss: tuple[str, str, int]) -> Request:
    """A valid request, but for one member; nothing else is there to be refused."""
    section, name, which = miss
    request = valid_request(random, endpoint, party, chances=[0])
    request.headers = {**party.credentials[endpoint.api][0]}
    value = value_near(random, endpoint.sections()[section].model_fields[name], name)[which]
    if section == "body":
        request.body = [
            *((known, text) for known, text in request.body or () if known != name),
            (name, json.dumps(value)),
        ]
    else:
        query = [(known, text.encode("utf-8", "replace").decode()) for known, text in _query(name, value)]
        request.query = [*((known, text) for known, text in request.query if known != name), *query]
    return request


def odd_request(random: Random, endpoint: Endpoint, party: Party) -> Request:
    """A request with one thing wrong, or several; a tenth of them with nothing."""
    request = valid_request(random, endpoint, party)
    for _ in range(random.choice((0, 1, 1, 1, 1, 1, 1, 2, 2, 4))):
        random.choice(_ODDITIES)(random, request)
    return request


def _odd_path(random: Random, request: Request) -> None:
    if request.path:
        at = random.randrange(len(request.path))
        value = mangled(random, request.path[at]) if random.random() < 0.3 else odd_text(random)[:2000]
        # A dot is normalized away, and an escaped slash refused, before there is a value.
        request.path = (
            *request.path[:at],
            value.replace("/", "_").strip(".\\").replace("\\", "_"),
            *request.path[at + 1 :],
        )


def _odd_query(random: Random, request: Request) -> None:
    names = [*request.endpoint.command.sections().get("query", ()), "x", "id", "metadata.x", "metadata.", "body.data"]
    value = odd_text(random)[:2000]
    if request.query and random.random() < 0.5:
        at = random.randrange(len(request.query))
        name, old = request.query[at]
        request.query[at] = (name, mangled(random, old) if random.random() < 0.5 else value)
    else:
        request.query.insert(random.randint(0, len(request.query)), (random.choice(names), value))


def _odd_member(random: Random, request: Request) -> None:
    names = [*request.endpoint.command.sections().get("body", ()), "id", "version", "\0", "tenant_id", "__proto__"]
    request.body = request.body or []
    name, text = random.choice(names), odd_json(random)
    at = next((at for at, (known, _) in enumerate(request.body) if known == name), None)
    if at is None or random.random() < 0.2:
        request.body.insert(random.randint(0, len(request.body)), (name, text))
    else:
        request.body[at] = (name, _inside(random, name, request.body[at][1]) if random.random() < 0.4 else text)


def _inside(random: Random, name: str, text: str) -> str:
    """The JSON text with something else in one place of its value."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, list) and value:
        items = [json.dumps(one) for one in value]
        items[random.randrange(len(items))] = odd_json(random)
        return f"[{','.join(items)}]"
    if isinstance(value, dict) and value:
        members = {member: json.dumps(one) for member, one in value.items()}
        members[random.choice(list(members))] = odd_json(random)
        return "{" + ",".join(f"{json.dumps(member)}:{one}" for member, one in members.items()) + "}"
    if isinstance(value, str):
        # An address stays one of this machine.
        tail = len("https://127.0.0.1:9") if name in _ADDRESSES else 0
        return json.dumps(value[:tail] + mangled(random, value[tail:]))
    return f"[{text}]"


def _no_member(random: Random, request: Request) -> None:
    if request.body:
        del request.body[random.randrange(len(request.body))]


def _odd_bytes(random: Random, request: Request) -> None:
    content = bytearray(request.payload() or b"{}")
    kind = random.randrange(4)
    at = random.randrange(len(content))
    if kind == 0:
        del content[at:]
    elif kind == 1:
        content[at] = random.randrange(256)
    elif kind == 2:
        content[at:at] = random.randbytes(random.randint(1, 8))
    else:
        content = bytearray(random.choice((b"", b"null", b"[]", b"{}{}", b"\xef\xbb\xbf{}", b"\0", b"x" * 2**21)))
    if not any(name in bytes(content).decode("latin-1") for name in _ADDRESSES):
        request.content = bytes(content)


def _odd_header(random: Random, request: Request) -> None:
    name = random.choice(("idempotency-key", "if-match", "x-request-id", "authorization", "x-api-key", "content-type"))
    # Without control characters, with which it is no HTTP: that is for fuzz_http.py.
    value = odd_text(random)[:3000].translate(_NO_CONTROLS).strip()
    request.headers[name] = value.encode().decode("latin-1") if random.random() < 0.5 else value


_ODDITIES: Sequence[Callable[[Random, Request], None]] = (
    *[_odd_member] * 6,
    *[_odd_query] * 3,
    *[_odd_path] * 2,
    *[_odd_header] * 2,
    _no_member,
    _odd_bytes,
)


def named(request: Request) -> Mapping[str, Any]:
    """What a finding says of a request."""
    return {"verb": request.endpoint.verb, "target": request.target()[:300], "body": request.payload()[:500]}
