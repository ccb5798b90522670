"""The use cases of the ITSM API."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from service import etags, events, idempotency, jsontext, paging, positions, watch
from service.background import paced
from service.errors import TicketError
from service.itsm import day_queries, days, metadata, queries, total_queries, views
from service.itsm.commands import (
    CreateTicket,
    GetTicket,
    ListTicketEvents,
    ListTickets,
    UpdateTicket,
    WatchTickets,
)
from service.itsm.delivery.queue import MIRRORED
from service.itsm.dependencies import ItsmDependencies
from service.itsm.keys import KEYS
from service.numbering import uuid7
from service.operation import Call, one_statement, operation, optimistic, own_transactions
from service.search import tsqueries, tsquery
from service.storage.database import Connection, Database
from service.storage.row_version import written

# How often a watch checks its key: a revoked one ends it within five seconds, as it ends everything else.
_KEY_CHECK_SECONDS = 3.0

# How many tickets a list reads to skip them, before it looks for a shorter way.
_MAX_WALK = 1_000
# Tickets of one step of a recount: some ten milliseconds.
_RECOUNTED_ROWS = 50_000
# Long pauses: a recount is in no hurry, as lists by date are exact without it.
_RECOUNT_PAUSE = 2.0


@own_transactions(CreateTicket)
async def create_ticket(dependencies: ItsmDependencies, call: Call, command: CreateTicket) -> views.Ticket:
    """Create a ticket, at the account's provider first if it is linked to one, once for each idempotency key."""
    scope = _scope(call)
    terms = {"metadata_terms": metadata.index_terms(**scope, metadata=command.body.metadata)}
    ticket = {**scope, "id": uuid7(), **terms, **events.actor_of(call), **vars(command.body)}
    ticket["search_terms"] = views.search_terms(ticket)
    if call.caller.is_linked:
        return _answer(call, await dependencies.deliveries.create(call, command, ticket))
    return _answer(call, await idempotency.create_once(dependencies.database, call, command, queries.CREATE, ticket))


@operation(GetTicket, run=one_statement)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> views.Ticket:
    """Read one ticket."""
    return _answer(call, await connection.one(queries.GET, _scope(call) | vars(command.path)))


@operation(ListTickets, run=one_statement)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> views.TicketPage:
    """A page of the account's tickets, newest first, and how many match."""
    scope = _scope(call)
    given = {name: value for name, value in command.query if value is not None}
    if members := given.pop("metadata", None):
        given["metadata_terms"] = metadata.query_terms(**scope, members=members)
    if (q := given.pop("q", None)) is not None:
        given["search_terms"] = tsquery(views.search_scope(**scope), q)
        given |= {"words": words} if len(words := tsqueries(views.search_scope(**scope), q)) > 1 else {}
    filters = frozenset(given) - {"limit", "offset"}
    query = command.query
    statement = queries.list_tickets(
        filters, skips=query.offset > 0, far=query.offset > _MAX_WALK, short=paging.is_short(query.limit)
    )
    ends = days.ends(query.start_date, query.end_date)
    rows = await connection.all(statement, scope | given | ends)
    return {
        "tickets": [views.ticket(row) for row in rows if row["id"] is not None],
        "total": rows[0]["total"],
        "limit": query.limit,
        "offset": query.offset,
    }


@own_transactions(UpdateTicket)
async def update_ticket(dependencies: ItsmDependencies, call: Call, command: UpdateTicket) -> views.Ticket:
    """Change some members of a ticket, here and then at the account's provider; any status may follow any other.

    What changes nothing is not written, and its provider is not called.
    """
    changed = {name: getattr(command.body, name) for name in command.body.model_fields_set - {"etag"}}
    conditions = (command.header.if_match, command.body.etag)
    texts = {name: changed[name] for name in queries.TEXTS if name in changed}
    # A statement alone can neither compare JSON values, nor refuse the change, nor make the index terms of both texts.
    must_look = "metadata" in changed or len(texts) == 1 or any(condition is not None for condition in conditions)
    values = {f"new_{name}": value for name, value in changed.items()}
    if "metadata" in changed:
        values["new_metadata_terms"] = metadata.index_terms(**_scope(call), metadata=changed["metadata"])
    delivery = _delivery(changed) if call.caller.live else {}
    named = _scope(call) | events.actor_of(call) | vars(command.path)
    is_mirrored = False

    async def act(connection: Connection) -> views.Ticket:
        nonlocal is_mirrored
        members, searched = frozenset(changed), texts
        if must_look:
            before = _found(await connection.one(queries.ticket_to_change(locks=connection.holds_locks), named))
            etags.require_match(etags.of_version(before["version"]), *conditions)
            if "metadata" in changed and before["metadata"] == changed["metadata"]:
                members -= {"metadata"}
            searched = {name: before[name] for name in queries.TEXTS} | texts
            values["row_version"] = before["row_version"]
        if texts:
            values["new_search_terms"] = views.search_terms({**_scope(call), **searched})
        statement = queries.update_ticket(members, mirrored=bool(delivery), as_read=must_look)
        row = await connection.one(statement, named | values | delivery, commit=must_look)
        ticket = written(row) if must_look else _found(row)
        is_mirrored = ticket["is_mirrored"]
        return _answer(call, ticket)

    ticket = await idempotency.once(
        dependencies, call, KEYS, command, act, run=optimistic if must_look else one_statement
    )
    if is_mirrored and not call.replayed:
        await dependencies.deliveries.deliver(call, delivery["delivery_id"])
    return ticket


