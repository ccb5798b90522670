"""Rows that someone else holds."""

import psycopg

from support.system import World


class LockedTicket:
    """A ticket that someone else holds, so that a PATCH of it waits."""

    def __init__(self, world: World, ticket_id: str) -> None:
        self.ticket_id = ticket_id
        self._world = world
        self._holder = psycopg.connect(world.database_url)
        self._holder.execute("SELECT 1 FROM itsm_tickets WHERE id = %s FOR UPDATE", [ticket_id])

    def waiting(self) -> int:
        """How many statements wait for it right now."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
        count: int = self._world.rows(sql, self._holder.info.backend_pid)[0][0]
        return count

    def release(self) -> None:
        """Let those that wait go on."""
        self._holder.close()
