"""contracts/handoff.md, "Who may do what", at both transports: every cell of the table, and tokens of CI."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import uuid4

import grpc
import pytest
from support.handoff import TICKET, Transport, changed, created, history, listed, read, starts
from support.system import Credential, World
from support.transports import METHODS, Reply

from service.admin import operations as admin

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


@pytest.fixture(scope="module")
async def cast(world: World) -> Cast:
    project_id, elsewhere = await world.project(), await world.project()
    # With an author, who is none of the users that try.
    users = {membership: str(uuid4()) for membership in (*MEMBERSHIPS, "author")}
    for membership, user_id in users.items():
        if membership == "stranger":
            await world.member(elsewhere, "owner", user_id)
        else:
            await world.member(project_id, "member" if membership == "author" else membership, user_id)
    return Cast(world, project_id, users)


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


async def test_every_operation_is_tested_here() -> None:
    tested = {"handoff.list", *(operation for _, operation, _ in CALLS)}
    assert tested == {name for name in METHODS if name.startswith("handoff.")}


# Each cell


@pytest.mark.parametrize("membership", MEMBERSHIPS)
async def test_who_lists_and_sees_can_triage(transport: Transport, cast: Cast, membership: str) -> None:
    who, ticket = cast.token(membership), await cast.filed(transport, "author")
    rows = {row["id"]: row["can_triage"] for row in await listed(transport, who)}
    if membership not in RIGHTS["read"]:
        assert rows == {}
        # In the query, a project of others has no tickets, like one that does not exist.
        for project_id in (cast.project_id, str(uuid4())):
            assert await listed(transport, who, project_id=project_id) == []
        return
    triages = membership in RIGHTS["triage"]
    assert rows[ticket["id"]] is triages
    assert set(rows.values()) == {triages}
    assert (await listed(transport, who, project_id=cast.project_id))[0]["id"] == ticket["id"]


@pytest.mark.parametrize("operation", READS)
@pytest.mark.parametrize("membership", MEMBERSHIPS)
async def test_who_reads(transport: Transport, cast: Cast, membership: str, operation: str) -> None:
    ticket = await cast.filed(transport, "author")
    reply = await attempt(transport, cast.token(membership), ticket, operation)
    if membership not in RIGHTS["read"]:
        reply.failed("forbidden")
        return
    body = reply.succeeded()
    if operation == "handoff.events":
        assert body["events"] == await history(transport, cast.token("owner"), ticket)
        return
    found = body["tickets"][0] if operation == "handoff.project" else body["ticket"]
    assert (found["id"], found["can_triage"]) == (ticket["id"], membership in RIGHTS["triage"])


@pytest.mark.parametrize("membership", MEMBERSHIPS)
async def test_who_creates(transport: Transport, cast: Cast, membership: str) -> None:
    before = everything(cast)
    reply = await transport.call(
        "handoff.create", cast.token(membership), path={"project_id": cast.project_id}, body=TICKET
    )
    if membership not in RIGHTS["create"]:
        reply.failed("forbidden")
        assert everything(cast) == before
        return
    ticket = reply.succeeded(201)["ticket"]
    assert ticket["can_triage"] is (membership in RIGHTS["triage"])
    assert ticket["reported_by_user_id"] == cast.users[membership]


def may(membership: str, whose: str, write: Write) -> bool:
    """Whether the table allows this to a membership, on a ticket of its `own` or of `another's`."""
    return membership in RIGHTS["edit own" if (write.right, whose) == ("edit", "own") else write.right]


CELLS = [(membership, whose, write) for membership in MEMBERSHIPS for whose in WHOSE for write in WRITES]


@pytest.mark.parametrize(("membership", "whose", "write"), [cell for cell in CELLS if may(*cell)], ids=str)
async def test_an_allowed_write_is_done_with_one_event(
    transport: Transport, cast: Cast, membership: str, whose: str, write: Write
) -> None:
    ticket = await cast.filed(transport, membership if whose == "own" else "author", write.before)
    await check_done(transport, cast, membership, cast.token(membership), ticket, write)


@pytest.mark.parametrize(("membership", "whose"), list(dict.fromkeys(cell[:2] for cell in CELLS if not may(*cell))))
async def test_any_other_write_is_refused_and_changes_nothing(
    transport: Transport, cast: Cast, membership: str, whose: str
) -> None:
    author = membership if whose == "own" else "author"
    refused = [write for write in WRITES if not may(membership, whose, write)]
    # One ticket for each state that a ticket must be in.
    states = {str(write.before): write.before for write in refused}
    tickets = {name: await cast.filed(transport, author, state) for name, state in states.items()}
    shown = {name: await read(transport, cast.token("owner"), ticket) for name, ticket in tickets.items()}
    before = everything(cast)
    for write in refused:
        # A token of CI lets members of every role report deployments and adds no other right.
        for scope in (None, CI):
            if scope == CI and write.right == "deploy" and membership in RIGHTS["read"]:
                continue
            who = cast.token(membership, scope=scope)
            reply = await attempt(transport, who, tickets[str(write.before)], write.operation, write.body)
            assert reply.status in FORBIDDEN, f"{write} {scope}"
            reply.failed("forbidden")
    assert everything(cast) == before
    assert {name: await read(transport, cast.token("owner"), ticket) for name, ticket in tickets.items()} == shown


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


# Several changes or tickets at once


@pytest.mark.parametrize(
    ("whose", "allowed", "refused"),
    [
        ("own", {"title": "Other title"}, {"milestone_id": None}),
        ("own", {"title": "Other title", "stage": "validation"}, {"roles": ["qa"]}),
        ("another's", {"stage": "validation"}, {"title": "Other title"}),
        ("another's", {"role_status": starts()}, {"evidence": None}),
        ("another's", {"stage": "validation"}, {"github_issue_number": 18}),
    ],
)
async def test_a_change_is_refused_as_a_whole(
    transport: Transport, cast: Cast, whose: str, allowed: Mapping[str, Any], refused: Mapping[str, Any]
) -> None:
    who = cast.token("member")
    ticket = await cast.filed(transport, "member" if whose == "own" else "author", {**LINKED, "evidence": {"n": 1}})
    before = everything(cast)
    for body in ({**allowed, **refused}, {**refused, **allowed}):
        (await attempt(transport, who, ticket, "handoff.update", body)).failed("forbidden")
    assert everything(cast) == before
    assert shows(await changed(transport, who, ticket, **allowed), allowed)


@pytest.mark.parametrize("membership", ["stranger", "viewer"])
async def test_a_bulk_change_is_refused_as_a_whole(transport: Transport, cast: Cast, membership: str) -> None:
    ids = [(await cast.filed(transport, "author"))["id"] for _ in range(2)] + ["no ticket", str(uuid4())]
    before = everything(cast)
    for body in ({"action": "move", "stage": "validation"}, {"action": "close", "skip_pending_roles": True}):
        given = {**body, "ticket_ids": ids}
        path = {"project_id": cast.project_id}
        (await transport.call("handoff.bulk", cast.token(membership), path=path, body=given)).failed("forbidden")
    assert everything(cast) == before


# Projects of others


async def test_a_project_of_others_answers_like_one_that_does_not_exist(transport: Transport, cast: Cast) -> None:
    who, ticket = cast.token("stranger"), await cast.filed(transport, "author")
    nowhere, unknown = str(uuid4()), str(uuid4())
    before = everything(cast)
    for _, operation, body in CALLS:
        answers = [
            (await attempt(transport, who, {**ticket, **named}, operation, body)).failed("forbidden")
            for named in ({}, {"id": unknown}, {"project_id": nowhere})
        ]
        assert answers == answers[:1] * 3
    assert everything(cast) == before


async def test_a_ticket_of_others_is_not_reached_through_ones_own_project(transport: Transport, cast: Cast) -> None:
    ticket = await cast.filed(transport, "author")
    elsewhere = await cast.world.project()
    await cast.world.member(elsewhere, "owner", cast.users["stranger"])
    before = everything(cast)
    for _, operation, body in CALLS:
        if "{ticket_id}" in METHODS[operation].path or operation == "handoff.bulk":
            misled = {**ticket, "project_id": elsewhere}
            reply = await attempt(transport, cast.token("stranger", scope=CI), misled, operation, body)
            if operation == "handoff.bulk":
                missing = {"id": ticket["id"], "error": "Ticket not found", "code": "not_found"}
                assert reply.succeeded() == {"updated": 0, "errors": [missing]}
            else:
                reply.failed("not_found")
    assert everything(cast) == before


@pytest.mark.parametrize("operation", ["handoff.create", "handoff.update", "handoff.bulk", "handoff.deploy"])
async def test_a_former_member_gets_no_stored_answer_under_a_key(
    transport: Transport, cast: Cast, operation: str
) -> None:
    user_id = str(uuid4())
    who = await cast.world.member(cast.project_id, "owner", user_id)
    ticket = await cast.filed(transport, "author")
    body = next(body for _, name, body in CALLS if name == operation)
    keyed = {**who, "idempotency-key": "k"}
    first = await attempt(transport, keyed, ticket, operation, body)
    assert (await attempt(transport, keyed, ticket, operation, body)).succeeded(METHODS[operation].status) == first.body
    await cast.world.operate(admin.remove_member, project_id=cast.project_id, user_id=user_id)
    (await attempt(transport, keyed, ticket, operation, body)).failed("forbidden")


# Tokens of CI


@pytest.mark.parametrize("write", DEPLOYMENTS, ids=str)
@pytest.mark.parametrize("whose", WHOSE)
@pytest.mark.parametrize("membership", RIGHTS["read"])
async def test_a_token_of_ci_lets_members_of_every_role_report_deployments(
    transport: Transport, cast: Cast, membership: str, whose: str, write: Write
) -> None:
    ticket = await cast.filed(transport, membership if whose == "own" else "author")
    await check_done(transport, cast, membership, cast.token(membership, scope=f"tickets:read {CI}"), ticket, write)


@pytest.mark.parametrize("membership", MEMBERSHIPS)
async def test_a_token_of_ci_changes_no_other_right(transport: Transport, cast: Cast, membership: str) -> None:
    who, ticket = cast.token(membership, scope=CI), await cast.filed(transport, "author")
    before = everything(cast)
    rows = await listed(transport, who, project_id=cast.project_id)
    assert bool(rows) == (membership in RIGHTS["read"])
    assert {row["can_triage"] for row in rows} <= {membership in RIGHTS["triage"]}
    for right, operation, body in CALLS[: len(READS) + 1]:
        reply = await attempt(transport, who, ticket, operation, body)
        if membership in RIGHTS[right]:
            reply.succeeded(METHODS[operation].status)
        else:
            reply.failed("forbidden")
    assert (everything(cast) == before) == (membership not in RIGHTS["create"])


@pytest.mark.parametrize("scope", ["", "handoff", "deploy", "handoff:deployments", "handoff:deploy:x", "tickets:admin"])
async def test_no_other_scope_reports_deployments(transport: Transport, cast: Cast, scope: str) -> None:
    ticket = await cast.filed(transport, "member")
    before = everything(cast)
    for membership in ("stranger", "viewer", "member"):
        for write in DEPLOYMENTS:
            who = cast.token(membership, scope=scope)
            (await attempt(transport, who, ticket, write.operation, write.body)).failed("forbidden")
    assert everything(cast) == before
