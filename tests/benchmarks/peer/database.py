"""The engine, and a connection in a transaction for each request that wants one."""

import os
from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

engine = create_async_engine(
    os.environ["PEER_DATABASE_URL"],
    # One for each of 64 callers of two workers: a queue for connections would not be served in order, and have a
    # second-long tail.
    pool_size=int(os.environ.get("PEER_POOL_SIZE", "32")),
    max_overflow=0,
    json_serializer=lambda value: orjson.dumps(value).decode(),
    json_deserializer=orjson.loads,
    connect_args={"server_settings": {"TimeZone": "UTC", "application_name": "peer"}},
)


async def _connection() -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        yield connection


# Writers commit; whatever is not committed is rolled back when the request ends.
Connection = Annotated[AsyncConnection, Depends(_connection)]
