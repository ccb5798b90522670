"""Every SQL statement of helpdesk tickets and their events, within a tenant, and within an application for its token.

Those of comments are in comment_queries.py, those of service levels in sla/queries.py.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Integer,
    Numeric,
    Select,
    Text,
    and_,
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
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import TSQUERY, TSVECTOR, array

from service import events, idempotency, numbering
from service.directory import TENANT, TENANT_AND_APP
from service.helpdesk import tables
from service.helpdesk.commands import NewTicket, TicketMembers
from service.storage.scope import Scope
from service.storage.statement import Statement, bound, mine, parameter

tickets = tables.tickets

_QUOTE = literal_column("''''", Text)

CHANGEABLE = tuple(TicketMembers.model_fields)
# The columns of a ticket that only its SLA sets.
SLA_COLUMNS = ("sla_policy_given", "due_at_given", "first_response_due_at", "paused_at", "sla_emitted", "sla_look_at")


def _lexeme(text: ColumnElement[str]) -> ColumnElement[Any]:
    """The query for one index term, quoted as it is."""
    quoted = func.replace(func.replace(text, literal_column(r"'\'"), literal_column(r"'\\'")), _QUOTE, _QUOTE + _QUOTE)
    return cast(_QUOTE + quoted + _QUOTE, TSQUERY)


def found_by(by: frozenset[str], *, with_deleted: bool = False) -> tuple[ColumnElement[bool], ...]:
    """The conditions for tickets of the tenant that are not deleted and have the values given for the columns `by`."""
    return (
        *mine(tickets),
        *(() if with_deleted else (not_(tickets.c.is_deleted),)),
        *(tickets.c[name] == parameter(tickets.c[name]) for name in sorted(by - {"tenant_id"})),
    )


def scope_of(by: frozenset[str]) -> Scope:
    """The scope of a statement that finds tickets by these columns: with `app_id`, one application's."""
    return TENANT_AND_APP if "app_id" in by else TENANT


# One ticket that is locked: whether the caller sees it was decided when it was.
LOCKED_TICKET = mine(tickets, id=parameter(tickets.c.id))


@lru_cache(maxsize=16)
def get_ticket(by: frozenset[str], *, with_deleted: bool = False) -> Statement:
    """The ticket that has the values given for the columns `by`: the caller's scope, and `id` or `number`."""
    return Statement(_ticket(by, with_deleted), scope=scope_of(by))


@lru_cache(maxsize=16)
def lock_ticket(by: frozenset[str], *, with_deleted: bool = False) -> Statement:
    """The same, locked until the transaction ends; `stamp` is the instant of a change in this transaction."""
    stamp = events.next_instant(tickets.c.updated_at).label("stamp")
    return Statement(_ticket(by, with_deleted).add_columns(stamp).with_for_update(), scope=scope_of(by))


def _ticket(by: frozenset[str], with_deleted: bool) -> Select[tuple[object, ...]]:
    return select(*tables.SHOWN).where(*found_by(by, with_deleted=with_deleted))


class _Order(NamedTuple):
    """What a list is sorted by; among equals by the id, in the same direction."""

    key: ColumnElement[Any]
    descending: bool


_ORDERS: Mapping[str, _Order] = {
    "-created_at": _Order(tickets.c.created_at, descending=True),
    "created_at": _Order(tickets.c.created_at, descending=False),
    "-updated_at": _Order(tickets.c.updated_at, descending=True),
    # Tickets without a due instant come last.
    "due_at": _Order(tables.DUE, descending=False),
    "-priority": _Order(tables.RANK, descending=True),
}


def _any_of(name: str) -> Mapping[str, ColumnElement[bool]]:
    """The conditions for one value and for any of several: only for one value does an index keep the order."""
    column = tickets.c[name]
    return {
        name: column == parameter(column),
        f"any_{name}": column == any_(bindparam(f"any_{name}", type_=ARRAY(Text))),
    }


_in_tenant = _lexeme(literal_column("'@'") + parameter(tickets.c.tenant_id))
_tag = _lexeme(literal_column("'#'") + bindparam("tag", type_=Text))

