"""contracts/README.md, handoff.md: null and absent, other names, and tickets that are sent back as they were read."""

from typing import Any

import pytest
from support.handoff import (
    ALIASES,
    Transport,
    change,
    changed,
    create,
    created,
    filed,
    history,
    new_project,
    read,
)
from support.system import World
from support.transports import Rest


async def test_null_in_a_change_clears_or_is_refused(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world, suggested_resolution="Turn it off.")
    for name in ("category", "severity", "title", "blocking", "stage"):
        (await change(transport, who, ticket, **{name: None})).failed("validation_error", paths=[name])
    assert (await changed(transport, who, ticket, suggested_backend_change=None))["suggested_resolution"] is None


async def test_other_names_are_taken_wherever_the_members_are(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    given = {"category": "decision_needed", "severity": "high", "suggested_backend_change": "Ask."}
    ticket = await created(transport, who, project_id, **given, request_type=None)
    assert [ticket[name] for name in (*ALIASES.values(), *ALIASES)] == [*given.values()] * 2
    after = await changed(transport, who, ticket, severity="low", suggested_backend_change="Wait.")
    assert (after["priority"], after["suggested_resolution"]) == ("low", "Wait.")
    # Events name each member once, by its own name.
    assert set((await history(transport, who, ticket))[-1]["changes"]) == {"priority", "suggested_resolution"}


@pytest.mark.parametrize("name", ALIASES)
async def test_two_names_with_two_values_are_refused(transport: Transport, world: World, name: str) -> None:
    who, ticket = await filed(transport, world)
    values = {"category": ("bug", "decision_needed"), "severity": ("low", "high")}.get(name, ("Ask.", "Wait."))
    both: dict[str, Any] = dict(zip((ALIASES[name], name), values, strict=True))
    for reply in (
        await create(transport, who, ticket["project_id"], **both),
        await change(transport, who, ticket, **both),
    ):
        reply.failed("validation_error", paths=[name])
    assert await read(transport, who, ticket) == ticket
    same = await create(transport, who, ticket["project_id"], **dict.fromkeys(both, values[0]))
    assert same.succeeded(201)["ticket"][ALIASES[name]] == values[0]
    # What is wrong with a value is told by the name that it was given under.
    wrong = {name: "x" * 5001} if name == "suggested_backend_change" else {name: "none of these"}
    (await change(transport, who, ticket, **wrong)).failed("validation_error", paths=[name])


@pytest.mark.parametrize("membership", ["member", "owner"])
async def test_a_ticket_that_was_read_may_be_sent_back(rest: Rest, world: World, membership: str) -> None:
    _, ticket = await filed(rest, world, roles=["qa", "backend"], evidence={"n": [1, None]})
    who = await world.member(ticket["project_id"], membership)
    assert await changed(rest, who, ticket, **ticket) == {**ticket, "can_triage": membership == "owner"}
    assert len(await history(rest, who, ticket)) == 1
    # With what the member may change, and without what only others may.
    after = await changed(rest, who, ticket, **ticket | {"stage": "up_next"})
    assert (after["stage"], after["title"], after["roles"]) == ("up_next", ticket["title"], ticket["roles"])
    if membership == "member":
        reply = await change(rest, who, after, **after | {"title": "Other", "roles": ["qa"]})
        reply.failed("forbidden", "Only triagers and owners may change roles")


@pytest.mark.parametrize("membership", ["member", "owner"])
async def test_a_ticket_that_was_read_may_be_sent_back_with_a_role_moved(
    rest: Rest, world: World, membership: str
) -> None:
    _, ticket = await filed(rest, world, roles=["qa"])
    who = await world.member(ticket["project_id"], membership)
    for status, place in (
        ("in_progress", ("in_progress", "open")),
        ("done", ("live", "closed")),
        ("pending", ("backlog", "open")),
    ):
        move = {"role": "qa", "status": status, "work_started_note": "Now."}
        ticket = await changed(rest, who, ticket, **ticket, role_status=move)
        assert (ticket["stage"], ticket["status"]) == place
