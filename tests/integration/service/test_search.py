"""contracts/helpdesk.md, List query: `q` in all three APIs at both transports, and what fills in its index."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from support.helpdesk import new_tenant_id
from support.system import Credential, World
from support.transports import Grpc, Rest

from service import reindex
from service.directory import METADATA
from service.helpdesk import index_terms, tables
from service.local.processes import wait_for
from service.search import tsquery
from service.settings import Settings
from service.storage.database import Database

Transport = Rest | Grpc

HAYSTACK = (
    "Printer/scanner on srv-db01.internal",
    "500 on /login; C++ says <nil>. Café in 東京都, like INC-0042 (v1.2.3)",
)
# All of it in one ticket; the kind of each is in tests/unit/shared/test_search.py.
FOUND = [
    *("scanner", "printer/scanner", "db01", "srv-db01.internal", "login", "C++", "nil", "<nil>", "CAFE\u0301", "東京"),
    *("京都", "京", "0042", "INC-0042", "v1.2.3", "2.3", "printer nil 0042"),
]
MISSED = ["anner", "C#", "C+++", "cafe", "東都", "3.2", "printer nothing", "!!!", "' OR true --", "@", "x" * 200]


class Searched(NamedTuple):
    """A caller's place in one of the APIs, without tickets."""

    transport: Transport
    who: Credential
    api: str
    table: str
    title: str
    path: dict[str, Any]

    async def create(self, title: str, description: str) -> Any:
        body = {self.title: title, "description": description}
        if self.api == "handoff":
            body["request_type"] = "bug"
        sections = {"path": self.path} if self.path else {}
        made = (await self.transport.call(f"{self.api}.create", self.who, body=body, **sections)).succeeded(201)
        return made["ticket"] if self.api == "handoff" else made

    async def change(self, ticket: Any, **texts: str) -> None:
        name = "id" if self.api == "helpdesk" else "ticket_id"
        body = {self.title if member == "title" else member: text for member, text in texts.items()}
        path = {**self.path, name: ticket["id"]}
        (await self.transport.call(f"{self.api}.update", self.who, path=path, body=body)).succeeded()

    async def find(self, q: str) -> list[Any]:
        sections = {"path": self.path} if self.path else {}
        method = "handoff.project" if self.api == "handoff" else f"{self.api}.list"
        page = (await self.transport.call(method, self.who, query={"q": q}, **sections)).succeeded()
        assert page.get("total", len(page["tickets"])) == len(page["tickets"])
        return [ticket["id"] for ticket in page["tickets"]]


APIS = ["handoff", "helpdesk", "itsm"]


@pytest.fixture(params=APIS)
async def searched(request: pytest.FixtureRequest, transport: Transport, world: World) -> Searched:
    return await new_place(str(request.param), transport, world)


async def new_place(api: str, transport: Transport, world: World) -> Searched:
    path = {}
    if api == "itsm":
        who = (await world.program()).credential
    elif api == "helpdesk":
        who = world.person("read", "write", "agent", tenant_id=new_tenant_id())
    else:
        path = {"project_id": await world.project()}
        who = await world.member(path["project_id"])
    return Searched(transport, who, api, f"{api}_tickets", "subject" if api == "itsm" else "title", path)


async def test_words_are_found_as_a_reader_sees_them(searched: Searched) -> None:
    ticket = await searched.create(*HAYSTACK)
    await searched.create("Another", "with other words")
    for q in FOUND:
        assert (q, await searched.find(q)) == (q, [ticket["id"]])
    for q in MISSED:
        assert (q, await searched.find(q)) == (q, [])


async def test_a_changed_text_is_found_at_once_by_its_words_of_now(searched: Searched) -> None:
    ticket = await searched.create("before one", "below two")
    await searched.change(ticket, title="after three")
    assert await searched.find("after two below three") == [ticket["id"]]
    assert [await searched.find(q) for q in ("before", "one")] == [[], []]
    await searched.change(ticket, description="under four")
    assert [await searched.find(q) for q in ("two", "below", "after four")] == [[], [], [ticket["id"]]]
    await searched.change(ticket, title="AFTER three!", description="five")
    assert [await searched.find(q) for q in ("four", "after five")] == [[], [ticket["id"]]]


