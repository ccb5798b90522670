"""Row → documented JSON of an ITSM ticket (contracts/itsm.md, Ticket): every member always there."""

from service.operation import View
from service.statement import Row

_MEMBERS = (
    "id",
    "subject",
    "description",
    "status",
    "priority",
    "requester_email",
    "external_provider",
    "external_ticket_id",
    "external_ticket_url",
    "metadata",
    "created_at",
    "updated_at",
)


def ticket(row: Row) -> View:
    """The ticket."""
    return {name: row[name] for name in _MEMBERS}
