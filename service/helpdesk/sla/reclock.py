"""Re-clocks the unresolved tickets of policies and calendars that have changed, in the background.

The change itself only notes down whose tickets they are (queries.py, RECLOCK_…). From there any process goes on, in
steps: a step is a transaction of its own that sets the clocks of a few tickets and notes how far it has come, so that a
crash undoes both or neither. While it lasts the tenant's row is locked, and other processes take other tenants; then it
is the turn of the tenant whose last step is the longest ago.
"""

import asyncio

from service.helpdesk.sla import clock_queries, notifier
from service.storage.database import Database

# After each step, so that the database has time for others.
_PAUSE_SECONDS = 0.002


async def reclock(database: Database) -> None:
    """Re-clock what there is to re-clock, of all tenants; run in the background, in every process."""
    is_more = True
    while is_more:
        is_more = await step(database)
        await asyncio.sleep(_PAUSE_SECONDS)


async def step(database: Database) -> bool:
    """Re-clock some tickets of the tenant whose turn it is; False when there is nothing to do."""
    async with database.transaction() as connection:
        turn = await connection.one(clock_queries.TAKE_TURN, {})
        if turn is None:
            return False
        tickets = await connection.all(clock_queries.NEXT_CLOCKS, {**turn, "rows": notifier.STEP})
        await notifier.set_clocks(connection, await notifier.lock(connection, tickets))
        if len(tickets) == notifier.STEP:
            await connection.one(clock_queries.NEXT_TICKETS, {**turn, "after_id": tickets[-1]["id"]}, commit=True)
        else:
            end = clock_queries.FINISH if turn["is_last"] else clock_queries.NEXT_POLICY
            await connection.one(end, turn, commit=True)
    return True
