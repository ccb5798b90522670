"""A PostgreSQL behind TLS: the embedded one is built without it, so this takes the encryption off in front of it.

What PostgreSQL's protocol has of TLS is one question before anything else. Whether a server is whom it says is for the
client to find out, and that is libpq.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from psycopg.conninfo import conninfo_to_dict

from support.authority import Files

_QUESTION = (8).to_bytes(4) + (80877103).to_bytes(4)
_PIECE = 64 * 1024


class TlsFront:
    """Forwards to the unix socket of a database URL what comes encrypted, and nothing else."""

    def __init__(self, database_url: str, files: Files) -> None:
        given = conninfo_to_dict(database_url)
        self._target = f"{given['host']}/.s.PGSQL.{given['port']}"
        self.database = given["dbname"]
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(*files)
        self._tasks = set[asyncio.Task[None]]()
        self.port = 0
        self.connections = self.refused = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Forward until the block ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._forward(reader, writer)
        except (OSError, EOFError):  # a client that does not like the certificate leaves
            self.refused += 1
        finally:
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(len(_QUESTION)) != _QUESTION:
            raise EOFError
        writer.write(b"S")
        await writer.start_tls(self._context)
        self.connections += 1
        theirs, ours = await asyncio.open_unix_connection(self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, ours))
                group.create_task(_pump(theirs, writer))
        finally:
            ours.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()
