"""Short forms of handoff calls, for tests."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

Transport = Rest | Grpc

TICKET = {"title": "Login loops", "description": "Since nine.\nIn every browser.", "request_type": "bug"}
# The body in the documents.
DOCUMENTED = json.loads("""{"title":"example","description":"example","request_type":"bug","roles":["frontend"],
"priority":"low","blocking":false,"evidence":{},"suggested_resolution":"example","implementation_notes":"example",
"actor_role":"example","actor_id":"example","source":"example"}""")
# The names that older clients know, and the members that they stand for.
ALIASES = {"category": "request_type", "severity": "priority", "suggested_backend_change": "suggested_resolution"}
# The members that have no value in a new ticket, with values.
NOTHING_YET = {
    "milestone_id": "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11",
    "updated_at": "2026-02-20T14:30:00Z",
    "merge_sha": "9fceb02",
    "deployed_at": "2026-02-21T09:00:00.123456Z",
    "deploy_failed_at": "2026-02-21T08:00:00Z",
    "resolution_type": "wont_fix",
    "resolution_note": "Works as meant.",
    "resolved_at": "2026-02-22T10:00:00Z",
    "github_issue_number": 17,
}
# The members that have a value only when it is given.
NOT_GIVEN = {
    "suggested_resolution",
    "implementation_notes",
    "evidence",
    "backend_repo",
    "frontend_repo",
    "github_issue_url",
}
ALWAYS = (
    "id project_id billing_account_id source number status stage priority blocking created_at reported_by_user_id roles"
    " ticket_ref project_name can_triage"
)
MEMBERS = {*TICKET, *ALIASES, *NOTHING_YET, *NOT_GIVEN, *ALWAYS.split()}
ROLE_NOTHING_YET = {
    "assignee_user_id": "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33",
    "assignee_note": "On it.",
    "blocking_reason": "No access.",
    "work_started_note": "Reading logs.",
    "agent_origin": "agent-7",
    "started_at": "2026-02-20T15:00:00Z",
    "completed_at": "2026-02-21T16:00:00.500000Z",
}
ROLE_MEMBERS = {"id", "handoff_request_id", "role", "status", "created_at", "updated_at", *ROLE_NOTHING_YET}


async def create(transport: Transport, who: Credential, project_id: str, headers: Any = None, **changed: Any) -> Reply:
    """Create TICKET with these changes; a member that is None is left out."""
    body = {name: value for name, value in {**TICKET, **changed}.items() if value is not None}
    return await transport.call("handoff.create", who, path={"project_id": project_id}, body=body, headers=headers)


async def created(transport: Transport, who: Credential, project_id: str, **changed: Any) -> dict[str, Any]:
    ticket: dict[str, Any] = (await create(transport, who, project_id, **changed)).succeeded(201)["ticket"]
    return ticket


async def change(
    transport: Transport, who: Credential, ticket: Mapping[str, Any], headers: Any = None, **changed: Any
) -> Reply:
    """PATCH a ticket."""
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    return await transport.call("handoff.update", who, path=path, body=changed, headers=headers)


async def changed(transport: Transport, who: Credential, ticket: Mapping[str, Any], **change_: Any) -> dict[str, Any]:
    after: dict[str, Any] = (await change(transport, who, ticket, **change_)).succeeded()["ticket"]
    return after


async def read(transport: Transport, who: Credential, ticket: Mapping[str, Any]) -> dict[str, Any]:
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    found: dict[str, Any] = (await transport.call("handoff.get", who, path=path)).succeeded()["ticket"]
    return found


async def history(transport: Transport, who: Credential, ticket: Mapping[str, Any]) -> list[dict[str, Any]]:
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    events: list[dict[str, Any]] = (await transport.call("handoff.events", who, path=path)).succeeded()["events"]
    return events


def starts(role: str = "backend", **more: Any) -> dict[str, Any]:
    """The change that starts work on a role."""
    return {"role": role, "status": "in_progress", "work_started_note": "On it.", **more}


async def listed(transport: Transport, who: Credential, **query: Any) -> list[dict[str, Any]]:
    tickets: list[dict[str, Any]] = (await transport.call("handoff.list", who, query=query)).succeeded()["tickets"]
    return tickets


async def new_project(world: World, role: str = "member", **project: Any) -> tuple[str, Credential]:
    """A new project, and a user with this role in it."""
    project_id = await world.project(**project)
    return project_id, await world.member(project_id, role)


async def filed(
    transport: Transport, world: World, role: str = "owner", **ticket: Any
) -> tuple[Credential, dict[str, Any]]:
    """A user with this role in a new project, and a ticket that they created there."""
    project_id, who = await new_project(world, role)
    return who, await created(transport, who, project_id, **ticket)


async def member_of(world: World, *projects: str) -> Credential:
    """A user who is a member of all these projects."""
    user_id = str(uuid4())
    for project_id in projects:
        await world.member(project_id, user_id=user_id)
    return world.issuer.bearer(user_id)


def has_members(transport: Transport, ticket: Mapping[str, Any], documented: set[str]) -> bool:
    """Whether a ticket has these members and no other. Typed messages do not tell absent members from null ones."""
    if transport.name == "rest":
        return set(ticket) == documented
    return {name for name in ticket if name in documented or ticket[name] is not None} == documented
