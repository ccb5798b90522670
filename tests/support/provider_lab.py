"""Accounts that are linked to an emulator, and processes of the service that deliver when the test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import psycopg

from service import migrations
from service.access.policy import Caller
from service.admin import operations as admin
from service.directory import METADATA
from service.itsm import operations, tables
from service.itsm.delivery.queue import Deliveries
from service.itsm.dependencies import ItsmDependencies
from service.local.processes import wait_for
from service.operation import Call
from service.outbound import Outbound
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault
from service.watch import EventFeed
from support.emulators.freshservice import Freshservice
from support.emulators.http import Request, Response, Server
from support.emulators.vendors import FRESHSERVICE, Vendor
from support.system import ENCRYPTION_KEY, Program, World
from support.transports import Grpc, Reply, Rest

Transport = Rest | Grpc

TICKET = {"subject": "VPN is down", "description": "Since nine."}
# Members that the provider rejects and this service does not, and its message.
BAD: dict[str, Any] = {"description": " "}
MESSAGE = "Validation failed. description: It should not be blank as this is a mandatory field"


class Desk(Freshservice):
    """A Freshservice that processes requests, and answers them, when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self._handle = self._process
        self.may_process, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_process.set()
        self.may_answer.set()
        # Answers to requests that are not processed, once each.
        self.refusals: list[Response] = []

    async def _process(self, request: Request) -> Response:
        await self.may_process.wait()
        response = self.refusals.pop(0) if self.refusals else self._take(request)
        await self.may_answer.wait()
        return response

    @property
    def writes(self) -> list[tuple[str, Any]]:
        """The writes it received: the method, and the body, of a creation its subject."""
        return [
            (one.method, one.body if one.method == "PUT" else one.body["subject"])
            for one in self.requests
            if one.method != "GET"
        ]


@asynccontextmanager
async def linked(world: World, desk: Desk | None = None) -> AsyncIterator[tuple[Program, Desk]]:
    """A program of an account that is linked to a desk."""
    async with (desk or Desk()).listening() as listening:
        assert isinstance(listening, Desk)
        program = await world.program()
        await link(world, program, listening)
        yield program, listening


@asynccontextmanager
async def linked_to(world: World, vendor: Vendor, **options: Any) -> AsyncIterator[tuple[Program, Any]]:
    """A program of an account that is linked to a vendor's emulator; the link has these options beside the vendor's."""
    async with vendor.emulator().listening() as desk:
        program = await world.program()
        await link(world, program, desk, vendor=vendor, **options)
        yield program, desk


async def link(
    world: World,
    program: Program,
    desk: Server,
    credential: str | None = None,
    vendor: Vendor = FRESHSERVICE,
    url: str | None = None,
    **options: Any,
) -> None:
    await world.operate(
        admin.link_provider,
        account_id=program.account_id,
        provider=vendor.name,
        url=url or desk.url,
        credential=credential or vendor.credential,
        options={**vendor.options, **options},
    )


async def create(transport: Transport, program: Program, key: str | None = None, **members: Any) -> Reply:
    headers = {} if key is None else {"idempotency-key": key}
    return await transport.call("itsm.create", program.credential, body={**TICKET, **members}, headers=headers)


async def get(transport: Transport, program: Program, ticket: Any) -> Any:
    return (await transport.call("itsm.get", program.credential, path={"ticket_id": ticket["id"]})).succeeded()


async def update(transport: Transport, program: Program, ticket: Any, **changes: Any) -> Any:
    path = {"ticket_id": ticket["id"]}
    return (await transport.call("itsm.update", program.credential, path=path, body=changes)).succeeded()


def external(desk: Desk, number: int = 0) -> dict[str, str]:
    """The external reference of a ticket at a desk."""
    return FRESHSERVICE.external(desk, number)


NO_REFERENCE = {"external_provider": None, "external_ticket_id": None, "external_ticket_url": None}


async def until(check: Callable[[], bool], *, what: str) -> None:
    await asyncio.to_thread(wait_for, check, what=what, timeout=20)


def deliveries(world: World, account_id: str) -> list[tuple[Any, ...]]:
    """Kind, state and last error of an account's deliveries, in order."""
    columns = "kind, state, last_error"
    sql = f"SELECT {columns} FROM provider_deliveries WHERE account_id = %s ORDER BY ticket_id, version"
    return world.rows(sql, account_id)


def events(world: World, ticket: Any) -> list[tuple[Any, ...]]:
    return world.rows(
        "SELECT type, changes, actor FROM itsm_events WHERE ticket_id = %s ORDER BY version", ticket["id"]
    )


