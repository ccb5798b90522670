"""History: every write appends an event row in its own statement or transaction.

Events of a scope are read in the order of `(transaction_id, id)`, and only up to the horizon, before which all
transactions have ended (`after_position`). The order of a sequence alone would not do: its numbers are taken before
commit, so a reader would skip a row that is committed late. For one ticket the order of reading is that of its
versions: its writers wait for each other, so `id` counts up, and `transaction_id` is never less than that of the
version before (greatest() in `next_version`, as a writer that waited may have the lower id). Transaction ids include an
epoch (epochs.py), so that there is one order across all servers that the database was on.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import (
    ARRAY,
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
    Numeric,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    select,
    true,
    tuple_,
    values,
)

from service.directory import METADATA
from service.epochs import SERVER, in_epoch
from service.operation import Call
from service.storage.database import Xid8
from service.storage.scope import scoped_by

# The `changes` of an event without changes.
NOTHING = cast(literal("{}", Text), JSON)
THIS_TRANSACTION = in_epoch(func.pg_current_xact_id())
# The horizon: every transaction before this one has ended, as have all of earlier epochs.
HORIZON = in_epoch(func.pg_snapshot_xmin(func.pg_current_snapshot()))
# No transaction has this id yet.
NEXT_TRANSACTION = in_epoch(func.pg_snapshot_xmax(func.pg_current_snapshot()))


# The actor of changes that the service itself makes.
SYSTEM = "system"


def last_transaction() -> Column[Any]:
    """A ticket's column: the highest transaction that wrote it, for its events."""
    return Column("transaction_id", Xid8, nullable=False, server_default=THIS_TRANSACTION)


def next_version(tickets: FromClause) -> dict[str, ColumnElement[Any]]:
    """What every change of a ticket sets beside its members: the version and the transaction of its event."""
    return {
        "version": tickets.c.version + 1,
        "transaction_id": func.greatest(tickets.c.transaction_id, THIS_TRANSACTION, type_=Xid8()),
    }


def event_table(
    name: str,
    *scope: Column[Any],
    ticket_id: Column[Any],
    own: Sequence[Column[Any]] = (),
    narrower: Mapping[str, Iterable[str] | Mapping[str, str]] | None = None,
) -> Table:
    """The events of one dialect's tickets, keyed by the dialect's scope columns first.

    `own` are columns that no other dialect has, `narrower` is as for `scoped_by`.
    """
    names = [column.name for column in scope]
    return Table(
        name,
        METADATA,
        *scope,
        Column("id", BigInteger, Identity(always=True)),
        # The ticket's `last_transaction` as of this version.
        Column("transaction_id", Xid8, nullable=False, server_default=THIS_TRANSACTION),
        ticket_id,
        # Counts the ticket's changes from 1, its creation.
        Column("version", Integer, nullable=False),
        Column("type", Text, nullable=False),
        # {"member": {"from": …, "to": …}}; empty for a creation, whose values are the ticket's own.
        Column("changes", JSON, nullable=False),
        # Who was authenticated: a token's `sub` or an API key's id.
        Column("actor", Text, nullable=False),
        Column("request_id", Text, nullable=False),
        *own,
        # When the row was written and not when its transaction began: it may have waited for the ticket's lock.
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
        PrimaryKeyConstraint(*names, "transaction_id", "id"),
        Index(None, *names, ticket_id.name, "version", unique=True),
        info=scoped_by(*names, narrower=narrower),
    )


def append(
    table: Table,
    ticket: FromClause,
    kind: ColumnElement[str] | str,
    changes: ColumnElement[Any] = NOTHING,
    own: Mapping[str, ColumnElement[Any]] = MappingProxyType({}),
) -> CTE:
    """The part of a statement that appends one event for each row of `ticket`, a CTE that wrote tickets.

    `ticket` has the event table's scope columns, `id`, `version` and `transaction_id`. The statement takes the
    parameters of `actor_of`.
    """
    scope = [column.name for column in _scope_of(table)]
    names = [*scope, "ticket_id", "version", "transaction_id", "type", "changes", "actor", "request_id", *own]
    row = select(
        *(ticket.c[name] for name in scope),
        ticket.c.id,
        ticket.c.version,
        ticket.c.transaction_id,
        literal(kind, Text) if isinstance(kind, str) else kind,
        changes,
        bindparam("actor", type_=Text),
        bindparam("request_id", type_=Text),
        *own.values(),
    )
    return insert(table).from_select(names, row).returning(table.c.id).cte("event")


def actor_of(call: Call) -> dict[str, Any]:
    """The parameters that every event takes from the call."""
    return {"actor": call.caller.subject, "request_id": call.request_id}


