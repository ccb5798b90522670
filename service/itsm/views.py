"""Row → documented JSON of an ITSM ticket and its events (contracts/itsm.md, Ticket): every member always there."""

from service.operation import View
from service.storage.statement import Row

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


_WEBHOOK = (
    "id",
    "url",
    "events",
    "is_active",
    "disabled_reason",
    "failing_since",
    "created_at",
    "updated_at",
)
_DELIVERY = (
    "id",
    "event_id",
    "type",
    "ticket_id",
    "attempt",
    "attempted_at",
    "duration_ms",
    "succeeded",
    "status_code",
    "error",
)


def webhook(row: Row, secret: str | None = None) -> View:
    """The webhook; its secret only where it was just made."""
    view = {name: row[name] for name in _WEBHOOK}
    return view if secret is None else {**view, "secret": secret}


def delivery(row: Row) -> View:
    """One attempt to deliver a message."""
    return {name: row[name] for name in _DELIVERY}


def ticket_as_of(row: Row, event: Row) -> View:
    """The ticket of a row whose members are those as of an event.

    Events of creations do not say when the ticket was changed, nor do old ones.
    """
    view = dict(ticket(row))
    if event["version"] < row["version"]:
        view["updated_at"] = row["created_at"] if event["version"] == 1 else event["updated_at"] or event["told_at"]
    return view
