"""Re-clocks the unresolved tickets of policies and calendars that have changed, in the background.

The change itself only records the tenant and the policies (queries.py, RECLOCK_…). Any process continues from there, in
steps: a step is a transaction that sets the clocks of some tickets and records how far it has come, so that a crash
undoes both or neither. It locks the tenant's row, so other processes take other tenants. The next step is for the
tenant that has waited for the longest.
"""

from itertools import takewhile

from service.background import paced
from service.helpdesk.sla import clock_queries, notifier
from service.storage.database import Connection, Database
from service.storage.statement import Row

# A step is a third of a millisecond of CPU for each ticket, two fifths of it here and the rest in PostgreSQL.
_PAUSE = 0.3
# How long a tenant waits for its next turn when another transaction has locked its next ticket.
_LOCKED_SECONDS = 1.0


async def reclock(database: Database) -> None:
    """Re-clock what there is to re-clock, of all tenants; run in the background, in every process."""
    is_more = True
    while is_more:
        async with paced(_PAUSE):
            is_more = await step(database)


async def step(database: Database) -> bool:
    """Re-clock some tickets of the tenant whose turn it is; False when no tenant has one."""
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
    # The next step begins with the first ticket that was locked; tickets after it that are done do not change again.
    done = [*takewhile(lambda ticket: ticket["id"] in ids, tickets)]
    if len(done) == len(tickets) < notifier.STEP:
        statement = clock_queries.FINISH if turn["is_last"] else clock_queries.NEXT_POLICY
    else:
        statement = clock_queries.NEXT_TICKETS
    pause = _LOCKED_SECONDS if tickets and not done else 0.0
    after_id = done[-1]["id"] if done else turn["after_id"]
    await connection.one(statement, {**turn, "after_id": after_id, "pause": pause}, commit=True)
