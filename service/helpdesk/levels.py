"""The use cases of service levels: policies, the calendar, what a ticket's SLA says, and telling when it is due."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, get_args

import structlog
from pydantic import TypeAdapter
from ulid import ULID

from service import events, idempotency, jsontext, paging
from service.database import Connection, Database
from service.errors import TicketError, invalid
from service.helpdesk import level_queries as queries
from service.helpdesk import targets, views
from service.helpdesk.commands import (
    CalendarMembers,
    CreateSlaPolicy,
    GetCalendar,
    GetSlaPolicy,
    ListSlaPolicies,
    Type,
    UpdateCalendar,
    UpdateSlaPolicy,
    Weekday,
)
from service.helpdesk.sla import Calendar, Pause
from service.helpdesk.targets import Policy, Terms, Told
from service.jsontext import JsonText
from service.operation import Call, View, operation
from service.statement import Row

_BY_ID: TypeAdapter[tuple[str]] = TypeAdapter(tuple[str])
_ID = re.compile(r"sla_[0-9A-HJKMNP-TV-Z]{26}")
_ROWS = 50
# Who makes the changes that nobody asked for.
_LATER = timedelta(hours=1)
# What a policy's tickets go by.
_PROMISES = ("first_response_minutes", "resolution_minutes", "business_hours_only")


_log = structlog.get_logger()


@operation(ListSlaPolicies, one_statement=True)
async def list_sla_policies(connection: Connection, call: Call, command: ListSlaPolicies) -> View:
    """A page of the tenant's SLA policies, newest first."""
    query, tenant = command.query, _tenant(call)
    given = {} if query.status is None else {"status": query.status}
    binding = jsontext.dump(["helpdesk SLA policies", {**tenant, **given}]).decode()
    behind = {}
    if query.cursor is not None:
        (behind["behind_id"],) = paging.place(query.cursor, binding, _BY_ID)
    statement = queries.list_policies(of_status="status" in given, onward="behind_id" in behind)
    rows = await connection.all(statement, {**tenant, **given, **behind, "rows": query.limit + 1})
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
    return await idempotency.act(connection, call, scope, [], act)


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
        row = {**_tenant(call), **_DEFAULT_COLUMNS, "updated_at": None, "updated_by": None}
    return views.calendar(row)


@operation(UpdateCalendar)
async def update_calendar(connection: Connection, call: Call, command: UpdateCalendar) -> View:
    """Change the tenant's calendar; the clocks of tickets that go by business hours are set anew."""
    values = {
        **_tenant(call),
        **_columns(command.body),
        "changed": list(command.body.model_fields_set),
        "actor": call.caller.subject,
    }
    (calendar,) = await connection.all(queries.SET_CALENDAR, values)
    await connection.all(queries.LOOK_AGAIN_AT_BUSINESS_HOURS, _tenant(call), last=True)
    return views.calendar(calendar)


async def tell(database: Database) -> None:
    """Append the SLA events of all tenants whose time has come; run in the background, in every process."""
    while True:
        async with database.transaction() as connection:
            due = await connection.all(queries.DUE_TICKETS, {"rows": _ROWS})
            for ticket in due:
                await _tell(connection, ticket)
        if len(due) < _ROWS:
            return


async def _tell(connection: Connection, ticket: Row) -> None:
    """Set the clock of a locked ticket, and append its SLA events whose time has come, each as a version of its own."""
    row = await _read_terms(connection, ticket, policy_id=ticket["sla_policy"] or "")
    was_due_at = ticket["due_at"]
    kept: Row = {"actor": events.SYSTEM, "request_id": f"sla-{ULID()}"}
    try:
        ticket, ahead = _worked_out(ticket, terms_of(row))
    except (LookupError, ValueError, OverflowError):
        # Such as a time zone that this host does not know: one ticket must not hold up all others.
        _log.exception("sla", ticket=ticket["id"])
        ticket, ahead = {**ticket, "sla_look_at": row["now"] + _LATER}, []
    names = ("tenant_id", "id", "due_at", "first_response_due_at", "sla_told", "sla_look_at")
    kept |= {name: ticket[name] for name in names}
    if ticket["due_at"] == was_due_at:
        await connection.one(queries.SET_LOOK, kept)
    else:
        changes = _changes("due_at", was_due_at, ticket["due_at"])
        await connection.one(queries.SET_DUE, {**kept, "kind": "ticket.updated", "changes": changes})
    while ahead and ahead[0].at < row["now"]:
        news, *ahead = ahead
        kept |= {"sla_told": [*kept["sla_told"], news.name], "sla_look_at": _look_at(ahead)}
        changes = _changes("sla", None, {"target": news.target, "due_at": news.due_at})
        await connection.one(queries.TELL, {**kept, "kind": f"sla.{news.kind}", "changes": changes})


def _worked_out(ticket: Row, terms: Terms) -> tuple[Row, Sequence[Told]]:
    """A ticket with its clock set, unless it is resolved, and what is to be told of it."""
    if ticket["resolved_at"] is None:
        ticket = {**ticket, **targets.dues(ticket, terms, anew=False)}
    return _looked_at(ticket, terms), targets.outlook(ticket, terms).ahead


def _changes(name: str, was: object, becomes: object) -> JsonText:
    return jsontext.text({name: {"from": was, "to": becomes}})


def _look_at(ahead: Sequence[Told]) -> datetime | None:
    return ahead[0].at if ahead else None


