"""Requests that name somebody else's things, for every method, and what strangers own themselves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from support.system import Credential, Program, World
from support.transports import Grpc

# The names of things that one party has: ids, numbers, cursors.
Names = Mapping[str, str]
ALL = ("read", "write", "agent")


@dataclass(frozen=True)
class Ask:
    """A call that names things: in its path, outermost first, in its query, or in its body as a list."""

    operation: str
    path: Sequence[tuple[str, str]] = ()
    query: Sequence[tuple[str, str]] = ()
    listed: Sequence[tuple[str, str]] = ()
    body: Any = None

    def requests(self, own: Names, theirs: Names) -> Iterator[dict[str, Any]]:
        """The sections of calls on their things: all of the path theirs, then less and less of it.

        What the query or the body names is theirs within a path that is the caller's own.
        """
        for depth in [len(self.path)] if self.query or self.listed else range(len(self.path)):
            places = [own] * depth + [theirs] * (len(self.path) - depth)
            sections: dict[str, Any] = {
                "path": {member: place[thing] for (member, thing), place in zip(self.path, places, strict=True)},
                "query": {member: theirs[thing] for member, thing in self.query},
            }
            body = {**(self.body or {}), **{member: [theirs[thing]] for member, thing in self.listed}}
            yield {name: section for name, section in sections.items() if section} | ({"body": body} if body else {})


TICKET = ("ticket_id", "ticket")
WEBHOOK = ("webhook_id", "webhook")
DESK = ("id", "ticket")
POLICY = ("id", "policy")
PROJECT = ("project_id", "project")
CURSOR = ("cursor", "cursor")
LIST_CURSOR = ("cursor", "list_cursor")

# By method: the calls that name things. None where nothing of anybody can be named.
ITSM: Mapping[str, Sequence[Ask] | None] = {
    "CreateTicket": None,
    "GetTicket": [Ask("itsm.get", [TICKET])],
    "ListTickets": None,
    "UpdateTicket": [Ask("itsm.update", [TICKET], body={"subject": "Taken"})],
    "ListTicketEvents": [Ask("itsm.events", [TICKET]), Ask("itsm.events", [TICKET], [CURSOR])],
    "WatchTickets": [],
    "CreateWebhook": None,
    "ListWebhooks": None,
    "UpdateWebhook": [Ask("itsm.update_webhook", [WEBHOOK], body={"is_active": False})],
    "DeleteWebhook": [Ask("itsm.delete_webhook", [WEBHOOK])],
    "RotateWebhookSecret": [Ask("itsm.rotate_secret", [WEBHOOK])],
    "ListWebhookDeliveries": [Ask("itsm.deliveries", [WEBHOOK])],
    "ReplayWebhookDelivery": [Ask("itsm.replay", [WEBHOOK, ("delivery_id", "delivery")])],
}
HELPDESK: Mapping[str, Sequence[Ask] | None] = {
    "CreateTicket": None,
    "GetTicket": [Ask("helpdesk.get", [DESK])],
    "ListTickets": [Ask("helpdesk.list", query=[LIST_CURSOR])],
    "UpdateTicket": [Ask("helpdesk.update", [DESK], body={"title": "Taken"})],
    "CloseTicket": [Ask("helpdesk.close", [DESK])],
    "DeleteTicket": [Ask("helpdesk.delete", [DESK])],
    "RestoreTicket": [Ask("helpdesk.restore", [DESK])],
    "CreateComment": [Ask("helpdesk.comment", [DESK], body={"body": "Taken"})],
    "UpdateComment": [Ask("helpdesk.edit", [DESK, ("comment_id", "comment")], body={"body": "Taken"})],
    "ListComments": [
        Ask("helpdesk.comments", [DESK]),
        Ask("helpdesk.comments", [DESK], [("cursor", "comment_cursor")]),
    ],
    "ListTicketEvents": [Ask("helpdesk.events", [DESK]), Ask("helpdesk.events", [DESK], [CURSOR])],
    "GetTicketSla": [Ask("helpdesk.sla", [DESK])],
    "ListSlaPolicies": None,
    "GetSlaPolicy": [Ask("helpdesk.policy", [POLICY])],
    "CreateSlaPolicy": None,
    "UpdateSlaPolicy": [Ask("helpdesk.update_policy", [POLICY], body={"name": "Taken"})],
    "GetCalendar": None,
    "UpdateCalendar": None,
    "WatchTickets": [],
}
HANDOFF: Mapping[str, Sequence[Ask] | None] = {
    "CreateTicket": [
        Ask("handoff.create", [PROJECT], body={"title": "Taken", "description": "x", "request_type": "bug"})
    ],
    "ListTickets": [
        Ask("handoff.list", query=[PROJECT]),
        Ask("handoff.list", query=[LIST_CURSOR]),
    ],
    "ListProjectTickets": [
        Ask("handoff.project", [PROJECT]),
        Ask("handoff.project", [PROJECT], [("cursor", "project_cursor")]),
        Ask("handoff.project", [PROJECT], [("assignee", "member")]),
    ],
    "GetTicket": [Ask("handoff.get", [PROJECT, TICKET]), Ask("handoff.get", [PROJECT, ("ticket_id", "ref")])],
    "UpdateTicket": [
        Ask("handoff.update", [PROJECT, TICKET], body={"title": "Taken"}),
        Ask("handoff.update", [PROJECT, ("ticket_id", "ref")], body={"title": "Taken"}),
    ],
    "BulkUpdateTickets": [
        Ask("handoff.bulk", [PROJECT], listed=[("ticket_ids", "ticket")], body={"action": "move", "stage": "up_next"})
    ],
    "ReportDeployment": [
        Ask("handoff.deploy", [PROJECT, TICKET], body={"merge_sha": "9fceb02", "outcome": "deployed"})
    ],
    "ListTicketEvents": [
        Ask("handoff.events", [PROJECT, TICKET]),
        Ask("handoff.events", [PROJECT, TICKET], [CURSOR]),
    ],
    "WatchTickets": [],
}


def absent(name: str) -> str:
    """A name of the same form that nothing has."""
    end = "000000" if name[-6:] != "000000" else "111111"
    return str(uuid4()) if name.count("-") == 4 else name[:-6] + end


async def itsm_things(world: World, rpc: Grpc, program: Program) -> Names:
    """What one key has made in its account."""
    who = program.credential
    body = {"subject": "Secret", "description": "Of one account."}
    ticket = (await rpc.call("itsm.create", who, body=body)).succeeded(201)
    path = {"ticket_id": ticket["id"]}
    (await rpc.call("itsm.update", who, path=path, body={"subject": "Changed"})).succeeded()
    events = (await rpc.call("itsm.events", who, path=path, query={"limit": 1})).succeeded()
    hook = {"url": "https://127.0.0.1:9/hook", "events": ["ticket.closed"]}
    webhook = (await rpc.call("itsm.create_webhook", who, body=hook)).succeeded(201)
    # Or the background moves its position.
    off = {"path": {"webhook_id": webhook["id"]}, "body": {"is_active": False}}
    (await rpc.call("itsm.update_webhook", who, **off)).succeeded()
    delivery = f"dlv_{'0' * 20}{uuid4().hex[:6].upper()}"
    world.run(
        "INSERT INTO itsm_webhook_attempts (account_id, live, webhook_id, id, ticket_id, version, type, event_id, body,"
        " attempt, attempted_at, duration_ms, succeeded) SELECT account_id, live, id, %s, %s, 1, 'ticket.created',"
        " 'evt_1', '{}', 1, now(), 1, true FROM itsm_webhooks WHERE id = %s",
        delivery,
        ticket["id"],
        webhook["id"],
    )
    return {
        "ticket": ticket["id"],
        "webhook": webhook["id"],
        "delivery": delivery,
        "cursor": events["next_cursor"],
    }


async def helpdesk_things(rpc: Grpc, who: Credential, *, is_tenants: bool) -> Names:
    """What one party has made; policies are only the tenant's own to make."""
    tickets = [
        (await rpc.call("helpdesk.create", who, body={"title": "Secret", "tags": ["secret"]})).succeeded(201)
        for _ in range(2)
    ]
    path = {"id": tickets[0]["id"]}
    comments = [
        (await rpc.call("helpdesk.comment", who, path=path, body={"body": "Secret"})).succeeded(201) for _ in range(2)
    ]
    pages = {
        name: (await rpc.call(call, who, query={"limit": 1}, **({"path": path} if name != "list_cursor" else {})))
        for name, call in (
            ("list_cursor", "helpdesk.list"),
            ("comment_cursor", "helpdesk.comments"),
            ("cursor", "helpdesk.events"),
        )
    }
    cursors = {name: page.succeeded()["next_cursor"] for name, page in pages.items()}
    things = {"ticket": path["id"], "comment": comments[0]["id"], **cursors}
    if is_tenants:
        policy = {"name": "Secret", "priority": "urgent", "resolution_minutes": 60}
        things["policy"] = (await rpc.call("helpdesk.create_policy", who, body=policy)).succeeded(201)["id"]
    return things


async def handoff_things(rpc: Grpc, who: Credential, project_id: str, user_id: str) -> Names:
    """What a member has made in a project."""
    path = {"project_id": project_id}
    body = {"title": "Secret", "description": "Of one project.", "request_type": "bug"}
    made = [(await rpc.call("handoff.create", who, path=path, body=body)).succeeded(201) for _ in range(2)]
    first = made[0]["ticket"]
    one = {**path, "ticket_id": first["id"]}
    (await rpc.call("handoff.update", who, path=one, body={"title": "Changed"})).succeeded()
    listed = (await rpc.call("handoff.list", who, query={"limit": 1})).succeeded()
    in_project = (await rpc.call("handoff.project", who, path=path, query={"limit": 1})).succeeded()
    events = (await rpc.call("handoff.events", who, path=one, query={"limit": 1})).succeeded()
    return {
        "project": project_id,
        "member": user_id,
        "ticket": first["id"],
        "ref": first["ticket_ref"],
        "list_cursor": listed["next_cursor"],
        "project_cursor": in_project["next_cursor"],
        "cursor": events["next_cursor"],
    }
