"""ITSM histories and watches at both transports: which events they have, who may read them, and how a watch ends."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from support.system import Program, World
from support.transports import Grpc, Reply, Rest
from support.watches import ITSM, Transport, WatchMessages, next_event, next_of

from service import events
from service.admin import operations as admin
from service.itsm import queries, tables
from service.storage.scope import EVERYONE
from service.storage.statement import Statement

TICKET = {"subject": "VPN is down", "description": "Since nine."}


async def create(transport: Transport, program: Program, **members: Any) -> Any:
    return (await transport.call("itsm.create", program.credential, body={**TICKET, **members})).succeeded(201)


async def change(transport: Transport, program: Program, ticket: Any, **changes: Any) -> Reply:
    return await transport.call("itsm.update", program.credential, path={"ticket_id": ticket["id"]}, body=changes)


async def page(transport: Transport, program: Program, ticket_id: str, **query: Any) -> Reply:
    return await transport.call("itsm.events", program.credential, path={"ticket_id": ticket_id}, query=query)


async def history(transport: Transport, program: Program, ticket: Any) -> list[Any]:
    answer = (await page(transport, program, ticket["id"], limit=100)).succeeded()
    assert (set(answer), answer["next_cursor"]) == ({"events", "next_cursor"}, None)
    found: list[Any] = answer["events"]
    return found


async def ended(stream: WatchMessages) -> list[Any]:
    """Check that an invalid key has ended a watch; returns the events before that. A heartbeat may come at any time."""
    events = list[Any]()
    while isinstance(came := await anext(stream), dict):
        if came["event"] is not None:
            events.append(came["event"])
    if came.transport == "grpc":
        came.failed("invalid_token", "Invalid API key")
    else:
        assert came.body == {"detail": "Invalid API key"}
    return events


# Histories


async def test_a_history_has_every_change_of_a_ticket(transport: Transport, world: World) -> None:
    program = await world.program()
    made = await create(transport, program, priority="low", metadata={"floor": 3})
    for changes in ({"status": "closed"}, {"status": "open", "priority": None}, {"metadata": {"floor": 3.5}}):
        (await change(transport, program, made, **changes)).succeeded()
    events = await history(transport, program, made)
    assert [(event["version"], event["type"], event["changes"]) for event in events] == [
        (1, "ticket.created", {}),
        (2, "ticket.closed", {"status": {"from": "open", "to": "closed"}}),
        (3, "ticket.reopened", {"status": {"from": "closed", "to": "open"}, "priority": {"from": "low", "to": None}}),
        (4, "ticket.updated", {"metadata": {"from": {"floor": 3}, "to": {"floor": 3.5}}}),
    ]
    whose = {"account_id": program.account_id, "ticket_id": made["id"], "actor": program.key_id}
    names = {"version", "type", "changes", "request_id", "created_at", *whose}
    assert all(set(event) == names and event.items() >= whose.items() for event in events)
    assert len({event["request_id"] for event in events}) == 4


async def test_a_history_comes_in_pages(transport: Transport, world: World) -> None:
    program = await world.program()
    made, other = [await create(transport, program) for _ in range(2)]
    for number in range(4):
        (await change(transport, program, made, subject=str(number))).succeeded()
    pages, query = list[list[int]](), {"limit": 2}
    while query.get("cursor", "") is not None:
        answer = (await page(transport, program, made["id"], **query)).succeeded()
        pages.append([event["version"] for event in answer["events"]])
        query["cursor"] = answer["next_cursor"]
    assert pages == [[1, 2], [3, 4], [5]]
    cursor = (await page(transport, program, made["id"], limit=2)).succeeded()["next_cursor"]
    for ticket_id, given in (
        (other["id"], cursor),
        (made["id"], await ITSM.start_cursor(transport, program.credential)),
        (made["id"], "x"),
    ):
        (await page(transport, program, ticket_id, cursor=given)).failed("validation_error", paths=["cursor"])
    for limit in (0, 101):
        (await page(transport, program, made["id"], limit=limit)).failed("validation_error", paths=["limit"])


async def test_a_history_is_the_accounts_and_modes_own(transport: Transport, world: World) -> None:
    program = await world.program()
    made = await create(transport, program)
    strangers = [await world.program(), await world.program(account_id=program.account_id, test=True)]
    for stranger in strangers:
        (await page(transport, stranger, made["id"])).failed("not_found", "Ticket not found")
    (await page(transport, program, str(uuid4()))).failed("not_found", "Ticket not found")
    (await page(transport, program, "x")).failed("validation_error", paths=["ticket_id"])


# Watches


async def test_a_watch_streams_events_as_they_happen(transport: Transport, world: World) -> None:
    program = await world.program()
    made = await create(transport, program)
    await world.settled()
    async with ITSM.watching(transport, program.credential) as stream:
        first = await next_of(stream)
        assert first["event"] is None
        (await change(transport, program, made, status="closed")).succeeded()
        assert [await next_event(stream)] == (await history(transport, program, made))[1:]
    last = await create(transport, program)
    assert len(await ITSM.emitted(transport, program.credential, first["cursor"], last)) == 1


async def test_a_watch_has_the_tickets_of_the_keys_account_and_mode(transport: Transport, world: World) -> None:
    live = await world.program()
    test = await world.program(account_id=live.account_id, test=True)
    other = await world.program()
    cursors = [(one, await ITSM.start_cursor(transport, one.credential)) for one in (live, test, other)]
    made = {one.key_id: await create(transport, one) for one in (live, test, other)}
    for one, cursor in cursors:
        watched = await ITSM.emitted(transport, one.credential, cursor, await create(transport, one))
        assert [event["ticket_id"] for event in watched] == [made[one.key_id]["id"]]
    # Another key of the account and mode may resume; no other may.
    second = await world.program(account_id=live.account_id)
    for one, reason in ((second, None), (test, "validation_error"), (other, "validation_error")):
        async with ITSM.watching(transport, one.credential, cursors[0][1]) as stream:
            came = await anext(stream)
        assert (came.failed(reason, paths=["cursor"]) if isinstance(came, Reply) and reason else came) is not None
        assert isinstance(came, Reply) == (reason is not None)


async def test_a_key_that_ends_ends_its_watches_within_seconds(rest: Rest, rpc: Grpc, world: World) -> None:
    async def watch_to_the_end(transport: Transport, end: Callable[[str], Awaitable[Any]]) -> None:
        program = await world.program()
        stays = await world.program(account_id=program.account_id)
        async with (
            ITSM.watching(transport, program.credential) as stream,
            ITSM.watching(transport, stays.credential) as other,
        ):
            for one in (stream, other):
                await next_of(one)
            await end(program.key_id)
            async with asyncio.timeout(5):
                assert await ended(stream) == []
            made = await create(transport, stays)
            assert (await next_event(other))["ticket_id"] == made["id"]

    async def revoke(key_id: str) -> None:
        await world.operate(admin.revoke_api_key, api_key_id=key_id)

    async def expire(key_id: str) -> None:
        world.run("UPDATE api_keys SET expires_at = now() WHERE id = %s", key_id)

    await asyncio.gather(*(watch_to_the_end(transport, end) for transport in (rest, rpc) for end in (revoke, expire)))


async def test_a_revoked_key_gets_no_more_events(transport: Transport, world: World) -> None:
    program = await world.program()
    writer = await world.program(account_id=program.account_id)
    async with ITSM.watching(transport, program.credential) as stream:
        await next_of(stream)
        await world.operate(admin.revoke_api_key, api_key_id=program.key_id)
        await create(transport, writer)
        assert await ended(stream) == []


async def test_a_key_that_may_not_read_may_not_watch(transport: Transport, world: World) -> None:
    program = await world.program(scopes=("tickets:write",))
    made = await create(transport, program)
    message = "API key missing required scope: tickets:read"
    (await page(transport, program, made["id"])).failed("missing_scope", message)
    async with ITSM.watching(transport, program.credential) as stream:
        refused = await anext(stream)
    assert isinstance(refused, Reply)
    refused.failed("missing_scope", message)


# Plans


@pytest.fixture(scope="module")
def large(world: World) -> Iterator[psycopg.Connection[Any]]:
    """An account of 50,000 events in each mode."""
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(
            "INSERT INTO itsm_events (account_id, live, ticket_id, version, type, changes, actor, request_id,"
            " transaction_id) SELECT %s, n %% 2 = 0, gen_random_uuid(), 1, 'ticket.created', '{}', 'me', 'r',"
            " n::text::xid8 FROM generate_series(1, 100000) n",
            (ACCOUNT,),
        )
        connection.execute("INSERT INTO accounts (id, name) VALUES (%s, 'An account')", (ACCOUNT,))
        connection.execute(
            "INSERT INTO api_keys (id, account_id, key_hash, live, scopes) VALUES (%s, %s, 'hash', true, '{}')",
            (KEY, ACCOUNT),
        )
        connection.execute("ANALYZE itsm_events")
        yield connection
        connection.rollback()


ACCOUNT, KEY = uuid4(), uuid4()
PLACE = {"after_transaction": "100000", "after_id": 0, "rows": 200, "key_ids": [KEY]}


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        (
            Statement(events.newest_in_scopes(tables.events), scope=EVERYONE("as a watch looks")),
            {"scopes": [ACCOUNT], "since": "100001"},
        ),
        (
            Statement(events.newest_in_scopes(tables.events), scope=EVERYONE("as a watch begins")),
            {"scopes": [ACCOUNT], "since": "0"},
        ),
        (queries.EVENTS_AFTER, {"account_id": ACCOUNT, "live": True, **PLACE}),
    ],
    ids=["newest in scopes", "newest of all", "events after"],
)
def test_a_look_for_events_reads_little_however_much_there_was(
    large: psycopg.Connection[Any], statement: Statement, given: dict[str, Any]
) -> None:
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    large.execute(b"PREPARE look AS " + statement.sql)
    try:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE look({', '.join(['%s'] * len(values))})"
        [[[plan]]] = large.execute(explain, values).fetchall()
    finally:
        large.execute("DEALLOCATE look")
    assert plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"] < 30, plan
