"""Both clients of tickets.client, called in one form."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from tickets.client import AsyncTicketsClient, TicketsClient, handoff, helpdesk, itsm

from support.system import Credential

TIMEOUT_SECONDS = 20.0
NEW = {"title": "Login loops", "description": "Since nine.", "request_type": "bug"}
P = "00000000-0000-0000-0000-000000000001"
NOW = datetime(2026, 1, 2, tzinfo=UTC)
# What `next` returns after the last item.
END = object()
# By the prefix of their methods' names.
RESOURCES: dict[str, Any] = {
    "helpdesk": helpdesk.Tickets,
    "helpdesk.sla_policies": helpdesk.SlaPolicies,
    "helpdesk.calendar": helpdesk.TenantCalendar,
    "itsm": itsm.Tickets,
    "itsm.webhooks": itsm.Webhooks,
    "handoff": handoff.Tickets,
}

Kind = type[TicketsClient] | type[AsyncTicketsClient]
KINDS: Sequence[Kind] = (TicketsClient, AsyncTicketsClient)
Clients = Callable[..., "Client"]


class Client:
    """A client of either kind, called in one form: the blocking one in a thread of its own."""

    def __init__(self, client: TicketsClient | AsyncTicketsClient) -> None:
        self.client: Any = client

    def method(self, name: str) -> Any:
        """A method by its name, such as `helpdesk.calendar.get`, or `helpdesk.get`, which is one of the tickets."""
        api, *resource, method = name.split(".")
        return attrgetter(".".join((api, *(resource or ["tickets"]), method)))(self.client)

    async def call(self, name: str, /, *args: Any, **members: Any) -> Any:
        """The result of a method."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return await self._run(partial(self.method(name), *args, **members))

    async def collect(self, name: str, /, *args: Any, **members: Any) -> list[Any]:
        """All results of a method."""
        results, items = self.method(name)(*args, **members), []
        while (item := await self.next(results)) is not END:
            items.append(item)
        return items

    async def next(self, results: Any) -> Any:
        """The next result, or END."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            step: Any = next if isinstance(self.client, TicketsClient) else anext
            return await self._run(partial(step, results, END))

    async def close(self, results: Any) -> None:
        """Stop."""
        await self._run(results.close if isinstance(self.client, TicketsClient) else results.aclose)

    async def _run(self, step: Callable[[], Any]) -> Any:
        return await (asyncio.to_thread(step) if isinstance(self.client, TicketsClient) else step())


@asynccontextmanager
async def open_clients(kind: Kind) -> AsyncIterator[Clients]:
    """Makes clients of one kind, and closes them."""
    async with AsyncExitStack() as stack:

        def make(target: str, **options: Any) -> Client:
            client = kind(target, **options)
            if isinstance(client, AsyncTicketsClient):
                stack.push_async_exit(client)
            else:
                stack.enter_context(client)
            return Client(client)

        yield make


def token(credential: Credential) -> str:
    return credential["authorization"].removeprefix("Bearer ")