def _delivery(changed: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the delivery of a change; none when the provider has none of the members."""
    mirrored = {name: value for name, value in changed.items() if name in MIRRORED}
    return {"delivery_id": uuid7(), "members": jsontext.text(mirrored)} if mirrored else {}


@operation(ListTicketEvents, run=one_statement)
async def list_ticket_events(connection: Connection, call: Call, command: ListTicketEvents) -> views.TicketEventPage:
    """A page of a ticket's history, oldest first."""
    query, named = command.query, _scope(call) | vars(command.path)
    binding = jsontext.dump(["itsm events", named]).decode()
    (after,) = (0,) if query.cursor is None else paging.decode(query.cursor, binding, paging.BY_VERSION)
    rows = await connection.all(queries.LIST_EVENTS, {**named, "after_version": after, "rows": query.limit + 1})
    if not rows:
        raise _no_ticket()
    found = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(found, query.limit, binding, "version")
    return {"events": [views.event(row) for row in page], "next_cursor": next_cursor}


@watch.watch(WatchTickets)
async def watch_tickets(feed: watch.EventFeed, call: Call, command: WatchTickets) -> AsyncIterator[views.WatchMessage]:
    """Every change of the account's tickets as it happens, while the key is valid."""
    scope = _scope(call)
    binding = jsontext.dump(["itsm watch", scope]).decode()

    async def read(position: positions.Position, rows: int, key_ids: Sequence[UUID]) -> watch.Found[views.TicketEvent]:
        named = {**scope, "key_ids": key_ids, "rows": rows}
        found = await feed.database.all(queries.EVENTS_AFTER, {**named, **position.parameters()})
        return watch.found(found, views.event, found[0]["valid_keys"] or ())

    reader = watch.Reader(tuple(scope.values()), read, UUID(call.caller.subject), _invalid_key)
    start = positions.resumed(command.query.cursor, binding)
    following = watch.follow(feed, scope["account_id"], call, reader, start, look_seconds=_KEY_CHECK_SECONDS)
    async for event, reached in following:
        lag = feed.lag() if event is None else {}
        yield {"event": event, "cursor": feed.cursor(binding, reached), **lag}


async def merge_totals(connection: Connection) -> None:
    """Merge the appended changes into the totals of all accounts; run in the background, so that lists stay cheap.

    All of them: after a burst, or a lock that was held for long, one batch a turn would fall ever further behind.
    """
    is_full = True
    while is_full:
        merged = await connection.all(total_queries.MERGE, {})
        is_full = bool(merged) and merged[0]["merged"] == total_queries.MAX_MERGED_ROWS
    newest = await connection.one(total_queries.NEWEST, {})
    await connection.all(total_queries.RAISE_FLOOR, newest or {"newest": 0})


async def recount_days(database: Database) -> None:
    """Recount the days of accounts whose totals by day a process of another version, or a restore, has lost.

    Run in the background, in every process. Until it is done, the totals of their lists by date are counted each time.
    """
    await database.all(day_queries.QUEUE_RECOUNTS, {})
    while True:
        async with paced(_RECOUNT_PAUSE), database.transaction() as connection:
            place = await connection.one(day_queries.NEXT_RECOUNT, {})
            if place is None:
                return
            await connection.one(day_queries.RECOUNT, {**place, "rows": _RECOUNTED_ROWS}, commit=True)


def _scope(call: Call) -> dict[str, Any]:
    return {"account_id": call.caller.account_id, "live": call.caller.live}


def _invalid_key() -> TicketError:
    return TicketError("invalid_token", "Invalid API key")


def _answer(call: Call, row: dict[str, Any] | None) -> views.Ticket:
    """The answer that is one ticket, with its ETag. Raises TicketError `not_found` when there is none."""
    ticket = _found(row)
    call.etag = etags.of_version(ticket["version"])
    return views.ticket(ticket)


def _found(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        raise _no_ticket()
    return row


def _no_ticket() -> TicketError:
    return TicketError("not_found", "Ticket not found")
