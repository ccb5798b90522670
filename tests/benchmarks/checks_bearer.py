"""The same for helpdesk and handoff: equal answers and equal rows from the service and the peer, and numbers.

Of a failure the status, the code and the members it names are compared, not the words.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import psycopg

from . import handoff, helpdesk
from .checks import UnequalError, require_equal
from .seeds import Account

_PARALLEL_CREATES = 200
_CALLERS = 20
# What two answers to the same request may differ in, as each has been made anew.
_THEIR_OWN = frozenset(
    {"id", "handoff_request_id", "number", "ticket_ref", "created_at", "updated_at", "resolved_at", "next_cursor"}
)
Answer = tuple[str, int, Any, Any]
Ask = Callable[..., Answer]

_HELPDESK_ROWS = (
    """SELECT title, description, type, status, priority, category, submitted_by_id, assigned_to_id, team_id,
        tags::jsonb, source, source_type, created_by, updated_by, version, updated_at > created_at, resolved_at IS NULL,
        paused_at IS NULL FROM helpdesk_tickets WHERE id = %s""",
    "SELECT version, type, changes::jsonb, actor, app_id FROM helpdesk_events WHERE ticket_id = %s ORDER BY id",
    "SELECT ended_at > started_at FROM helpdesk_pauses WHERE ticket_id = %s ORDER BY started_at",
)
_HANDOFF_ROWS = (
    """SELECT source, title, description, request_type, status, stage, priority, blocking, evidence::jsonb,
        implementation_notes, resolution_note, reported_by_user_id, actor_role, actor_id, version,
        updated_at > created_at FROM handoff_tickets WHERE id = %s""",
    "SELECT role, position, status FROM handoff_roles WHERE ticket_id = %s ORDER BY position",
    """SELECT version, type, changes::jsonb, actor, actor_role, actor_id FROM handoff_events
        WHERE ticket_id = %s ORDER BY id""",
)


def check_helpdesk(database_url: str, ids: list[str], urls: Mapping[str, tuple[str, Account]], _: str = "") -> int:
    """Compare every contestant with the first. Returns how many requests were compared; raises UnequalError."""
    return _check(database_url, urls, lambda ask: _helpdesk(ask, ids), _HELPDESK_ROWS)


def check_handoff(database_url: str, ids: list[str], urls: Mapping[str, tuple[str, Account]], _: str = "") -> int:
    """The same for handoff."""
    return _check(database_url, urls, lambda ask: _handoff(ask, ids), _HANDOFF_ROWS)


def check_numbers(database_url: str, table: str, scope_column: str, account: Account) -> None:
    """Every number from 1 to the last one is some ticket's. Raises UnequalError."""
    asks = f"SELECT count(*), count(DISTINCT number), min(number), max(number) FROM {table} WHERE {scope_column} = %s"
    with psycopg.connect(database_url) as connection:
        row = connection.execute(asks, [account.scope]).fetchone()
    if row is None or row[2:] != (1, row[0]) or row[0] != row[1]:
        raise UnequalError(f"the numbers of {table} in {account.scope} have gaps: {row}")


def check_parallel_creates(
    database_url: str, table: str, scope_column: str, url: str, account: Account, path: str, body: Mapping[str, Any]
) -> None:
    """200 creations, twenty at once, are numbered 1 to 200. Raises UnequalError. The account has no tickets yet."""
    with httpx2.Client(base_url=url, headers=dict([account.header]), timeout=30) as client:

        def create(_: int) -> int:
            return client.post(path.replace("{scope}", account.scope), json=body).status_code

        with ThreadPoolExecutor(_CALLERS) as callers:
            statuses = set(callers.map(create, range(_PARALLEL_CREATES)))
    if statuses != {201}:
        raise UnequalError(f"{url} answered {statuses} to creations")
    with psycopg.connect(database_url) as connection:
        asks = f"SELECT number FROM {table} WHERE {scope_column} = %s ORDER BY number"
        numbers = [row[0] for row in connection.execute(asks, [account.scope])]
    if numbers != list(range(1, _PARALLEL_CREATES + 1)):
        raise UnequalError(f"{_PARALLEL_CREATES} creations by {url} have the numbers {numbers}")


def _check(
    database_url: str,
    urls: Mapping[str, tuple[str, Account]],
    answers_of: Callable[[Ask], Iterator[Answer | str]],
    rows: Sequence[str],
) -> int:
    answers: dict[str, list[Any]] = {}
    for name, (url, account) in urls.items():
        with httpx2.Client(base_url=url, timeout=30) as client:
            found = list(answers_of(_asker(client, account)))
        changed = found.pop()
        with psycopg.connect(database_url) as connection:
            left = [connection.execute(statement, [changed]).fetchall() for statement in rows]
        answers[name] = [*found, ("rows", left)]
    return require_equal(answers)


def _asker(client: httpx2.Client, account: Account) -> Ask:
    """What asks for an account: the answer, with what is only this account's or this ticket's left out."""

    def ask(verb: str, path: str, body: Any = None, *, whole: bool = False, **headers: str) -> Answer:
        content = None if body is None else json.dumps(body).encode()
        given = {**dict([account.header]), "content-type": "application/json", **headers}
        response = client.request(verb, path.replace("{scope}", account.scope), content=content, headers=given)
        if not response.headers.get("x-request-id"):
            raise UnequalError(f"{client.base_url} does not say the request's id")
        text = response.text.replace(account.scope, "{scope}").replace(account.slug or "\0", "{slug}")
        answer = json.loads(text)
        if response.status_code >= 400:
            shown: Any = (answer["code"], sorted(answer.get("fieldErrors", ())))
        else:
            shown = answer if whole else _anonymous(answer, made=verb != "GET")
        return f"{verb} {path}", response.status_code, shown, response.headers.get("etag")

    return ask


