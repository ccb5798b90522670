"""contracts/itsm.md at both transports: the list's filters by time, priority and requester."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from support.built import at_once
from support.system import Program, World
from support.transports import Grpc, Rest

from service.itsm import queries

Transport = Rest | Grpc

TICKET = {"subject": "VPN is down", "description": "Since nine."}


async def create(transport: Transport, program: Program, subject: str, **members: Any) -> Any:
    body = {**TICKET, "subject": subject, **members}
    return (await transport.call("itsm.create", program.credential, body=body)).succeeded(201)


async def found(transport: Transport, program: Program, **query: Any) -> str:
    """The subjects of the tickets that match, oldest first; their total is exact, on each page."""
    answer = (await transport.call("itsm.list", program.credential, query=query)).succeeded()
    assert answer["total"] == len(answer["tickets"])
    second = (await transport.call("itsm.list", program.credential, query={**query, "limit": 1, "offset": 1})).body
    assert (second["total"], second["tickets"]) == (answer["total"], answer["tickets"][1:2])
    return "".join(ticket["subject"] for ticket in reversed(answer["tickets"]))


# "A date alone is that whole day: `start_date` its beginning, `end_date` its end (UTC)."

CREATED = {
    "a": "2026-11-25T23:59:59.999999Z",
    "b": "2026-11-26T00:00:00Z",
    "c": "2026-11-26T23:59:59.999999Z",
    "d": "2026-11-27T00:00:00Z",
}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"end_date": "2026-11-26"}, "abc"),
        ({"start_date": "2026-11-26"}, "bcd"),
        ({"start_date": "2026-11-26", "end_date": "2026-11-26"}, "bc"),
        ({"start_date": "2026-11-26", "end_date": "2026-11-25"}, ""),
        ({"end_date": "2026-11-26T00:00:00"}, "ab"),
        ({"end_date": "2026-11-26T02:00:00+02:00"}, "ab"),
        ({"start_date": "2026-11-26T23:59:59.999999Z"}, "cd"),
    ],
    ids=str,
)
async def test_a_date_alone_is_that_whole_day(rest: Rest, world: World, query: Any, expected: str) -> None:
    program = await world.program()
    for subject, instant in CREATED.items():
        ticket = await create(rest, program, subject)
        world.run("UPDATE itsm_tickets SET created_at = %s WHERE id = %s", instant, ticket["id"])
    # Its totals by day know nothing of that.
    world.run("INSERT INTO itsm_day_recounts VALUES (%s, true, '9999-12-31')", program.account_id)
    assert await found(rest, program, **query) == expected


# "Ours: `priority`, `requester_email`"


async def test_a_list_filters_by_priority_and_requester(transport: Transport, world: World) -> None:
    program, other = await world.program(), await world.program()
    await create(transport, other, "x", priority="high", requester_email="ada@corp.local")
    await create(transport, program, "a")
    await create(transport, program, "b", priority="high")
    await create(transport, program, "c", priority="high", requester_email="ada@corp.local")
    await create(transport, program, "d", priority="low", requester_email="ADA@Corp.Local", status="closed")
    last = await create(transport, program, "e", requester_email="bob@corp.local")
    for query, expected in (
        ({"priority": "high"}, "bc"),
        ({"priority": "urgent"}, ""),
        # As mail is delivered: without regard to the case of ASCII letters.
        ({"requester_email": "ada@corp.local"}, "cd"),
        ({"requester_email": "Ada@CORP.local"}, "cd"),
        ({"requester_email": "nobody@corp.local"}, ""),
        ({"priority": "high", "requester_email": "ada@corp.local"}, "c"),
        ({"priority": "low", "requester_email": "ada@corp.local", "status": "closed"}, "d"),
        ({"priority": "high", "end_date": last["created_at"], "status": "open"}, "bc"),
    ):
        assert await found(transport, program, **query) == expected, query
    # What a change makes of a ticket counts from then on.
    path = {"ticket_id": last["id"]}
    body = {"priority": "urgent", "requester_email": None}
    (await transport.call("itsm.update", program.credential, path=path, body=body)).succeeded()
    assert await found(transport, program, priority="urgent") == "e"
    assert await found(transport, program, requester_email="bob@corp.local") == ""


async def test_a_requester_is_an_address_by_its_form(transport: Transport, world: World) -> None:
    program = await world.program()
    for text in ("nobody", "Ada <ada@example.com>", " ada@example.com"):
        reply = await transport.call("itsm.list", program.credential, query={"requester_email": text})
        reply.failed("validation_error", paths=["requester_email"])


@pytest.fixture(scope="module")
def large(world: World) -> Iterator[psycopg.Connection[Any]]:
    """An account of 20,000 tickets, of which few are urgent and few a person's."""
    with psycopg.connect(world.database_url) as connection:
        connection.execute(
            "INSERT INTO itsm_tickets (account_id, live, subject, description, status, priority, requester_email,"
            " metadata, created_at) SELECT '00000000-0000-0000-0000-000000000001', true, '', '', 'open',"
            " CASE WHEN n %% 100 = 0 THEN 'urgent' WHEN n %% 2 = 0 THEN 'low' END, 'Person' || n %% 50 || '@a.b',"
            " '{}', timestamptz '2026-01-01Z' + n * interval '1 s' FROM generate_series(1, %s) n",
            [20_000],
        )
        connection.execute("ANALYZE itsm_tickets")
        yield connection
        # Other connections never see them.
        connection.rollback()


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({"priority": "urgent"}, "itsm_tickets_priority_newest_idx"),
        ({"requester_email": "person17@A.B"}, "itsm_tickets_requester_newest_idx"),
        ({"requester_email": "person17@A.B", "priority": "low"}, "itsm_tickets_requester_newest_idx"),
    ],
    ids=str,
)
def test_each_is_served_by_its_index(large: psycopg.Connection[Any], filters: dict[str, str], index: str) -> None:
    statement = at_once(queries.list_tickets)(frozenset(filters), skips=False)
    given = {"account_id": "00000000-0000-0000-0000-000000000001", "live": "true", "limit": "20", "offset": "0"}
    values = {**statement.constants, **given, **filters}
    large.execute(b"PREPARE list AS " + statement.sql)
    try:
        texts = ", ".join(f"'{values[name]}'" for name in statement.names)
        explain = f"EXPLAIN EXECUTE list({texts})"
        plan = "\n".join(line for (line,) in large.execute(explain).fetchall())
    finally:
        large.execute("DEALLOCATE list")
    scans = [line for line in plan.splitlines() if "Scan" in line and "itsm_tickets" in line]
    assert scans, plan
    assert all(index in line for line in scans if "Bitmap Heap Scan" not in line), plan
    # The page in the index's own order.
    assert "Sort Key: itsm_tickets.created_at" not in plan
