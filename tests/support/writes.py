"""Every writing method of every API, each as a request that may be repeated, for the tests of idempotency keys."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from service.access.policy import POLICIES
from service.server import DESCRIPTORS
from support import handoff, operators
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

Transport = Rest | Grpc

URL = "https://127.0.0.1:9/hook"
HOOK: Mapping[str, Any] = {"url": URL, "events": ["ticket.closed"]}
TICKET: Mapping[str, Any] = {"subject": "VPN is down", "description": "Since nine."}
POLICY: Mapping[str, Any] = {"name": "Urgent", "priority": "urgent", "resolution_minutes": 60}
LINK = {"provider": "zendesk", "url": "https://acme.zendesk.com", "credential": "ada@example.com/token:secret"}
# What shows what a write did, by API: queries of the rows of one project, tenant or account.
STATES = {
    "handoff": (
        "SELECT row_to_json(t)::text FROM handoff_tickets t WHERE project_id = %s ORDER BY id",
        "SELECT row_to_json(r)::text FROM handoff_roles r WHERE project_id = %s ORDER BY id",
        "SELECT row_to_json(e)::text FROM handoff_events e WHERE project_id = %s ORDER BY id",
    ),
    "helpdesk": (
        "SELECT row_to_json(t)::text FROM helpdesk_tickets t WHERE tenant_id = %s ORDER BY id",
        "SELECT row_to_json(c)::text FROM helpdesk_comments c WHERE tenant_id = %s ORDER BY id",
        "SELECT row_to_json(e)::text FROM helpdesk_events e WHERE tenant_id = %s ORDER BY id",
        "SELECT row_to_json(p)::text FROM helpdesk_sla_policies p WHERE tenant_id = %s ORDER BY id",
        "SELECT row_to_json(c)::text FROM helpdesk_calendars c WHERE tenant_id = %s",
    ),
    "itsm": (
        "SELECT row_to_json(t)::text FROM itsm_tickets t WHERE account_id = %s ORDER BY id",
        "SELECT row_to_json(e)::text FROM itsm_events e WHERE account_id = %s ORDER BY id",
        "SELECT id, url, events, is_active, secret, updated_at FROM itsm_webhooks WHERE account_id = %s ORDER BY id",
        "SELECT version FROM itsm_webhook_messages WHERE account_id = %s",
    ),
    "admin": (
        "SELECT row_to_json(a)::text FROM accounts a WHERE name = %s ORDER BY id",
        "SELECT row_to_json(t)::text FROM tenants t WHERE name = %s ORDER BY id",
        "SELECT row_to_json(p)::text FROM projects p JOIN accounts a ON a.id = account_id WHERE a.name = %s",
        "SELECT row_to_json(m)::text FROM project_members m JOIN projects p ON p.id = project_id WHERE p.name = %s",
        "SELECT row_to_json(k)::text FROM api_keys k JOIN accounts a ON a.id = account_id WHERE a.name = %s"
        " ORDER BY k.id",
        "SELECT row_to_json(l)::text FROM provider_links l JOIN accounts a ON a.id = account_id WHERE a.name = %s",
    ),
}


@dataclass(frozen=True)
class Write:
    """One write: whose it is, what it says, and what repeats of it do."""

    world: World
    transport: Transport
    operation: str
    who: Credential
    # The value of the parameter of STATES.
    owner: str
    path: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    # Another request of the same method: what differs in its body or, without one, in its path.
    other: Mapping[str, Any] = field(default_factory=dict)
    # What somebody does between the request and its repetition.
    meanwhile: Callable[[], Awaitable[Any]] | None = None
    # What the same request does without a key: another effect (""), nothing ("same"), or it fails for this reason.
    unkeyed: str = ""

    @property
    def api(self) -> str:
        return self.operation.partition(".")[0]

    async def send(self, key: str | None = None, *, other: bool = False, **headers: str) -> Reply:
        """Send the request, or the other one, under a key."""
        path = self.path if not other or self.body is not None else {**self.path, **self.other}
        body = self.body if not other or self.body is None else {**self.body, **self.other}
        headers |= {} if key is None else {"idempotency-key": key}
        if self.api == "admin":
            assert isinstance(self.transport, Grpc)
            request = {**path, **(body or {})}
            method = self.operation.partition(".")[2]
            return await operators.call(self.transport, {**self.who, **headers}, method, **request)
        return await self.transport.call(self.operation, self.who, path=path, body=body, headers=headers)

    def state(self) -> Any:
        """All that the write may have changed."""
        return [self.world.rows(query, self.owner) for query in STATES[self.api]]

    @property
    def status(self) -> int:
        """The HTTP status of its success."""
        return METHODS[self.operation].status if self.operation in METHODS else 200


async def _handoff(world: World, transport: Transport) -> dict[str, Write]:
    project_id, who = await handoff.new_project(world, "owner")
    ticket, other = [await handoff.created(transport, who, project_id) for _ in range(2)]
    in_project, named = {"project_id": project_id}, {"project_id": project_id, "ticket_id": ticket["id"]}
    rename = partial(handoff.changed, transport, who, ticket, title="Later")
    move = partial(handoff.changed, transport, who, ticket, stage="validation")
    write = partial(Write, world, transport, who=who, owner=project_id)
    bulk = {"action": "move", "stage": "up_next", "ticket_ids": [ticket["id"]]}
    report = {"merge_sha": "9fceb02", "outcome": "deployed"}
    return {
        "CreateTicket": write("handoff.create", path=in_project, body=handoff.TICKET, other={"title": "Other"}),
        "UpdateTicket": write(
            "handoff.update", path=named, body={"title": "First"}, other={"title": "Other"}, meanwhile=rename
        ),
        "BulkUpdateTickets": write(
            "handoff.bulk", path=in_project, body=bulk, other={"ticket_ids": [other["id"]]}, meanwhile=move
        ),
        # (A commit and outcome are recorded once anyway.)
        "ReportDeployment": write(
            "handoff.deploy", path=named, body=report, other={"outcome": "failed"}, meanwhile=rename, unkeyed="same"
        ),
    }


async def _helpdesk(world: World, transport: Transport) -> dict[str, Write]:
    tenant_id = f"ten_{uuid4().hex}"
    who = world.person("read", "write", "agent", tenant_id=tenant_id)

    async def do(operation: str, path: Mapping[str, str] | None = None, **body: Any) -> Any:
        return (await transport.call(operation, who, path=path, body=body)).succeeded(METHODS[operation].status)

    ticket, other = [await do("helpdesk.create", title="VPN is down") for _ in range(2)]
    gone, there = [await do("helpdesk.create", title="VPN is down") for _ in range(2)]
    await do("helpdesk.delete", {"id": gone["id"]})
    comment = await do("helpdesk.comment", {"id": ticket["id"]}, body="First")
    policy = await do("helpdesk.create_policy", **POLICY, status="inactive")
    one, another = {"id": ticket["id"]}, {"id": other["id"]}
    comment_path, deleted, kept = {**one, "comment_id": comment["id"]}, {"id": gone["id"]}, {"id": there["id"]}
    write = partial(Write, world, transport, who=who, owner=tenant_id)
    return {
        "CreateTicket": write("helpdesk.create", body={"title": "New"}, other={"title": "Other"}),
        "UpdateTicket": write(
            "helpdesk.update",
            path=one,
            body={"title": "First"},
            other={"title": "Other"},
            meanwhile=partial(do, "helpdesk.update", one, title="Later"),
        ),
        "CloseTicket": write(
            "helpdesk.close",
            path=one,
            body={"resolution_note": "Done"},
            other={"resolution_note": "Other"},
            meanwhile=partial(do, "helpdesk.update", one, status="open"),
        ),
        "DeleteTicket": write(
            "helpdesk.delete", path=kept, other=another, meanwhile=partial(do, "helpdesk.restore", kept)
        ),
        "RestoreTicket": write(
            "helpdesk.restore", path=deleted, other=another, meanwhile=partial(do, "helpdesk.delete", deleted)
        ),
        "CreateComment": write("helpdesk.comment", path=one, body={"body": "Second"}, other={"body": "Other"}),
        "UpdateComment": write(
            "helpdesk.edit",
            path=comment_path,
            body={"body": "Edited"},
            other={"body": "Other"},
            meanwhile=partial(do, "helpdesk.edit", comment_path, body="Later"),
        ),
        "CreateSlaPolicy": write(
            "helpdesk.create_policy", body=POLICY, other={"name": "Other"}, unkeyed="already_exists"
        ),
        "UpdateSlaPolicy": write(
            "helpdesk.update_policy",
            path={"id": policy["id"]},
            body={"name": "First"},
            other={"name": "Other"},
            meanwhile=partial(do, "helpdesk.update_policy", {"id": policy["id"]}, name="Later"),
        ),
        "UpdateCalendar": write(
            "helpdesk.update_calendar",
            body={"time_zone": "Europe/Berlin"},
            other={"time_zone": "Europe/Paris"},
            meanwhile=partial(do, "helpdesk.update_calendar", time_zone="UTC"),
        ),
    }


async def _itsm(world: World, transport: Transport) -> dict[str, Write]:
    program = await world.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
    who = program.credential

    async def do(operation: str, path: Mapping[str, str] | None = None, **body: Any) -> Any:
        return (await transport.call(operation, who, path=path, body=body)).succeeded(METHODS[operation].status)

    async def sent() -> None:
        world.run("DELETE FROM itsm_webhook_messages WHERE account_id = %s", program.account_id)

    one = {"ticket_id": (await do("itsm.create", **TICKET))["id"]}
    hook, doomed = [{"webhook_id": (await do("itsm.create_webhook", **HOOK))["id"]} for _ in range(2)]
    delivery = {**hook, "delivery_id": f"dlv_{uuid4().hex}"}
    world.run(
        "INSERT INTO itsm_webhook_attempts VALUES"
        " (%s, true, %s, %s, gen_random_uuid(), 1, 'ticket.closed', 'evt_1', '{}', 1, now(), 5, true, 200, null)",
        *(program.account_id, *delivery.values()),
    )
    write = partial(Write, world, transport, who=who, owner=program.account_id)
    return {
        "CreateTicket": write("itsm.create", body=TICKET, other={"subject": "Other"}),
        "UpdateTicket": write(
            "itsm.update",
            path=one,
            body={"subject": "First"},
            other={"subject": "Other"},
            meanwhile=partial(do, "itsm.update", one, subject="Later"),
        ),
        "CreateWebhook": write("itsm.create_webhook", body=HOOK, other={"events": ["ticket.created"]}),
        "UpdateWebhook": write(
            "itsm.update_webhook",
            path=hook,
            body={"events": ["ticket.reopened"]},
            other={"is_active": False},
            meanwhile=partial(do, "itsm.update_webhook", hook, events=["ticket.closed"]),
        ),
        "DeleteWebhook": write("itsm.delete_webhook", path=doomed, other=hook, unkeyed="not_found"),
        "RotateWebhookSecret": write("itsm.rotate_secret", path=hook, other=doomed),
        "ReplayWebhookDelivery": write("itsm.replay", path=delivery, other={"delivery_id": "dlv_1"}, meanwhile=sent),
    }


async def _admin(world: World, transport: Transport) -> dict[str, Write]:
    assert isinstance(transport, Grpc)
    # All that is made has this name.
    name, who = f"n{uuid4().hex}", operators.operator_of(world)
    do = partial(operators.made, transport, who)
    account_id = (await do("CreateAccount", name=name))["account"]["id"]
    api_key_id = (await do("CreateApiKey", account_id=account_id, scopes=operators.SCOPES))["api_key"]["id"]
    project_id = (await do("CreateProject", account_id=account_id, name=name, slug=name[:20]))["project"]["id"]
    member = {"project_id": project_id, "user_id": str(uuid4())}
    gone = {"project_id": project_id, "user_id": str(uuid4())}
    await do("AddMember", **gone, role="member")
    link = {"account_id": account_id, **LINK}
    unlinked = (await do("CreateAccount", name=name))["account"]["id"]
    again = partial(do, "LinkProvider", account_id=unlinked, **LINK)
    await again()
    # Leased, so that no process attempts it.
    delivery_id, members = str(uuid4()), {**TICKET, "status": "open", "metadata": {}}
    of_nobody = (await do("CreateAccount", name="Without a provider"))["account"]["id"]
    world.run(
        "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
        " request_id, state, leased_until) VALUES (%s, %s, gen_random_uuid(), 1, 'create', %s, true, 'me', 'r', 'dead',"
        " now() + interval '1 hour')",
        *(delivery_id, of_nobody, json.dumps({**members, "priority": None, "requester_email": None})),
    )
    unknown = {"account_id": operators.UNKNOWN}
    # One of each to suspend, and one that is suspended.
    running, halted = [(await do("CreateAccount", name=name))["account"]["id"] for _ in range(2)]
    keys = [(await do("CreateApiKey", account_id=running, scopes=operators.SCOPES))["api_key"]["id"] for _ in range(2)]
    tenants = [(await do("CreateTenant", name=name, id=f"{name}-{n}"))["tenant"]["id"] for n in range(2)]
    await do("SuspendAccount", account_id=halted)
    await do("SuspendApiKey", api_key_id=keys[1])
    await do("SuspendTenant", tenant_id=tenants[1])

    def write(method: str, body: Mapping[str, Any], other: Mapping[str, Any], **more: Any) -> Write:
        return Write(world, transport, f"admin.{method}", who, name, body=body, other=other, **more)

    return {
        method.operation.partition(".")[2]: method
        for method in (
            write("CreateAccount", {"name": name}, {"name": "Other"}),
            write("CreateApiKey", {"account_id": account_id, "scopes": ["tickets:read"]}, {"scopes": operators.SCOPES}),
            # (Revoked again, a key stays as it is.)
            write("RevokeApiKey", {"api_key_id": api_key_id}, {"api_key_id": operators.UNKNOWN}, unkeyed="same"),
            write("CreateProject", {"name": name, "slug": name[:30]}, {"slug": "other"}, unkeyed="already_exists"),
            write(
                "UpdateProject",
                {"project_id": project_id, "backend_repo": "first"},
                {"backend_repo": "other"},
                meanwhile=partial(do, "UpdateProject", project_id=project_id, backend_repo="later"),
            ),
            write(
                "AddMember",
                {**member, "role": "member"},
                {"role": "owner"},
                meanwhile=partial(do, "AddMember", **member, role="viewer"),
            ),
            write("RemoveMember", gone, member, meanwhile=partial(do, "AddMember", **gone, role="member")),
            write("CreateTenant", {"name": name, "id": name}, {"id": "other"}, unkeyed="already_exists"),
            write(
                "LinkProvider",
                link,
                {"url": "https://other.zendesk.com"},
                meanwhile=partial(do, "LinkProvider", **{**link, "url": "https://later.zendesk.com"}),
            ),
            write("UnlinkProvider", {"account_id": unlinked}, unknown, meanwhile=again),
            write("RequeueDelivery", {"delivery_id": delivery_id}, {"delivery_id": operators.UNKNOWN}, unkeyed="same"),
            write("SuspendAccount", {"account_id": running}, unknown, unkeyed="same"),
            write("ResumeAccount", {"account_id": halted}, unknown, unkeyed="same"),
            write("SuspendApiKey", {"api_key_id": keys[0]}, {"api_key_id": operators.UNKNOWN}, unkeyed="same"),
            write("ResumeApiKey", {"api_key_id": keys[1]}, {"api_key_id": operators.UNKNOWN}, unkeyed="same"),
            write("SuspendTenant", {"tenant_id": tenants[0]}, {"tenant_id": "other"}, unkeyed="same"),
            write("ResumeTenant", {"tenant_id": tenants[1]}, {"tenant_id": "other"}, unkeyed="same"),
        )
    }


_BUILDERS = {"handoff": _handoff, "helpdesk": _helpdesk, "itsm": _itsm, "admin": _admin}


async def writes(world: World, transport: Transport, api: str) -> dict[str, Write]:
    """The writes of an API by the names of their methods, each on a stage that is new."""
    return await _BUILDERS[api](world, transport)


def _is_write(method: MethodDescriptor) -> bool:
    return bool(method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS)


def served_writes() -> set[tuple[str, str]]:
    """The API and the name of every method that is served and not marked as a read."""
    methods = {
        (descriptor.full_name.split(".")[1], method.name)
        for descriptor in DESCRIPTORS
        for method in descriptor.methods
        if descriptor.full_name.startswith("tickets.") and descriptor.name != "TicketRest" and _is_write(method)
    }
    # Both say which methods write.
    assert {(f"tickets.{api}.v1", name) for api, name in methods} <= {
        method for method, policy in POLICIES.items() if policy.kind == "write"
    }
    return methods
