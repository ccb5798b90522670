"""Every operation of the three APIs: its route and its typed method."""

from dataclasses import dataclass
from typing import Any

from tickets.handoff.v1 import ticket_service_pb2 as handoff_pb2
from tickets.helpdesk.v1 import comment_service_pb2 as comment_pb2
from tickets.helpdesk.v1 import sla_service_pb2 as sla_pb2
from tickets.helpdesk.v1 import ticket_service_pb2 as helpdesk_pb2
from tickets.itsm.v1 import ticket_service_pb2 as itsm_pb2
from tickets.itsm.v1 import webhook_service_pb2 as webhook_pb2


@dataclass(frozen=True)
class Method:
    """One operation: its REST route and success status, and its typed method."""

    api: str
    verb: str
    path: str
    status: int
    service: Any
    name: str
    # The response's field that is the documented body, where that is a bare resource.
    bare: str = ""


def _service(module: Any) -> Any:
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return service


_ITSM, _HOOKS, _HANDOFF = _service(itsm_pb2), _service(webhook_pb2), _service(handoff_pb2)
_HELPDESK, _COMMENTS, _SLA = _service(helpdesk_pb2), _service(comment_pb2), _service(sla_pb2)
_DESK = "/api/v1/helpdesk/tickets"
_POLICIES = "/api/v1/helpdesk/sla-policies"
_CALENDAR = "/api/v1/helpdesk/calendar"
_WEBHOOKS = "/api/v1/webhooks"
_WEBHOOK = _WEBHOOKS + "/{webhook_id}"
_BOARD = "/api/projects/{project_id}/tickets"

METHODS = {
    "itsm.create": Method("itsm", "POST", "/api/v1/tickets", 201, _ITSM, "CreateTicket", "ticket"),
    "itsm.get": Method("itsm", "GET", "/api/v1/tickets/{ticket_id}", 200, _ITSM, "GetTicket", "ticket"),
    "itsm.list": Method("itsm", "GET", "/api/v1/tickets", 200, _ITSM, "ListTickets"),
    "itsm.update": Method("itsm", "PATCH", "/api/v1/tickets/{ticket_id}", 200, _ITSM, "UpdateTicket", "ticket"),
    "itsm.events": Method("itsm", "GET", "/api/v1/tickets/{ticket_id}/events", 200, _ITSM, "ListTicketEvents"),
    "itsm.create_webhook": Method("itsm", "POST", _WEBHOOKS, 201, _HOOKS, "CreateWebhook", "webhook"),
    "itsm.webhooks": Method("itsm", "GET", _WEBHOOKS, 200, _HOOKS, "ListWebhooks"),
    "itsm.update_webhook": Method("itsm", "PATCH", _WEBHOOK, 200, _HOOKS, "UpdateWebhook", "webhook"),
    "itsm.delete_webhook": Method("itsm", "DELETE", _WEBHOOK, 204, _HOOKS, "DeleteWebhook"),
    "itsm.rotate_secret": Method(
        "itsm", "POST", _WEBHOOK + "/rotate-secret", 200, _HOOKS, "RotateWebhookSecret", "webhook"
    ),
    "itsm.deliveries": Method("itsm", "GET", _WEBHOOK + "/deliveries", 200, _HOOKS, "ListWebhookDeliveries"),
    "itsm.replay": Method(
        "itsm",
        "POST",
        _WEBHOOK + "/deliveries/{delivery_id}/replay",
        202,
        _HOOKS,
        "ReplayWebhookDelivery",
        "delivery",
    ),
    "helpdesk.create": Method("helpdesk", "POST", _DESK, 201, _HELPDESK, "CreateTicket", "ticket"),
    "helpdesk.get": Method("helpdesk", "GET", _DESK + "/{id}", 200, _HELPDESK, "GetTicket", "ticket"),
    "helpdesk.list": Method("helpdesk", "GET", _DESK, 200, _HELPDESK, "ListTickets"),
    "helpdesk.update": Method("helpdesk", "PATCH", _DESK + "/{id}", 200, _HELPDESK, "UpdateTicket", "ticket"),
    "helpdesk.close": Method("helpdesk", "POST", _DESK + "/{id}/close", 200, _HELPDESK, "CloseTicket", "ticket"),
    "helpdesk.delete": Method("helpdesk", "DELETE", _DESK + "/{id}", 200, _HELPDESK, "DeleteTicket", "ticket"),
    "helpdesk.restore": Method("helpdesk", "POST", _DESK + "/{id}/restore", 200, _HELPDESK, "RestoreTicket", "ticket"),
    "helpdesk.sla": Method("helpdesk", "GET", _DESK + "/{id}/sla", 200, _SLA, "GetTicketSla", "sla"),
    "helpdesk.policies": Method("helpdesk", "GET", _POLICIES, 200, _SLA, "ListSlaPolicies"),
    "helpdesk.policy": Method("helpdesk", "GET", _POLICIES + "/{id}", 200, _SLA, "GetSlaPolicy", "sla_policy"),
    "helpdesk.create_policy": Method("helpdesk", "POST", _POLICIES, 201, _SLA, "CreateSlaPolicy", "sla_policy"),
    "helpdesk.update_policy": Method(
        "helpdesk", "PATCH", _POLICIES + "/{id}", 200, _SLA, "UpdateSlaPolicy", "sla_policy"
    ),
    "helpdesk.calendar": Method("helpdesk", "GET", _CALENDAR, 200, _SLA, "GetCalendar", "calendar"),
    "helpdesk.update_calendar": Method("helpdesk", "PATCH", _CALENDAR, 200, _SLA, "UpdateCalendar", "calendar"),
    "helpdesk.comment": Method(
        "helpdesk", "POST", _DESK + "/{id}/comments", 201, _COMMENTS, "CreateComment", "comment"
    ),
    "helpdesk.edit": Method(
        "helpdesk", "PATCH", _DESK + "/{id}/comments/{comment_id}", 200, _COMMENTS, "UpdateComment", "comment"
    ),
    "helpdesk.comments": Method("helpdesk", "GET", _DESK + "/{id}/comments", 200, _COMMENTS, "ListComments"),
    "helpdesk.events": Method("helpdesk", "GET", _DESK + "/{id}/events", 200, _HELPDESK, "ListTicketEvents"),
    "handoff.create": Method("handoff", "POST", _BOARD, 201, _HANDOFF, "CreateTicket"),
    "handoff.list": Method("handoff", "GET", "/api/tickets", 200, _HANDOFF, "ListTickets"),
    "handoff.project": Method("handoff", "GET", _BOARD, 200, _HANDOFF, "ListProjectTickets"),
    "handoff.get": Method("handoff", "GET", _BOARD + "/{ticket_id}", 200, _HANDOFF, "GetTicket"),
    "handoff.update": Method("handoff", "PATCH", _BOARD + "/{ticket_id}", 200, _HANDOFF, "UpdateTicket"),
    "handoff.bulk": Method("handoff", "POST", _BOARD + "/bulk", 200, _HANDOFF, "BulkUpdateTickets"),
    "handoff.deploy": Method("handoff", "POST", _BOARD + "/{ticket_id}/deployments", 200, _HANDOFF, "ReportDeployment"),
    "handoff.events": Method("handoff", "GET", _BOARD + "/{ticket_id}/events", 200, _HANDOFF, "ListTicketEvents"),
}
