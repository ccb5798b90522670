"""contracts/handoff.md at both transports: the history of a ticket, an event for every write, in complete pages."""

from typing import Any
from uuid import uuid4

from support.handoff import Transport, change, changed, created, filed, history, starts
from support.system import World

from service import paging


async def test_every_write_leaves_one_event_with_its_changes(transport: Transport, world: World) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, "owner", user_id)
    ticket = await created(transport, who, project_id, actor_role="lead", actor_id="Ada")
    headers = {"x-request-id": "r-8"}
    await change(transport, who, ticket, headers, title="New", actor_role="mcp_bot", actor_id="bot-1")
    await change(transport, who, ticket, stage="in_progress", work_started_note="Now.")
    await change(transport, who, ticket, roles=["qa", "backend"])
    await change(transport, who, ticket, role_status=starts("qa", agent_origin="agent-7"))
    await change(transport, who, ticket, role_status={"role": "qa", "status": "done"})
    await change(transport, who, ticket, role_status={"role": "backend", "status": "skipped"})
    await change(transport, who, ticket, status="open")
    events = await history(transport, who, ticket)
    assert [event["version"] for event in events] == list(range(1, 9))
    assert [event["type"] for event in events] == [
        "ticket.created", *["ticket.updated"] * 5, "ticket.closed", "ticket.reopened"
    ]  # fmt: skip
    first, second = events[:2]
    assert (first["changes"], first["actor_role"], first["actor_id"]) == ({}, "lead", "Ada")
    assert second["changes"] == {"title": {"from": "Login loops", "to": "New"}}
    assert (second["actor"], second["actor_role"], second["actor_id"]) == (user_id, "mcp_bot", "bot-1")
    assert second["request_id"] == "r-8"
    assert {name: pair["to"] for name, pair in events[2]["changes"].items()} == {
        "stage": "in_progress",
        "work_started_note": "Now.",
    }
    assert events[3]["changes"] == {"roles": {"from": ["backend"], "to": ["qa", "backend"]}}
    assert events[4]["changes"] == {
        "roles.qa.status": {"from": "pending", "to": "in_progress"},
        "roles.qa.work_started_note": {"from": None, "to": "On it."},
        "roles.qa.agent_origin": {"from": None, "to": "agent-7"},
    }
    assert events[4]["agent_origin"] == "agent-7"
    closing = {"stage": "live", "status": "closed", "resolution_type": "completed", "roles.backend.status": "skipped"}
    assert {name: pair["to"] for name, pair in events[6]["changes"].items()} == closing
    assert all(event["project_id"] == project_id and event["ticket_id"] == ticket["id"] for event in events)


async def test_the_history_comes_in_pages(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    for number in range(4):
        await changed(transport, who, ticket, title=f"Title {number}")
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    whole = await history(transport, who, ticket)
    pages, cursor = list[Any](), None
    while True:
        query = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = (await transport.call("handoff.events", who, path=path, query=query)).succeeded()
        pages.append(page["events"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [event for page in pages for event in page] == whole
    for query in ({"limit": 0}, {"limit": 1001}, {"cursor": "x"}):
        (await transport.call("handoff.events", who, path=path, query=query)).failed("validation_error")


async def test_pages_of_large_events_are_cut_short_and_lose_none(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    for number in range(18):
        await changed(transport, who, ticket, evidence={"n": number, "text": "x" * 250_000})
    seen, sizes, cursor = list[Any](), list[int](), None
    while True:
        query = {"limit": 100} | ({} if cursor is None else {"cursor": cursor})
        page = (await transport.call("handoff.events", who, path=path, query=query)).succeeded()
        sizes.append(len(page["events"]))
        seen += [event["version"] for event in page["events"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == list(range(1, 20))
    assert max(sizes) < 10


async def test_a_forged_cursor_is_refused(transport: Transport, world: World) -> None:
    who, ticket = await filed(transport, world)
    path = {"project_id": ticket["project_id"], "ticket_id": ticket["id"]}
    for version in (2**31, 2**63, -1, "x", None):
        cursor = paging.encode(f"handoff events {ticket['project_id']} {ticket['id']}", version)
        reply = await transport.call("handoff.events", who, path=path, query={"cursor": cursor})
        reply.failed("validation_error", paths=["cursor"])
