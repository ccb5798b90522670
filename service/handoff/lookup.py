"""Finding the ticket that a request refers to."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from service.errors import TicketError
from service.handoff import queries, rights, views
from service.operation import Call
from service.storage.statement import Row

# Only as they are written in answers. A number of up to eighteen digits fits a bigint.
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_REF = re.compile(r"HO-([1-9][0-9]{0,17})-([a-z0-9-]+)")


class TicketRef(NamedTuple):
    """How a request refers to a ticket: by id, by number, or by number and the project's slug."""

    by: queries.By
    key: UUID | int
    slug: str | None = None

    def fits(self, project_slug: str) -> bool:
        """Whether it can refer to a ticket of the project with this slug."""
        return self.slug in (None, project_slug)


def parse_ticket_ref(text: str) -> TicketRef:
    """The reference in a text. One that is neither id nor number nor `ticket_ref` is number 0, which no ticket has."""
    if _NUMBER.fullmatch(text):
        return TicketRef("number", int(text))
    reference = _REF.fullmatch(text)
    if reference is not None:
        return TicketRef("number", int(reference[1]), reference[2])
    return TicketRef("id", UUID(text)) if _ID.fullmatch(text) else TicketRef("number", 0)


def parameters(call: Call, project_id: UUID, ref: TicketRef) -> dict[str, Any]:
    """The parameters of a statement that reads the ticket of this reference."""
    return {"user_id": user_id(call), "project_id": project_id, ref.by: ref.key}


def one_ticket(rows: Sequence[Row], ref: TicketRef) -> Row:
    """The ticket that `queries.read_tickets` found, with its roles. Raises TicketError `forbidden`, `not_found`."""
    if not rows:
        raise rights.not_a_member()
    row = rows[0]
    if row["id"] is None or not ref.fits(row["project_slug"]):
        raise ticket_not_found()
    return row | {"roles": views.roles(row)}


def ticket_not_found() -> TicketError:
    """The failure of a member's call that refers to no ticket of the project."""
    return TicketError("not_found", "Ticket not found")


def user_id(call: Call) -> UUID:
    """The caller's id, as in project memberships."""
    return UUID(call.caller.subject)
