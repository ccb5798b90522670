"""Every SQL statement of service levels: those of callers within one tenant, and those of the notifier for all."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Integer,
    Select,
    Text,
    and_,
    any_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal_column,
    not_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.directory import TENANT
from service.helpdesk import queries, tables
from service.helpdesk.commands import PolicyMembers
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, mine, parameter

tickets, policies, calendars = tables.tickets, tables.policies, tables.calendars
_POLICY_COLUMNS = tuple(column.name for column in policies.c)
_CALENDAR_COLUMNS = ("time_zone", "hours", "holidays")


def _terms(tenant_id: ColumnElement[Any], ticket_id: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    """The columns of a ticket's terms: now, its policy, its tenant's calendar, its pauses (targets.py, Terms)."""
    pauses = tables.pauses
    of_ticket = (pauses.c.tenant_id == tenant_id, pauses.c.ticket_id == ticket_id)
    return (
        func.now().label("now"),
        *(policies.c[name].label(f"policy_{name}") for name in _POLICY_COLUMNS),
        *(calendars.c[name] for name in _CALENDAR_COLUMNS),
        *(
            select(func.array_agg(aggregate_order_by(column, pauses.c.started_at)))
            .where(*of_ticket)
            .scalar_subquery()
            .label(name)
            for name, column in (("paused_from", pauses.c.started_at), ("paused_until", pauses.c.ended_at))
        ),
    )


def _sla_terms() -> Statement:
    """The terms of a ticket with a policy, or with the active one for a priority and a type where `policy_id` is null.

    Always one row; its `policy_id` is null without a policy. No policy has the id "", so that id stands for none.
    """
    tenant_id, active = parameter(tickets.c.tenant_id), tables.active_policies
    match = select(active.c.policy_id).where(
        active.c.tenant_id == tenant_id,
        active.c.priority == parameter(tickets.c.priority),
        active.c.type == parameter(tickets.c.type),
    )
    found = func.coalesce(bindparam("policy_id", type_=Text), match.scalar_subquery())
    one = select(tenant_id.label("tenant_id")).subquery("one")
    joined = one.outerjoin(policies, and_(policies.c.tenant_id == tenant_id, policies.c.id == found))
    joined = joined.outerjoin(calendars, calendars.c.tenant_id == tenant_id)
    return Statement(select(*_terms(tenant_id, bindparam("ticket_id", type_=Text))).select_from(joined), scope=TENANT)


SLA_TERMS = _sla_terms()


def _with_terms() -> Select[Any]:
    of_ticket = and_(policies.c.tenant_id == tickets.c.tenant_id, policies.c.id == tickets.c.sla_policy)
    joined = tickets.outerjoin(policies, of_ticket).outerjoin(calendars, calendars.c.tenant_id == tickets.c.tenant_id)
    return select(tickets, *_terms(tickets.c.tenant_id, tickets.c.id)).select_from(joined)


@lru_cache(maxsize=4)
def get_ticket_and_terms(by: frozenset[str]) -> Statement:
    """A ticket as `get_ticket`, and the terms of its SLA."""
    return Statement(_with_terms().where(*queries.found_by(by)), scope=queries.scope_of(by))


# Of all tenants: tickets whose SLA may have an event to emit, locked, and skipped by other processes. (Their terms are
# read once they are locked: a pause may have been written while this statement waited.)
DUE_TICKETS = Statement(
    select(tickets)
    .where(tickets.c.sla_look_at < func.now(), not_(tickets.c.is_deleted))
    .order_by(tickets.c.sla_look_at)
    .limit(bindparam("rows", type_=Integer))
    .with_for_update(skip_locked=True),
    scope=EVERYONE("the notifier emits the events of all tenants"),
)


def _emit(**more: ColumnElement[Any]) -> Statement:
    """The statement that appends an event of a locked ticket's SLA and stores its schedule.

    `more` are further columns of the ticket to set.
    """
    ticket = (
        update(tickets)
        .where(*queries.LOCKED_TICKET)
        .values({**bound(tickets, *_SCHEDULE), **more, **events.next_version(tickets)})
        .returning(tickets)
        .cte("ticket")
    )
    changes = cast(bindparam("changes", type_=JSON), JSON)
    event = events.append(tables.events, ticket, bindparam("kind", type_=Text), changes, {"app_id": ticket.c.app_id})
    return Statement(select(ticket.c.id).add_cte(event), scope=TENANT)


_SCHEDULE = ("first_response_due_at", "sla_emitted", "sla_look_at")
EMIT = _emit()
MOVE_DUE = _emit(
    due_at=parameter(tickets.c.due_at),
    updated_at=events.next_instant(tickets.c.updated_at),
    updated_by=bindparam("actor", type_=Text),
)
# Without an event: nothing that a caller sees has changed.
SET_SCHEDULE = Statement(
    update(tickets).where(*queries.LOCKED_TICKET).values(bound(tickets, *_SCHEDULE)).returning(tickets.c.id),
    scope=TENANT,
)

_POLICY_MEMBERS = tuple(PolicyMembers.model_fields)
_ONE_POLICY = (
    *mine(policies),
    policies.c.id == bindparam("id", type_=Text),
)
CREATE_POLICY = Statement(
    insert(policies)
    .values(
        {
            **bound(policies, "tenant_id", "id", *_POLICY_MEMBERS),
            "created_by": bindparam("actor", type_=Text),
            "updated_by": bindparam("actor", type_=Text),
        }
    )
    .returning(policies),
    scope=TENANT,
)
GET_POLICY = Statement(select(policies).where(*_ONE_POLICY), scope=TENANT)
LOCK_POLICY = Statement(select(policies).where(*_ONE_POLICY).with_for_update(), scope=TENANT)
UPDATE_POLICY = Statement(
    update(policies)
    .where(*_ONE_POLICY)
    .values(
        {
            **bound(policies, *_POLICY_MEMBERS),
            "updated_at": events.next_instant(policies.c.updated_at),
            "updated_by": bindparam("actor", type_=Text),
        }
    )
    .returning(policies),
    scope=TENANT,
)


@lru_cache(maxsize=4)
def list_policies(*, of_status: bool, after: bool) -> Statement:
    """`rows` policies of the tenant, newest first."""
    conditions = list(mine(policies))
    if of_status:
        conditions.append(policies.c.status == bindparam("status", type_=Text))
    if after:
        conditions.append(policies.c.id < bindparam("after_id", type_=Text))
    page = select(policies).where(*conditions).order_by(policies.c.id.desc())
    return Statement(page.limit(bindparam("rows", type_=Integer)), scope=TENANT)


_active = tables.active_policies
# One row less for each type for which another policy is active.
ACTIVATE = Statement(
    upsert(_active)
    .from_select(
        ["tenant_id", "priority", "type", "policy_id"],
        select(
            policies.c.tenant_id, policies.c.priority, func.unnest(bindparam("types", type_=ARRAY(Text))), policies.c.id
        ).where(*_ONE_POLICY),
    )
    .on_conflict_do_nothing()
    .returning(_active.c.type),
    scope=TENANT,
)
DEACTIVATE = Statement(
    delete(_active).where(*mine(_active), _active.c.policy_id == bindparam("id", type_=Text)).returning(_active.c.type),
    scope=TENANT,
)

GET_CALENDAR = Statement(select(calendars).where(*mine(calendars)), scope=TENANT)


def _set_calendar() -> Statement:
    """The statement that sets the members of a calendar named in `changed`; others stay, or get their defaults."""
    given = bound(calendars, *_CALENDAR_COLUMNS)
    actor = bindparam("actor", type_=Text)
    first = upsert(calendars).values({"tenant_id": parameter(tickets.c.tenant_id), **given, "updated_by": actor})
    changes = {
        name: case(
            (
                literal_column(f"'{name}'", Text) == any_(bindparam("changed", type_=ARRAY(Text))),
                first.excluded[name],
            ),
            else_=calendars.c[name],
        )
        for name in _CALENDAR_COLUMNS
    }
    stamps = {"updated_at": events.next_instant(calendars.c.updated_at), "updated_by": actor}
    return Statement(
        first.on_conflict_do_update(index_elements=["tenant_id"], set_={**changes, **stamps}).returning(calendars),
        scope=TENANT,
    )


SET_CALENDAR = _set_calendar()


def _reschedule(*of: ColumnElement[bool]) -> Statement:
    """The statement that has the notifier set the clocks of a tenant's unresolved tickets again, soon."""
    return Statement(
        update(tickets)
        .where(
            *mine(tickets),
            tickets.c.status == any_(literal_column("ARRAY['open', 'in_progress', 'pending']")),
            tickets.c.sla_policy == policies.c.id,
            policies.c.tenant_id == tickets.c.tenant_id,
            *of,
        )
        .values(sla_look_at=func.now())
        .returning(tickets.c.id),
        scope=TENANT,
    )


RESCHEDULE_POLICY = _reschedule(policies.c.id == bindparam("id", type_=Text))
RESCHEDULE_BUSINESS_HOURS = _reschedule(policies.c.business_hours_only)
