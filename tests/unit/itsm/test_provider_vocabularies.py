"""Every vendor maps each status and priority of ITSM tickets, and no other value."""

from collections.abc import Collection
from typing import Any, get_args

import pytest

from service.itsm.commands import NewTicket, Priority, Status
from service.providers import freshservice, jira, servicenow, zendesk
from service.providers.port import MEMBERS

STATUSES = set(get_args(Status))
PRIORITIES = set(get_args(Priority))


@pytest.mark.parametrize(
    "statuses",
    [
        freshservice._STATUSES,
        zendesk._STATUSES,
        servicenow._NEW_STATES,
        servicenow._LATER_STATES,
        get_args(jira._Status),
    ],
    ids=["freshservice", "zendesk", "servicenow, new", "servicenow, later", "jira"],
)
def test_every_status_is_mapped(statuses: Collection[str]) -> None:
    assert set(statuses) == STATUSES


@pytest.mark.parametrize(
    "priorities",
    [
        freshservice._PRIORITIES,
        zendesk._PRIORITIES,
        servicenow._PRIORITIES,
        # Jira's priority is never empty: there none is left as it is.
        [*get_args(jira._Priority), None],
    ],
    ids=["freshservice", "zendesk", "servicenow", "jira"],
)
def test_every_priority_is_mapped_and_so_is_none(priorities: Collection[str | None]) -> None:
    assert set(priorities) == PRIORITIES | {None}


def test_jira_takes_what_is_done_for_done() -> None:
    assert set(jira._DONE) < STATUSES


def test_a_provider_has_members_that_a_ticket_has() -> None:
    fields: dict[str, Any] = NewTicket.model_fields
    assert set(MEMBERS) < set(fields)
