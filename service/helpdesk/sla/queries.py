"""Every SQL statement of service levels that a caller runs, within one tenant.

Those that set clocks in the background are in clock_queries.py.
"""

from collections.abc import Iterator
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
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.directory import TENANT
from service.helpdesk import queries, tables
from service.helpdesk.commands import PolicyMembers
from service.storage.statement import Statement, bound, mine, parameter

tickets, policies, calendars = tables.tickets, tables.policies, tables.calendars
_POLICY_COLUMNS = tuple(column.name for column in policies.c)
_CALENDAR_COLUMNS = ("time_zone", "hours", "holidays")


def _terms(tenant_id: ColumnElement[Any], ticket_id: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    """The columns of a ticket's terms: now, its policy, its tenant's calendar, its pauses (targets.py, Terms)."""
    return (
        func.now().label("now"),
        *(policies.c[name].label(f"policy_{name}") for name in _POLICY_COLUMNS),
        *calendar_terms(),
        *pauses_of(tenant_id, ticket_id),
    )


def calendar_terms() -> tuple[ColumnElement[Any], ...]:
    """The columns of a calendar as terms.py takes them: its holidays as JSON, whose text it compares with its cache."""
    return (calendars.c.time_zone, calendars.c.hours, func.to_json(calendars.c.holidays, type_=JSON).label("holidays"))


def pauses_of(tenant_id: ColumnElement[Any], ticket_id: ColumnElement[Any]) -> Iterator[ColumnElement[Any]]:
    """The columns of a ticket's pauses that have ended: their starts and their ends."""
    pauses = tables.pauses
    for name, stamp in (("paused_from", pauses.c.started_at), ("paused_until", pauses.c.ended_at)):
        found = select(func.array_agg(aggregate_order_by(stamp, pauses.c.started_at)))
        of_ticket = found.where(pauses.c.tenant_id == tenant_id, pauses.c.ticket_id == ticket_id)
        yield of_ticket.scalar_subquery().label(name)


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
    terms = select(*_terms(tenant_id, bindparam("ticket_id", type_=Text))).select_from(joined)
    return Statement(terms, scope=queries.DECIDED, short=True)


SLA_TERMS = _sla_terms()


def _with_terms() -> Select[Any]:
    of_ticket = and_(*mine(policies), policies.c.id == tickets.c.sla_policy)
    joined = tickets.outerjoin(policies, of_ticket).outerjoin(calendars, and_(*mine(calendars)))
    return select(*tables.SHOWN, *_terms(parameter(tickets.c.tenant_id), tickets.c.id)).select_from(joined)


@lru_cache(maxsize=8)
def get_ticket_and_terms(by: frozenset[str]) -> Statement:
    """A ticket as `get_ticket`, and the terms of its SLA."""
    return Statement(_with_terms().where(*queries.found_by(by)), scope=queries.scope_of(by))


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


_reclocks = tables.reclocks
# The end of an array of any length.
LAST = 2**31 - 1


def _reclock(*of: ColumnElement[bool]) -> Statement:
    """The statement that has the unresolved tickets of some policies of the tenant re-clocked, one after another.

    One that waits already stays in its place. The first is under way: if it is among them it comes once more.
    """
    changed = select(policies.c.tenant_id, func.array_agg(policies.c.id).label("policy_ids"))
    changed = changed.where(*mine(policies), *of).group_by(policies.c.tenant_id)
    row = upsert(_reclocks).from_select(["tenant_id", "policy_ids"], changed)
    ids, under_way = _reclocks.c.policy_ids, slice(1, 1)
    both = func.unnest(func.array_cat(ids[2:LAST], row.excluded.policy_ids))
    waiting = both.table_valued(column("id", Text), with_ordinality="place").render_derived(name="waiting")
    once = select(waiting.c.id, func.min(waiting.c.place).label("place")).group_by(waiting.c.id).subquery("once")
    queue = select(func.array_agg(aggregate_order_by(once.c.id, once.c.place))).scalar_subquery()
    return Statement(
        row.on_conflict_do_update(
            index_elements=["tenant_id"], set_={"policy_ids": func.array_cat(ids[under_way], queue)}
        ).returning(_reclocks.c.tenant_id),
        scope=TENANT,
    )


RECLOCK_POLICY = _reclock(policies.c.id == bindparam("id", type_=Text))
RECLOCK_BUSINESS_HOURS = _reclock(policies.c.business_hours_only)
