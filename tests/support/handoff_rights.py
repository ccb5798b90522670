"""The table of handoff rights (contracts/handoff.md, "Who may do what"), and every call that requires one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc

from service.admin import operations as admin
from support.handoff import TICKET, Transport, changed, created, history, read, starts
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Reply

# The table, a second time on purpose: which memberships have which right.
RIGHTS: Mapping[str, tuple[str, ...]] = {
    "read": ("viewer", "member", "triager", "owner"),
    "create": ("member", "triager", "owner"),
    "edit own": ("member", "triager", "owner"),
    "edit": ("triager", "owner"),
    "work": ("member", "triager", "owner"),
    "triage": ("triager", "owner"),
    "deploy": ("triager", "owner"),
}
# A `stranger` is not a member of the project, but the owner of another one.
MEMBERSHIPS = ("stranger", *RIGHTS["read"])
CI = "handoff:deploy"


class Write(NamedTuple):
    """A call that changes a ticket: the right it requires, its body, and an owner's change before it."""

    right: str
    operation: str
    body: Mapping[str, Any]
    before: Mapping[str, Any] = {}

    def __str__(self) -> str:
        if self.operation != "handoff.update":
            return " ".join((self.operation.removeprefix("handoff."), *map(str, self.body.values())))
        return " ".join(f"{name}={value}" for name, value in self.body.items())[:40]


SKIPPED = {"role_status": {"role": "backend", "status": "skipped"}}
READY = {**SKIPPED, "stage": "validation"}
LINKED = {"milestone_id": "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11", "github_issue_number": 17}
TEXTS: Mapping[str, Any] = {
    "title": "Other title",
    "description": "Other text.",
    "request_type": "decision_needed",
    "priority": "high",
    "blocking": True,
    "evidence": {"steps": [1, 2.5, None]},
    "suggested_resolution": "Turn it off.",
    "implementation_notes": "And on.",
}
# Every member of a PATCH, and every way to clear one.
CHANGES: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
    *(("edit", {name: value}, {}) for name, value in TEXTS.items()),
    *(("edit", {name: None}, TEXTS) for name in ("evidence", "suggested_resolution", "implementation_notes")),
    ("work", {"stage": "validation"}, {}),
    ("work", {"stage": "in_progress", "work_started_note": "Now."}, {}),
    ("work", {"stage": "live"}, READY),
    ("work", {"status": "closed"}, READY),
    ("work", {"status": "open"}, SKIPPED),
    ("work", {"role_status": starts(assignee_note="Mine.", blocking_reason="No access.")}, {}),
    ("work", SKIPPED, {}),
    ("work", {"resolution_note": "Both."}, SKIPPED),
    ("work", {"resolution_note": None}, {**SKIPPED, "resolution_note": "Both."}),
    ("work", {"resolution_type": "duplicate"}, SKIPPED),
    *(("triage", {name: value}, {}) for name, value in LINKED.items()),
    *(("triage", {name: None}, LINKED) for name in LINKED),
    ("triage", {"roles": ["qa", "backend"]}, {}),
    ("triage", {"roles": []}, {}),
)
WRITES = (
    *(Write(right, "handoff.update", body, before) for right, body, before in CHANGES),
    Write("work", "handoff.bulk", {"action": "move", "stage": "up_next"}),
    Write("work", "handoff.bulk", {"action": "move", "stage": "live"}, READY),
    Write("work", "handoff.bulk", {"action": "close", "skip_pending_roles": True}),
    *(
        Write("deploy", "handoff.deploy", {"merge_sha": "9fceb02", "outcome": outcome})
        for outcome in ("merged", "deployed", "failed")
    ),
)
READS = ("handoff.project", "handoff.get", "handoff.events")
WHOSE = ("own", "another's")
FORBIDDEN = (403, grpc.StatusCode.PERMISSION_DENIED)
DEPLOYMENTS = tuple(write for write in WRITES if write.right == "deploy")
# Every call that names a project, and the right that it requires.
CALLS: tuple[tuple[str, str, Mapping[str, Any] | None], ...] = (
    *(("read", operation, None) for operation in READS),
    ("create", "handoff.create", TICKET),
    *((write.right, write.operation, write.body) for write in WRITES),
)


@dataclass(frozen=True)
class Cast:
    """A project with one user of each membership."""

    world: World
    project_id: str
    users: Mapping[str, str]

    def token(self, membership: str, **claims: Any) -> Credential:
        return self.world.issuer.bearer(self.users[membership], **claims)

    async def filed(
        self, transport: Transport, membership: str, before: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A ticket created by the user, as a member for the time being; `before` is a change by an owner."""
        user_id = self.users[membership]
        if membership not in ("stranger", "viewer"):
            ticket = await created(transport, self.token(membership), self.project_id)
        else:
            ticket = await created(
                transport, await self.world.member(self.project_id, "member", user_id), self.project_id
            )
            if membership == "stranger":
                await self.world.operate(admin.remove_member, project_id=self.project_id, user_id=user_id)
            else:
                await self.world.member(self.project_id, membership, user_id)
        return await changed(transport, self.token("owner"), ticket, **before) if before else ticket


async def attempt(
    transport: Transport,
    who: Credential,
    ticket: Mapping[str, Any],
    operation: str,
    body: Mapping[str, Any] | None = None,
) -> Reply:
    """One call about this ticket, or about its project."""
    names = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    path = {name: value for name, value in names.items() if f"{{{name}}}" in METHODS[operation].path}
    if operation == "handoff.bulk":
        body = {**(body or {}), "ticket_ids": [ticket["id"]]}
    return await transport.call(operation, who, path=path, body=body)


def shows(ticket: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether a ticket has the values of a PATCH."""
    role = ticket["roles"][0] if ticket["roles"] else {}
    seen = {**ticket, "roles": [role["role"] for role in ticket["roles"]]}
    seen["role_status"] = {name: role.get(name) for name in body.get("role_status", ())}
    seen["work_started_note"] = body.get("work_started_note")
    return {name: seen[name] for name in body} == body


def everything(cast: Cast) -> list[tuple[Any, ...]]:
    """Every row of the project."""
    tables = ("handoff_tickets", "handoff_roles", "handoff_events", "handoff_deployments")
    return [
        row
        for table in tables
        for row in cast.world.rows(f"SELECT t::text FROM {table} t WHERE project_id = %s ORDER BY 1", cast.project_id)
    ]


async def check_done(
    transport: Transport, cast: Cast, membership: str, who: Credential, ticket: Mapping[str, Any], write: Write
) -> None:
    """Check that a write succeeds and leaves one event, of this user."""
    owner = cast.token("owner")
    body = (await attempt(transport, who, ticket, write.operation, write.body)).succeeded()
    after, events = await read(transport, owner, ticket), await history(transport, owner, ticket)
    assert len(events) == 2 + bool(write.before)
    assert events[-1]["actor"] == cast.users[membership]
    if write.operation == "handoff.bulk":
        assert body == {"updated": 1, "errors": []}
        assert after["stage"] == write.body.get("stage", "live")
        return
    assert body["ticket"] == {**after, "can_triage": membership in RIGHTS["triage"]}
    if write.operation == "handoff.deploy":
        assert after["merge_sha"] == write.body["merge_sha"]
    else:
        assert shows(after, write.body)