def tables_with_rows(world: World, account_id: str) -> list[str]:
    """The tables that have rows of an account's tickets."""
    tables = ("itsm_tickets", "itsm_events", "itsm_totals", "itsm_total_changes", "provider_deliveries", "itsm_keys")
    return [name for name in tables if world.rows(f"SELECT 1 FROM {name} WHERE account_id = %s", account_id)]


@contextmanager
def own_database(database_url: str) -> Iterator[str]:
    """A database that no running service uses."""
    # A copy takes a tenth of what the migrations take.
    yield _create(database_url, f"apart_{uuid4().hex}", f"TEMPLATE {_migrated(database_url)} STRATEGY file_copy")


@contextmanager
def empty_database(database_url: str) -> Iterator[str]:
    """One without any table."""
    yield _create(database_url, f"empty_{uuid4().hex}")


@cache
def _migrated(database_url: str) -> str:
    """A database at the newest schema that stays as it is, to be copied."""
    name = "newest_schema"
    migrations.upgrade(_create(database_url, name))
    return name


def _create(database_url: str, name: str, options: str = "") -> str:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}")
    return database_url.replace("/tickets?", f"/{name}?")


class Process:
    """The service in one process, without transports; its background runs when the test says so."""

    def __init__(self, world: World, encryption_keys: str = ENCRYPTION_KEY) -> None:
        self.settings = Settings(
            database_url=world.database_url,
            pool_size=2,
            encryption_keys=encryption_keys,
            delivery_pause_seconds=0.001,
        )
        self.world = world
        self.database = Database(self.settings, METADATA)
        vault = Vault(self.settings)
        self.deliveries = Deliveries(self.settings, self.database, vault)
        self.outbound = Outbound(self.settings)
        self.dependencies = ItsmDependencies(
            settings=self.settings,
            database=self.database,
            vault=vault,
            feed=EventFeed(self.database, tables.events, self.settings.max_watches),
            deliveries=self.deliveries,
            outbound=self.outbound,
        )

    async def create(self, program: Program, key: str | None = None, *, linked: bool = True, **members: Any) -> Any:
        call = self._call("CreateTicket", program, key, linked, {**TICKET, **members})
        return await operations.create_ticket(self.dependencies, call, {"header": call.headers(), "body": call.body})

    async def update(self, program: Program, ticket: Any, *, linked: bool = True, **changes: Any) -> Any:
        call = self._call("UpdateTicket", program, None, linked, changes)
        return await operations.update_ticket(
            self.dependencies, call, {"path": {"ticket_id": str(ticket["id"])}, "body": changes}
        )

    async def get(self, program: Program, ticket: Any) -> Any:
        call = self._call("GetTicket", program, None, True, None)
        return await operations.get_ticket(self.dependencies, call, {"path": {"ticket_id": str(ticket["id"])}})

    async def work(self) -> None:
        """One turn of the background, to its end; no delivery waits for its pause."""
        self.world.run("UPDATE provider_deliveries SET next_attempt_at = now() WHERE state = 'queued'")
        await self.turn()

    async def turn(self) -> None:
        """One turn with the deliveries that are due already."""
        await self.deliveries.postpone(self.database)
        await self.deliveries.work(self.database)
        await asyncio.gather(*self.deliveries._running)

    async def work_until_empty(self) -> None:
        """Turns until nothing is queued."""
        for _ in range(20):
            await self.work()
            if not self.world.rows("SELECT 1 FROM provider_deliveries WHERE state = 'queued'"):
                return
        raise AssertionError("a delivery stays queued")

    def _call(self, method: str, program: Program, key: str | None, linked: bool, body: Any) -> Call:
        caller = Caller(program.key_id, frozenset(), UUID(program.account_id), True, linked)
        return Call(("tickets.itsm.v1", method), "r-1", key, caller, body=body)


@asynccontextmanager
async def processes(world: World, number: int) -> AsyncIterator[list[Process]]:
    """So many processes of the service."""
    async with AsyncExitStack() as stack:
        running = [Process(world) for _ in range(number)]
        for process in running:
            await process.database.open()
            stack.push_async_callback(process.database.close)
            stack.push_async_callback(process.outbound.close)
            stack.push_async_callback(process.deliveries.close)
        yield running


@asynccontextmanager
async def single_process(world: World) -> AsyncIterator[Process]:
    """The only process, without deliveries of earlier tests."""
    world.run("DELETE FROM provider_deliveries")
    async with processes(world, 1) as [process]:
        yield process
