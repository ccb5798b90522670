"""Before anything is timed: the same requests get the same answers, and leave the same rows, everywhere.

Here is what is compared of ITSM; of the other two APIs, checks_bearer.py has it.
"""

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import httpx2
import psycopg
from tickets.itsm.v1 import ticket_service_pb2, ticket_service_pb2_grpc

from .operations import NEW_TICKET, STATUSES
from .seeds import Account

# What two answers to the same request may differ in.
_THEIR_OWN = frozenset({"id", "created_at", "updated_at"})
_TICKETS = "/api/v1/tickets"


class UnequalError(Exception):
    """Two contestants do not do the same."""


def check(database_url: str, ids: list[str], urls: Mapping[str, tuple[str, Account]], target: str) -> int:
    """Compare every contestant with the first. Returns how many requests were compared; raises UnequalError."""
    answers: dict[str, list[Any]] = {}
    for name, (url, account) in urls.items():
        with httpx2.Client(base_url=url, headers=dict([account.header]), timeout=30) as client:
            answers[name] = list(_answers(client, ids))
            answers[name].append(("rows", _rows_left(database_url, client)))
    compared = require_equal(answers)
    _check_grpc(*next(iter(urls.values())), target, ids[0])
    return compared


def require_equal(answers: Mapping[str, list[Any]]) -> int:
    """Raise UnequalError unless everyone's answers are those of the first. Returns how many there are."""
    first, *others = answers
    unequal = [
        f"{first}: {_text(mine)}\n{other}: {_text(theirs)}"
        for other in others
        for mine, theirs in zip(answers[first], answers[other], strict=True)
        if mine != theirs
    ]
    if unequal:
        raise UnequalError("\n\n".join(unequal))
    return len(answers[first])


def _answers(client: httpx2.Client, ids: list[str]) -> Iterator[tuple[str, int, Any, Any]]:
    """The answers to a fixed list of requests."""

    def ask(verb: str, path: str, body: Any = None, **headers: str) -> tuple[str, int, Any, Any]:
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", **headers}
        response = client.request(verb, path, content=content, headers=given)
        made = verb == "POST" and response.status_code == 201
        answer = _anonymous(response.json()) if made or verb == "PATCH" else response.json()
        kind = response.headers["content-type"].partition(";")[0]
        if not response.headers.get("x-request-id"):
            raise UnequalError(f"{client.base_url} does not say the request's id")
        return f"{verb} {path}", response.status_code, answer, (kind, response.headers.get("idempotent-replayed"))

    key = uuid.uuid4().hex
    for ticket_id in ids:
        yield ask("GET", f"{_TICKETS}/{ticket_id}")
    yield ask("GET", f"{_TICKETS}/00000000-0000-4000-8000-000000000000")
    yield ask("GET", f"{_TICKETS}/laptop")
    yield ask("GET", f"{_TICKETS}/{ids[0]}", **{"x-api-key": "itsm_sk_live_unknown"})
    yield ask("GET", f"{_TICKETS}/{ids[0]}", **{"x-api-key": ""})
    for query in (
        "",
        "?limit=100&offset=50",
        "?limit=3&offset=500&status=closed",
        "?offset=100&start_date=2020-01-01T00:00:00%2B02:00&status=open",
        "?end_date=2000-01-01T00:00:00Z",
        *("?limit=0", "?offset=x", "?status=lost", "?start_date=soon"),
    ):
        yield ask("GET", _TICKETS + query)
    yield ask("POST", _TICKETS, NEW_TICKET)
    yield ask("POST", _TICKETS, {"subject": "Least", "description": "that is needed"})
    yield ask("POST", _TICKETS, NEW_TICKET, **{"idempotency-key": key})
    yield ask("POST", _TICKETS, dict(reversed(list(NEW_TICKET.items()))), **{"idempotency-key": key})
    yield ask("POST", _TICKETS, {**NEW_TICKET, "priority": "low"}, **{"idempotency-key": key})
    wrongs: tuple[Any, ...] = ({"subject": ""}, {"subject": "s", "description": "d", "status": 7}, {"metadata": []})
    for wrong in wrongs:
        yield ask("POST", _TICKETS, wrong)
    made = client.post(_TICKETS, json=NEW_TICKET).json()["id"]
    changes = [{"status": status} for status in STATUSES]
    more: list[dict[str, Any]] = [{"priority": None, "subject": "Anew", "metadata": {"a": 1.5}}, {"subject": ""}]
    for change in changes + more:
        yield ("PATCH", *ask("PATCH", f"{_TICKETS}/{made}", change)[1:])
    yield ask("PATCH", f"{_TICKETS}/00000000-0000-4000-8000-000000000000", {"status": "open"})


def _rows_left(database_url: str, client: httpx2.Client) -> Any:
    """What a create and two changes leave in the tables, times and ids aside."""
    key = uuid.uuid4().hex
    made = client.post(_TICKETS, json=NEW_TICKET, headers={"idempotency-key": key}).json()["id"]
    for change in ({"status": "closed"}, {"status": "open", "priority": None}):
        client.patch(f"{_TICKETS}/{made}", json=change)
    with psycopg.connect(database_url) as connection:
        ticket = connection.execute(
            """SELECT subject, description, status, priority, requester_email, metadata::jsonb, version,
                updated_at > created_at FROM itsm_tickets WHERE id = %s""",
            [made],
        ).fetchall()
        events = connection.execute(
            "SELECT version, type, changes::jsonb FROM itsm_events WHERE ticket_id = %s ORDER BY id", [made]
        ).fetchall()
        keys = connection.execute(
            "SELECT response ->> 'id' = %s, response ->> 'subject' FROM itsm_keys WHERE key = %s", [made, key]
        ).fetchall()
    return {"ticket": ticket, "events": events, "keys": keys}


def _check_grpc(url: str, account: Account, target: str, ticket_id: str) -> None:
    """GRPC reads the ticket that REST reads."""
    with grpc.insecure_channel(target) as channel:
        stub = ticket_service_pb2_grpc.TicketServiceStub(channel)
        request = ticket_service_pb2.GetTicketRequest(ticket_id=ticket_id)
        typed = stub.GetTicket(request, metadata=(account.header,)).ticket
    rest = httpx2.get(f"{url}{_TICKETS}/{ticket_id}", headers=dict([account.header])).json()
    plain = {name: getattr(typed, name) for name in ("id", "subject", "description")}
    if plain != {name: rest[name] for name in plain} or json.loads(typed.metadata_json) != rest["metadata"]:
        raise UnequalError(f"gRPC and REST differ: {plain} and {rest}")


def _anonymous(answer: Any) -> Any:
    if not isinstance(answer, dict):
        return answer
    return {name: name if name in _THEIR_OWN else value for name, value in answer.items()}


def _text(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
