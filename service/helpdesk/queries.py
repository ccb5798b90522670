"""Every SQL statement of helpdesk tickets and their events, within what the caller sees of the tenant.

That is all of it, or one application's tickets, or a person's own (rights.py). Those of comments are in
comment_queries.py, those that read events in event_queries.py, those of service levels in sla/queries.py.
"""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    FromClause,
    Select,
    Text,
    any_,
    bindparam,
    case,
    cast,
    func,
    insert,
    literal_column,
    not_,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import TSVECTOR, array
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events, numbering
from service.directory import TENANT_AND_APP, TENANT_AND_PERSON
from service.helpdesk import tables
from service.helpdesk.commands import NewTicket, TicketChanges
from service.helpdesk.keys import KEYS
from service.idempotency import Guard
from service.storage.row_version import is_as_read, row_version
from service.storage.scope import Scope
from service.storage.statement import Statement, bound, mine, parameter

tickets = tables.tickets

CHANGEABLE = tuple(name for name in TicketChanges.model_fields if name != "etag")
# The columns of a ticket that only its SLA sets.
SLA_COLUMNS = ("sla_policy_given", "due_at_given", "first_response_due_at", "paused_at", "sla_emitted", "sla_look_at")


WHOLE_TENANT = Scope("tenant_id", whole="agents, and who has `helpdesk:read_all`, see every ticket of the tenant")
# For a ticket that was read before, or that the caller creates.
DECIDED = Scope("tenant_id", whole="whether the caller sees this ticket has been decided")

_person = bindparam("person_id", type_=Text)
SUBMITTED, CREATED = tickets.c.submitted_by_id == _person, tickets.c.created_by == _person
# The tickets of a person: of one by its id this costs nothing, for a list see list_tickets.
OWN = or_(SUBMITTED, CREATED)


def found_by(by: frozenset[str], *, with_deleted: bool = False) -> tuple[ColumnElement[bool], ...]:
    """The conditions for tickets that are not deleted, and of the tenant, application, person, id or number in `by`."""
    return (
        *mine(tickets),
        *(() if with_deleted else (not_(tickets.c.is_deleted),)),
        *((OWN,) if "person_id" in by else ()),
        *(tickets.c[name] == parameter(tickets.c[name]) for name in sorted(by - {"tenant_id", "person_id"})),
    )


def scope_of(by: frozenset[str]) -> Scope:
    """The scope of a statement that finds tickets so: those of an application, a person's own, or all of a tenant."""
    return TENANT_AND_APP if "app_id" in by else TENANT_AND_PERSON if "person_id" in by else WHOLE_TENANT


# One ticket that was read: whether the caller sees it was decided then.
READ_TICKET = mine(tickets, id=parameter(tickets.c.id))


@lru_cache(maxsize=16)
def get_ticket(by: frozenset[str], *, with_deleted: bool = False) -> Statement:
    """The ticket that has the values given for `by`: the caller's scope, and `id` or `number`."""
    return Statement(_ticket(by, with_deleted), scope=scope_of(by), short=True)


@lru_cache(maxsize=32)
def ticket_to_write(by: frozenset[str], *, locks: bool, with_deleted: bool = False) -> Statement:
    """A ticket with its `row_version`, and `stamp`, the instant of the change; `locks` it until that is made."""
    stamp = events.next_instant(tickets.c.updated_at).label("stamp")
    ticket = _ticket(by, with_deleted).add_columns(stamp, row_version(tickets))
    return Statement(ticket.with_for_update() if locks else ticket, scope=scope_of(by), short=not locks)


def _ticket(by: frozenset[str], with_deleted: bool) -> Select[tuple[object, ...]]:
    return select(*tables.SHOWN).where(*found_by(by, with_deleted=with_deleted))


