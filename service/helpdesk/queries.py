"""Every SQL statement of the helpdesk API, each within one tenant, and within one application where the token is."""

from functools import lru_cache

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Integer,
    Select,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    select,
    tuple_,
    update,
)

from service import events, idempotency, numbering
from service.helpdesk import tables
from service.helpdesk.commands import NewTicket, TicketChanges
from service.statement import Statement

tickets = tables.tickets

CHANGEABLE = tuple(TicketChanges.model_fields)


def _given(name: str) -> ColumnElement[object]:
    return bindparam(name, type_=tickets.c[name].type)


def _mine(by: frozenset[str]) -> tuple[ColumnElement[bool], ...]:
    """The conditions of tickets of the tenant that are not deleted, and have the values given for the columns `by`."""
    return (
        tickets.c.tenant_id == _given("tenant_id"),
        not_(tickets.c.is_deleted),
        *(tickets.c[name] == _given(name) for name in sorted(by - {"tenant_id"})),
    )


@lru_cache(maxsize=8)
def get_ticket(by: frozenset[str]) -> Statement:
    """The ticket that has the values given for the columns `by`: the caller's scope, and `id` or `number`."""
    return Statement(_ticket(by))


@lru_cache(maxsize=8)
def lock_ticket(by: frozenset[str]) -> Statement:
    """The same, and nobody else changes it before the transaction ends."""
    return Statement(_ticket(by).with_for_update())


def _ticket(by: frozenset[str]) -> Select[tuple[object, ...]]:
    return select(tickets).where(*_mine(by))


@lru_cache(maxsize=4)
def list_tickets(by: frozenset[str], *, onward: bool) -> Statement:
    """`rows` tickets, newest first, from the newest one or `onward` from behind a place in the list."""
    place = tuple_(tickets.c.created_at, tickets.c.id)
    behind = tuple_(
        bindparam("behind_created_at", type_=tickets.c.created_at.type), bindparam("behind_id", type_=tickets.c.id.type)
    )
    return Statement(
        select(tickets)
        .where(*_mine(by), *([place < behind] if onward else []))
        .order_by(tickets.c.created_at.desc(), tickets.c.id.desc())
        .limit(bindparam("rows", type_=Integer))
    )


def _create() -> idempotency.Creation:
    given = {name: _given(name) for name in ("tenant_id", "id", "app_id", *NewTicket.model_fields)}
    actor = bindparam("actor", type_=Text)
    scope = select((literal("helpdesk:", Text) + _given("tenant_id")).label("scope")).cte("scope")
    counter = numbering.next_number(scope)
    stamped = {
        "number": select(counter.c.number).scalar_subquery(),
        "created_by": actor,
        "updated_by": actor,
        "resolved_at": case((bindparam("resolved", type_=Boolean), func.now())),
    }
    ticket = insert(tickets).values({**given, **stamped}).returning(tickets).cte("ticket")
    return idempotency.creation(ticket, events.append(tables.events, ticket, "ticket.created"))


CREATE = _create()


@lru_cache(maxsize=4)
def update_ticket(by: frozenset[str]) -> Statement:
    """The statement that changes the members named in `changed` and appends the event that tells what changed.

    The row must be locked: then the row seen here is the row that is changed, and the event tells the truth.
    """
    # Not a column: a note is kept in the event alone.
    before = select(tickets, cast(null(), Text).label("resolution_note")).where(*_mine(by)).cte("before")
    stamp = events.next_instant(tickets.c.updated_at)
    stamped = {
        "resolved_at": case(
            {"stamp": stamp, "clear": null()},
            value=bindparam("resolution", type_=Text),
            else_=tickets.c.resolved_at,
        ),
        "updated_at": stamp,
        "updated_by": bindparam("actor", type_=Text),
        **events.next_version(tickets),
    }
    after = (
        update(tickets)
        .where(*_mine(by))
        .values({name: _changed(name) for name in CHANGEABLE} | stamped)
        .returning(tickets, bindparam("resolution_note", type_=Text).label("resolution_note"))
        .cte("after")
    )
    told = select(
        after,
        events.kind_of_change(before, after).label("kind"),
        events.changes(before, after, [*CHANGEABLE, "resolution_note"]).label("changes"),
    )
    written = told.select_from(after.join(before, after.c.id == before.c.id)).cte("written")
    event = events.append(tables.events, written, written.c.kind, written.c.changes)
    return Statement(select(after).add_cte(event))


def _changed(name: str) -> ColumnElement[object]:
    """A column's new value where `changed` names it: one statement for every set of members."""
    named = literal_column(f"'{name}'", Text) == any_(bindparam("changed", type_=ARRAY(Text)))
    return case((named, bindparam(f"new_{name}", type_=tickets.c[name].type)), else_=tickets.c[name])
