"""contracts/handoff.md, "Who may do what", at both transports: every cell of the table, and tokens of CI."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from support.handoff import TICKET, Transport, changed, history, listed, read, starts
from support.handoff_rights import (
    CALLS,
    CI,
    DEPLOYMENTS,
    FORBIDDEN,
    LINKED,
    MEMBERSHIPS,
    READS,
    RIGHTS,
    WHOSE,
    WRITES,
    Cast,
    Write,
    attempt,
    check_done,
    everything,
    shows,
)
from support.methods import METHODS
from support.system import World

from service.admin import operations as admin


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


@pytest.mark.parametrize(("membership", "whose"), list(dict.fromkeys(cell[:2] for cell in CELLS if may(*cell))))
async def test_an_allowed_write_is_done_with_one_event(
    transport: Transport, cast: Cast, membership: str, whose: str
) -> None:
    async def check(write: Write) -> None:
        try:
            ticket = await cast.filed(transport, membership if whose == "own" else "author", write.before)
            await check_done(transport, cast, membership, cast.token(membership), ticket, write)
        except AssertionError as error:
            raise AssertionError(f"{write}") from error

    await asyncio.gather(*(check(write) for write in WRITES if may(membership, whose, write)))


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
