"""The use cases of the ITSM API."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from service import etags, events, idempotency, jsontext, paging, positions, watch
from service.background import paced
from service.errors import TicketError
from service.itsm import day_queries, days, index_terms, lookup, queries, total_queries, views
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
from service.operation import Call, autocommit, operation, optimistic, own_transactions
from service.search import tsqueries, tsquery
from service.storage.database import Connection, Database
from service.storage.row_version import written
from service.storage.statement import Row

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
    scope = lookup.scope(call)
    terms = {"metadata_terms": index_terms.metadata_terms(**scope, metadata=command.body.metadata)}
    ticket = {**scope, "id": uuid7(), **terms, **events.actor_of(call), **vars(command.body)}
    ticket["search_terms"] = index_terms.search_terms(ticket)
    if call.caller.is_linked:
        return _answer(call, await dependencies.deliveries.create(call, command, ticket))
    return _answer(call, await idempotency.create_once(dependencies.database, call, command, queries.CREATE, ticket))


@operation(GetTicket, transaction=autocommit)
async def get_ticket(connection: Connection, call: Call, command: GetTicket) -> views.Ticket:
    """Read one ticket."""
    return _answer(call, await connection.one(queries.GET, lookup.scope(call) | vars(command.path)))


@operation(ListTickets, transaction=autocommit)
async def list_tickets(connection: Connection, call: Call, command: ListTickets) -> views.TicketPage:
    """A page of the account's tickets, newest first, and how many match."""
    scope = lookup.scope(call)
    given = {name: value for name, value in command.query if value is not None}
    if members := given.pop("metadata", None):
        given["metadata_terms"] = index_terms.metadata_query_terms(**scope, members=members)
    if (q := given.pop("q", None)) is not None:
        given["search_terms"] = tsquery(index_terms.search_scope(**scope), q)
        given |= {"words": words} if len(words := tsqueries(index_terms.search_scope(**scope), q)) > 1 else {}
    filters = frozenset(given) - {"limit", "offset"}
    query = command.query
    statement = await queries.list_tickets(
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
    delivery = _delivery(changed) if call.caller.live else {}
    # A statement alone can neither compare JSON values, nor refuse the change, nor make the index terms of both texts.
    has_condition = any(condition is not None for condition in _conditions(command))
    is_blind = not (has_condition or "metadata" in changed or len(_texts(changed)) == 1)
    is_mirrored = False

    async def act(connection: Connection) -> views.Ticket:
        nonlocal is_mirrored
        before = None if is_blind else await _ticket_to_change(connection, call, command)
        ticket = await _change(connection, call, command, changed, before, delivery)
        is_mirrored = ticket["is_mirrored"]
        return _answer(call, ticket)

    ticket = await idempotency.once(
        dependencies, call, KEYS, command, act, transaction=autocommit if is_blind else optimistic
    )
    if is_mirrored and not call.replayed:
        await dependencies.deliveries.deliver(call, delivery["delivery_id"])
    return ticket


def _texts(changed: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of the members that words are searched in."""
    return {name: changed[name] for name in queries.TEXTS if name in changed}


def _conditions(command: UpdateTicket) -> tuple[str | None, str | None]:
    return command.header.if_match, command.body.etag


async def _ticket_to_change(connection: Connection, call: Call, command: UpdateTicket) -> Row:
    """The ticket as it is before the change, locked in a transaction. Raises TicketError `not_found`, `stale`."""
    statement = queries.ticket_to_change(locks=connection.holds_locks)
    before = lookup.found(await connection.one(statement, lookup.scope(call) | vars(command.path)))
    etags.require_match(etags.of_version(before["version"]), *_conditions(command))
    return before


async def _change(
    connection: Connection,
    call: Call,
    command: UpdateTicket,
    changed: Mapping[str, Any],
    before: Row | None,
    delivery: Mapping[str, Any],
) -> Row:
    """Write what changes; returns the ticket as it is then. Raises TicketError `not_found`, ChangedMeanwhileError.

    The ticket was read `before`, or else need not be. `delivery` has the parameters of a delivery, if there may be one.
    """
    scope, values = lookup.scope(call), {f"new_{name}": value for name, value in changed.items()}
    if "metadata" in changed:
        values["new_metadata_terms"] = index_terms.metadata_terms(**scope, metadata=changed["metadata"])
    if texts := _texts(changed):
        values["new_search_terms"] = index_terms.search_terms({**scope, **(before or {}), **texts})
    members = frozenset(changed)
    if before is not None:
        values["row_version"] = before["row_version"]
        if "metadata" in changed and before["metadata"] == changed["metadata"]:
            members -= {"metadata"}
    statement = await queries.update_ticket(members, mirrored=bool(delivery), as_read=before is not None)
    parameters = {**scope, **events.actor_of(call), **vars(command.path), **values, **delivery}
    row = await connection.one(statement, parameters, commit=before is not None)
    return lookup.found(row) if before is None else written(row)


def _delivery(changed: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the delivery of a change; none when the provider has none of the members."""
    mirrored = {name: value for name, value in changed.items() if name in MIRRORED}
    return {"delivery_id": uuid7(), "members": jsontext.text(mirrored)} if mirrored else {}


@operation(ListTicketEvents, transaction=autocommit)
async def list_ticket_events(connection: Connection, call: Call, command: ListTicketEvents) -> views.TicketEventPage:
    """A page of a ticket's history, oldest first."""
    query, named = command.query, lookup.scope(call) | vars(command.path)
    binding = paging.binding_of("itsm events", named)
    after = paging.version_after(query.cursor, binding)
    rows = await connection.all(queries.LIST_EVENTS, {**named, "after_version": after, "rows": query.limit + 1})
    if not rows:
        raise lookup.ticket_not_found()
    found = [row for row in rows if row["id"] is not None]
    page, next_cursor = paging.cut(found, query.limit, binding, "version")
    return {"events": [views.event(row) for row in page], "next_cursor": next_cursor}


@watch.watch(WatchTickets)
async def watch_tickets(feed: watch.EventFeed, call: Call, command: WatchTickets) -> AsyncIterator[views.WatchMessage]:
    """Every change of the account's tickets as it happens, while the key is valid."""
    scope = lookup.scope(call)
    binding = paging.binding_of("itsm watch", scope)

    async def read(position: positions.Position, rows: int, key_ids: Sequence[UUID]) -> watch.Found[views.TicketEvent]:
        named = {**scope, "key_ids": key_ids, "rows": rows}
        found = await feed.database.all(queries.EVENTS_AFTER, {**named, **position.parameters()})
        return watch.found(found, views.event, found[0]["valid_keys"] or ())

    reader = watch.Reader(tuple(scope.values()), read, UUID(call.caller.subject), _invalid_key)
    start = positions.resumed(command.query.cursor, binding)
    following = watch.follow(feed, scope["account_id"], call, reader, start, look_seconds=_KEY_CHECK_SECONDS)
    async for event, reached in following:
        yield feed.message(binding, event, reached)


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
            recount = await connection.one(day_queries.NEXT_RECOUNT, {})
            if recount is None:
                return
            await connection.one(day_queries.RECOUNT, {**recount, "rows": _RECOUNTED_ROWS}, commit=True)


def _invalid_key() -> TicketError:
    return TicketError("invalid_token", "Invalid API key")


def _answer(call: Call, row: Row | None) -> views.Ticket:
    """The answer that is one ticket, with its ETag. Raises TicketError `not_found` when there is none."""
    ticket = lookup.found(row)
    call.etag = etags.of_version(ticket["version"])
    return views.ticket(ticket)
