"""What is new in a project is read once for all who watch it, and shown to its members alone."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from support.handoff import created, new_project
from support.handoff_watch import TIMEOUT, Watch, emitted, service_in_process
from support.system import Issuer, World
from support.transports import Grpc

from service.admin import operations as admin
from service.handoff import queries
from service.storage.database import Database
from service.storage.statement import Row, Statement
from service.watch import EventFeed

WATCHES = 20


class CountingDatabase:
    """A database that counts how often events are read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reads = 0

    async def all(self, statement: Statement, parameters: Mapping[str, Any]) -> list[Row]:
        self.reads += statement is queries.EVENTS_AFTER
        return await self._database.all(statement, parameters)

    async def one(self, statement: Statement, parameters: Mapping[str, Any]) -> Row | None:
        return await self._database.one(statement, parameters)


@pytest.fixture
async def counted(directory: Path, database_url: str, issuer: Issuer) -> AsyncIterator[tuple[Grpc, CountingDatabase]]:
    feed: EventFeed
    async with service_in_process(directory, database_url, issuer) as (target, running):
        feed = running.feeds[0]
        counting: Any = CountingDatabase(feed.database)
        feed.database = counting
        async with grpc.aio.insecure_channel(target) as channel:
            yield Grpc(channel), counting


async def test_an_event_is_read_once_however_many_watch(counted: tuple[Grpc, CountingDatabase], world: World) -> None:
    rpc, database = counted
    project_id, who = await new_project(world)
    async with AsyncExitStack() as stack, asyncio.timeout(TIMEOUT):
        watches = [await stack.enter_async_context(Watch(rpc, who, project_id)) for _ in range(WATCHES)]
        for watch in watches:
            await watch.message()
        before = database.reads
        ticket = await created(rpc, who, project_id)
        for watch in watches:
            assert emitted([await watch.event()]) == [(ticket["id"], 1)]
        # Once as it happens, and by chance at the time of a heartbeat.
        assert database.reads - before <= 3


async def test_of_those_who_share_a_read_only_members_get_the_event(
    counted: tuple[Grpc, CountingDatabase], world: World
) -> None:
    rpc, _ = counted
    project_id, who = await new_project(world)
    gone, another = str(uuid4()), await world.member(project_id)
    leaving = await world.member(project_id, user_id=gone)
    async with (
        Watch(rpc, who, project_id) as one,
        Watch(rpc, leaving, project_id) as left,
        Watch(rpc, another, project_id) as other,
    ):
        for watch in (one, left, other):
            await watch.message()
        await world.operate(admin.remove_member, project_id=project_id, user_id=gone)
        ticket = await created(rpc, who, project_id)
        for watch in (one, other):
            assert emitted([await watch.event()]) == [(ticket["id"], 1)]
        messages, _ = await left.ended("forbidden")
        assert emitted(messages) == []
