"""Reads at a standby (deploy/README.md): they miss nothing that was acknowledged, or the primary answers.

Two PostgreSQL servers, of which the second follows the first, and two processes' databases on both.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import grpc
import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import select
from support.pair import Pair, running_pair
from support.standby_lab import (
    COUNT,
    ELSEWHERE,
    PLANS,
    SHORT_PLANS,
    SLOW,
    TESTS,
    WRITE,
    WRONG,
    at,
    back_at_the_standby,
    count,
    opened,
)
from support.system import Credential, Issuer, World, run_service
from support.transports import Grpc
from support.webhook_lab import until
from typer.testing import CliRunner

from service.__main__ import app
from service.directory import accounts
from service.local.processes import free_port
from service.storage import standby as standbys
from service.storage.database import Database, RefusedValueError
from service.storage.standby import Standby
from service.storage.statement import Statement

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    # Short enough for a socket.
    with running_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture(autouse=True)
def _busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for longer, and left alone for a shorter time."""
    monkeypatch.setattr(standbys, "_REPLAY_SECONDS", 0.3)
    monkeypatch.setattr(standbys, "_TAKE_SECONDS", 3.0)
    for reason, seconds in standbys.OUT_SECONDS.items():
        monkeypatch.setitem(standbys.OUT_SECONDS, reason, min(seconds, 0.1))


@pytest.fixture
async def reading(pair: Pair) -> AsyncIterator[tuple[Database, Standby]]:
    async with opened(pair.primary.url, pair.standby.url) as both:
        yield both


@pytest.fixture
async def database(reading: tuple[Database, Standby]) -> Database:
    return reading[0]


@pytest.fixture
async def standby(reading: tuple[Database, Standby]) -> Standby:
    return reading[1]


@pytest.fixture
async def writer(pair: Pair) -> AsyncIterator[Database]:
    """Of another process."""
    async with opened(pair.primary.url, pair.standby.url) as (database, _):
        yield database


async def test_a_read_runs_at_the_standby_and_has_what_any_process_was_answered_before(
    database: Database, standby: Standby, writer: Database
) -> None:
    name = str(uuid4())
    for number in range(1, 51):
        await writer.one(WRITE, {"name": name})
        rows = await asyncio.gather(*(count(database, name) for _ in range(3)))
        assert [row["number"] for row in rows] == [number] * 3
    await back_at_the_standby(database, name, 50)
    assert standby.reads > 0


async def test_an_ordinary_role_may_ask_all_that_is_asked(pair: Pair) -> None:
    at(pair.primary.url, "CREATE ROLE ordinary LOGIN", "GRANT SELECT ON accounts TO ordinary")
    urls = [server.url_for("tickets", "ordinary") for server in (pair.primary, pair.standby)]
    async with opened(*urls) as (database, standby):
        await back_at_the_standby(database, "", 0)
        assert await standby.look() >= 0


async def test_while_nothing_is_replayed_the_primary_answers_with_what_was_written(
    pair: Pair, database: Database, standby: Standby, writer: Database
) -> None:
    name = str(uuid4())
    await back_at_the_standby(database, name, 0)
    at(pair.standby.url, "SELECT pg_wal_replay_pause()")
    try:
        await writer.one(WRITE, {"name": name})
        assert await count(database, name) == {"number": 1, "at_standby": False}
        assert standby.by_reason["behind"] == 1
        async with asyncio.timeout(10):
            await until(lambda: (standby.behind or 0) > 0)
    finally:
        at(pair.standby.url, "SELECT pg_wal_replay_resume()")
    await back_at_the_standby(database, name, 1)
    async with asyncio.timeout(10):
        await until(lambda: standby.behind == 0)


async def test_calls_that_wait_together_share_a_question_and_one_that_comes_later_has_its_own(
    database: Database,
) -> None:
    await back_at_the_standby(database, "", 0)
    timing = standbys._QUESTION.timing
    before = timing.number
    await asyncio.gather(*(count(database, "") for _ in range(50)))
    # The look of each second may have had one too.
    assert timing.number - before <= 2
    before = timing.number
    for _ in range(5):
        await count(database, "")
    assert timing.number - before >= 5


