"""Tenants with many tickets whose clocks a calendar moves, and processes that re-clock when the test says so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg

from service.access.policy import Caller
from service.directory import METADATA
from service.helpdesk.sla import operations as sla
from service.operation import Call, Dependencies, Operation
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault
from support.helpdesk import new_tenant_id

# A Friday, half an hour before the default calendar closes: an hour of it is over on Monday at 09:30.
CREATED, DUE = "2026-03-06T16:30:00Z", "2026-03-09T09:30:00Z"
AROUND_THE_CLOCK = [
    {"weekday": day, "start": "00:00", "end": "24:00"}
    for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
]
# By those hours.
DUE_AROUND_THE_CLOCK = "2026-03-06T17:30:00Z"
HOUR = {"name": "P", "priority": "medium", "resolution_minutes": 60, "business_hours_only": True}
_BOTH = "{resolution.due_soon,resolution.breached}"


def fill(connection: psycopg.Connection[Any], tenant_id: str, policy_id: str, tickets: int, **members: Any) -> None:
    """Give a tenant so many tickets of an hour, whose events were emitted unless `sla_emitted` says otherwise."""
    given = {"created_at": CREATED, "due_at": DUE, "sla_emitted": _BOTH, "status": "open", **members}
    connection.execute(
        "INSERT INTO helpdesk_tickets (tenant_id, id, number, title, type, priority, submitted_by_id, sla_policy, tags,"
        f" source, source_type, created_by, updated_by, {', '.join(given)})"
        " SELECT %s, 'tkt_' || upper(lpad(to_hex(first + n), 26, '0')), first + n, 'T', 'incident', 'medium', 'per_1',"
        f" %s, '[]', 'edm', 'api', 'per_1', 'per_1', {', '.join(['%s'] * len(given))}"
        " FROM generate_series(1, %s) n, (SELECT coalesce(max(number), 0) AS first FROM helpdesk_tickets WHERE"
        " tenant_id = %s) numbers",
        [tenant_id, policy_id, *given.values(), tickets, tenant_id],
    )


@dataclass
class ReclockTenant:
    """A tenant with a policy of an hour in business hours."""

    lab: "ReclockLab"
    id: str
    policy_id: str = ""

    async def run(self, operation: Operation[Any], **sections: Any) -> Any:
        caller = Caller("per_1", frozenset({"helpdesk:agent"}), tenant_id=self.id)
        call = Call(("tickets.helpdesk.v1", "Test"), f"req-{uuid4()}", None, caller)
        return await operation(self.lab.dependencies, call, sections)

    async def set_hours(self, hours: Any) -> None:
        await self.run(sla.update_calendar, body={"hours": hours})

    def fill(self, tickets: int, **members: Any) -> None:
        fill(self.lab.connection, self.id, self.policy_id, tickets, **members)

    def count(self, condition: str = "true") -> int:
        """How many of its tickets meet a condition."""
        sql = f"SELECT count(*) FROM helpdesk_tickets WHERE tenant_id = %s AND {condition}"
        [(number,)] = self.lab.rows(sql, self.id)
        return int(number)

    def events(self) -> list[tuple[Any, ...]]:
        """How many tickets have which events, in order."""
        sql = (
            "SELECT types, count(*) FROM (SELECT array_agg(type ORDER BY version) AS types FROM helpdesk_events"
            " WHERE tenant_id = %s GROUP BY ticket_id) each GROUP BY types ORDER BY types"
        )
        return self.lab.rows(sql, self.id)

    @property
    def waits(self) -> bool:
        """Whether something of it is left to re-clock."""
        return bool(self.lab.rows("SELECT 1 FROM helpdesk_reclocks WHERE tenant_id = %s", self.id))


@dataclass
class ReclockLab:
    """A database on which no service runs."""

    url: str
    connection: psycopg.Connection[Any]
    dependencies: Dependencies

    @property
    def database(self) -> Database:
        return self.dependencies.database

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql, parameters).fetchall()

    async def tenant(self, tickets: int = 0, **members: Any) -> ReclockTenant:
        tenant = ReclockTenant(self, new_tenant_id())
        tenant.policy_id = (await tenant.run(sla.create_sla_policy, header={}, body=HOUR))["id"]
        tenant.fill(tickets, **members)
        return tenant

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Database]:
        """The database as another process has it."""
        database = Database(self.dependencies.settings, METADATA)
        await database.open()
        yield database
        await database.close()


@asynccontextmanager
async def open_reclock_lab(url: str) -> AsyncIterator[ReclockLab]:
    settings = Settings(database_url=url, pool_size=2)
    database = Database(settings, METADATA)
    await database.open()
    with psycopg.connect(url, autocommit=True) as connection:
        yield ReclockLab(url, connection, Dependencies(settings=settings, database=database, vault=Vault(settings)))
        connection.execute("DELETE FROM helpdesk_reclocks")
        connection.execute("UPDATE helpdesk_tickets SET sla_look_at = NULL")
    await database.close()
