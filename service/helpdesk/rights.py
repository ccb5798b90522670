"""Who sees, sets and changes what of helpdesk tickets, on one page: pure predicates, and what raises `forbidden`.

The scopes that a method requires are in access/policy.py. There are three kinds of callers:

- an *agent*, with `helpdesk:agent`, works on all that they see;
- an *integration* has a token of one application: it sees that application's tickets, and all of them are its own;
- a *requester* is anybody else: what they submitted or created is their own, and with `helpdesk:read_all` they
  read the others too.

| | requester | integration | agent |
|---|---|---|---|
| sees | own, or all of the tenant | its application's | the tenant's, or its application's |
| sets in a creation | `NEW` | and `submitted_by_id`, `source` | every member |
| sets later | `LATER`, a status of `LATER_STATUSES`; of own | the same | every member |
| closes, deletes, restores, comments on | own | its application's | all that they see |
| internal comments | no | no | sees and writes them |
| edits a comment | as its author | as its author | as its author |
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from service.access.policy import Caller
from service.errors import Issue, TicketError
from service.storage.statement import Row

# What a requester sets of a ticket: when they create it, and later.
NEW = frozenset(
    {
        *("title", "description", "type", "priority", "category", "tags", "source_type"),
        *("related_asset_id", "related_vulnerability_id"),
    }
)
LATER = NEW - {"type", "priority", "source_type"}
LATER_STATUSES = frozenset({"open", "closed"})
_OF_INTEGRATIONS = frozenset({"submitted_by_id", "source"})

V = TypeVar("V")


def is_agent(caller: Caller) -> bool:
    """Whether the caller works on every ticket that they see, not only on their own."""
    return "helpdesk:agent" in caller.scopes


def is_integration(caller: Caller) -> bool:
    """Whether the caller's token is that of one application."""
    return caller.app_id is not None


def sees_whole_tenant(caller: Caller) -> bool:
    """Whether the caller sees every ticket of the tenant: neither an application's alone, nor only their own."""
    return not is_integration(caller) and (is_agent(caller) or "helpdesk:read_all" in caller.scopes)


def is_own(caller: Caller, ticket: Row) -> bool:
    """Whether a ticket of the tenant is the caller's own: their application's, or submitted or created by them."""
    if is_integration(caller):
        return bool(ticket["app_id"] == caller.app_id)
    return caller.subject in (ticket["submitted_by_id"], ticket["created_by"])


def may_change_ticket(caller: Caller, ticket: Row) -> bool:
    """Whether the caller may change, close, delete, restore and comment on a ticket that they see."""
    return is_agent(caller) or is_own(caller, ticket)


def may_set_in_creation(caller: Caller, name: str) -> bool:
    """Whether the caller may set a member of a ticket that they create."""
    return is_agent(caller) or name in NEW or (is_integration(caller) and name in _OF_INTEGRATIONS)


def may_set_later(caller: Caller, name: str, value: object) -> bool:
    """Whether the caller may set a member of a ticket that they may change to this value."""
    return is_agent(caller) or name in LATER or (name == "status" and value in LATER_STATUSES)


def may_see_internal(caller: Caller) -> bool:
    """Whether the caller sees internal comments, and the events about them."""
    return is_agent(caller)


def may_write_comment(caller: Caller, *, internal: bool) -> bool:
    """Whether the caller may write a comment of this kind on a ticket that they may change."""
    return is_agent(caller) or not internal


def may_see_comment(caller: Caller, comment: Row) -> bool:
    """Whether the caller sees a comment of a ticket that they see."""
    return may_see_internal(caller) or not comment["internal"]


def may_edit_comment(caller: Caller, comment: Row) -> bool:
    """Whether the caller may edit a comment that they see: only its author, agent or not."""
    return bool(comment["author_id"] == caller.subject)


def require_change_ticket(caller: Caller, ticket: Row) -> None:
    """Raise TicketError `forbidden` unless the caller may change the ticket."""
    if not may_change_ticket(caller, ticket):
        raise TicketError("forbidden", "Only agents can change a ticket of someone else")


def require_set_in_creation(caller: Caller, members: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise TicketError `forbidden`, naming them, for members that only others may set; a default is no setting."""
    _refuse([name for name in _differing(members, defaults) if not may_set_in_creation(caller, name)])


def require_set_later(caller: Caller, changes: Mapping[str, Any], ticket: Row) -> None:
    """Raise TicketError `forbidden`, naming them, for members that only others may change so.

    What a ticket has already is no change: so what was read may be sent back.
    """
    changed = _differing(changes, ticket)
    _refuse([name for name, value in changed.items() if not may_set_later(caller, name, value)])


def require_write_comment(caller: Caller, *, internal: bool) -> None:
    """Raise TicketError `forbidden` unless the caller may write a comment of this kind."""
    if not may_write_comment(caller, internal=internal):
        raise TicketError("forbidden", "Only agents can write internal comments")


def require_edit_comment(caller: Caller, comment: Row) -> None:
    """Raise TicketError `forbidden` unless the caller may edit the comment."""
    if not may_edit_comment(caller, comment):
        raise TicketError("forbidden", "Only the author of a comment can edit it")


def _differing(given: Mapping[str, V], there: Mapping[str, V]) -> dict[str, V]:
    return {name: value for name, value in given.items() if value != there[name]}


def _refuse(names: list[str]) -> None:
    if names:
        issues = [Issue(("body", name), "Only agents can set this", "forbidden") for name in sorted(names)]
        raise TicketError("forbidden", f"Only agents can set {', '.join(sorted(names))}", issues=issues)