_FILTERS: Mapping[str, ColumnElement[bool]] = {
    **_any_of("status"),
    **_any_of("type"),
    **_any_of("priority"),
    **_any_of("category"),
    **_any_of("assigned_to_id"),
    **_any_of("team_id"),
    **_any_of("submitted_by_id"),
    "unassigned": tickets.c.assigned_to_id.is_(None),
    "any_or_unassigned": or_(
        tickets.c.assigned_to_id.is_(None),
        tickets.c.assigned_to_id == any_(bindparam("any_or_unassigned", type_=ARRAY(Text))),
    ),
    "tag": tables.TAGS.op("@@")(_tag.op("&&")(_in_tenant)),
    "terms": tickets.c.search_terms.op("@@")(bindparam("terms", type_=TSQUERY)),
    "created_after": tickets.c.created_at >= bindparam("created_after", type_=tickets.c.created_at.type),
    "created_before": tickets.c.created_at < bindparam("created_before", type_=tickets.c.created_at.type),
    "updated_since": tickets.c.updated_at >= bindparam("updated_since", type_=tickets.c.updated_at.type),
    "overdue": and_(
        func.now() > tables.DUE,
        tickets.c.status != "resolved",
        tickets.c.status != "closed",
        # While a ticket is pending the clock of its SLA stands still.
        or_(tickets.c.paused_at.is_(None), tickets.c.due_at_given, tickets.c.due_at <= tickets.c.paused_at),
    ),
}


@lru_cache(maxsize=256)
def list_tickets(
    by: frozenset[str], filters: frozenset[str], sort: str, *, after: bool, with_deleted: bool = False
) -> Statement:
    """`rows` tickets in order, from the first one or, with `after`, after a position; each with its `sort_key`."""
    order = _ORDERS[sort]
    position = tuple_(order.key, tickets.c.id)
    last = tuple_(bindparam("after_key", type_=order.key.type), bindparam("after_id", type_=tickets.c.id.type))
    conditions = [*found_by(by, with_deleted=with_deleted), *(_FILTERS[name] for name in sorted(filters))]
    if after:
        conditions.append(position < last if order.descending else position > last)
    ordered = (part.desc() if order.descending else part.asc() for part in (order.key, tickets.c.id))
    rows = select(*tables.SHOWN, order.key.label("sort_key")).where(*conditions).order_by(*ordered)
    # With filters the best plan depends on their values.
    return Statement(rows.limit(bindparam("rows", type_=Integer)), scope=scope_of(by), prepared=not filters)


def _number_terms(number: ColumnElement[int]) -> ColumnElement[Any]:
    """The index terms of `TKT-0001`, as search.py has them."""
    digits = func.to_char(number, literal_column("'FM999999999999990000'"), type_=Text)
    return func.array_to_tsvector(array([literal_column("'tkt.'", Text) + digits, digits]), type_=TSVECTOR)


def _create(guard: idempotency.Guard) -> tuple[CTE, CTE]:
    names = (
        "tenant_id",
        "id",
        "app_id",
        "tag_terms",
        "search_terms",
        "created_at",
        *SLA_COLUMNS,
        *NewTicket.model_fields,
    )
    given = bound(tickets, *names)
    actor = bindparam("actor", type_=Text)
    scope = select((literal("helpdesk:", Text) + parameter(tickets.c.tenant_id)).label("scope")).where(*guard)
    counter = numbering.next_number(scope.cte("scope"))
    stamped = {
        "number": counter.c.number,
        "search_terms": given["search_terms"].op("||")(_number_terms(counter.c.number)),
        "created_by": actor,
        "updated_at": parameter(tickets.c.created_at),
        "updated_by": actor,
        "resolved_at": parameter(tickets.c.resolved_at),
    }
    values = {**given, **stamped}
    row = select(*values.values()).select_from(counter)
    ticket = insert(tickets).from_select(list(values), row).returning(*tables.SHOWN).cte("ticket")
    return ticket, events.append(tables.events, ticket, "ticket.created", own={"app_id": ticket.c.app_id})


CREATE = idempotency.creation(_create, scope=TENANT)


