"""Row → documented JSON of an ITSM ticket and its events (contracts/itsm.md, Ticket): every member always there."""

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
_EVENT_MEMBERS = ("account_id", "ticket_id", "version", "type", "changes", "actor", "request_id", "created_at")


def ticket(row: Row) -> View:
    """The ticket."""
    return {name: row[name] for name in _MEMBERS}


def event(row: Row) -> View:
    """One change of a ticket."""
    return {name: row[name] for name in _EVENT_MEMBERS}
