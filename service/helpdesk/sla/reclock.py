"""Re-clocks the unresolved tickets of policies and calendars that have changed, in the background.

The change itself only notes down whose tickets they are (queries.py, RECLOCK_…). From there any process goes on, in
steps: a step is a transaction of its own that sets the clocks of some tickets and notes how far it has come, so that a
crash undoes both or neither. While it lasts the tenant's row is locked, and other processes take other tenants; then it
is the turn of the tenant that has waited for the longest.
"""

import asyncio
from itertools import takewhile
from time import perf_counter

from service.helpdesk.sla import clock_queries, notifier
from service.storage.database import Connection, Database
from service.storage.statement import Row

# How long to pause after a step, of the time that it took: the busier a machine is, the more of it is left to callers.
# A step is a third of a millisecond of CPU for each ticket, two fifths of it here and the rest in PostgreSQL.
_PAUSE = 0.3
# When a tenant's next turn is after one in which somebody else had the next ticket locked.
_LOCKED_SECONDS = 1.0


async def reclock(database: Database) -> None:
    """Re-clock what there is to re-clock, of all tenants; run in the background, in every process."""
    is_more = True
    while is_more:
        begun = perf_counter()
        is_more = await step(database)
        await asyncio.sleep(_PAUSE * (perf_counter() - begun))


async def step(database: Database) -> bool:
    """Re-clock some tickets of the tenant whose turn it is; False when it is nobody's turn."""
    async with database.transaction() as connection:
        turn = await connection.one(clock_queries.TAKE_TURN, {})
        if turn is not None:
            await _take(connection, turn)
    return turn is not None


async def _take(connection: Connection, turn: Row) -> None:
    tickets = await connection.all(clock_queries.NEXT_CLOCKS, {**turn, "rows": notifier.STEP})
    locked = await notifier.lock(connection, turn["tenant_id"], tickets)
    await notifier.set_clocks(connection, turn["tenant_id"], locked)
    ids = {ticket["id"] for ticket in locked}
    # The next step begins with the first that somebody had locked: those behind it do not change a second time.
    done = [*takewhile(lambda ticket: ticket["id"] in ids, tickets)]
    if len(done) == len(tickets) < notifier.STEP:
        statement = clock_queries.FINISH if turn["is_last"] else clock_queries.NEXT_POLICY
    else:
        statement = clock_queries.NEXT_TICKETS
    pause = _LOCKED_SECONDS if tickets and not done else 0.0
    after_id = done[-1]["id"] if done else turn["after_id"]
    await connection.one(statement, {**turn, "after_id": after_id, "pause": pause}, commit=True)
