"""WatchTickets at both transports: every event once, in order and soon, whatever else is being written."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psycopg
import pytest
from support.handoff import Door, change, changed, create, created, history, place
from support.handoff_watch import (
    Message,
    Told,
    Watch,
    Writer,
    by_ticket,
    service_here,
    told,
    waits_for_a_lock,
    writer,
    written,
)
from support.system import Credential, Issuer, World
from support.transports import Grpc, Rest


async def test_what_is_committed_late_is_told(transport: Door, world: World) -> None:
    project_id, who = await place(world)

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
        # These have higher transaction ids, and are there first.
        for _ in range(3):
            await created(transport, who, project_id)
        await changed(transport, who, before, stage="up_next")
        held.append(await earlier.create(project_id))
        async with Watch(transport, who, project_id) as begun_meanwhile:
            told_meanwhile = [[first, *await resumed(first)], await resumed(begin)]
            seen = [await begun_meanwhile.message()]
            await early.commit()
            told_meanwhile.append([first, *await resumed(first)])
            await created(transport, who, project_id)
            await earlier.commit()
            last = await created(transport, who, project_id)
            messages = [first, *[await watch.event() for _ in range(8)]]
            while told(seen)[-1:] != [(last["id"], 1)]:
                seen.append(await begun_meanwhile.event())
    everything = told(messages)
    assert sorted(everything) == written(world, project_id)
    assert by_ticket(everything)[before["id"]] == [1, 2]
    assert len(everything) == 9
    assert told(await resumed(begin)) == everything
    # Whoever began while they were open is told both, and nothing twice.
    assert set(held) <= set(told(seen))
    assert told(seen) == everything[-len(told(seen)) :]
    # No cursor, whenever it was told, steps over anything.
    for so_far in (messages, *told_meanwhile):
        for number, message in enumerate(so_far):
            assert told([*so_far[: number + 1], *await resumed(message)]) == everything


async def test_a_transaction_that_is_undone_is_not_told(transport: Door, world: World) -> None:
    project_id, who = await place(world)
    async with Watch(transport, who, project_id) as watch:
        await watch.message()
        async with await psycopg.AsyncConnection.connect(world.database_url) as connection:
            await Writer(connection).create(project_id)
            ticket = await created(transport, who, project_id)
            await connection.rollback()
        assert told([await watch.event()]) == [(ticket["id"], 1)]
    assert written(world, project_id) == [(ticket["id"], 1)]


async def test_who_began_first_and_wrote_last_is_told_last(transport: Door, world: World) -> None:
    """The later version of a ticket comes from the transaction with the lower id."""
    project_id, who = await place(world)
    ticket = await created(transport, who, project_id)
    async with Watch(transport, who, project_id) as watch, writer(world) as holder, writer(world) as stopper:
        first = (await watch.message())["cursor"]
        # A lock of the table, because a lock of the row would give the holder its transaction id too early.
        await holder.run("LOCK TABLE handoff_tickets IN EXCLUSIVE MODE")
        assert await holder.run("SELECT pg_current_xact_id_if_assigned()::text") is None
        headers = {"idempotency-key": str(uuid4())}
        patch = asyncio.create_task(change(transport, who, ticket, headers, title="New"))
        await waits_for_a_lock(world, "handoff_tickets")
        held_id = await holder.take_id()
        assert await holder.change(ticket["id"]) == (ticket["id"], 2)
        # So that the PATCH stops once more, between what the holder wrote and its own event.
        stop = asyncio.create_task(stopper.run("LOCK TABLE handoff_events IN SHARE MODE"))
        await waits_for_a_lock(world, "handoff_events")
        await holder.commit()
        await stop
        await waits_for_a_lock(world, "handoff_events")
        async with (
            Watch(transport, who, project_id) as begun_between,
            Watch(transport, who, project_id, first) as resumed,
        ):
            between = (await begun_between.message())["cursor"]
            assert told(await resumed.until_quiet()) in ([], [(ticket["id"], 2)])
            await stopper.commit()
            (await patch).succeeded()
            messages = [await watch.event() for _ in range(2)]
            assert told(messages) == [(ticket["id"], 2), (ticket["id"], 3)]
            last = await created(transport, who, project_id)
            assert told([await watch.event()]) == [(last["id"], 1)]
            seen = told([await begun_between.event() for _ in range(2)])
            while seen[-1] != (last["id"], 1):
                seen += told([await begun_between.event()])
            assert seen[-2] == (ticket["id"], 3)
            assert len(seen) == len(set(seen))
            assert told([await resumed.event() for _ in range(3)])[-2:] == [(ticket["id"], 3), (last["id"], 1)]
    for cursor, versions in ((first, [2, 3]), (messages[0]["cursor"], [3]), (messages[1]["cursor"], [])):
        async with Watch(transport, who, project_id, cursor) as watch:
            assert by_ticket(told(await watch.until_quiet())).get(ticket["id"], []) == versions
    async with Watch(transport, who, project_id, between) as watch:
        assert told(await watch.until_quiet()) == seen
    # It was as meant: the PATCH had the lower id of its own.
    sql = "SELECT xmin::text::bigint FROM handoff_events WHERE ticket_id = %s ORDER BY version"
    xmins = [xmin for (xmin,) in world.rows(sql, ticket["id"])]
    assert xmins[2] < xmins[1] == held_id % 2**32
    assert [event["version"] for event in await history(transport, who, ticket)] == [1, 2, 3]


class Load:
    """Many who write at once, at both transports and past them, on few tickets."""

    def __init__(self, world: World, transports: Sequence[Door], who: Credential, project_id: str, seed: int) -> None:
        self._world, self._doors, self._who, self._project_id = world, transports, who, project_id
        self.dice = random.Random(seed)  # noqa: S311 - guards nothing
        self.tickets = list[dict[str, Any]]()

    async def write(self, number: int, times: int) -> None:
        if number % 5 == 0:
            await self._write_by_hand(times)
            return
        for turn in range(times):
            transport = self._doors[(number + turn) % 2]
            await self.dice.choice((self._patch, self._patch, self._patch, self._move, self._create))(transport)

    async def _patch(self, transport: Door) -> None:
        headers = {"idempotency-key": str(uuid4())} if self.dice.random() < 0.5 else None
        ticket = self.dice.choice(self.tickets)
        (await change(transport, self._who, ticket, headers, title=str(uuid4()))).succeeded()

    async def _move(self, transport: Door) -> None:
        names = [ticket["id"] for ticket in self.tickets]
        self.dice.shuffle(names)
        body = {"action": "move", "stage": self.dice.choice(("backlog", "up_next")), "ticket_ids": names}
        (await transport.call("handoff.bulk", self._who, path={"project_id": self._project_id}, body=body)).succeeded()

    async def _create(self, transport: Door) -> None:
        (await create(transport, self._who, self._project_id)).succeeded(201)

    async def _write_by_hand(self, times: int) -> None:
        async with writer(self._world) as hand:
            for _ in range(times):
                await hand.take_id()
                await asyncio.sleep(self.dice.random() / 20)
                await hand.change(self.dice.choice(self.tickets)["id"])
                await asyncio.sleep(self.dice.random() / 50)
                await hand.commit()


async def test_under_load_every_watcher_is_told_everything_once_and_in_order(
    rest: Rest, rpc: Grpc, world: World
) -> None:
    project_id, who = await place(world, "owner")
    load = Load(world, (rest, rpc), who, project_id, seed=7)
    load.tickets = [await created(rpc, who, project_id) for _ in range(3)]
    last = asyncio.get_running_loop().create_future()

    async def watch_to_the_end(transport: Door, cursor: str, patience: int) -> list[Told]:
        """Watch, break off after some messages and resume, until the last event is told."""
        events = list[Told]()
        while not (last.done() and events and events[-1] == last.result()):
            async with Watch(transport, who, project_id, cursor) as watch:
                for _ in range(load.dice.randint(1, patience)):
                    message = await watch.message()
                    cursor = message["cursor"]
                    events += told([message])
                    if last.done() and events and events[-1] == last.result():
                        break
        return events

    async with Watch(rpc, who, project_id) as watch:
        begin = (await watch.message())["cursor"]
    watchers = [
        asyncio.create_task(watch_to_the_end(transport, begin, patience))
        for transport in (rest, rpc)
        for patience in (2, 20, 100)
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
    # The order is one and the same for all.
    assert all(events == lists[0] for events in lists)


# Soon


async def test_who_begins_while_the_service_looks_for_events_hears_of_them_too(
    directory: Path, database_url: str, issuer: Issuer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And soon: not only with the next sign of life."""
    (project_id, who), (other_project, other) = await place(world), await place(world)
    asked, go_on = asyncio.Event(), asyncio.Event()
    async with (
        service_here(directory, database_url, issuer) as (target, feed),
        grpc.aio.insecure_channel(target) as channel,
    ):
        rpc, look = Grpc(channel), feed.database.one

        async def look_late(statement: Any, *arguments: Any, **options: Any) -> Any:
            if statement is feed._scopes_with_events:
                asked.set()
                await go_on.wait()
            return await look(statement, *arguments, **options)

        async with Watch(rpc, other, other_project) as earlier:
            await earlier.message()
            await created(rpc, other, other_project)
            await earlier.event()
            monkeypatch.setattr(feed.database, "one", look_late)
            await asked.wait()
            async with Watch(rpc, who, project_id) as watch:
                await watch.message()
                monkeypatch.undo()
                ticket = await created(rpc, who, project_id)
                go_on.set()
                async with asyncio.timeout(5):
                    assert told([await watch.event()]) == [(ticket["id"], 1)]