def append_event(
    ticket: FromClause, kind: ColumnElement[str] | str, changes: ColumnElement[Any] = events.NOTHING, **own: Any
) -> CTE:
    """The part of a statement that appends one event for each row of `ticket`, a CTE that wrote tickets."""
    of_ticket = {name: ticket.c[name] for name in ("app_id", "internal_changes")}
    return events.append(tables.events, ticket, kind, changes, {**of_ticket, **own})


def _number_terms(number: ColumnElement[int]) -> ColumnElement[Any]:
    """The index terms of `TKT-0001`, as search.py has them."""
    digits = func.to_char(number, literal_column("'FM999999999999990000'"), type_=Text)
    return func.array_to_tsvector(array([literal_column("'tkt.'", Text) + digits, digits]), type_=TSVECTOR)


def _create(guard: Guard) -> tuple[CTE, CTE]:
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
    counter = numbering.next_number(tables.counters, select(parameter(tickets.c.tenant_id)).where(*guard))
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
    return ticket, append_event(ticket, "ticket.created")


CREATE = KEYS.creation(_create, scope=DECIDED, locks="tenant_id")


@lru_cache(maxsize=4)
def update_ticket(by: frozenset[str]) -> Statement:
    """The statement that sets the members named in `changed` and appends the event with what changed.

    No row when the ticket is not as it was read: the row read here is the row that is changed, and the event is true.
    """
    # A resolution note is not a column: only the event has it.
    before = select(*tables.SHOWN, cast(null(), Text).label("resolution_note")).where(*found_by(by)).cte("before")
    stamped = {
        "resolved_at": parameter(tickets.c.resolved_at),
        **bound(tickets, *SLA_COLUMNS),
        **write_stamps(),
        "updated_at": bindparam("stamp", type_=tickets.c.updated_at.type),
    }
    after = (
        update(tickets)
        .where(*found_by(by), is_as_read(tickets))
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
    event = append_event(written, written.c.kind, written.c.changes)
    # A ticket that an older process resolved has no `paused_at` (targets.py, stopped_at).
    stopped_at = func.coalesce(before.c.paused_at, before.c.resolved_at)
    ended = select(after.c.tenant_id, after.c.id, stopped_at, after.c.updated_at).select_from(both)
    ended_pause = upsert(tables.pauses).from_select(
        ["tenant_id", "ticket_id", "started_at", "ended_at"],
        ended.where(stopped_at.is_not(None), after.c.paused_at.is_(None)),
    )
    pause = ended_pause.on_conflict_do_update(
        index_elements=["tenant_id", "ticket_id", "started_at"], set_={"ended_at": ended_pause.excluded.ended_at}
    ).cte("pause")
    return Statement(select(after).add_cte(event, pause), scope=scope_of(by), short=True, locks=["id"])


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
    """The statement that deletes a ticket, softly, or restores it. No row when it is not as it was read."""
    stamps = {"deleted_at": func.now(), "deleted_by": bindparam("actor", type_=Text)}
    after = (
        update(tickets)
        .where(*READ_TICKET, is_as_read(tickets))
        .values({"is_deleted": deleted, **(stamps if deleted else dict.fromkeys(stamps, null())), **write_stamps()})
        .returning(*tables.SHOWN)
        .cte("after")
    )
    changes = func.json_build_object(
        text("'is_deleted'"),
        func.json_build_object(text("'from'"), not_(after.c.is_deleted), text("'to'"), after.c.is_deleted),
    )
    kind = "ticket.deleted" if deleted else "ticket.restored"
    event = append_event(after, kind, changes)
    return Statement(select(after).add_cte(event), scope=DECIDED, short=True, locks=["id"])


DELETE, RESTORE = _set_deleted(deleted=True), _set_deleted(deleted=False)


def _changed(name: str, named_as: str | None = None) -> ColumnElement[object]:
    """A column's new value where `changed` names the member, else its old one: one statement for any set of members."""
    named = literal_column(f"'{named_as or name}'", Text) == any_(bindparam("changed", type_=ARRAY(Text)))
    return case((named, bindparam(f"new_{name}", type_=tickets.c[name].type)), else_=tickets.c[name])
