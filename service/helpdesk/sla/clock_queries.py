"""The SQL statements that set clocks in the background: find and lock tickets, write their clocks, take turns."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    Boolean,
    ColumnElement,
    DateTime,
    Float,
    Integer,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    literal_column,
    not_,
    select,
    true,
    update,
)

from service import events
from service.directory import TENANT
from service.helpdesk import tables
from service.helpdesk.queries import append_event
from service.helpdesk.sla.queries import LAST, calendar_terms, pauses_of
from service.helpdesk.sla.targets import Policy
from service.storage.scope import EVERYONE, Scope
from service.storage.statement import Statement, mine, parameter

tickets, policies, calendars, reclocks = tables.tickets, tables.policies, tables.calendars, tables.reclocks
_ALL_TENANTS = EVERYONE("clocks run and events are emitted for all tenants")
_WHOLE_TENANT = Scope("tenant_id", whole="clocks run for all of a tenant's tickets")
_INSTANT = DateTime(timezone=True)

# Tickets of a tenant by their `ids`.
_PICKED = (*mine(tickets), tickets.c.id == any_(bindparam("ids", type_=ARRAY(Text))))
_is_due = and_(tickets.c.sla_look_at < func.now(), not_(tickets.c.is_deleted))


def _due_round() -> Statement:
    """`rows` tickets whose SLA may have an event to emit: the longest due of each tenant, then the next of each.

    So no tenant, however many it has, delays another.
    """
    turn = func.row_number().over(partition_by=tickets.c.tenant_id, order_by=tickets.c.sla_look_at).label("turn")
    due = select(tickets.c.tenant_id, tickets.c.id, tickets.c.sla_look_at, turn).where(_is_due).subquery("due")
    page = select(due.c.tenant_id, due.c.id).order_by(due.c.turn, due.c.sla_look_at)
    return Statement(page.limit(bindparam("rows", type_=Integer)), scope=_ALL_TENANTS)


DUE_ROUND = _due_round()

# Tickets that another transaction has locked are left out; LOCK_DUE also leaves out those that are not due any more.
_lock = select(tickets.c.id).where(*_PICKED).with_for_update(skip_locked=True)
LOCK_TICKETS = Statement(_lock, scope=_WHOLE_TENANT)
LOCK_DUE = Statement(_lock.where(_is_due), scope=_WHOLE_TENANT)

_CLOCK = ("created_at", "first_response_at", "resolved_at", "paused_at", "due_at_given", "is_deleted")
_SCHEDULE = ("due_at", "first_response_due_at", "sla_emitted", "sla_look_at")
# What SET_CLOCKS needs of each ticket beside its events.
WRITTEN = ("id", *_SCHEDULE)


def _read_tickets() -> Statement:
    """Locked tickets with what their clocks depend on, but for the calendar: that is the same for all of a tenant.

    A statement of its own: a pause may have been written while the lock was waited for.
    """
    of_ticket = and_(*mine(policies), policies.c.id == tickets.c.sla_policy)
    return Statement(
        select(
            *(tickets.c[name] for name in ("id", *_CLOCK, *_SCHEDULE)),
            *(policies.c[name].label(f"policy_{name}") for name in ("id", *Policy._fields)),
            *pauses_of(parameter(tickets.c.tenant_id), tickets.c.id),
            func.now().label("now"),
        )
        .select_from(tickets.outerjoin(policies, of_ticket))
        .where(*_PICKED),
        scope=_WHOLE_TENANT,
    )


READ_TICKETS = _read_tickets()
READ_CALENDAR = Statement(select(*calendar_terms()).where(*mine(calendars)), scope=TENANT)


def _set_clocks() -> Statement:
    """The statement that sets the clocks of locked tickets and appends their events, each as a version of its own.

    `tickets` is the JSON of a list, each with its key, its schedule, whether `due_at` moves, and in `appended` its
    events in order, each with `kind` and `changes`. Without an event nothing that a caller sees has changed.
    """
    given = _given()
    added = func.json_array_length(given.c.appended)
    version = events.next_version(tickets)
    stamps = {"updated_at": events.next_instant(tickets.c.updated_at), "updated_by": bindparam("actor", type_=Text)}
    ticket = (
        update(tickets)
        .where(*mine(tickets), tickets.c.id == given.c.id)
        .values(
            {
                **{name: given.c[name] for name in _SCHEDULE},
                **{name: case((given.c.is_moved, stamp), else_=tickets.c[name]) for name, stamp in stamps.items()},
                "version": tickets.c.version + added,
                "transaction_id": case((added > 0, version["transaction_id"]), else_=tickets.c.transaction_id),
            }
        )
        .returning(*(tickets.c[name] for name in _EVENT_COLUMNS), given.c.appended)
        .cte("ticket")
    )
    happened = _happened(ticket)
    event = append_event(happened, happened.c.kind, happened.c.changes)
    return Statement(select(func.count().label("tickets")).select_from(ticket).add_cte(event), scope=_WHOLE_TENANT)


_EVENT_COLUMNS = ("tenant_id", "id", "version", "transaction_id", "app_id", "internal_changes")


def _given() -> Any:
    """The rows of the parameter `tickets`."""
    columns: list[Any] = [
        column("id", Text),
        *(column(name, _INSTANT) for name in ("due_at", "first_response_due_at", "sla_look_at")),
        column("sla_emitted", ARRAY(Text)),
        column("is_moved", Boolean),
        column("appended", JSON),
    ]
    parsed = func.json_to_recordset(cast(bindparam("tickets", type_=JSON), JSON)).table_valued(*columns)
    return parsed.render_derived(name="given", with_types=True)


def _happened(ticket: Any) -> Any:
    """The events of the tickets that were written, each with its version; those of a ticket in order."""
    one = func.json_array_elements(ticket.c.appended).table_valued(
        column("event", JSON), with_ordinality="number", name="appended"
    )
    one = one.render_derived(name="appended")
    named = {"version": ticket.c.version - func.json_array_length(ticket.c.appended) + one.c.number}
    return (
        select(
            *(named.get(name, ticket.c[name]).label(name) for name in _EVENT_COLUMNS),
            one.c.event.op("->>")(literal_column("'kind'")).label("kind"),
            one.c.event.op("->")(literal_column("'changes'")).label("changes"),
        )
        .select_from(ticket.join(one, true()))
        .order_by(ticket.c.id, one.c.number)
        .cte("happened")
    )


SET_CLOCKS = _set_clocks()

# Re-clocks

# The row of the tenant whose turn it is, and that no other process has locked.
TAKE_TURN = Statement(
    select(
        reclocks.c.tenant_id,
        reclocks.c.policy_ids[1].label("policy_id"),
        (func.cardinality(reclocks.c.policy_ids) == 1).label("is_last"),
        reclocks.c.after_id,
    )
    .where(reclocks.c.turn_at <= func.clock_timestamp())
    .order_by(reclocks.c.turn_at)
    .limit(1)
    .with_for_update(skip_locked=True),
    scope=_ALL_TENANTS,
)


def _next_clocks() -> Statement:
    """The next `rows` unresolved tickets of a policy, after `after_id`."""
    of_policy: Select[Any] = select(tickets.c.tenant_id, tickets.c.id).where(
        *mine(tickets),
        tickets.c.sla_policy == bindparam("policy_id", type_=Text),
        tickets.c.resolved_at.is_(None),
        tickets.c.id > bindparam("after_id", type_=Text),
    )
    return Statement(of_policy.order_by(tickets.c.id).limit(bindparam("rows", type_=Integer)), scope=_WHOLE_TENANT)


NEXT_CLOCKS = _next_clocks()


def _end_turn(**values: ColumnElement[Any]) -> Statement:
    """The statement that ends a tenant's turn; its next one is in `pause` seconds at the earliest."""
    pause = func.make_interval(0, 0, 0, 0, 0, 0, bindparam("pause", type_=Float))
    turn = {"turn_at": func.clock_timestamp() + pause, **values}
    return Statement(update(reclocks).where(*mine(reclocks)).values(turn).returning(reclocks.c.tenant_id), scope=TENANT)


NEXT_TICKETS = _end_turn(after_id=parameter(reclocks.c.after_id))
NEXT_POLICY = _end_turn(after_id=literal_column("''", Text), policy_ids=reclocks.c.policy_ids[2:LAST])
FINISH = Statement(delete(reclocks).where(*mine(reclocks)).returning(reclocks.c.tenant_id), scope=TENANT)