async def test_a_question_that_was_asked_before_a_call_came_is_no_answer_to_it(
    pair: Pair, database: Database, standby: Standby, writer: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, asked, released = str(uuid4()), asyncio.Event(), asyncio.Event()
    ask = standby._ask_primary

    async def slowly() -> Any:
        position = await ask()
        asked.set()
        await released.wait()
        return position

    await back_at_the_standby(database, name, 0)
    assert standby._looking is not None
    standby._looking.cancel()  # it asks too
    at(pair.standby.url, "SELECT pg_wal_replay_pause()")
    try:
        monkeypatch.setattr(standby, "_ask_primary", slowly)
        before = asyncio.create_task(count(database, name))
        await asked.wait()
        await writer.one(WRITE, {"name": name})
        after = asyncio.create_task(count(database, name))
        await asyncio.sleep(0)  # it waits
        released.set()
        assert await before == {"number": 0, "at_standby": True}
        assert await after == {"number": 1, "at_standby": False}
    finally:
        at(pair.standby.url, "SELECT pg_wal_replay_resume()")


async def test_what_is_short_is_planned_once_as_on_a_lane_and_nothing_else_is(database: Database) -> None:
    await back_at_the_standby(database, "", 0)
    for _ in range(3):
        assert await database.one(SHORT_PLANS, {}) == {"plans": "force_generic_plan", "at_standby": True}
        assert await database.one(PLANS, {}) == {"plans": "auto", "at_standby": True}


async def test_what_is_not_said_to_be_for_a_standby_stays_at_the_primary(database: Database) -> None:
    await back_at_the_standby(database, "", 0)
    at_primary = {"number": 0, "at_standby": False}
    async with database.transaction() as connection:
        assert await connection.one(COUNT, {"name": ""}) == at_primary
    assert await database.without_lock_timeout().one(COUNT, {"name": ""}) == at_primary
    assert await database.one(ELSEWHERE, {}) == {"at_standby": False}


def test_what_writes_cannot_be_said_to_be_for_a_standby() -> None:
    with pytest.raises(ValueError, match="nothing to do on a standby"):
        Statement(select(accounts).with_for_update(), scope=TESTS, standby=True)


async def test_a_read_that_is_in_the_way_of_replay_is_answered_by_the_primary(
    pair: Pair, database: Database, standby: Standby
) -> None:
    at(pair.primary.url, "INSERT INTO accounts (name) VALUES ('one')")
    at(pair.standby.url, "ALTER SYSTEM SET max_standby_streaming_delay = 0", "SELECT pg_reload_conf()")
    await back_at_the_standby(database, "", 0)
    slow = asyncio.create_task(database.one(SLOW, {}))
    async with asyncio.timeout(20):
        await until(lambda: standby._pool.usage().in_use > 0)
        while not slow.done():
            await asyncio.to_thread(at, pair.primary.url, "ALTER TABLE accounts SET (fillfactor = 100)")
            await asyncio.wait([slow], timeout=0.1)
    assert (await slow or {})["at_standby"] is False
    assert standby.by_reason["conflict"] == 1
    await back_at_the_standby(database, "", 0)


async def test_a_read_that_is_wrong_fails_as_it_does_at_the_primary_and_keeps_nobody_out(
    database: Database, standby: Standby
) -> None:
    await back_at_the_standby(database, "", 0)
    for each in (database.without_lock_timeout(), database):
        with pytest.raises(RefusedValueError):
            await each.one(WRONG, {"name": ""})
    assert standby.by_reason["failed"] == 1
    assert (await count(database, ""))["at_standby"]


async def test_when_the_standby_dies_no_read_fails_and_it_is_used_again_when_it_is_back(
    pair: Pair, database: Database, standby: Standby
) -> None:
    name = str(uuid4())
    await back_at_the_standby(database, name, 0)
    under_way = [asyncio.create_task(database.one(SLOW, {})) for _ in range(2)]
    async with asyncio.timeout(10):
        await until(lambda: standby._pool.usage().in_use >= 2)
    try:
        pair.kill_standby()
        assert [(row or {})["at_standby"] for row in await asyncio.gather(*under_way)] == [False, False]
        for number in range(1, 21):
            await database.one(WRITE, {"name": name})
            rows = await asyncio.gather(*(count(database, name) for _ in range(3)))
            assert rows == [{"number": number, "at_standby": False}] * 3
    finally:
        pair.restart_standby()
    await back_at_the_standby(database, name, 20)


@pytest.mark.parametrize("first", ["standby", "primary"])
async def test_another_server_of_the_url_is_tried_when_one_is_no_standby(pair: Pair, first: str) -> None:
    servers = (pair.standby, pair.primary) if first == "standby" else (pair.primary, pair.standby)
    hosts = ",".join(quote(str(conninfo_to_dict(server.url)["host"]), safe="") for server in servers)
    url = f"postgresql://postgres@/tickets?host={hosts}&port=5432,5432"
    async with opened(pair.primary.url, url) as (database, standby), asyncio.timeout(20):
        await back_at_the_standby(database, "", 0)
        try:
            pair.kill_standby()
            while not standby.by_reason["promoted"]:
                assert await count(database, "") == {"number": 0, "at_standby": False}
        finally:
            pair.restart_standby()
        await back_at_the_standby(database, "", 0)


async def test_a_standby_that_hangs_is_given_up(pair: Pair, database: Database, standby: Standby) -> None:
    await back_at_the_standby(database, "", 0)
    with pair.hanging(pair.standby):
        async with asyncio.timeout(20):
            assert await count(database, "") == {"number": 0, "at_standby": False}
    await back_at_the_standby(database, "", 0)


async def test_a_server_that_is_no_standby_is_not_read_from(pair: Pair) -> None:
    async with opened(pair.primary.url, pair.primary.url) as (database, standby):
        assert (await count(database, ""))["number"] == 0
        assert (standby.reads, standby.by_reason["promoted"]) == (0, 1)


async def test_a_server_of_another_cluster_is_not_read_from(pair: Pair, database_url: str) -> None:
    async with opened(database_url, pair.standby.url) as (database, standby):
        assert await count(database, "") == {"number": 0, "at_standby": False}
        assert (standby.reads, standby.by_reason["foreign"]) == (0, 1)


# The service itself, and the commands


async def test_lists_searches_and_histories_of_each_api_are_read_there_and_have_the_callers_own_writes(
    pair: Pair, directory: Path, issuer: Issuer
) -> None:
    world, address = World(pair.primary.url, issuer), f"127.0.0.1:{free_port()}"
    settings = {"database_read_url": pair.standby.url, "metrics_listen": address}
    with run_service(directory, pair.primary.url, issuer, **settings) as service:
        program, project, desk = await world.program(), await world.project(), world.person("read", "write", "agent")
        member = await world.member(project)
        board, word = {"project_id": project}, {"q": "standby"}
        async with grpc.aio.insecure_channel(service.target) as channel:
            calls = Grpc(channel)

            async def asked(operation: str, who: Credential, **sections: Any) -> Any:
                return (await calls.call(operation, who, **sections)).succeeded()

            async def made(operation: str, who: Credential, body: Any, **sections: Any) -> Any:
                return (await calls.call(operation, who, body=body, **sections)).succeeded(201)

            for number in range(1, 11):
                text = {"description": "Read at the standby."}
                ticket = await made("itsm.create", program.credential, {"subject": "A", **text})
                for query in ({}, {"status": "open"}, word):
                    assert (await asked("itsm.list", program.credential, query=query))["total"] == number
                path = {"ticket_id": ticket["id"]}
                assert len((await asked("itsm.events", program.credential, path=path))["events"]) == 1
                path = {"id": (await made("helpdesk.create", desk, {"title": "A", **text}))["id"]}
                await made("helpdesk.comment", desk, {"body": "A"}, path=path)
                for query in ({}, word):
                    assert len((await asked("helpdesk.list", desk, query=query))["tickets"]) == number
                assert len((await asked("helpdesk.comments", desk, path=path))["comments"]) == 1
                assert len((await asked("helpdesk.events", desk, path=path))["events"]) == 2
                request = {"title": "A", "request_type": "bug", **text}
                ticket = (await made("handoff.create", member, request, path=board))["ticket"]
                for query in ({}, word):
                    found = await asked("handoff.project", member, path=board, query=query)
                    assert len(found["tickets"]) == number
                assert len((await asked("handoff.list", member))["tickets"]) == number
                path = {**board, "ticket_id": ticket["id"]}
                assert len((await asked("handoff.events", member, path=path))["events"]) == 1
            async with httpx2.AsyncClient() as client:
                shown = (await client.get(f"http://{address}/metrics")).text
    await world.close()
    samples = {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in text_string_to_metric_families(shown)
        for sample in family.samples
        if sample.name.startswith("tickets_standby")
    }
    assert samples["tickets_standby_reads_total", None] > 0
    left = {reason: value for (name, reason), value in samples.items() if name == "tickets_standby_reads_left_total"}
    assert left.keys() == standbys.OUT_SECONDS.keys()
    assert sum(left.values()) + samples["tickets_standby_reads_total", None] == 12 * 10
    assert {reason for reason, value in left.items() if value} <= {"behind", "busy", "lost", "out"}


@pytest.mark.parametrize(
    ("at_primary", "line"),
    [
        (False, "ok    standby"),
        (True, "bad   standby          is of no use: the server is no standby, or not any more"),
    ],
)
def test_doctor_looks_at_it(pair: Pair, tmp_path: Path, at_primary: bool, line: str) -> None:
    read_url = (pair.primary if at_primary else pair.standby).url
    runner = CliRunner(env={"TICKETS_DATABASE_URL": pair.primary.url, "TICKETS_DATABASE_READ_URL": read_url})
    ports = ["--http-port", str(free_port()), "--grpc-port", str(free_port())]
    done = runner.invoke(app, ["doctor", "--data-dir", str(tmp_path), *ports])
    assert any(shown.startswith(line) for shown in done.output.splitlines()), done.output


async def test_after_a_takeover_neither_the_new_primary_nor_the_old_one_is_read_from_as_a_standby(
    tmp_path: Path,
) -> None:
    name = str(uuid4())
    with running_pair(tmp_path) as pair:
        async with opened(pair.primary.url, pair.standby.url) as (database, standby):
            await database.one(WRITE, {"name": name})
            await back_at_the_standby(database, name, 1)
            await asyncio.to_thread(pair.promote)
            at(pair.standby.url, f"INSERT INTO accounts (name) VALUES ('{name}')")
            assert await count(database, name) == {"number": 1, "at_standby": False}
            assert standby.by_reason["promoted"] >= 1
            # What the new primary will never have puts the old one ahead of it in its log.
            for _ in range(100):
                await database.one(WRITE, {"name": name})
        pair.restart_primary_as_standby()
        async with opened(pair.standby.url, pair.primary.url) as (database, standby):
            assert await count(database, name) == {"number": 2, "at_standby": False}
            assert (standby.reads, standby.by_reason["foreign"]) == (0, 1)
