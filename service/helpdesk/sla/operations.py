"""The use cases of service levels: policies, the calendar, what a ticket's SLA says, and telling when it is due."""

import re
from typing import Any, get_args

from pydantic import TypeAdapter
from ulid import ULID

from service import idempotency, jsontext, paging
from service.errors import TicketError
from service.helpdesk import views
from service.helpdesk.commands import (
    CreateSlaPolicy,
    GetCalendar,
    GetSlaPolicy,
    ListSlaPolicies,
    Type,
    UpdateCalendar,
    UpdateSlaPolicy,
)
from service.helpdesk.sla import queries
from service.helpdesk.sla.ticket_clock import DEFAULT_COLUMNS, columns
from service.operation import Call, View, operation
from service.storage.database import Connection
from service.storage.statement import Row

_BY_ID: TypeAdapter[tuple[str]] = TypeAdapter(tuple[str])
_ID = re.compile(r"sla_[0-9A-HJKMNP-TV-Z]{26}")
# What a policy's tickets go by.
_PROMISES = ("first_response_minutes", "resolution_minutes", "business_hours_only")


@operation(ListSlaPolicies, one_statement=True)
async def list_sla_policies(connection: Connection, call: Call, command: ListSlaPolicies) -> View:
    """A page of the tenant's SLA policies, newest first."""
    query, tenant = command.query, _tenant(call)
    given = {} if query.status is None else {"status": query.status}
    binding = jsontext.dump(["helpdesk SLA policies", {**tenant, **given}]).decode()
    after = {}
    if query.cursor is not None:
        (after["after_id"],) = paging.decode(query.cursor, binding, _BY_ID)
    statement = queries.list_policies(of_status="status" in given, after="after_id" in after)
    rows = await connection.all(statement, {**tenant, **given, **after, "rows": query.limit + 1})
    page, next_cursor = paging.cut(rows, query.limit, binding, "id")
    return {"sla_policies": [views.policy(row) for row in page], "next_cursor": next_cursor}


@operation(GetSlaPolicy, one_statement=True)
async def get_sla_policy(connection: Connection, call: Call, command: GetSlaPolicy) -> View:
    """Read one SLA policy."""
    return views.policy(_found(await connection.one(queries.GET_POLICY, _policy_named(call, command.path.id))))


@operation(CreateSlaPolicy)
async def create_sla_policy(connection: Connection, call: Call, command: CreateSlaPolicy) -> View:
    """Create an SLA policy, once for each idempotency key."""

    async def act(connection: Connection) -> View:
        named = {**_tenant(call), "id": f"sla_{ULID()}"}
        values = {**vars(command.body), **named, "actor": call.caller.subject}
        policy = _found(await connection.one(queries.CREATE_POLICY, values))
        await _activate(connection, policy)
        return views.policy(policy)

    scope = f"helpdesk SLA policies:{jsontext.dump([call.caller.tenant_id, call.caller.subject]).decode()}"
    return await idempotency.replay_or_run(connection, call, scope, [], act)


@operation(UpdateSlaPolicy)
async def update_sla_policy(connection: Connection, call: Call, command: UpdateSlaPolicy) -> View:
    """Change an SLA policy; the clocks of its tickets are set anew."""
    named = _policy_named(call, command.path.id)
    before = _found(await connection.one(queries.LOCK_POLICY, named))
    changes = {name: getattr(command.body, name) for name in command.body.model_fields_set}
    values = {**before, **changes, **named, "actor": call.caller.subject}
    policy = _found(await connection.one(queries.UPDATE_POLICY, values))
    await connection.all(queries.DEACTIVATE, named)
    await _activate(connection, policy)
    if any(policy[name] != before[name] for name in _PROMISES):
        await connection.all(queries.LOOK_AGAIN_AT_POLICY, named)
    return views.policy(policy)


@operation(GetCalendar, one_statement=True)
async def get_calendar(connection: Connection, call: Call, command: GetCalendar) -> View:
    """Read the tenant's calendar."""
    row = await connection.one(queries.GET_CALENDAR, _tenant(call))
    if row is None:
        row = {**_tenant(call), **DEFAULT_COLUMNS, "updated_at": None, "updated_by": None}
    return views.calendar(row)


@operation(UpdateCalendar)
async def update_calendar(connection: Connection, call: Call, command: UpdateCalendar) -> View:
    """Change the tenant's calendar; the clocks of tickets that go by business hours are set anew."""
    values = {
        **_tenant(call),
        **columns(command.body),
        "changed": list(command.body.model_fields_set),
        "actor": call.caller.subject,
    }
    (calendar,) = await connection.all(queries.SET_CALENDAR, values)
    await connection.all(queries.LOOK_AGAIN_AT_BUSINESS_HOURS, _tenant(call), commit=True)
    return views.calendar(calendar)


async def _activate(connection: Connection, policy: Row) -> None:
    """Make a policy the one for its priority and its types, if it is active."""
    if policy["status"] == "active":
        # In one order, so that those who want the same types wait for each other and nobody for ever.
        types = policy["applies_to"] or get_args(Type)
        named = {name: policy[name] for name in ("tenant_id", "id")}
        await connection.all(queries.ACTIVATE, {**named, "types": sorted(types)})


def _tenant(call: Call) -> dict[str, Any]:
    return {"tenant_id": call.caller.tenant_id}


def _policy_named(call: Call, policy_id: str) -> dict[str, Any]:
    if not _ID.fullmatch(policy_id):
        raise _no_policy()
    return {**_tenant(call), "id": policy_id}


def _found(policy: Row | None) -> Row:
    if policy is None:
        raise _no_policy()
    return policy


def _no_policy() -> TicketError:
    return TicketError("not_found", "SLA policy not found")
