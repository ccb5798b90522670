"""What a ticket's SLA does as the ticket is created and changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import lru_cache
from typing import Any, get_args

from service import jsontext
from service.errors import invalid
from service.helpdesk.commands import (
    CalendarMembers,
    Weekday,
)
from service.helpdesk.sla import queries, targets
from service.helpdesk.sla.clock import Calendar, Pause
from service.helpdesk.sla.targets import Policy, Terms, Told
from service.jsontext import JsonText
from service.storage.database import Connection
from service.storage.statement import Row


def look_at(ahead: Sequence[Told]) -> datetime | None:
    """When the next event of a ticket is due; None when none is."""
    return ahead[0].at if ahead else None


async def on_create(connection: Connection, ticket: Mapping[str, Any], *, resolved: bool) -> Row:
    """A ticket that is being created, with the members that its SLA decides, and the instants of its creation.

    Raises TicketError `validation_error` when it names a policy that there is not.
    """
    given = ticket["sla_policy"]
    row = await read_terms(connection, ticket, policy_id=given)
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
        "sla_emitted": [],
    }
    return looked_at(begun | targets.dues(begun, terms, anew=True), terms)


async def on_change(
    connection: Connection, ticket: Row, changes: Mapping[str, Any], resolved_at: datetime | None
) -> Row:
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
    row = await read_terms(connection, after, policy_id=None if to_be_matched else after["sla_policy"] or "")
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
    return looked_at(after | targets.dues(after, terms, anew=is_matched_anew), terms)


def looked_at(ticket: Row, terms: Terms) -> Row:
    """The ticket with what the background needs to know: what was emitted, and when to look again."""
    told, ahead = targets.outlook(ticket, terms)
    return {**ticket, "sla_emitted": told, "sla_look_at": look_at(ahead)}


def _require_active(row: Row) -> None:
    if row["policy_status"] != "active":
        raise invalid("body", "sla_policy", "Input should be the id of an active SLA policy")


async def read_terms(connection: Connection, ticket: Mapping[str, Any], policy_id: str | None) -> Row:
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


def columns(calendar: CalendarMembers) -> dict[str, Any]:
    """The columns of a calendar row."""
    hours = [vars(interval) for interval in calendar.hours]
    return {
        "time_zone": calendar.time_zone,
        "hours": jsontext.text(hours),
        "holidays": sorted(set(calendar.holidays)),
    }


_WEEKDAYS = get_args(Weekday)


DEFAULT_COLUMNS = columns(CalendarMembers())


_DEFAULT_CALENDAR = _calendar(DEFAULT_COLUMNS["time_zone"], DEFAULT_COLUMNS["hours"], ())