def after_position(table: Table, scope: ColumnElement[bool], *, until: bool = False) -> Select[Any]:
    """At most `rows` events after the position `after_transaction`, `after_id`, in the order of positions.

    With `until`, up to and including the position `until_transaction`, `until_id`.
    """
    position = tuple_(table.c.transaction_id, table.c.id)
    after, last = (
        tuple_(_xid8(f"{name}_transaction"), bindparam(f"{name}_id", type_=BigInteger)) for name in ("after", "until")
    )
    return (
        select(table)
        .where(scope, position > after, *((position <= last,) if until else ()), table.c.transaction_id < HORIZON)
        .order_by(table.c.transaction_id, table.c.id)
        .limit(bindparam("rows", type_=Integer))
    )


def newest_in_scopes(table: Table) -> Select[Any]:
    """The newest of the events from transaction `since` on of each of `scopes`, with the `horizon` and the `server`.

    One row for each scope (and each value of a narrower column) that has such an event; one without any when none has.
    """
    scope, *narrower = _scope_of(table)
    scopes = func.unnest(bindparam("scopes", type_=ARRAY(scope.type))).table_valued(column("scope", scope.type))
    scopes = scopes.render_derived(name="asked")
    asked: FromClause = scopes
    same = [scope == scopes.c.scope]
    for narrow in narrower:
        # Without it the index would be scanned over all of the scope's events. A narrower column has two values.
        both = values(column("value", narrow.type), name=narrow.name, literal_binds=True).data([(False,), (True,)])
        same.append(narrow == both.c.value)
        asked = asked.join(both, true())
    newest = (
        select(table.c.transaction_id, table.c.id)
        .where(*same, table.c.transaction_id >= _xid8("since"), table.c.transaction_id < HORIZON)
        .order_by(table.c.transaction_id.desc(), table.c.id.desc())
        .limit(1)
        .lateral("newest")
    )
    now = select(
        cast(cast(HORIZON, Text), Numeric).label("horizon"), SERVER.c.system_identifier.label("server")
    ).subquery("now")
    return select(now, scopes.c.scope, newest).select_from(now.outerjoin(asked.join(newest, true()), true()))


def event_at(table: Table) -> Select[Any]:
    """Whether there is an event at the position `transaction_id`, `id` of a `scope`: one row, or none."""
    scope, *narrower = _scope_of(table)
    return select(table.c.id).where(
        scope == bindparam("scope", type_=scope.type),
        *(narrow.in_([false(), true()]) for narrow in narrower),
        table.c.transaction_id == _xid8("transaction_id"),
        table.c.id == bindparam("id", type_=BigInteger),
    )


def _scope_of(table: Table) -> list[Column[Any]]:
    return [c for c in table.primary_key.columns if c.name not in ("transaction_id", "id")]


def _xid8(name: str) -> ColumnElement[Any]:
    return cast(bindparam(name, type_=Text), Xid8)


def next_instant(last_change: ColumnElement[Any]) -> ColumnElement[Any]:
    """The instant of a change: now, but after the last change, even where that ended after this transaction began."""
    return func.greatest(func.now(), last_change + literal_column("interval '1 microsecond'"))


def kind_of_change(before: FromClause, after: FromClause) -> ColumnElement[str]:
    """The type of the event of a change: closed, reopened, or updated."""
    was, is_now = before.c.status == "closed", after.c.status == "closed"
    return case(
        (and_(is_now, not_(was)), "ticket.closed"), (and_(was, not_(is_now)), "ticket.reopened"), else_="ticket.updated"
    )


_INSTANT_FORMAT = literal_column("""'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'""", Text)
_UTC, _NO_MICROSECONDS, _NOTHING_THERE = (literal_column(f"'{text}'", Text) for text in ("UTC", ".000000", ""))


def _json(member: ColumnElement[Any]) -> ColumnElement[Any]:
    """A member as JSON; an instant as it is in answers, in UTC with a `Z`."""
    if not isinstance(member.type, DateTime):
        return func.to_json(member)
    instant = func.to_char(func.timezone(_UTC, member), _INSTANT_FORMAT)
    # Answers leave out microseconds that are none.
    return func.to_json(func.replace(instant, _NO_MICROSECONDS, _NOTHING_THERE, type_=Text))


def changes(before: FromClause, after: FromClause, names: Sequence[str]) -> ColumnElement[Any]:
    """The JSON of what differs between two rows: `{"status": {"from": "open", "to": "closed"}}`."""
    if not names:
        return NOTHING
    old_and_new = [(literal(name, Text), _json(before.c[name]), _json(after.c[name])) for name in names]
    pair = values(Column("name", Text), Column("old", JSON), Column("new", JSON), name="pair").data(old_and_new)
    change = func.json_build_object("from", pair.c.old, "to", pair.c.new)
    return (
        select(func.coalesce(func.json_object_agg(pair.c.name, change), NOTHING))
        .where(cast(pair.c.old, Text).is_distinct_from(cast(pair.c.new, Text)))
        .scalar_subquery()
    )
