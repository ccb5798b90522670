"""What a ticket's SLA does when the ticket is created and when it changes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from service.errors import invalid
from service.helpdesk.lifecycle import resolved_at, stops_clocks
from service.helpdesk.sla import targets
from service.helpdesk.sla.clock import Pause
from service.helpdesk.sla.targets import SlaEvent, Terms
from service.helpdesk.sla.terms import calendar_of, read_terms, terms_of
from service.storage.database import Connection
from service.storage.statement import Row


async def on_create(connection: Connection, ticket: Mapping[str, Any]) -> Row:
    """A ticket that is being created, with the columns that its SLA sets, and the stamps of its creation.

    Raises TicketError `validation_error` when it names a policy that is not an active one of the tenant.
    """
    given = ticket["sla_policy"]
    row = await read_terms(connection, ticket, policy_id=given)
    if given is not None:
        _require_active(row)
    terms = terms_of(row, calendar_of(row))
    created = {
        **ticket,
        "created_at": terms.now,
        "first_response_at": None,
        "first_response_due_at": None,
        "resolved_at": resolved_at(None, ticket["status"], None, terms.now),
        "sla_policy": row["policy_id"],
        "sla_policy_given": given is not None,
        "due_at_given": ticket["due_at"] is not None,
        "paused_at": terms.now if stops_clocks(ticket["status"]) else None,
        "sla_emitted": [],
    }
    return with_schedule(created | targets.due_instants(created, terms, new_policy=True), terms)


async def on_change(connection: Connection, ticket: Row, changes: Mapping[str, Any], resolved: datetime | None) -> Row:
    """A ticket as it was read, after some changes, with what its SLA sets; `resolved` is its `resolved_at` after them.

    Raises TicketError `validation_error` when the changes name a policy that is not an active one of the tenant.
    """
    after = {**ticket, **changes, "resolved_at": resolved}
    changed = {name for name in changes if after[name] != ticket[name]}
    after["sla_policy_given"] = ticket["sla_policy_given"] or "sla_policy" in changed
    after["due_at_given"] = ticket["due_at_given"] or "due_at" in changed
    stopped_at = targets.stopped_at(ticket)
    after["paused_at"] = (stopped_at or ticket["stamp"]) if stops_clocks(after["status"]) else None
    is_resumed = stopped_at is not None and after["paused_at"] is None
    is_reopened = ticket["resolved_at"] is not None and resolved is None
    new_policy = not changed.isdisjoint(("priority", "type", "sla_policy"))
    # Nothing else moves an instant: they stand still in a pause that begins, and the notifier checks before it emits.
    if not (new_policy or "due_at" in changed or is_resumed or is_reopened):
        return after
    match_policy = new_policy and not after["sla_policy_given"]
    row = await read_terms(connection, after, policy_id=None if match_policy else after["sla_policy"] or "")
    if "sla_policy" in changed and after["sla_policy"] is not None:
        _require_active(row)
    if match_policy:
        after["sla_policy"] = row["policy_id"]
    terms = terms_of(row, calendar_of(row))
    if stopped_at is not None and is_resumed:
        terms = replace(terms, pauses=[*terms.pauses, Pause(stopped_at, ticket["stamp"])])
    if "due_at" in changed:
        after["sla_emitted"] = targets.given(ticket["sla_emitted"], after["due_at"], ticket["stamp"])
    elif new_policy:
        # A `due_at` that was given gives way to a policy, and goes with the policy that the ticket had.
        after["due_at_given"] = ticket["due_at_given"] and terms.policy is None and ticket["sla_policy"] is None
    return with_schedule(after | targets.due_instants(after, terms, new_policy=new_policy), terms)


def with_schedule(ticket: Row, terms: Terms) -> Row:
    """The ticket with what the notifier reads: which of its events were emitted, and when the next one is due."""
    emitted, upcoming = targets.schedule(ticket, terms)
    return {**ticket, "sla_emitted": emitted, "sla_look_at": next_event_at(upcoming)}


def next_event_at(upcoming: Sequence[SlaEvent]) -> datetime | None:
    """When the next event of a ticket is due; None when there is none."""
    return upcoming[0].at if upcoming else None


def _require_active(row: Row) -> None:
    if row["policy_status"] != "active":
        raise invalid("body", "sla_policy", "Input should be the id of an active SLA policy")
