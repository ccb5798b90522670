"""What is measured of the handoff API: a triager of a project lists, reads, files and moves its tickets."""

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from tickets.handoff.v1 import ticket_pb2, ticket_service_pb2

from .operations import Named, Operation

_SERVICE = "/tickets.handoff.v1.TicketService"
_PATH = "/api/projects/{scope}/tickets"
# As long as those of the other APIs: the default of a project's list is 1,000 tickets.
_PAGE = 20
NEW_TICKET: Mapping[str, Any] = {
    "title": "Laptop does not wake up",
    "description": "It stays dark after lunch. Power light is on, keyboard light is on, nothing on the second screen.",
    "request_type": "bug",
    "priority": "high",
    "roles": ["backend", "qa"],
    "evidence": {"category": "Hardware", "floor": 3, "asset": {"tag": "LT-2041", "age_years": 2}},
}
STAGES = ("up_next", "validation")

# What a ticket's `updated_at` is in its JSON: null until its first change.
_CONDITIONS = """
SELECT number, coalesce(to_json(to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text, 'null')
FROM handoff_tickets WHERE project_id = %(scope)s ORDER BY random() LIMIT %(rows)s
"""


def _new_message() -> ticket_service_pb2.CreateTicketRequest:
    return ticket_service_pb2.CreateTicketRequest(
        title=NEW_TICKET["title"],
        description=NEW_TICKET["description"],
        request_type=ticket_pb2.REQUEST_TYPE_BUG,
        priority=ticket_pb2.PRIORITY_HIGH,
        roles=[ticket_pb2.ROLE_NAME_BACKEND, ticket_pb2.ROLE_NAME_QA],
        evidence_json=json.dumps(NEW_TICKET["evidence"]),
    )


def _create(ticket: Named) -> ticket_service_pb2.CreateTicketRequest:
    return ticket_service_pb2.CreateTicketRequest(project_id=ticket.scope)


def _get(ticket: Named) -> ticket_service_pb2.GetTicketRequest:
    return ticket_service_pb2.GetTicketRequest(project_id=ticket.scope, ticket_id=ticket.id)


def _list(ticket: Named) -> ticket_service_pb2.ListProjectTicketsRequest:
    return ticket_service_pb2.ListProjectTicketsRequest(project_id=ticket.scope, limit=_PAGE)


def _update(ticket: Named) -> ticket_service_pb2.UpdateTicketRequest:
    """The part of a change that names its ticket and the version that it is of.

    The note is that version too: so every change is one, whatever the stage was before.
    """
    mask = FieldMask(paths=["stage", "implementation_notes", "updated_at"])
    request = ticket_service_pb2.UpdateTicketRequest(project_id=ticket.scope, ticket_id=ticket.id, update_mask=mask)
    read_at = json.loads(ticket.condition)
    if read_at is not None:
        stamp = Timestamp()
        stamp.FromJsonString(read_at)
        request.updated_at.CopyFrom(stamp)
        request.implementation_notes = read_at
    return request


OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            "handoff.get",
            "handoff GET by number",
            "GET",
            f"{_PATH}/{{id}}",
            f"{_SERVICE}/GetTicket",
            (ticket_service_pb2.GetTicketRequest(),),
            _get,
            names_ticket=True,
        ),
        Operation(
            "handoff.list",
            f"handoff LIST {_PAGE} of a project",
            "GET",
            f"{_PATH}?limit={_PAGE}",
            f"{_SERVICE}/ListProjectTickets",
            (ticket_service_pb2.ListProjectTicketsRequest(),),
            _list,
        ),
        Operation(
            "handoff.create",
            "handoff POST create",
            "POST",
            _PATH,
            f"{_SERVICE}/CreateTicket",
            (_new_message(),),
            _create,
            bodies=(json.dumps(NEW_TICKET),),
        ),
        Operation(
            "handoff.patch",
            "handoff PATCH stage, updated_at",
            "PATCH",
            f"{_PATH}/{{id}}",
            f"{_SERVICE}/UpdateTicket",
            tuple(
                ticket_service_pb2.UpdateTicketRequest(stage=ticket_pb2.Stage.Value(f"STAGE_{stage.upper()}"))
                for stage in STAGES
            ),
            _update,
            bodies=tuple(
                f'{{"stage": "{stage}", "implementation_notes": {{condition}}, "updated_at": {{condition}}}}'
                for stage in STAGES
            ),
            names_ticket=True,
            conditions=_CONDITIONS,
        ),
    )
}
