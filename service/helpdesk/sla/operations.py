"""The use cases of service levels: SLA policies, the calendar, and how a ticket's SLA stands."""

import re
from typing import Any, get_args

from pydantic import TypeAdapter
from ulid import ULID

from service import idempotency, paging
from service.errors import TicketError
from service.helpdesk import lookup
from service.helpdesk.commands import (
    CreateSlaPolicy,
    GetCalendar,
    GetSlaPolicy,
    GetTicketSla,
    ListSlaPolicies,
    Type,
    UpdateCalendar,
    UpdateSlaPolicy,
)
from service.helpdesk.keys import SLA_KEYS
from service.helpdesk.sla import queries, targets, views
from service.helpdesk.sla.terms import DEFAULT_CALENDAR_COLUMNS, calendar_columns, calendar_of, terms_of
from service.helpdesk.tables import ANOTHER_IS_ACTIVE
from service.operation import Call, autocommit, operation
from service.storage.database import Connection
from service.storage.statement import Row

_BY_ID: TypeAdapter[tuple[str]] = TypeAdapter(tuple[str])
_ID = re.compile(r"sla_[0-9A-HJKMNP-TV-Z]{26}")


@operation(GetTicketSla, transaction=autocommit)
async def get_ticket_sla(connection: Connection, call: Call, command: GetTicketSla) -> views.TicketSla:
    """Explain how a ticket's SLA stands."""
    key = lookup.ticket_key(call, command.path.id)
    ticket = lookup.found(await connection.one(queries.get_ticket_and_terms(frozenset(key)), key))
    terms = terms_of(ticket, calendar_of(ticket))
    return views.ticket_sla(ticket, targets.standings(ticket, terms), terms)


@operation(ListSlaPolicies, transaction=autocommit)
async def list_sla_policies(connection: Connection, call: Call, command: ListSlaPolicies) -> views.SlaPolicyPage:
    """A page of the tenant's SLA policies, newest first."""
    query, tenant = command.query, _tenant(call)
    given = {} if query.status is None else {"status": query.status}
    binding = paging.binding_of("helpdesk SLA policies", {**tenant, **given})
    after = {}
    if query.cursor is not None:
        (after["after_id"],) = paging.decode(query.cursor, binding, _BY_ID)
    statement = queries.list_policies(of_status="status" in given, after="after_id" in after)
    rows = await connection.all(statement, {**tenant, **given, **after, "rows": query.limit + 1})
    page, next_cursor = paging.cut(rows, query.limit, binding, "id")
    return {"sla_policies": [views.policy(row) for row in page], "next_cursor": next_cursor}


@operation(GetSlaPolicy, transaction=autocommit)
async def get_sla_policy(connection: Connection, call: Call, command: GetSlaPolicy) -> views.SlaPolicy:
    """Read one SLA policy."""
    return views.policy(_found(await connection.one(queries.GET_POLICY, _policy_key(call, command.path.id))))


@idempotency.write(CreateSlaPolicy, SLA_KEYS)
async def create_sla_policy(connection: Connection, call: Call, command: CreateSlaPolicy) -> views.SlaPolicy:
    """Create an SLA policy."""
    key = {**_tenant(call), "id": f"sla_{ULID()}"}
    values = {**vars(command.body), **key, "actor": call.caller.subject}
    policy = _found(await connection.one(queries.CREATE_POLICY, values))
    await _activate(connection, policy)
    return views.policy(policy)


@idempotency.write(UpdateSlaPolicy, SLA_KEYS)
async def update_sla_policy(connection: Connection, call: Call, command: UpdateSlaPolicy) -> views.SlaPolicy:
    """Change an SLA policy; with other targets its unresolved tickets are re-clocked (reclock.py)."""
    key = _policy_key(call, command.path.id)
    before = _found(await connection.one(queries.LOCK_POLICY, key))
    changes = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    values = {**before, **changes, **key, "actor": call.caller.subject}
    policy = _found(await connection.one(queries.UPDATE_POLICY, values))
    await connection.all(queries.DEACTIVATE, key)
    await _activate(connection, policy)
    if any(policy[name] != before[name] for name in targets.Policy._fields):
        await connection.all(queries.RECLOCK_POLICY, key)
    return views.policy(policy)


@operation(GetCalendar, transaction=autocommit)
async def get_calendar(connection: Connection, call: Call, command: GetCalendar) -> views.Calendar:
    """Read the tenant's calendar."""
    row = await connection.one(queries.GET_CALENDAR, _tenant(call))
    if row is None:
        row = {**_tenant(call), **DEFAULT_CALENDAR_COLUMNS, "updated_at": None, "updated_by": None}
    return views.calendar(row)


@idempotency.write(UpdateCalendar, SLA_KEYS)
async def update_calendar(connection: Connection, call: Call, command: UpdateCalendar) -> views.Calendar:
    """Change the tenant's calendar; unresolved tickets that count business hours are re-clocked (reclock.py)."""
    values = {
        **_tenant(call),
        **calendar_columns(command.body),
        "changed": list(command.body.model_fields_set),
        "actor": call.caller.subject,
    }
    (calendar,) = await connection.all(queries.SET_CALENDAR, values)
    await connection.all(queries.RECLOCK_BUSINESS_HOURS, _tenant(call), commit=True)
    return views.calendar(calendar)


async def _activate(connection: Connection, policy: Row) -> None:
    """Make an active policy the one for its priority and its types; nothing for an inactive one."""
    if policy["status"] == "active":
        # Sorted, so that concurrent requests for the same types wait for each other without a deadlock.
        types = sorted(policy["applies_to"] or get_args(Type))
        key = {name: policy[name] for name in ("tenant_id", "id")}
        if len(await connection.all(queries.ACTIVATE, {**key, "types": types})) < len(types):
            raise TicketError(*ANOTHER_IS_ACTIVE)


def _tenant(call: Call) -> dict[str, Any]:
    return {"tenant_id": call.caller.tenant_id}


def _policy_key(call: Call, policy_id: str) -> dict[str, Any]:
    if not _ID.fullmatch(policy_id):
        raise _policy_not_found()
    return {**_tenant(call), "id": policy_id}


def _found(policy: Row | None) -> Row:
    if policy is None:
        raise _policy_not_found()
    return policy


def _policy_not_found() -> TicketError:
    return TicketError("not_found", "SLA policy not found")
