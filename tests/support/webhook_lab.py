"""Webhooks without a process of the service: use cases on a database of their own, background work run by hand."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import psycopg

from service.access.policy import Caller
from service.directory import METADATA
from service.itsm import operations, tables, webhooks
from service.itsm.delivery.queue import Deliveries
from service.itsm.dependencies import ItsmDependencies
from service.operation import Call, Operation
from service.outbound import Outbound
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault
from service.watch import EventFeed
from service.webhooks.fan_out import FanOut
from service.webhooks.sender import Sender
from support.emulators.http import Request, Response, Server
from support.system import ENCRYPTION_KEY

EVENTS = ["ticket.created", "ticket.updated", "ticket.closed", "ticket.reopened"]


@dataclass(frozen=True)
class Account:
    """An account in one of its modes."""

    id: UUID = field(default_factory=uuid4)
    live: bool = True


class Process:
    """What a process of the service has, except its transports."""

    def __init__(self, settings: Settings) -> None:
        self.database = Database(settings, METADATA)
        self.vault = Vault(settings)
        self.outbound = Outbound(settings)
        self.deliveries = Deliveries(settings, self.database, self.vault)
        self.fan_out = FanOut(webhooks.SOURCE)
        self.sender = Sender(webhooks.SOURCE, settings, self.vault, self.outbound)
        self.dependencies = ItsmDependencies(
            settings=settings,
            database=self.database,
            vault=self.vault,
            feed=EventFeed(self.database, tables.events, settings.max_watches),
            deliveries=self.deliveries,
            outbound=self.outbound,
        )

    async def do(self, account: Account, operation: Operation[Any], **given: Any) -> Any:
        """Run a use case for an account; ids among what is given are the path, the rest is the body."""
        caller = Caller("a key", frozenset(), account_id=account.id, live=account.live)
        call = Call(("tickets.itsm.v1", ""), "a request", None, caller)
        path = {name: given.pop(name) for name in ("ticket_id", "webhook_id", "delivery_id") if name in given}
        return await operation(self.dependencies, call, {"path": path, "body": given, "header": {}})

    async def register(self, account: Account, url: str, events: list[str] = EVENTS) -> Any:
        """A new webhook."""
        return await self.do(account, webhooks.create_webhook, url=url, events=events)

    async def create(self, account: Account, **ticket: Any) -> Any:
        """A new ticket."""
        return await self.do(account, operations.create_ticket, **{"subject": "VPN", "description": "Down", **ticket})

    async def update(self, account: Account, ticket: Any, **changes: Any) -> Any:
        """The ticket, changed."""
        return await self.do(account, operations.update_ticket, ticket_id=str(ticket["id"]), **changes)

    async def webhook(self, account: Account, webhook: Any) -> Any:
        """The webhook as it is listed now."""
        listed = (await self.do(account, webhooks.list_webhooks))["webhooks"]
        return next(one for one in listed if one["id"] == webhook["id"])

    async def log(self, account: Account, webhook: Any) -> Any:
        """Its attempts."""
        return (await self.do(account, webhooks.list_deliveries, webhook_id=webhook["id"]))["deliveries"]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until a condition holds; the time limit is that of the test."""
    while not is_so():  # noqa: ASYNC110 - what happens in PostgreSQL or another server sets no event here
        await asyncio.sleep(0.01)


class Machine:
    """A database, and processes that share it."""

    def __init__(self, url: str) -> None:
        self.url = url
        # Nothing is retried before the test says so.
        self._settings = Settings(
            database_url=url, encryption_keys=ENCRYPTION_KEY, allow_private_targets=True, delivery_pause_seconds=1000
        )

    @asynccontextmanager
    async def process(self, **settings: Any) -> AsyncIterator[Process]:
        """One more process."""
        process = Process(self._settings.model_copy(update=settings))
        await process.database.open()
        try:
            yield process
        finally:
            await process.deliveries.close()
            await process.outbound.close()
            await process.database.close()

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Read the database, or change it as time or an accident would."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []

    async def fan_out(self, process: Process) -> None:
        """Queue messages of all that happened so far."""
        is_readable = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > max(transaction_id) FROM itsm_events"
        # Transactions of other databases on this server hold the horizon back too.
        await until(lambda: self.rows(is_readable) != [(False,)])
        await process.fan_out.queue_messages(process.database)

    async def send(self, process: Process) -> None:
        """Queue messages of all that happened so far, and send those that are due."""
        await self.fan_out(process)
        await process.sender.send_due(process.database)

    async def retry(self, process: Process) -> None:
        """Send what failed, as if its pause were over."""
        self.rows("UPDATE itsm_webhook_messages SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL")
        await process.sender.send_due(process.database)


class Receiver(Server):
    """Accepts messages with 200, unless other answers are planned for a path."""

    def __init__(self) -> None:
        super().__init__(self._planned)
        self.planned: dict[str, list[Response]] = {}

    def _planned(self, request: Request) -> Response:
        planned = self.planned.get(request.path)
        return planned.pop(0) if planned else Response(200)

    def requests_to(self, path: str) -> list[Request]:
        """The requests to a path."""
        return [request for request in self.requests if request.path == path]

    def events(self, path: str) -> list[tuple[str, str]]:
        """The events that a path received: type, and the ticket's subject."""
        return [(request.body["type"], request.body["data"]["subject"]) for request in self.requests_to(path)]


def body_signature(request: Request, secret: str) -> str:
    """The header of the API's public pages."""
    return "sha256=" + hmac.new(secret.encode(), request.raw, "sha256").hexdigest()


def signatures(request: Request, *secrets: str) -> str:
    """The header that the Standard Webhooks specification asks for."""
    content = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.raw
    keys = [base64.b64decode(secret.split("_")[1]) for secret in secrets]
    made = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys]
    return " ".join(f"v1,{one}" for one in made)
