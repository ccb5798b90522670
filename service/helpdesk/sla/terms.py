"""Reads the terms of a ticket's SLA: its policy, the tenant's calendar, the pauses so far."""

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Any, get_args

from service import jsontext
from service.helpdesk.commands import CalendarMembers, Weekday
from service.helpdesk.sla import queries
from service.helpdesk.sla.business_hours import Calendar
from service.helpdesk.sla.clock import Pause
from service.helpdesk.sla.targets import Policy, Terms
from service.jsontext import JsonText
from service.storage.database import Connection
from service.storage.statement import Row

_WEEKDAYS = get_args(Weekday)


async def read_terms(connection: Connection, ticket: Mapping[str, Any], policy_id: str | None) -> Row:
    """The row of a ticket's terms; with the active policy for its priority and type where `policy_id` is None.

    "" is no policy. It never comes from a caller: commands.py rejects it.
    """
    values = {name: ticket[name] for name in ("tenant_id", "priority", "type")}
    (row,) = await connection.all(queries.SLA_TERMS, {**values, "ticket_id": ticket["id"], "policy_id": policy_id})
    return row


def calendar_of(row: Row | None) -> Calendar:
    """The calendar in a row that has its columns; the default one where they are null, or without a row."""
    if row is None or row["time_zone"] is None:
        return _DEFAULT_CALENDAR
    return _calendar(row["time_zone"], row["hours"], row["holidays"])


def terms_of(row: Row, calendar: Calendar) -> Terms:
    """The terms in a row that has their columns."""
    policy = None if row["policy_id"] is None else Policy(*(row[f"policy_{name}"] for name in Policy._fields))
    pauses = zip(row["paused_from"] or (), row["paused_until"] or (), strict=True)
    return Terms(row["now"], policy, calendar, [Pause(start, end) for start, end in pauses])


def calendar_columns(calendar: CalendarMembers) -> dict[str, Any]:
    """The columns of a calendar's row."""
    hours = [vars(interval) for interval in calendar.hours]
    return {
        "time_zone": calendar.time_zone,
        "hours": jsontext.text(hours),
        "holidays": sorted(set(calendar.holidays)),
    }


# Not more: one with a thousand holidays takes a fifth of a megabyte.
@lru_cache(maxsize=256)
def _calendar(time_zone: str, hours: JsonText, holidays: JsonText) -> Calendar:
    week: dict[int, list[tuple[int, int]]] = {}
    for interval in jsontext.parse(hours.text.encode()):
        weekday = _WEEKDAYS.index(interval["weekday"])
        week.setdefault(weekday, []).append((_minutes(interval["start"]), _minutes(interval["end"])))
    days = jsontext.parse(holidays.text.encode())
    return Calendar(time_zone, week, frozenset(map(date.fromisoformat, days)))


def _minutes(time: str) -> int:
    hour, _, minute = time.partition(":")
    return int(hour) * 60 + int(minute)


DEFAULT_CALENDAR_COLUMNS = calendar_columns(CalendarMembers())
_DEFAULT_CALENDAR = _calendar(DEFAULT_CALENDAR_COLUMNS["time_zone"], DEFAULT_CALENDAR_COLUMNS["hours"], JsonText("[]"))
