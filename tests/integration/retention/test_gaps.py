"""A watch that is open asks for the mark after it has read: what is deleted in between is told as well."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.retention import KEEP, SEEDS, purge, write
from support.webhook_lab import Machine, Process, until

from service import purged
from service.access.policy import Caller
from service.errors import TicketError
from service.itsm import queries, views
from service.operation import Call
from service.positions import Position, Start
from service.watch import Found, Reader, follow, found

OF = SEEDS["itsm_events"]


def newest(machine: Machine, account_id: UUID) -> Position:
    sql = (
        "SELECT transaction_id::text::bigint, id FROM itsm_events WHERE account_id = %s ORDER BY 1 DESC, 2 DESC LIMIT 1"
    )
    return Position(*machine.rows(sql, account_id)[0])


class Lab:
    """A watch of an account's live tickets, between whose reads a test does something."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self.account_id = uuid4()
        self.machine, self.process = machine, process
        self.before_read: list[Any] = []
        machine.rows("INSERT INTO accounts (id, name) VALUES (%s, 'An account')", self.account_id)
        machine.rows(
            "INSERT INTO api_keys (id, account_id, key_hash, live, scopes) VALUES (%s, %s, %s, true, '{}')",
            *(self.account_id, self.account_id, self.account_id.bytes),
        )

    def write(self, days: int, number: int = 1) -> None:
        write(self.machine.rows, OF, self.account_id, days, number)

    async def purge(self) -> None:
        await purge("itsm_events").delete(self.process.database)

    async def settled(self) -> None:
        """All that was written can be read."""
        is_readable = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(transaction_id) FROM itsm_events"
        await until(lambda: self.machine.rows(is_readable) != [(False,)])

    async def _read(self, position: Position, rows: int, _watchers: Sequence[Any]) -> Found[views.TicketEvent]:
        if self.before_read:
            await self.before_read.pop(0)()
        named = {
            "account_id": self.account_id,
            "live": True,
            "key_ids": [self.account_id],
            "rows": rows,
            **position.parameters(),
        }
        return found(await self.process.database.all(queries.EVENTS_AFTER, named), views.event, {"a key"})

    def watch(self, start: Start | None = None) -> Any:
        caller = Caller("a key", frozenset(), account_id=self.account_id, live=True)
        call = Call(("tickets.itsm.v1", ""), "a request", None, caller)
        reader = Reader(("a watch",), self._read, "a key", lambda: TicketError("invalid_token"))
        return follow(self.process.dependencies.feed, self.account_id, call, reader, start, look_seconds=0.05)

    async def server(self) -> int:
        """That of this database, as the feed has it once it has looked."""
        feed = self.process.dependencies.feed
        await feed.begin(self.account_id, None)
        return feed.servers[-1]


@pytest.fixture
def lab(machine: Machine, process: Process) -> Lab:
    return Lab(machine, process)


async def test_what_is_deleted_before_the_first_read_is_told(lab: Lab) -> None:
    lab.write(KEEP + 1)
    start = Start(newest(lab.machine, lab.account_id), await lab.server())
    lab.write(KEEP + 1)
    lab.write(0)
    await lab.settled()
    lab.before_read = [lab.purge]
    with pytest.raises(TicketError) as refused:
        await anext(lab.watch(start))
    assert refused.value.reason == "cursor_expired"


async def test_what_is_deleted_while_its_caller_reads_slowly_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = lab.watch()
    assert (await anext(watch))[0] is None
    lab.write(KEEP + 1)
    await lab.settled()
    await lab.purge()
    # Its caller took the last message only now.
    monkeypatch.setattr(purged, "SETTLE_SECONDS", 0)
    with pytest.raises(TicketError) as refused:
        await anext(watch)
    assert refused.value.reason == "cursor_expired"


async def test_one_that_has_read_what_is_deleted_goes_on(lab: Lab) -> None:
    lab.write(KEEP + 1, 3)
    await lab.settled()
    start = Start(Position(0, 0), await lab.server())
    watch = lab.watch(start)
    seen = [(await anext(watch))[0] for _ in range(3)]
    await lab.purge()
    lab.write(0)
    await lab.settled()
    async with asyncio.timeout(10):
        while (event := (await anext(watch))[0]) is None:
            pass
    assert len({view["ticket_id"] for view in (*seen, event)}) == 4
