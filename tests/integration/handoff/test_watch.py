"""WatchTickets at both transports: which events are emitted, after which cursor, to whom, and heartbeats."""

import asyncio
import json
import time
from collections.abc import Sequence
from uuid import uuid4

import grpc
import pytest
from support.handoff import Transport, changed, created, history, member_of, new_project
from support.handoff_watch import BATCH, TIMEOUT, Watch, emitted, write_events, written
from support.system import World
from support.transports import Grpc, Rest

from service import paging

# Which events


async def test_the_first_message_comes_at_once_and_then_each_change(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, "owner")
    await created(transport, who, project_id)
    await world.settled()
    async with Watch(transport, who, project_id) as watch:
        first = await watch.message()
        assert first["event"] is None
        assert first["cursor"]
        ticket = await created(transport, who, project_id)
        event = (await watch.event())["event"]
        assert (event["type"], event["ticket_id"], event["version"]) == ("ticket.created", ticket["id"], 1)
        assert [event] == await history(transport, who, ticket)
        await changed(transport, who, ticket, title="New", actor_role="lead", actor_id="Ada")
        await changed(transport, who, ticket, role_status={"role": "backend", "status": "skipped"})
        events = [event, (await watch.event())["event"], (await watch.event())["event"]]
    assert [event["type"] for event in events] == ["ticket.created", "ticket.updated", "ticket.closed"]
    assert events == await history(transport, who, ticket)


async def test_a_bulk_change_and_a_deployment_are_emitted_like_any_change(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world, "owner")
    one, two = [await created(transport, who, project_id) for _ in range(2)]
    await world.settled()
    async with Watch(transport, who, project_id) as watch:
        await watch.message()
        body = {"action": "move", "stage": "up_next", "ticket_ids": [one["id"], two["id"]]}
        (await transport.call("handoff.bulk", who, path={"project_id": project_id}, body=body)).succeeded()
        path = {"project_id": project_id, "ticket_id": one["id"]}
        body = {"merge_sha": "9fceb02", "outcome": "merged"}
        (await transport.call("handoff.deploy", who, path=path, body=body)).succeeded()
        events = [(await watch.event())["event"] for _ in range(3)]
    for ticket in (one, two):
        assert [event for event in events if event["ticket_id"] == ticket["id"]] == (
            await history(transport, who, ticket)
        )[1:]


async def test_only_events_of_the_watched_project_are_emitted(transport: Transport, world: World) -> None:
    projects = [await world.project() for _ in range(2)]
    who = await member_of(world, *projects)
    async with Watch(transport, who, projects[0]) as one, Watch(transport, who, projects[1]) as other:
        for watch in (one, other):
            await watch.message()
        for project_id in (*projects, *projects):
            await created(transport, who, project_id)
        for watch, project_id in zip((one, other), projects, strict=True):
            messages = [await watch.event() for _ in range(2)]
            assert {message["event"]["project_id"] for message in messages} == {project_id}
            assert sorted(emitted(messages)) == written(world, project_id)


async def test_every_watch_gets_every_event_at_every_transport(
    rest: Rest, rpc: Grpc, gateway_url: str, world: World
) -> None:
    project_id, who = await new_project(world)
    async with (
        grpc.aio.insecure_channel(gateway_url.removeprefix("http://")) as through_the_gateway,
        Watch(rest, who, project_id) as first,
        Watch(rpc, who, project_id) as second,
        Watch(Grpc(through_the_gateway), who, project_id) as third,
    ):
        watches = (first, second, third)
        cursors = [(await watch.message())["cursor"] for watch in watches]
        for transport in (rest, rpc):
            ticket = await created(transport, who, project_id)
            for watch in watches:
                assert emitted([await watch.event()]) == [(ticket["id"], 1)]
    # A cursor is valid at every transport.
    for cursor in cursors:
        for transport in (rest, rpc):
            async with Watch(transport, who, project_id, cursor) as again:
                assert sorted(emitted(await again.until_quiet())) == written(world, project_id)


async def test_lines_come_as_they_happen(rest: Rest, world: World) -> None:
    project_id, who = await new_project(world)
    url = f"/api/projects/{project_id}/events"
    async with rest.client.stream("GET", url, headers=dict(who)) as response, asyncio.timeout(TIMEOUT):
        assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
        assert len(response.headers.get_list("x-request-id")) == 1
        assert not [name for name in response.headers if name.startswith(("grpc-", "x-http-", "x-retry-"))]
        pieces = response.aiter_raw()
        piece = await anext(pieces)
        for _ in range(3):
            message = json.loads(piece)
            # Each is a whole line, sent while the stream is open.
            assert piece == json.dumps(message, separators=(",", ":")).encode() + b"\n"
            await created(rest, who, project_id)
            # A heartbeat may come in between.
            while json.loads(piece := await anext(pieces))["event"] is None:
                pass
            assert json.loads(piece)["event"]["type"] == "ticket.created"


# Resumed