async def begin(connection: Connection, ticket: Mapping[str, Any], *, resolved: bool) -> Row:
    """A ticket that is being created, with the members that its SLA decides, and the instants of its creation.

    Raises TicketError `validation_error` when it names a policy that there is not.
    """
    given = ticket["sla_policy"]
    row = await _read_terms(connection, ticket, policy_id=given)
    if given is not None:
        _require_active(row)
    terms = terms_of(row)
    begun = {
        **ticket,
        "created_at": terms.now,
        "first_response_at": None,
        "first_response_due_at": None,
        "resolved_at": terms.now if resolved else None,
        "sla_policy": row["policy_id"],
        "sla_policy_given": given is not None,
        "due_at_given": ticket["due_at"] is not None,
        "paused_at": terms.now if ticket["status"] == "pending" else None,
        "sla_told": [],
    }
    return _looked_at(begun | targets.dues(begun, terms, anew=True), terms)


async def follow(connection: Connection, ticket: Row, changes: Mapping[str, Any], resolved_at: datetime | None) -> Row:
    """A locked ticket after some changes, with the members that its SLA decides; `resolved_at` is what becomes of it.

    Raises TicketError `validation_error` when the changes name a policy that there is not.
    """
    after = {**ticket, **changes, "resolved_at": resolved_at}
    changed = {name for name in changes if after[name] != ticket[name]}
    after["sla_policy_given"] = ticket["sla_policy_given"] or "sla_policy" in changed
    after["due_at_given"] = ticket["due_at_given"] or "due_at" in changed
    after["paused_at"] = ticket["paused_at"] or ticket["stamp"] if after["status"] == "pending" else None
    is_resumed = ticket["paused_at"] is not None and after["paused_at"] is None
    is_resolved_anew = ticket["resolved_at"] is not None and resolved_at != ticket["resolved_at"]
    is_matched_anew = not changed.isdisjoint(("priority", "type", "sla_policy"))
    # The rest moves no instant: a pause that begins lets them stand still, and `tell` looks before it tells.
    if not (is_matched_anew or "due_at" in changed or is_resumed or is_resolved_anew):
        return after
    to_be_matched = is_matched_anew and not after["sla_policy_given"]
    row = await _read_terms(connection, after, policy_id=None if to_be_matched else after["sla_policy"] or "")
    if "sla_policy" in changed and after["sla_policy"] is not None:
        _require_active(row)
    if to_be_matched:
        after["sla_policy"] = row["policy_id"]
    terms = terms_of(row)
    if is_resumed:
        terms = replace(terms, pauses=[*terms.pauses, Pause(ticket["paused_at"], ticket["stamp"])])
    if is_matched_anew and "due_at" not in changed:
        # It gives way to a policy, or goes with the one that there was.
        after["due_at_given"] = ticket["due_at_given"] and terms.policy is None and ticket["sla_policy"] is None
    return _looked_at(after | targets.dues(after, terms, anew=is_matched_anew), terms)


def _looked_at(ticket: Row, terms: Terms) -> Row:
    told, ahead = targets.outlook(ticket, terms)
    return {**ticket, "sla_told": told, "sla_look_at": _look_at(ahead)}


def _require_active(row: Row) -> None:
    if row["policy_status"] != "active":
        raise invalid("body", "sla_policy", "Input should be the id of an active SLA policy")


async def _read_terms(connection: Connection, ticket: Mapping[str, Any], policy_id: str | None) -> Row:
    """What decides about a ticket's SLA; with the active policy for its priority and type where `policy_id` is None.

    "" is no policy. It never comes from a caller: commands.py refuses it.
    """
    named = {name: ticket[name] for name in ("tenant_id", "priority", "type")}
    (row,) = await connection.all(queries.SLA_TERMS, {**named, "ticket_id": ticket["id"], "policy_id": policy_id})
    return row


def terms_of(row: Row) -> Terms:
    """The terms in a row that has them."""
    policy = None if row["policy_id"] is None else Policy(*(row[f"policy_{name}"] for name in Policy._fields))
    calendar = _DEFAULT_CALENDAR
    if row["time_zone"] is not None:
        calendar = _calendar(row["time_zone"], row["hours"], tuple(row["holidays"]))
    over = zip(row["paused_from"] or (), row["paused_until"] or (), strict=True)
    return Terms(row["now"], policy, calendar, [Pause(start, end) for start, end in over])


@lru_cache(maxsize=1024)
def _calendar(time_zone: str, hours: JsonText, holidays: tuple[date, ...]) -> Calendar:
    week: dict[int, list[tuple[int, int]]] = {}
    for interval in jsontext.parse(hours.text.encode()):
        weekday = _WEEKDAYS.index(interval["weekday"])
        week.setdefault(weekday, []).append((_minutes(interval["start"]), _minutes(interval["end"])))
    return Calendar(time_zone, week, frozenset(holidays))


def _minutes(time: str) -> int:
    hour, _, minute = time.partition(":")
    return int(hour) * 60 + int(minute)


def _columns(calendar: CalendarMembers) -> dict[str, Any]:
    hours = [vars(interval) for interval in calendar.hours]
    return {
        "time_zone": calendar.time_zone,
        "hours": jsontext.text(hours),
        "holidays": sorted(set(calendar.holidays)),
    }


_WEEKDAYS = get_args(Weekday)
_DEFAULT_COLUMNS = _columns(CalendarMembers())
_DEFAULT_CALENDAR = _calendar(_DEFAULT_COLUMNS["time_zone"], _DEFAULT_COLUMNS["hours"], ())


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
