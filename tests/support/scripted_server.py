"""A gRPC server that answers the clients as a test tells it to, and every call that they can make."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from tickets.client.transport import Asynchronous, Blocking
from tickets.errors.v1 import error_pb2
from tickets.handoff.v1 import ticket_service_pb2 as handoff_pb2
from tickets.helpdesk.v1 import comment_service_pb2 as comment_pb2
from tickets.helpdesk.v1 import sla_service_pb2 as sla_pb2
from tickets.helpdesk.v1 import ticket_service_pb2 as helpdesk_pb2
from tickets.itsm.v1 import ticket_service_pb2 as itsm_pb2
from tickets.itsm.v1 import webhook_service_pb2 as webhook_pb2

from support.clients import NEW, Client, P


@dataclass(frozen=True)
class Refusal:
    """How a call ends that fails: details are the service's own unless there is no reason."""

    status: StatusCode
    reason: str = ""
    retry_after: float | None = None

    def trailing(self) -> tuple[tuple[str, bytes], ...]:
        status = status_pb2.Status(code=self.status.value[0], message="No")
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self.retry_after * 1000))
            status.details.add().Pack(retry)
        if self.reason:
            status.details.add().Pack(error_pb2.Error(message="No", code=self.reason))
        return (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()


UNAVAILABLE = Refusal(StatusCode.UNAVAILABLE, "unavailable")
LIMITED = Refusal(StatusCode.RESOURCE_EXHAUSTED, "rate_limited", 3)


@dataclass(frozen=True)
class Seen:
    """A call as the server saw it."""

    path: str
    request: bytes
    metadata: dict[str, str | bytes]
    seconds_left: float


class Server(grpc.GenericRpcHandler):
    """Answers each call with the next script: messages, and a refusal where it ends so. None is no end."""

    def __init__(self) -> None:
        self.scripts = deque[Sequence[Message | Refusal | None]]()
        self.seen = list[Seen]()
        self.target = self.secure_target = ""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        async def answer(request: bytes, context: Any) -> AsyncIterator[bytes]:
            metadata = dict(context.invocation_metadata())
            self.seen.append(Seen(handler_call_details.method, request, metadata, context.time_remaining()))
            for step in self.scripts.popleft():
                if step is None:
                    await asyncio.Event().wait()
                elif isinstance(step, Refusal):
                    await context.abort(step.status, "No", step.trailing())
                else:
                    yield step.SerializeToString()

        # One answer of a stream and the one of a unary call look the same.
        return grpc.unary_stream_rpc_method_handler(answer)

    def keys(self) -> list[Any]:
        return [seen.metadata.get("idempotency-key") for seen in self.seen]


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """A server that listens, with and without TLS, until the block ends."""
    serving, handler = grpc.aio.server(), Server()
    serving.add_generic_rpc_handlers((handler,))
    handler.target = f"127.0.0.1:{serving.add_insecure_port('127.0.0.1:0')}"
    local = serving.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
    handler.secure_target = f"127.0.0.1:{local}"
    await serving.start()
    yield handler
    await serving.stop(None)


def without_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let clients not sleep; returns the seconds that they would have slept."""
    slept = list[float]()

    async def sleep(self: Any, seconds: float) -> None:
        slept.append(round(seconds, 3))

    monkeypatch.setattr(Blocking, "sleep", sleep)
    monkeypatch.setattr(Asynchronous, "sleep", sleep)
    return slept


# Every call: its arguments, what it is answered, and what makes it safe to repeat.
CALLS: dict[str, tuple[tuple[str, ...], dict[str, Any], Message, str]] = {
    "helpdesk.list": ((), {}, helpdesk_pb2.ListTicketsResponse(), "read"),
    "helpdesk.get": (("1",), {}, helpdesk_pb2.GetTicketResponse(), "read"),
    "helpdesk.create": ((), {"title": "A"}, helpdesk_pb2.CreateTicketResponse(), "key"),
    "helpdesk.update": (("1",), {"title": "A"}, helpdesk_pb2.UpdateTicketResponse(), "key"),
    "helpdesk.close": (("1",), {}, helpdesk_pb2.CloseTicketResponse(), "key"),
    "helpdesk.delete": (("1",), {}, helpdesk_pb2.DeleteTicketResponse(), "key"),
    "helpdesk.restore": (("1",), {}, helpdesk_pb2.RestoreTicketResponse(), "key"),
    "helpdesk.comment": (("1", "A"), {}, comment_pb2.CreateCommentResponse(), "key"),
    "helpdesk.edit_comment": (("1", "2", "A"), {}, comment_pb2.UpdateCommentResponse(), "key"),
    "helpdesk.comments": (("1",), {}, comment_pb2.ListCommentsResponse(), "read"),
    "helpdesk.events": (("1",), {}, helpdesk_pb2.ListTicketEventsResponse(), "read"),
    "helpdesk.sla": (("1",), {}, sla_pb2.GetTicketSlaResponse(), "read"),
    "helpdesk.sla_policies.list": ((), {}, sla_pb2.ListSlaPoliciesResponse(), "read"),
    "helpdesk.sla_policies.get": (("1",), {}, sla_pb2.GetSlaPolicyResponse(), "read"),
    "helpdesk.sla_policies.create": (
        (),
        {"name": "A", "priority": "low", "resolution_minutes": 1},
        sla_pb2.CreateSlaPolicyResponse(),
        "key",
    ),
    "helpdesk.sla_policies.update": (("1",), {"name": "A"}, sla_pb2.UpdateSlaPolicyResponse(), "key"),
    "helpdesk.calendar.get": ((), {}, sla_pb2.GetCalendarResponse(), "read"),
    "helpdesk.calendar.update": ((), {"holidays": []}, sla_pb2.UpdateCalendarResponse(), "key"),
    "helpdesk.watch": ((), {}, helpdesk_pb2.WatchTicketsResponse(), "watch"),
    "itsm.create": ((), {"subject": "A", "description": "B"}, itsm_pb2.CreateTicketResponse(), "key"),
    "itsm.get": ((P,), {}, itsm_pb2.GetTicketResponse(), "read"),
    "itsm.list": ((), {}, itsm_pb2.ListTicketsResponse(), "read"),
    "itsm.update": ((P,), {"status": "open"}, itsm_pb2.UpdateTicketResponse(), "key"),
    "itsm.events": ((P,), {}, itsm_pb2.ListTicketEventsResponse(), "read"),
    "itsm.watch": ((), {}, itsm_pb2.WatchTicketsResponse(), "watch"),
    "itsm.webhooks.create": (
        (),
        {"url": "https://example.com", "events": ["ticket.created"]},
        webhook_pb2.CreateWebhookResponse(),
        "key",
    ),
    "itsm.webhooks.list": ((), {}, webhook_pb2.ListWebhooksResponse(), "read"),
    "itsm.webhooks.update": (("1",), {"is_active": True}, webhook_pb2.UpdateWebhookResponse(), "key"),
    "itsm.webhooks.delete": (("1",), {}, webhook_pb2.DeleteWebhookResponse(), "key"),
    "itsm.webhooks.rotate_secret": (("1",), {}, webhook_pb2.RotateWebhookSecretResponse(), "key"),
    "itsm.webhooks.deliveries": (("1",), {}, webhook_pb2.ListWebhookDeliveriesResponse(), "read"),
    "itsm.webhooks.replay": (("1", "2"), {}, webhook_pb2.ReplayWebhookDeliveryResponse(), "key"),
    "handoff.list": ((), {}, handoff_pb2.ListTicketsResponse(), "read"),
    "handoff.list_project": ((P,), {}, handoff_pb2.ListProjectTicketsResponse(), "read"),
    "handoff.get": ((P, "1"), {}, handoff_pb2.GetTicketResponse(), "read"),
    "handoff.create": ((P,), NEW, handoff_pb2.CreateTicketResponse(), "key"),
    "handoff.update": ((P, "1"), {"title": "A"}, handoff_pb2.UpdateTicketResponse(), "key"),
    "handoff.bulk": ((P,), {"action": "close", "ticket_ids": "1"}, handoff_pb2.BulkUpdateTicketsResponse(), "key"),
    "handoff.report_deployment": (
        (P, "1"),
        {"merge_sha": "a", "outcome": "merged"},
        handoff_pb2.ReportDeploymentResponse(),
        "key",
    ),
    "handoff.events": ((P, "1"), {}, handoff_pb2.ListTicketEventsResponse(), "read"),
    "handoff.watch": ((P,), {}, handoff_pb2.WatchTicketsResponse(), "watch"),
}
UNARY = [name for name, (_, _, _, safe) in CALLS.items() if safe != "watch"]
LISTS = ("list", "list_project", "events", "comments", "deliveries")


async def make(client: Client, name: str) -> Any:
    """One of the CALLS, to its end."""
    args, members, _, _ = CALLS[name]
    return await (client.collect if name.endswith(LISTS) else client.call)(name, *args, **members)
