"""HTTP/1.1 to the gateway for a test client, in a fraction of the time that the client's own transport takes.

Most of what tests cost would be the way from `httpx2` to the socket: tasks, locks and wrappers of streams that one
request after the other needs none of. The parser is the strict one that `httpx2` has too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import h11
import httpx2

_READ_BYTES = 2**16


class Http1Transport(httpx2.AsyncBaseTransport):
    """Connections to one address, each for one request at a time; not more at once than the limit."""

    def __init__(self, max_connections: int) -> None:
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(max_connections)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the response's body is read as its user asks for it."""
        seconds: float | None = request.extensions.get("timeout", {}).get("read")
        await self._free.acquire()
        connection: _Connection | None = None
        try:
            connection = self._idle_connection() or await _connect(request.url)
            async with asyncio.timeout(seconds):
                head = await connection.ask(request)
        except BaseException as error:
            self.give_back(connection, reuse=False)
            raise _as_httpx(error) from error
        return httpx2.Response(
            head.status_code,
            headers=head.headers.raw_items(),
            stream=_Body(self, connection, seconds),
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": head.reason},
        )

    def give_back(self, connection: "_Connection | None", *, reuse: bool) -> None:
        """End a request, and keep its connection for the next if it can have one."""
        self._free.release()
        if connection is not None:
            if reuse and connection.starts_over():
                self._idle.append(connection)
            else:
                connection.close()

    async def aclose(self) -> None:
        """Close the connections that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def _idle_connection(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open():
                return connection
            connection.close()
        return None


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = h11.Connection(h11.CLIENT)

    async def ask(self, request: httpx2.Request) -> h11.Response:
        """Send the request, and read the head of its response."""
        headers = request.headers.raw
        parts = [self._parser.send(h11.Request(method=request.method, target=request.url.raw_path, headers=headers))]
        assert isinstance(request.stream, httpx2.AsyncByteStream)
        async for data in request.stream:
            parts.append(self._parser.send(h11.Data(data)))
        parts.append(self._parser.send(h11.EndOfMessage()))
        self._writer.write(b"".join(part for part in parts if part))
        # A server that answers at once may not read it all.
        with suppress(ConnectionError):
            await self._writer.drain()
        while isinstance(event := await self.event(), h11.InformationalResponse):
            pass
        assert isinstance(event, h11.Response)
        return event

    async def event(self) -> h11.Event:
        while (event := self._parser.next_event()) is h11.NEED_DATA:
            self._parser.receive_data(await self._reader.read(_READ_BYTES))
        assert not isinstance(event, type)
        return event

    def starts_over(self) -> bool:
        """Whether it is ready for another request."""
        if self._parser.our_state is not h11.DONE or self._parser.their_state is not h11.DONE:
            return False
        self._parser.start_next_cycle()
        return True

    def is_open(self) -> bool:
        return not (self._reader.at_eof() or self._writer.is_closing())

    def close(self) -> None:
        self._writer.close()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, transport: Http1Transport, connection: _Connection, seconds: float | None) -> None:
        self._transport, self._connection, self._seconds = transport, connection, seconds
        self._is_whole = self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while True:
                async with asyncio.timeout(self._seconds):
                    event = await self._connection.event()
                if isinstance(event, h11.EndOfMessage):
                    self._is_whole = True
                    return
                assert isinstance(event, h11.Data)
                yield bytes(event.data)
        except (TimeoutError, OSError, h11.RemoteProtocolError) as error:
            raise _as_httpx(error) from error

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._transport.give_back(self._connection, reuse=self._is_whole)


async def _connect(url: httpx2.URL) -> _Connection:
    return _Connection(*await asyncio.open_connection(url.host, url.port, limit=_READ_BYTES))


def _as_httpx(error: BaseException) -> BaseException:
    """The failure as `httpx2` names it."""
    if isinstance(error, TimeoutError):
        return httpx2.ReadTimeout(str(error))
    if isinstance(error, h11.RemoteProtocolError):
        return httpx2.RemoteProtocolError(str(error))
    if isinstance(error, h11.LocalProtocolError):
        return httpx2.LocalProtocolError(str(error))
    return httpx2.ReadError(str(error)) if isinstance(error, OSError) else error
