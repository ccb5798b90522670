"""What is measured of the helpdesk API: an agent of a tenant lists, reads, raises and changes its tickets."""

import json
from collections.abc import Mapping
from typing import Any

from tickets.helpdesk.v1 import ticket_pb2, ticket_service_pb2

from .operations import Named, Operation

_SERVICE = "/tickets.helpdesk.v1.TicketService"
_PATH = "/api/v1/helpdesk/tickets"
NEW_TICKET: Mapping[str, Any] = {
    "title": "Laptop does not wake up",
    "description": "It stays dark after lunch. Power light is on, keyboard light is on, nothing on the second screen.",
    "priority": "high",
    "category": "Hardware",
    "submitted_by_id": "per_17",
    "tags": ["laptop", "floor-3"],
}
# Each is a change of what the one before it left.
STATUSES = ("in_progress", "open")
_ASSIGNEE, _TEAM = "per_agent", "team_devices"

# The ETag of a ticket is its version.
_CONDITIONS = """
SELECT id, '"' || version || '"' FROM helpdesk_tickets WHERE tenant_id = %(scope)s ORDER BY random() LIMIT %(rows)s
"""


def _new_message() -> ticket_service_pb2.CreateTicketRequest:
    given = {name: value for name, value in NEW_TICKET.items() if name not in ("priority", "tags")}
    return ticket_service_pb2.CreateTicketRequest(
        **given, priority=ticket_pb2.PRIORITY_HIGH, tags_json=json.dumps(NEW_TICKET["tags"])
    )


def _update(ticket: Named) -> ticket_service_pb2.UpdateTicketRequest:
    return ticket_service_pb2.UpdateTicketRequest(id=ticket.id, etag=ticket.condition)


OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            "helpdesk.get",
            "helpdesk GET one",
            "GET",
            f"{_PATH}/{{id}}",
            f"{_SERVICE}/GetTicket",
            (ticket_service_pb2.GetTicketRequest(),),
            lambda ticket: ticket_service_pb2.GetTicketRequest(id=ticket.id),
            names_ticket=True,
        ),
        Operation(
            "helpdesk.list",
            "helpdesk LIST 20",
            "GET",
            _PATH,
            f"{_SERVICE}/ListTickets",
            (ticket_service_pb2.ListTicketsRequest(),),
        ),
        Operation(
            "helpdesk.create",
            "helpdesk POST create",
            "POST",
            _PATH,
            f"{_SERVICE}/CreateTicket",
            (_new_message(),),
            bodies=(json.dumps(NEW_TICKET),),
        ),
        Operation(
            "helpdesk.patch",
            "helpdesk PATCH, If-Match",
            "PATCH",
            f"{_PATH}/{{id}}",
            f"{_SERVICE}/UpdateTicket",
            tuple(
                ticket_service_pb2.UpdateTicketRequest(
                    status=ticket_pb2.Status.Value(f"STATUS_{status.upper()}"), assigned_to_id=_ASSIGNEE, team_id=_TEAM
                )
                for status in STATUSES
            ),
            _update,
            bodies=tuple(
                json.dumps({"status": status, "assigned_to_id": _ASSIGNEE, "team_id": _TEAM}) for status in STATUSES
            ),
            names_ticket=True,
            conditions=_CONDITIONS,
            condition_header="if-match",
        ),
    )
}
