"""Who may change what of a helpdesk ticket, on one page: pure predicates, and what raises `forbidden` without them.

The scopes that a method requires are in access/policy.py. Which tickets a caller sees is in lookup.py: the tenant's, or
with an application's token that application's. A caller who may create a ticket may name anyone as its submitter.
"""

from service.access.policy import Caller
from service.errors import TicketError
from service.storage.statement import Row

# The scopes that read tickets.
READERS = frozenset({"helpdesk:read", "helpdesk:agent"})


def is_agent(caller: Caller) -> bool:
    """Whether the caller works on every ticket of the tenant, not only on their own."""
    return "helpdesk:agent" in caller.scopes


def may_change_ticket(caller: Caller, ticket: Row) -> bool:
    """Whether the caller may change, close, delete, restore and comment on a ticket: agents, and its submitter."""
    return is_agent(caller) or ticket["submitted_by_id"] == caller.subject


def may_see_ticket(caller: Caller, ticket: Row) -> bool:
    """Whether the caller may know that a ticket within their scope exists: who reads tickets, and its submitter."""
    return not caller.scopes.isdisjoint(READERS) or may_change_ticket(caller, ticket)


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
        raise TicketError("forbidden", "Only agents can change a ticket that someone else submitted")


def require_write_comment(caller: Caller, *, internal: bool) -> None:
    """Raise TicketError `forbidden` unless the caller may write a comment of this kind."""
    if not may_write_comment(caller, internal=internal):
        raise TicketError("forbidden", "Only agents can write internal comments")


def require_edit_comment(caller: Caller, comment: Row) -> None:
    """Raise TicketError `forbidden` unless the caller may edit the comment."""
    if not may_edit_comment(caller, comment):
        raise TicketError("forbidden", "Only the author of a comment can edit it")