def _anonymous(answer: Any, *, made: bool) -> Any:
    """An answer without what is different each time: cursors always, the rest in what was made or changed."""
    if isinstance(answer, list):
        return [_anonymous(one, made=made) for one in answer]
    if not isinstance(answer, dict):
        return answer
    own = _THEIR_OWN if made else {"next_cursor"}
    return {
        name: (name if value is not None else None) if name in own else _anonymous(value, made=made)
        for name, value in answer.items()
    }


def _helpdesk(ask: Ask, ids: list[str]) -> Iterator[Answer | str]:
    """The answers to a fixed list of requests; the last is the id of a ticket that was changed."""
    path = "/api/v1/helpdesk/tickets"
    for ticket_id in (*ids, "TKT-0002", "TKT-9999999", "tkt_00000000000000000000000000", "laptop"):
        yield ask("GET", f"{path}/{ticket_id}")
    yield ask("GET", f"{path}/{ids[0]}", authorization="")
    yield ask("GET", f"{path}/{ids[0]}", authorization="Bearer no.such.token")
    for query in ("", "?limit=100", "?limit=3&status=open&priority=medium", "?assigned_to_id=per_nobody", "?limit=0"):
        yield ask("GET", path + query)
    yield ask("GET", f"{path}?limit=x")
    yield ask("GET", f"{path}?colour=red")
    yield from _second_page(ask, f"{path}?limit=5")
    for body in ({"title": ""}, {"title": "t", "status": 7}, {"title": "t", "colour": "red"}, {"title": "Least"}):
        yield ask("POST", path, body)
    made = ask("POST", path, helpdesk.NEW_TICKET, whole=True)
    ticket_id = made[2]["id"]
    yield "POST", made[1], _anonymous(made[2], made=True), made[3]
    unmet = ask("PATCH", f"{path}/{ticket_id}", {"status": "pending"}, **{"if-match": '"7"'})
    yield "unmet", *unmet[1:]
    changes: Sequence[tuple[dict[str, Any], str]] = (
        ({"status": "in_progress", "assigned_to_id": "per_agent"}, '"1"'),
        ({"status": "pending", "category": None}, 'W/"2"'),
        ({"status": "closed"}, "*"),
        ({"status": "open", "team_id": "team_devices", "tags": {"a": 1.5}}, '"1", "4"'),
    )
    for change, condition in changes:
        yield "PATCH", *ask("PATCH", f"{path}/{ticket_id}", change, **{"if-match": condition})[1:]
    yield ask("PATCH", f"{path}/tkt_00000000000000000000000000", {"status": "open"})
    yield ticket_id


def _handoff(ask: Ask, ids: list[str]) -> Iterator[Answer | str]:
    """The same."""
    path = "/api/projects/{scope}/tickets"
    for ticket_id in (*ids, "9999999", str(uuid.UUID(int=1)), "laptop"):
        yield ask("GET", f"{path}/{ticket_id}")
    seeded = ask("GET", f"{path}/{ids[0]}", whole=True)[2]["ticket"]
    yield ask("GET", f"{path}/{seeded['id']}")
    yield ask("GET", f"{path}/HO-{ids[0]}-another-shop")
    yield ask("GET", f"{path}/{ids[0]}", authorization="")
    yield ask("GET", f"{path}/{ids[0]}", authorization="Bearer no.such.token")
    yield ask("GET", f"/api/projects/{uuid.UUID(int=1)}/tickets/1")
    yield ask("GET", f"/api/projects/{uuid.UUID(int=1)}/tickets")
    for query in ("?limit=20", "?limit=3&status=open&priority=low", "?request_type=bug&limit=7", "?status=closed"):
        yield ask("GET", path + query)
    yield ask("GET", f"{path}?limit=0")
    yield ask("GET", f"{path}?status=lost")
    yield from _second_page(ask, f"{path}?limit=5")
    least = {"title": "Least", "description": "that is needed", "request_type": "bug"}
    for body in ({**least, "title": " "}, {"title": "t"}, {**least, "source": "mcp"}, least):
        yield ask("POST", path, body)
    made = ask("POST", path, handoff.NEW_TICKET, whole=True)
    ticket = made[2]["ticket"]
    yield "POST", made[1], _anonymous(ticket, made=True), None
    its = f"{path}/{ticket['number']}"
    yield "unmet", *ask("PATCH", its, {"stage": "up_next", "updated_at": "2020-01-01T00:00:00Z"})[1:]
    yield "incomplete", *ask("PATCH", its, {"stage": "live"})[1:]
    yield "no note", *ask("PATCH", its, {"stage": "in_progress"})[1:]
    changes: Sequence[dict[str, Any]] = (
        {"stage": "up_next"},
        {"stage": "in_progress", "work_started_note": "Looking into it"},
        {"stage": "validation", "implementation_notes": "See the log", "priority": "low", "evidence": None},
        {"stage": "validation"},
    )
    read_at = None
    for change in changes:
        _, status, answer, _ = ask("PATCH", its, {**change, "updated_at": read_at}, whole=True)
        read_at = answer["ticket"]["updated_at"]
        yield "PATCH", status, _anonymous(answer, made=True), None
    yield ask("PATCH", f"{path}/9999999", {"stage": "up_next"})
    yield ticket["id"]


def _second_page(ask: Ask, path: str) -> Iterator[Answer]:
    cursor = ask("GET", path, whole=True)[2]["next_cursor"]
    yield "second page", *ask("GET", f"{path}&cursor={cursor}")[1:]
    yield ask("GET", f"{path}&cursor=none")