async def test_a_resumed_watch_emits_the_events_after_its_cursor(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    async with Watch(transport, who, project_id) as watch:
        messages = [await watch.message()]
        for _ in range(2):
            ticket = await created(transport, who, project_id)
            await changed(transport, who, ticket, stage="up_next")
        messages += [await watch.event() for _ in range(4)]
    # While nobody watches.
    await changed(transport, who, ticket, stage="backlog")
    await created(transport, who, project_id)
    async with Watch(transport, who, project_id, messages[0]["cursor"]) as watch:
        whole = await watch.until_quiet()
    assert sorted(emitted(whole)) == written(world, project_id)
    assert whole[:4] == messages[1:]
    for number, message in enumerate(whole):
        async with Watch(transport, who, project_id, message["cursor"]) as watch:
            assert emitted(await watch.until_quiet()) == emitted(whole[number + 1 :])
    async with Watch(transport, who, project_id, whole[2]["cursor"]) as watch:
        assert (await watch.until_quiet())[:-1] == whole[3:-1]
        ticket = await created(transport, who, project_id)
        assert emitted([await watch.event()]) == [(ticket["id"], 1)]


@pytest.mark.parametrize("transactions", [1, 3])
async def test_a_resumed_watch_emits_more_events_than_one_read_holds(
    transport: Transport, world: World, transactions: int
) -> None:
    project_id, who = await new_project(world)
    async with Watch(transport, who, project_id) as watch:
        start = (await watch.message())["cursor"]
    events = [
        event for _ in range(transactions) for event in write_events(world, project_id, 2 * BATCH // transactions + 7)
    ]
    async with Watch(transport, who, project_id, start) as watch:
        messages = await watch.until_quiet()
    assert emitted(messages) == events
    for number in (0, 1, 6, 7, BATCH - 1, BATCH, BATCH + 1, len(events) - BATCH, len(events) - 1):
        async with Watch(transport, who, project_id, messages[number]["cursor"]) as watch:
            assert emitted(await watch.until_quiet()) == events[number + 1 :]


async def test_a_running_watch_emits_more_events_than_one_read_holds(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    async with Watch(transport, who, project_id) as watch:
        await watch.message()
        events = [*write_events(world, project_id, 2 * BATCH), *write_events(world, project_id, 1)]
        assert emitted([await watch.event() for _ in events]) == events


# Heartbeats


async def test_a_heartbeat_comes_after_each_quiet_interval(
    frequent_heartbeats: Sequence[Transport], world: World
) -> None:
    project_id, who = await new_project(world)
    for transport in frequent_heartbeats:
        async with Watch(transport, who, project_id) as watch:
            begun = time.monotonic()
            heartbeats = [await watch.message() for _ in range(4)]
            assert time.monotonic() - begun > 1.0
            assert [heartbeat["event"] for heartbeat in heartbeats] == [None] * 4
            ticket = await created(transport, who, project_id)
            assert emitted([await watch.event()]) == [(ticket["id"], 1)]
            heartbeats.append(await watch.message())
            assert heartbeats[-1]["event"] is None
        for heartbeat, events in zip(heartbeats, [[(ticket["id"], 1)]] * 4 + [[]], strict=True):
            async with Watch(transport, who, project_id, heartbeat["cursor"]) as watch:
                assert emitted(await watch.until_quiet()) == events


# Who may watch


@pytest.mark.parametrize("role", ["viewer", "member", "triager", "owner"])
async def test_members_of_every_role_may_watch(transport: Transport, world: World, role: str) -> None:
    project_id, who = await new_project(world, role)
    author = await world.member(project_id)
    async with Watch(transport, who, project_id) as watch:
        await watch.message()
        ticket = await created(transport, author, project_id)
        assert emitted([await watch.event()]) == [(ticket["id"], 1)]


async def test_nobody_else_may_watch(transport: Transport, world: World) -> None:
    (project_id, who), (_, stranger) = await new_project(world), await new_project(world)
    async with Watch(transport, stranger, project_id) as watch:
        await watch.refused("forbidden", message="You are not a member of this project")
    async with Watch(transport, who, str(uuid4())) as watch:
        await watch.refused("forbidden", message="You are not a member of this project")
    async with Watch(transport, {}, project_id) as watch:
        await watch.refused("unauthenticated")
    async with Watch(transport, world.issuer.bearer(str(uuid4()), exp=1), project_id) as watch:
        await watch.refused("token_expired")
    async with Watch(transport, who, project_id) as watch:
        cursor = (await watch.message())["cursor"]
    async with Watch(transport, stranger, project_id, cursor) as watch:
        await watch.refused("forbidden")


async def test_only_a_cursor_of_a_watch_of_this_project_is_accepted(transport: Transport, world: World) -> None:
    projects = [await world.project() for _ in range(2)]
    who = await member_of(world, *projects)
    ticket = await created(transport, who, projects[0])
    await created(transport, who, projects[0])
    await changed(transport, who, ticket, title="New")
    async with Watch(transport, who, projects[1]) as watch:
        of_another_project = (await watch.message())["cursor"]
    path = {"project_id": projects[0], "ticket_id": ticket["id"]}
    page = (
        await transport.call("handoff.project", who, path={"project_id": projects[0]}, query={"limit": 1})
    ).succeeded()
    events = (await transport.call("handoff.events", who, path=path, query={"limit": 1})).succeeded()
    async with Watch(transport, who, projects[0]) as watch:
        good = (await watch.message())["cursor"]
    # A dump that was restored into another cluster has other ids: nothing can be told of what came after such a cursor.
    of_another_history = paging.encode(f"handoff watch {projects[0]}", 1, 1, 7_000_000_000_000_000_000)
    for cursor in (
        of_another_history,
        of_another_project,
        page["next_cursor"],
        events["next_cursor"],
        "x",
        "",
        "é",
        good + "A",
        good[:-1],
    ):
        async with Watch(transport, who, projects[0], cursor) as watch:
            await watch.refused("validation_error", paths=["cursor"])
    for project_id in ("x", projects[0] + "0"):
        async with Watch(transport, who, project_id) as watch:
            await watch.refused("validation_error", paths=["project_id"])
