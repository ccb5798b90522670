"""History: every write appends an event row in its own statement or transaction."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    FromClause,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    not_,
    select,
    text,
    values,
)

from service.database import Xid8
from service.directory import METADATA
from service.operation import Call

_NOTHING = cast(literal("{}", Text), JSON)


def event_table(name: str, *scope: Column[Any], ticket_id: Column[Any]) -> Table:
    """The events of one dialect's tickets, keyed by the dialect's scope columns first."""
    names = [column.name for column in scope]
    return Table(
        name,
        METADATA,
        *scope,
        Column("id", BigInteger, Identity(always=True)),
        # A sequence is drawn before commit: readers need the transaction too, so as not to step over a late one.
        Column("transaction_id", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
        ticket_id,
        # Counts the ticket's changes from 1, its creation.
        Column("version", Integer, nullable=False),
        Column("type", Text, nullable=False),
        # {"member": {"from": …, "to": …}}; empty for a creation, whose values are the ticket's own.
        Column("changes", JSON, nullable=False),
        # Who was authenticated: a token's `sub` or an API key's id.
        Column("actor", Text, nullable=False),
        Column("request_id", Text, nullable=False),
        # When the row was written and not when its transaction began: it may have waited for the ticket's lock.
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        PrimaryKeyConstraint(*names, "id"),
        Index(None, *names, ticket_id.name, "version", unique=True),
    )


def append(
    table: Table, ticket: FromClause, kind: ColumnElement[str] | str, changes: ColumnElement[Any] = _NOTHING
) -> CTE:
    """The part of a statement that appends one event for each row of `ticket`, a CTE that wrote tickets.

    `ticket` has the event table's scope columns, `id` and `version`. Takes the parameters of `who`.
    """
    scope = [column.name for column in table.primary_key.columns if column.name != "id"]
    names = [*scope, "ticket_id", "version", "type", "changes", "actor", "request_id"]
    row = select(
        *(ticket.c[name] for name in scope),
        ticket.c.id,
        ticket.c.version,
        literal(kind, Text) if isinstance(kind, str) else kind,
        changes,
        bindparam("actor", type_=Text),
        bindparam("request_id", type_=Text),
    )
    return insert(table).from_select(names, row).returning(table.c.id).cte("event")


def who(call: Call) -> dict[str, Any]:
    """The parameters that every event takes from the call."""
    return {"actor": call.caller.subject, "request_id": call.request_id}


def next_instant(last_change: ColumnElement[Any]) -> ColumnElement[Any]:
    """The instant of a change: now, and after the last one even where this transaction began before it ended."""
    return func.greatest(func.now(), last_change + literal_column("interval '1 microsecond'"))


def kind_of_change(before: FromClause, after: FromClause) -> ColumnElement[str]:
    """The type of the event of a change: closing and reopening are told from the rest."""
    was, is_now = before.c.status == "closed", after.c.status == "closed"
    return case(
        (and_(is_now, not_(was)), "ticket.closed"), (and_(was, not_(is_now)), "ticket.reopened"), else_="ticket.updated"
    )


def changes(before: FromClause, after: FromClause, names: Sequence[str]) -> ColumnElement[Any]:
    """The JSON of what differs between two rows: `{"status": {"from": "open", "to": "closed"}}`."""
    if not names:
        return _NOTHING
    old_and_new = [(literal(name, Text), func.to_json(before.c[name]), func.to_json(after.c[name])) for name in names]
    pair = values(Column("name", Text), Column("old", JSON), Column("new", JSON), name="pair").data(old_and_new)
    change = func.json_build_object("from", pair.c.old, "to", pair.c.new)
    return (
        select(func.coalesce(func.json_object_agg(pair.c.name, change), _NOTHING))
        .where(cast(pair.c.old, Text).is_distinct_from(cast(pair.c.new, Text)))
        .scalar_subquery()
    )
