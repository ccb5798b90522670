"""Server-sent events as a reader takes them: fields by name, and the id that stays until another comes."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class ServerEvent:
    """One event: its name, its data as JSON, the id and the pause as they are after it."""

    name: str
    data: Any
    last_id: str
    retry: int | None


@asynccontextmanager
async def listening(
    client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], *, last_id: str | None = None, **query: str
) -> AsyncIterator[AsyncGenerator[ServerEvent, None]]:
    """The events of a watch until the block ends."""
    sent = {"accept": "text/event-stream", **headers, **({} if last_id is None else {"last-event-id": last_id})}
    async with (
        asyncio.timeout(TIMEOUT_SECONDS),
        client.stream("GET", url, params=query, headers=sent) as response,
    ):
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        async with aclosing(_events(response)) as events:
            yield events


async def _events(response: httpx2.Response) -> AsyncGenerator[ServerEvent, None]:
    fields, last_id, retry = dict[str, str](), "", None
    async for line in response.aiter_lines():
        if line:
            name, colon, value = line.partition(": ")
            assert colon
            assert name in ("event", "id", "data", "retry")
            assert name not in fields
            fields[name] = value
            continue
        last_id = fields.get("id", last_id)
        retry = int(fields["retry"]) if "retry" in fields else retry
        yield ServerEvent(fields.get("event", "message"), json.loads(fields["data"]), last_id, retry)
        fields = {}
    assert not fields, "the last event is whole"


async def next_change(events: AsyncGenerator[ServerEvent, None]) -> ServerEvent:
    """The next event that is no heartbeat."""
    while (event := await anext(events)).name == "heartbeat":
        assert event.data["event"] is None
        assert event.data["cursor"] == event.last_id
    return event