@lru_cache(maxsize=4)
def update_ticket(by: frozenset[str]) -> Statement:
    """The statement that sets the members named in `changed` and appends the event with what changed.

    The ticket must be locked: then the row read here is the row that is changed, and the event is true.
    """
    # A resolution note is not a column: only the event has it.
    before = select(*tables.SHOWN, cast(null(), Text).label("resolution_note")).where(*found_by(by)).cte("before")
    stamped = {
        "resolved_at": parameter(tickets.c.resolved_at),
        **bound(tickets, *SLA_COLUMNS),
        **write_stamps(),
    }
    after = (
        update(tickets)
        .where(*found_by(by))
        .values({name: _changed(name) for name in CHANGEABLE} | _changed_terms() | stamped)
        .returning(*tables.SHOWN, bindparam("resolution_note", type_=Text).label("resolution_note"))
        .cte("after")
    )
    change = select(
        after,
        events.kind_of_change(before, after).label("kind"),
        events.changes(before, after, [*CHANGEABLE, "resolution_note"]).label("changes"),
    )
    both = after.join(before, after.c.id == before.c.id)
    written = change.select_from(both).cte("written")
    event = events.append(tables.events, written, written.c.kind, written.c.changes, own={"app_id": written.c.app_id})
    ended = select(after.c.tenant_id, after.c.id, before.c.paused_at, after.c.updated_at).select_from(both)
    pause = (
        insert(tables.pauses)
        .from_select(
            ["tenant_id", "ticket_id", "started_at", "ended_at"],
            ended.where(before.c.paused_at.is_not(None), after.c.paused_at.is_(None)),
        )
        .cte("pause")
    )
    return Statement(select(after).add_cte(event, pause), scope=scope_of(by))


def _changed_terms() -> dict[str, ColumnElement[Any]]:
    """The columns that a ticket is searched by, of which the caller names none."""
    return {"tag_terms": _changed("tag_terms", "tags"), "search_terms": _changed("search_terms")}


def write_stamps() -> dict[str, ColumnElement[Any]]:
    """The columns of a ticket that every write stamps."""
    return {
        "updated_at": events.next_instant(tickets.c.updated_at),
        "updated_by": bindparam("actor", type_=Text),
        **events.next_version(tickets),
    }


def _set_deleted(*, deleted: bool) -> Statement:
    """The statement that deletes a locked ticket, softly, or restores it."""
    stamps = {"deleted_at": func.now(), "deleted_by": bindparam("actor", type_=Text)}
    after = (
        update(tickets)
        .where(*LOCKED_TICKET)
        .values({"is_deleted": deleted, **(stamps if deleted else dict.fromkeys(stamps, null())), **write_stamps()})
        .returning(*tables.SHOWN)
        .cte("after")
    )
    changes = func.json_build_object(
        text("'is_deleted'"),
        func.json_build_object(text("'from'"), not_(after.c.is_deleted), text("'to'"), after.c.is_deleted),
    )
    kind = "ticket.deleted" if deleted else "ticket.restored"
    event = events.append(tables.events, after, kind, changes, {"app_id": after.c.app_id})
    return Statement(select(after).add_cte(event), scope=TENANT)


DELETE, RESTORE = _set_deleted(deleted=True), _set_deleted(deleted=False)

_history = tables.events


@lru_cache(maxsize=16)
def list_events(by: frozenset[str], *, internal: bool) -> Statement:
    """`rows` events of a ticket after a version: one empty row for a ticket without any, no row without the ticket."""
    page = (
        select(_history)
        .where(
            _history.c.tenant_id == tickets.c.tenant_id,
            _history.c.ticket_id == tickets.c.id,
            _history.c.version > bindparam("after_version", type_=Integer),
            *((_history.c.app_id == tickets.c.app_id,) if "app_id" in by else ()),
            *(() if internal else (not_(_history.c.internal),)),
        )
        .order_by(_history.c.version)
        .limit(bindparam("rows", type_=Integer))
        .lateral("page")
    )
    ticket = found_by(by, with_deleted=True)
    return Statement(
        select(page).select_from(tickets.outerjoin(page, true())).where(*ticket).order_by(page.c.version),
        scope=scope_of(by),
    )


@lru_cache(maxsize=4)
def events_after(*, of_app: bool, internal: bool) -> Statement:
    """Events after a position, each with the `horizon`; one empty row with the horizon when there are none."""
    visible = and_(
        *mine(_history),
        *((_history.c.app_id == parameter(_history.c.app_id),) if of_app else ()),
        *(() if internal else (not_(_history.c.internal),)),
    )
    new = events.after_position(_history, visible).subquery("new_events")
    horizon = select(cast(cast(events.HORIZON, Text), Numeric).label("horizon")).subquery("now")
    return Statement(
        select(new, horizon.c.horizon)
        .select_from(horizon.outerjoin(new, true()))
        .order_by(new.c.transaction_id, new.c.id),
        scope=TENANT_AND_APP if of_app else TENANT,
    )


def _changed(name: str, named_as: str | None = None) -> ColumnElement[object]:
    """A column's new value where `changed` names the member, else its old one: one statement for any set of members."""
    named = literal_column(f"'{named_as or name}'", Text) == any_(bindparam("changed", type_=ARRAY(Text)))
    return case((named, bindparam(f"new_{name}", type_=tickets.c[name].type)), else_=tickets.c[name])
