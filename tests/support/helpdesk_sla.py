"""Tenants of the helpdesk with SLA policies, and time that passes for their tickets."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from service.directory import METADATA
from service.helpdesk.sla import notifier, reclock
from service.settings import Settings
from service.storage.database import Database
from support.helpdesk import Transport, create, new_tenant_id, update
from support.system import Credential, World

# The SLA policies of each tenant here, by names that the tests use. None is for priority `medium`.
POLICIES: Mapping[str, Mapping[str, Any]] = {
    "urgent": {"priority": "urgent", "first_response_minutes": 20, "resolution_minutes": 240},
    "high": {"priority": "high", "applies_to": ["incident", "problem"], "resolution_minutes": 60},
    "change": {"priority": "high", "applies_to": ["change"], "resolution_minutes": 90},
    "office": {"priority": "low", "resolution_minutes": 60, "business_hours_only": True, "applies_to": ["change"]},
    "old": {"priority": "low", "resolution_minutes": 60, "status": "inactive"},
}
# Time passes for a ticket when every stamp of it moves back.
STAMPS = "created_at updated_at paused_at due_at first_response_due_at resolved_at first_response_at sla_look_at"

# Minutes that pass (`unseen`: before the notifier may look at the ticket); or a word for what happens; or a change by
# PATCH, with names of policies, and a `due_at` in minutes since the ticket's creation.
Step = int | dict[str, Any] | str
Rows = Callable[..., list[tuple[Any, ...]]]
# A tenant's id, and its policies by the names above.
TenantPolicies = tuple[str, Mapping[str, Any]]

URGENT, HIGH = {"priority": "urgent"}, {"priority": "high"}
# 2026-03-06 is a Friday.
FRIDAY = "2026-03-06T16:30:00Z"
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday")


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


@dataclass
class SlaTenant:
    """A tenant with the policies above, at one transport."""

    transport: Transport
    world: World
    database: Database
    rows: Rows
    tenant_id: str
    policies: Mapping[str, Any]

    @property
    def agent(self) -> Credential:
        return self.world.person("read", "write", "agent", tenant_id=self.tenant_id, sub="per_agent")

    @property
    def person(self) -> Credential:
        # Of an agent's rights: what is tried here only they set.
        return self.world.person("read", "write", "agent", tenant_id=self.tenant_id)

    async def create(self, **members: Any) -> Any:
        [(now,)] = self.rows("SELECT now()")
        return await create(self.transport, self.person, **self._body(members, now))

    async def change(self, ticket: Any, **changes: Any) -> Any:
        body = self._body(changes, self.stamp(ticket, "created_at"))
        return (await update(self.transport, self.agent, ticket, **body)).succeeded()

    def stamp(self, ticket: Any, name: str) -> Any:
        [(stamp,)] = self.rows(f"SELECT {name} FROM helpdesk_tickets WHERE id = %s", ticket["id"])
        return stamp

    def pass_time(self, ticket: Any, *, stamps: str = STAMPS, **time: float) -> None:
        by = f"interval '{timedelta(**time).total_seconds()} seconds'"
        pauses, moves = (
            ", ".join(f"{name} = {name} - {by}" for name in names.split()) for names in ("started_at ended_at", stamps)
        )
        first = f"WITH pauses AS (UPDATE helpdesk_pauses SET {pauses} WHERE ticket_id = %s)"
        self.rows(f"{first} UPDATE helpdesk_tickets SET {moves} WHERE id = %s", ticket["id"], ticket["id"])

    async def emit(self, ticket: Any) -> None:
        """What the service does every few seconds. If it does it right now, wait for it."""
        while self.rows("SELECT 1 FROM helpdesk_reclocks WHERE tenant_id = %s FOR UPDATE", ticket["tenant_id"]):
            await reclock.step(self.database)
        await notifier.emit_due_events(self.database)
        self.rows("SELECT 1 FROM helpdesk_tickets WHERE id = %s FOR UPDATE", ticket["id"])

    async def play(self, ticket: Any, steps: Sequence[Step]) -> None:
        for step in steps:
            if isinstance(step, int):
                self.pass_time(ticket, minutes=step)
            elif isinstance(step, dict):
                await self.change(ticket, **step)
            elif step.startswith("unseen "):
                stamps = STAMPS.removesuffix(" sla_look_at")
                self.pass_time(ticket, stamps=stamps, minutes=int(step.removeprefix("unseen ")))
            elif step == "emit":
                await self.emit(ticket)
            else:
                operation, body = ("comment", {"body": "Hello"}) if step == "respond" else (step, None)
                call = self.transport.call(f"helpdesk.{operation}", self.agent, path={"id": ticket["id"]}, body=body)
                (await call).succeeded(201 if step == "respond" else 200)

    async def change_policy(self, policy: str, **changes: Any) -> None:
        path = {"id": self.policies[policy]["id"]}
        (await self.transport.call("helpdesk.update_policy", self.agent, path=path, body=changes)).succeeded()

    async def sla(self, ticket: Any) -> Any:
        return (await self.transport.call("helpdesk.sla", self.person, path={"id": ticket["id"]})).succeeded()

    async def emitted(self, ticket: Any) -> list[Any]:
        """The events of a ticket's history that its SLA emitted."""
        reply = await self.transport.call(
            "helpdesk.events", self.person, path={"id": ticket["id"]}, query={"limit": 100}
        )
        events = reply.succeeded()["events"]
        assert [event["version"] for event in events] == list(range(1, len(events) + 1))
        return [event for event in events if event["actor"] == "system"]

    def minutes(self, ticket: Any, text: str | None) -> int | None:
        """An instant in minutes since the ticket's creation, rounded: calls take a moment, too."""
        if text is None:
            return None
        since: timedelta = instant(text) - self.stamp(ticket, "created_at")
        return round(since.total_seconds() / 60)

    def policy_name(self, policy_id: str | None) -> str | None:
        return None if policy_id is None else next(n for n, made in self.policies.items() if made["id"] == policy_id)

    def _body(self, members: Mapping[str, Any], created_at: datetime) -> dict[str, Any]:
        body = dict(members)
        if body.get("sla_policy") in self.policies:
            body["sla_policy"] = self.policies[body["sla_policy"]]["id"]
        if isinstance(body.get("due_at"), int):
            body["due_at"] = (created_at + timedelta(minutes=body["due_at"])).isoformat()
        return body


async def create_tenant(transport: Transport, world: World) -> TenantPolicies:
    """A new tenant with the policies above."""
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id)
    bodies = {name: {"name": name, **members} for name, members in POLICIES.items()}
    calls = {name: await transport.call("helpdesk.create_policy", agent, body=body) for name, body in bodies.items()}
    return tenant_id, {name: reply.succeeded(201) for name, reply in calls.items()}


@dataclass
class SlaLab:
    """Looks into the tickets of all tenants, and runs the notifier."""

    world: World
    database: Database
    rows: Rows

    def tenant(self, transport: Transport, tenant: TenantPolicies) -> SlaTenant:
        return SlaTenant(transport, self.world, self.database, self.rows, *tenant)


@asynccontextmanager
async def open_sla_lab(world: World) -> AsyncIterator[SlaLab]:
    database = Database(Settings(database_url=world.database_url, pool_size=1), METADATA)
    await database.open()
    with psycopg.connect(world.database_url, autocommit=True) as connection:

        def rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

        yield SlaLab(world, database, rows)
    await database.close()
