"""contracts/helpdesk.md, SLA: values of policies and the calendar that JSON can express and a typed message cannot."""

from typing import Any

import pytest

from service.errors import TicketError
from service.helpdesk.commands import CreateSlaPolicy, UpdateCalendar, UpdateSlaPolicy
from service.operation import validated

POLICY = {"name": "Urgent", "priority": "urgent", "resolution_minutes": 60}
HOURS = {"weekday": "monday", "start": "09:00", "end": "17:00"}


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        *(({name: None}, name) for name in POLICY),
        ({"name": 1}, "name"),
        ({"description": ["x"]}, "description"),
        *(({"applies_to": value}, "applies_to") for value in ("incident", {"incident": 1}, 1)),
        ({"applies_to": [None]}, "applies_to.0"),
        *(({"resolution_minutes": value}, "resolution_minutes") for value in ("60", 60.5, 60.0, True, 2**70)),
        *(({"business_hours_only": value}, "business_hours_only") for value in ("true", 1)),
    ],
    ids=str,
)
def test_types_of_a_policys_members_are_not_guessed(changed: dict[str, Any], path: str) -> None:
    for sections in (
        (CreateSlaPolicy, {"header": {}, "body": {**POLICY, **changed}}),
        (UpdateSlaPolicy, {"path": {"id": "sla_1"}, "body": changed}),
    ):
        with pytest.raises(TicketError) as failure:
            validated(*sections)
        assert [issue.path for issue in failure.value.issues] == [path]


@pytest.mark.parametrize("name", ["applies_to", "business_hours_only", "status"])
def test_a_change_of_a_policy_clears_nothing_that_always_has_a_value(name: str) -> None:
    with pytest.raises(TicketError) as failure:
        validated(UpdateSlaPolicy, {"path": {"id": "sla_1"}, "body": {name: None}})
    assert [issue.path for issue in failure.value.issues] == [name]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        *(({name: None}, name) for name in ("time_zone", "hours", "holidays")),
        ({"time_zone": 1}, "time_zone"),
        *(({name: value}, name) for name in ("hours", "holidays") for value in ("monday", {"monday": 1}, 1)),
        *(({"hours": [value]}, "hours.0") for value in (None, "monday", 5)),
        ({"hours": [{**HOURS, "start": 900}]}, "hours.0.start"),
        *(({"holidays": [value]}, "holidays.0") for value in (20301225, 1924905600.0, None, True, ["2030-12-25"])),
    ],
    ids=str,
)
def test_types_of_a_calendars_members_are_not_guessed(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(TicketError) as failure:
        validated(UpdateCalendar, {"body": changes})
    assert [issue.path for issue in failure.value.issues] == [path]
