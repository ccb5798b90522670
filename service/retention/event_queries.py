"""The SQL that deletes events, alone or with their tickets, and raises the marks of their scopes with them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CTE, ColumnElement, FromClause, Table, and_, func, literal_column, select, tuple_, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.dialects.postgresql import insert as upsert

from service import purged
from service.helpdesk import tables as helpdesk
from service.retention.walk import SCOPE, delete_old, is_settled, take
from service.storage.statement import Statement
from service.webhooks.tables import WebhookTables


def delete_events(events: Table) -> Statement:
    """The statement that deletes old events of some blocks, and raises the marks of their scopes; how many."""
    gone = delete_old(events, events.c.created_at, is_settled(events)).returning(*_position(events)).cte("gone")
    return Statement(
        select(func.count().label("rows")).select_from(gone).add_cte(_raise_marks(events, gone)), scope=SCOPE
    )


def _position(events: Table) -> Sequence[ColumnElement[Any]]:
    return list(events.primary_key.columns)


def _raise_marks(events: Table, gone: CTE) -> CTE:
    """The part of a statement that raises the marks of the scopes of events that are gone.

    In the order of the scopes, as another process may be at the same.
    """
    marks = purged.marks_of(events)
    scope = [column.name for column in marks.primary_key.columns]
    keys = [gone.c[name] for name in scope]
    # The last columns of an event's key, in the order of the mark's.
    order = [gone.c[column.name] for column in events.primary_key.columns if column.name not in scope]
    newest = select(*keys, *order).ext(distinct_on(*keys)).order_by(*keys, *(column.desc() for column in order))
    raised = upsert(marks).from_select([*scope, *purged.POSITION], newest)
    new = {name: raised.excluded[name] for name in purged.POSITION}
    is_lower = tuple_(*(marks.c[name] for name in new)) < tuple_(*new.values())
    return (
        raised.on_conflict_do_update(index_elements=scope, set_=new, where=is_lower)
        .returning(literal_column("1").label("one"))
        .cte("raised")
    )


def move_webhooks(events: Table, of: WebhookTables) -> Statement:
    """The statement that moves webhooks whose next events were deleted after those, and records that they missed some.

    It runs in the transaction that deletes the events. Fan-out locks a webhook while it reads events: those that it has
    read by then are not missed.
    """
    webhooks, marks = of.webhooks, purged.marks_of(events)
    key = [column.name for column in webhooks.primary_key.columns]
    scope = [column.name for column in marks.primary_key.columns]
    mark = [marks.c[name].label(f"mark_{name}") for name in purged.POSITION]
    is_before = tuple_(*(webhooks.c[name] for name in purged.POSITION)) < tuple_(
        *(marks.c[name] for name in purged.POSITION)
    )
    passed = (
        select(*(webhooks.c[name] for name in key), *mark)
        .select_from(webhooks.join(marks, _same(webhooks, marks, scope)))
        .where(is_before)
        .order_by(*(webhooks.c[name] for name in key))
        .with_for_update(of=webhooks, key_share=True)
        .cte("passed")
    )
    moved = update(webhooks).where(_same(webhooks, passed, key))
    position = {name: passed.c[f"mark_{name}"] for name in purged.POSITION}
    return Statement(moved.values({**position, "missed_events_at": func.now()}).returning(webhooks.c.id), scope=SCOPE)


def delete_tickets() -> Statement:
    """The statement that deletes soft-deleted helpdesk tickets of some blocks with all that is theirs; how many.

    Their events are deleted too, and marks rise.
    """
    tickets, events = helpdesk.tickets, helpdesk.events
    places = take(tickets, tickets.c.deleted_at, tickets.c.is_deleted, is_settled(tickets))
    doomed = places.with_only_columns(tickets.c.tenant_id, tickets.c.id).cte("doomed")
    parts = []
    for table in (helpdesk.comments, helpdesk.pauses):
        of_doomed = table.delete().where(table.c.tenant_id == doomed.c.tenant_id, table.c.ticket_id == doomed.c.id)
        parts.append(of_doomed.returning(literal_column("1").label("one")).cte(f"gone_{table.name}"))
    its_events = events.delete().where(events.c.tenant_id == doomed.c.tenant_id, events.c.ticket_id == doomed.c.id)
    gone_events = its_events.returning(*_position(events)).cte("gone_events")
    gone = (
        tickets.delete()
        .where(_same(tickets, doomed, ["tenant_id", "id"]))
        .returning(literal_column("1").label("one"))
        .cte("gone")
    )
    counted = select(func.count().label("rows")).select_from(gone)
    return Statement(counted.add_cte(*parts, _raise_marks(events, gone_events)), scope=SCOPE)


def _same(one: FromClause, other: FromClause, names: Sequence[str]) -> ColumnElement[bool]:
    return and_(*(one.c[name] == other.c[name] for name in names))
