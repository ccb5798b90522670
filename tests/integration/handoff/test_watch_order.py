"""WatchTickets at both transports: every event once, in order and soon, during concurrent writes."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from support.handoff import Transport, change, changed, create, created, history, new_project
from support.handoff_watch import (
    EventKey,
    Message,
    Watch,
    Writer,
    by_ticket,
    emitted,
    service_in_process,
    waits_for_a_lock,
    waits_for_a_transaction,
    writer,
    written,
)
from support.system import Credential, Issuer, World
from support.transports import Grpc, Reply, Rest


async def test_an_event_that_is_committed_late_is_emitted(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)

    async def resumed(message: Message) -> list[Message]:
        async with Watch(transport, who, project_id, message["cursor"]) as watch:
            return await watch.until_quiet()

    async with Watch(transport, who, project_id) as watch, writer(world) as early, writer(world) as earlier:
        begin = await watch.message()
        before = await created(transport, who, project_id)
        first = await watch.event()
        await earlier.take_id()
        await early.take_id()
        held = [await early.create(project_id)]
        # These have higher transaction ids and are committed earlier.
        for _ in range(3):
            await created(transport, who, project_id)
        await changed(transport, who, before, stage="up_next")
        held.append(await earlier.create(project_id))
        async with Watch(transport, who, project_id) as started_meanwhile:
            received_meanwhile = [[first, *await resumed(first)], await resumed(begin)]
            seen = [await started_meanwhile.message()]
            await early.commit()
            received_meanwhile.append([first, *await resumed(first)])
            await created(transport, who, project_id)
            await earlier.commit()
            last = await created(transport, who, project_id)
            messages = [first, *[await watch.event() for _ in range(8)]]
            while emitted(seen)[-1:] != [(last["id"], 1)]:
                seen.append(await started_meanwhile.event())
    everything = emitted(messages)
    assert sorted(everything) == written(world, project_id)
    assert by_ticket(everything)[before["id"]] == [1, 2]
    assert len(everything) == 9
    assert emitted(await resumed(begin)) == everything
    # A watch that started while they were open emits both, and no event twice.
    assert set(held) <= set(emitted(seen))
    assert emitted(seen) == everything[-len(emitted(seen)) :]
    # No cursor skips an event, whenever it was sent.
    for so_far in (messages, *received_meanwhile):
        for number, message in enumerate(so_far):
            assert emitted([*so_far[: number + 1], *await resumed(message)]) == everything


async def test_an_event_that_is_rolled_back_is_not_emitted(transport: Transport, world: World) -> None:
    project_id, who = await new_project(world)
    async with Watch(transport, who, project_id) as watch:
        await watch.message()
        async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
            await Writer(connection).create(project_id)
            ticket = await created(transport, who, project_id)
            await connection.rollback()
        assert emitted([await watch.event()]) == [(ticket["id"], 1)]
    assert written(world, project_id) == [(ticket["id"], 1)]


async def moved(transport: Transport, who: Credential, tickets: Sequence[dict[str, Any]]) -> Reply:
    body = {"action": "move", "stage": "up_next", "ticket_ids": [ticket["id"] for ticket in tickets]}
    return await transport.call("handoff.bulk", who, path={"project_id": tickets[0]["project_id"]}, body=body)


async def test_the_transaction_that_began_first_and_wrote_last_is_emitted_last(
    transport: Transport, world: World
) -> None:
    """The later version of a ticket comes from the transaction with the lower id."""
    project_id, who = await new_project(world)
    tickets = [await created(transport, who, project_id) for _ in range(3)]
    # A bulk change locks in this order. It will leave the first two as they are.
    early, middle, ticket = sorted(tickets, key=lambda ticket: str(ticket["id"]))
    for other in (early, middle):
        await changed(transport, who, other, stage="up_next")
    async with (
        Watch(transport, who, project_id) as watch,
        writer(world) as blocker,
        writer(world) as holder,
        writer(world) as stopper,
    ):
        first = (await watch.message())["cursor"]
        await blocker.run("SELECT 1 FROM handoff_tickets WHERE id = %s FOR UPDATE", middle["id"])
        # It gets its transaction id with the lock of the first ticket, and stops at the second.
        move = asyncio.create_task(moved(transport, who, [early, middle, ticket]))
        await waits_for_a_transaction(world)
        held_id = await holder.take_id()
        assert await holder.change(ticket["id"]) == (ticket["id"], 2)
        # It stops once more, after the holder's write and before its own event.
        stop = asyncio.create_task(stopper.run("LOCK TABLE handoff_events IN SHARE MODE"))
        await waits_for_a_lock(world, "handoff_events")
        await blocker.commit()
        await holder.commit()
        await stop
        await waits_for_a_lock(world, "handoff_events")
        async with (
            Watch(transport, who, project_id) as started_between,
            Watch(transport, who, project_id, first) as resumed,
        ):
            between = (await started_between.message())["cursor"]
            assert emitted(await resumed.until_quiet()) in ([], [(ticket["id"], 2)])
            await stopper.commit()
            (await move).succeeded()
            messages = [await watch.event() for _ in range(2)]
            assert emitted(messages) == [(ticket["id"], 2), (ticket["id"], 3)]
            last = await created(transport, who, project_id)
            assert emitted([await watch.event()]) == [(last["id"], 1)]
            seen = emitted([await started_between.event() for _ in range(2)])
            while seen[-1] != (last["id"], 1):
                seen += emitted([await started_between.event()])
            assert seen[-2] == (ticket["id"], 3)
            assert len(seen) == len(set(seen))
            assert emitted([await resumed.event() for _ in range(3)])[-2:] == [(ticket["id"], 3), (last["id"], 1)]
    for cursor, versions in ((first, [2, 3]), (messages[0]["cursor"], [3]), (messages[1]["cursor"], [])):
        async with Watch(transport, who, project_id, cursor) as watch:
            assert by_ticket(emitted(await watch.until_quiet())).get(ticket["id"], []) == versions
    async with Watch(transport, who, project_id, between) as watch:
        assert emitted(await watch.until_quiet()) == seen
    # The premise of this test: the bulk change had the lower transaction id.
    sql = "SELECT xmin::text::bigint FROM handoff_events WHERE ticket_id = %s ORDER BY version"
    xmins = [xmin for (xmin,) in world.rows(sql, ticket["id"])]
    assert xmins[2] < xmins[1] == held_id % 2**32
    assert [event["version"] for event in await history(transport, who, ticket)] == [1, 2, 3]


class Load:
    """Many concurrent writers of a few tickets, at both transports and directly in the database."""

    def __init__(
        self, world: World, transports: Sequence[Transport], who: Credential, project_id: str, seed: int
    ) -> None:
        self._world, self._transports, self._who, self._project_id = world, transports, who, project_id
        self.dice = random.Random(seed)  # noqa: S311 - not for security
        self.tickets = list[dict[str, Any]]()

    async def write(self, number: int, times: int) -> None:
        if number % 5 == 0:
            await self._write_directly(times)
            return
        for turn in range(times):
            transport = self._transports[(number + turn) % 2]
            await self.dice.choice((self._patch, self._patch, self._patch, self._move, self._create))(transport)

    async def _patch(self, transport: Transport) -> None:
        headers = {"idempotency-key": str(uuid4())} if self.dice.random() < 0.5 else None
        ticket = self.dice.choice(self.tickets)
        (await change(transport, self._who, ticket, headers, title=str(uuid4()))).succeeded()

    async def _move(self, transport: Transport) -> None:
        names = [ticket["id"] for ticket in self.tickets]
        self.dice.shuffle(names)
        body = {"action": "move", "stage": self.dice.choice(("backlog", "up_next")), "ticket_ids": names}
        (await transport.call("handoff.bulk", self._who, path={"project_id": self._project_id}, body=body)).succeeded()

    async def _create(self, transport: Transport) -> None:
        (await create(transport, self._who, self._project_id)).succeeded(201)

    async def _write_directly(self, times: int) -> None:
        async with writer(self._world) as direct:
            for _ in range(times):
                await direct.take_id()
                await asyncio.sleep(self.dice.random() / 20)
                await direct.change(self.dice.choice(self.tickets)["id"])
                await asyncio.sleep(self.dice.random() / 50)
                await direct.commit()


async def test_under_load_every_watch_emits_every_event_once_and_in_order(rest: Rest, rpc: Grpc, world: World) -> None:
    project_id, who = await new_project(world, "owner")
    load = Load(world, (rest, rpc), who, project_id, seed=7)
    load.tickets = [await created(rpc, who, project_id) for _ in range(3)]
    last = asyncio.get_running_loop().create_future()

    async def watch_to_the_end(transport: Transport, cursor: str, max_messages: int) -> list[EventKey]:
        """Watch, stop after some messages and resume, until the last event."""
        events = list[EventKey]()
        while not (last.done() and events and events[-1] == last.result()):
            async with Watch(transport, who, project_id, cursor) as watch:
                for _ in range(load.dice.randint(1, max_messages)):
                    message = await watch.message()
                    cursor = message["cursor"]
                    events += emitted([message])
                    if last.done() and events and events[-1] == last.result():
                        break
        return events

    async with Watch(rpc, who, project_id) as watch:
        begin = (await watch.message())["cursor"]
    watchers = [
        asyncio.create_task(watch_to_the_end(transport, begin, max_messages))
        for transport in (rest, rpc)
        for max_messages in (2, 20, 100)
    ]
    async with asyncio.timeout(30):
        await asyncio.gather(*(load.write(number, 12) for number in range(20)))
        last.set_result(((await created(rpc, who, project_id))["id"], 1))
        lists = await asyncio.gather(*watchers)
    begun = {(ticket["id"], 1) for ticket in load.tickets}
    everything = [event for event in written(world, project_id) if event not in begun]
    assert len(everything) > 150
    for events in lists:
        assert by_ticket(events) == by_ticket(everything)
    # The order is the same for all watches.
    assert all(events == lists[0] for events in lists)


# Soon


async def test_a_watch_that_starts_while_the_service_polls_gets_its_events(
    directory: Path, database_url: str, issuer: Issuer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And soon: not only at the next heartbeat."""
    (project_id, who), (other_project, other) = await new_project(world), await new_project(world)
    asked, go_on = asyncio.Event(), asyncio.Event()
    async with (
        service_in_process(directory, database_url, issuer) as (target, running),
        grpc.aio.insecure_channel(target) as channel,
    ):
        feed = running.feeds[0]
        rpc, look = Grpc(channel), feed.database.all

        async def look_late(statement: Any, parameters: Any, **how: Any) -> Any:
            if parameters.get("scopes") == [UUID(other_project)]:
                asked.set()
                await go_on.wait()
            return await look(statement, parameters, **how)

        async with Watch(rpc, other, other_project) as earlier:
            await earlier.message()
            await created(rpc, other, other_project)
            await earlier.event()
            monkeypatch.setattr(feed.database, "all", look_late)
            await asked.wait()
            async with Watch(rpc, who, project_id) as watch:
                await watch.message()
                monkeypatch.undo()
                ticket = await created(rpc, who, project_id)
                go_on.set()
                async with asyncio.timeout(5):
                    assert emitted([await watch.event()]) == [(ticket["id"], 1)]
