"""A TCP path to a PostgreSQL that can fall silent, be cut, and come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from psycopg.conninfo import conninfo_to_dict

_PIECE = 64 * 1024


class TcpProxy:
    """Forwards to the unix socket of a database URL."""

    def __init__(self, database_url: str) -> None:
        given = conninfo_to_dict(database_url)
        self._target = f"{given['host']}/.s.PGSQL.{given['port']}"
        self._database = given["dbname"]
        self._pumps = set[asyncio.Task[None]]()
        self._writers = set[asyncio.StreamWriter]()
        self._is_silent = self._is_cut = False
        self._port = 0

    @property
    def address(self) -> str:
        """Its own address."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The database's URL along this path."""
        return f"postgresql://postgres@{self.address}/{self._database}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["TcpProxy"]:
        """Forward until the block ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()

    def silence(self) -> None:
        """Forward nothing from now on, and close nothing; what is open stays silent for good, as a lost path does."""
        self._is_silent = True
        self._stop_pumps()

    def lose(self) -> None:
        """Forget what is open, which stays silent for good; new connections work, as after a change of route."""
        self._stop_pumps()

    def cut(self) -> None:
        """Reset what is open, and whoever connects."""
        self._is_cut = True
        self._stop_pumps()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def resume(self) -> None:
        """Let new connections work again."""
        self._is_silent = self._is_cut = False

    def _stop_pumps(self) -> None:
        for pump in self._pumps:
            pump.cancel()
        self._pumps.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._is_cut:
            writer.transport.abort()
        elif not self._is_silent:
            there, back = await asyncio.open_unix_connection(self._target)
            self._writers.add(back)
            for source, sink in ((reader, back), (there, writer)):
                self._pumps.add(asyncio.create_task(_pump(source, sink)))


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    sink.close()