async def test_a_text_of_any_length_is_taken_and_found_by_its_beginning(searched: Searched) -> None:
    longest = {"handoff": 20_000, "helpdesk": 65_536, "itsm": 300_000}[searched.api]
    words = "".join(f"{n:x}/東" for n in range(longest // 6))
    ticket = await searched.create("long", words[:longest])
    assert await searched.find("1/東 long") == [ticket["id"]]
    assert await searched.find("東京" * 100) == []


@pytest.mark.parametrize("api", APIS)
async def test_what_an_earlier_version_wrote_is_found_in_the_end_and_nothing_else_of_it_changes(
    rest: Rest, world: World, api: str
) -> None:
    searched = await new_place(api, rest, world)

    def row() -> dict[str, Any]:
        [(found,)] = world.rows(f"SELECT to_json(t) FROM {searched.table} t WHERE id = %s", ticket["id"])
        assert isinstance(found, dict)
        return found

    ticket = await searched.create(*HAYSTACK)
    before = row()
    assert before["search_terms"] is not None
    # It makes tickets without terms, and changes texts without them.
    world.run(f"UPDATE {searched.table} SET search_terms = NULL WHERE id = %s", ticket["id"])
    await asyncio.to_thread(wait_for, lambda: row()["search_terms"] is not None, what="the terms", timeout=20)
    assert row() == before
    world.run(f"UPDATE {searched.table} SET {searched.title} = 'Fax' WHERE id = %s", ticket["id"])
    await asyncio.to_thread(wait_for, lambda: "'fax'" in (row()["search_terms"] or ""), what="the terms", timeout=20)
    assert await searched.find("fax 0042") == [ticket["id"]]
    assert await searched.find("scanner") == []


# Step by step, where no service runs.

REINDEX = reindex.Reindex(tables.tickets, ("title", "description"), index_terms.search_terms)
INSERT = (
    "INSERT INTO helpdesk_tickets (tenant_id, id, number, title, type, status, priority, submitted_by_id, tags,"
    " source, source_type, created_by, updated_by) SELECT %s, 'tkt_' || n, n, 'word' || n, 'incident', 'open',"
    " 'low', 'p', '[]', 'edm', 'api', 'p', 'p' FROM generate_series(1, %s) n"
)


@pytest.fixture
async def database(apart_url: str) -> AsyncIterator[Database]:
    database = Database(Settings(database_url=apart_url), METADATA)
    await database.open()
    yield database
    await database.close()


async def test_tickets_are_indexed_in_steps_that_leave_out_what_others_hold(apart: World, database: Database) -> None:
    tenant_id = str(uuid4())
    apart.run(INSERT, tenant_id, 2 * reindex.ROWS + 2)
    missing = "SELECT number FROM helpdesk_tickets WHERE tenant_id = %s AND search_terms IS NULL ORDER BY number"
    assert await REINDEX.step(database) is not None
    assert len(apart.rows(missing, tenant_id)) == reindex.ROWS + 2
    with psycopg.connect(apart.database_url) as other:
        held = "SELECT number FROM helpdesk_tickets WHERE tenant_id = %s AND search_terms IS NULL LIMIT 1 FOR UPDATE"
        [number] = other.execute(held, [tenant_id]).fetchall()
        async with asyncio.timeout(10):
            await REINDEX.work(database)
        assert apart.rows(missing, tenant_id) == [number]
    await asyncio.gather(REINDEX.work(database), REINDEX.work(database))
    assert apart.rows(missing, tenant_id) == []
    found = "SELECT number FROM helpdesk_tickets WHERE search_terms @@ %s::tsquery AND tenant_id = %s"
    assert apart.rows(found, tsquery(f"@{tenant_id}", "TKT-0007 word7"), tenant_id) == [(7,)]
    # When all is done, a look for more reads an index that is empty.
    assert await REINDEX.step(database) is None
