"""Who asks for which ticket, and what is said when there is none."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from service.errors import TicketError
from service.handoff import queries, views
from service.operation import Call
from service.storage.statement import Row

# As they are written, and no other way; eighteen digits are the most that any bigint can have.
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_REF = re.compile(r"HO-([1-9][0-9]{0,17})-([a-z0-9-]+)")


class Named(NamedTuple):
    """A ticket as a request names it: by id, by number, or by number and the project's slug."""

    by: queries.By
    key: UUID | int
    slug: str | None = None


def which(ticket_id: str) -> Named:
    """What a text names. What is neither id nor number nor reference is the number that no ticket has."""
    if _NUMBER.fullmatch(ticket_id):
        return Named("number", int(ticket_id))
    reference = _REF.fullmatch(ticket_id)
    if reference is not None:
        return Named("number", int(reference[1]), reference[2])
    return Named("id", UUID(ticket_id)) if _ID.fullmatch(ticket_id) else Named("number", 0)


def found(rows: Sequence[Row], named: Named) -> Row:
    """The one ticket that was read, with its roles. Raises TicketError `forbidden`, `not_found`."""
    if not rows:
        raise no_project()
    row = rows[0]
    if row["id"] is None or named.slug not in (None, row["project_slug"]):
        raise no_ticket()
    return row | {"roles": views.roles(row)}


def no_project() -> TicketError:
    """The failure of who may not even know which tickets there are."""
    return TicketError("forbidden", "You are no member of this project")


def no_ticket() -> TicketError:
    """The failure of a member who names no ticket of the project."""
    return TicketError("not_found", "Ticket not found")


def user_id(call: Call) -> UUID:
    """The caller, as project memberships know them."""
    return UUID(call.caller.subject)


def key_scope(call: Call, project_id: UUID) -> str:
    """Whose idempotency keys they are."""
    return f"handoff:{project_id}:{user_id(call)}"
