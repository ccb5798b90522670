"""An HTTP/1.1 server for emulators: it answers as the test says, and fails as real ones do."""

import asyncio
import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, urlsplit

import h11

# Once each, in this order. Before the request is processed:
# `429`, `500`, `503`: that status. `reset`: the connection breaks. `hang`: no answer. `html`: a page instead of JSON.
# After it was processed: `reset after`, `500 after`, `hang after`, `html after`; and `slow`: the body comes a byte at a
# time, without end.
Fault = Literal[
    "429", "500", "503", "reset", "reset after", "500 after", "hang", "hang after", "slow", "html", "html after"
]
# Whether the request was processed in spite of the fault.
FAULTS: Mapping[Fault, bool] = {fault: fault.endswith("after") or fault == "slow" for fault in get_args(Fault)}


@dataclass(frozen=True)
class Request:
    """A request as received; `body` is the value of its JSON, or None."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    raw: bytes

    @property
    def is_json(self) -> bool:
        """Whether its body, if any, is declared as JSON."""
        return not self.raw or self.headers.get("content-type") == "application/json"

    def is_by(self, credential: str) -> bool:
        """Whether it has this `user:password`."""
        return self.headers.get("authorization") == "Basic " + b64encode(credential.encode()).decode()


@dataclass(frozen=True)
class Response:
    """A response; `body` is sent as JSON."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Raised by a handler to answer with this response and do nothing else."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


Handle = Callable[[Request], Awaitable[Response] | Response]
# What is wrong with a value, or nothing.
Check = Callable[[Any], str | None]


class Server:
    """A listening server. `faults` are the failures to come, `requests` those that were received."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        # Answers instead of its own, once each, to requests that are processed all the same.
        self.overrides: list[Response] = []
        # Retry-After of a 429, 500 or 503, in seconds.
        self.retry_after = "1"
        self.url = ""
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self, port: int = 0, tls: ssl.SSLContext | None = None) -> AsyncIterator["Server"]:
        """Listen on loopback until the end of the block."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, ssl=tls)
        host, given = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{given}"
        try:
            yield self
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, h11.RemoteProtocolError, asyncio.CancelledError):
            pass  # the end of the block ends it too
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        while (request := await _receive(connection, reader)) is not None:
            self.requests.append(request)
            fault = self.faults.pop(0) if self.faults else None
            if not await self._answer(connection, writer, request, fault):
                return
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _answer(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, request: Request, fault: Fault | None
    ) -> bool:
        """Answer, and say whether the connection goes on."""
        if fault in ("429", "500", "503"):
            await _send(connection, writer, Response(int(fault), {"message": "no"}, {"retry-after": self.retry_after}))
            return True
        when, _, after = (fault or "").partition(" ")
        response = None
        if after or fault in (None, "slow"):
            response = await self._handled(request)
        if when == "hang":
            await asyncio.Event().wait()
        if when == "reset":
            writer.transport.abort()
        elif when == "html":
            await _send_html(connection, writer)
        elif when == "500":
            await _send(connection, writer, Response(500, {"message": "something broke"}))
        elif response is not None:
            await (_trickle if when == "slow" else _send)(connection, writer, response)
        return when != "reset"

    async def _handled(self, request: Request) -> Response:
        try:
            handled = self._handle(request)
            response = handled if isinstance(handled, Response) else await handled
        except RefusedError as refusal:
            response = refusal.response
        return self.overrides.pop(0) if self.overrides else response


@asynccontextmanager
async def speaking(sent: bytes) -> AsyncIterator[str]:
    """The address of a server that answers each JSON object with these bytes, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"}")
            writer.write(sent)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _receive(connection: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    head, raw = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            raw += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            target = urlsplit(head.target.decode())
            headers = {name.decode().lower(): value.decode() for name, value in head.headers}
            query = dict(parse_qsl(target.query, keep_blank_values=True))
            body = json.loads(raw) if raw and headers.get("content-type", "").startswith("application/json") else None
            return Request(head.method.decode(), target.path, query, headers, body, raw)
        else:
            return None


async def _send(connection: h11.Connection, writer: asyncio.StreamWriter, response: Response) -> None:
    raw = b"" if response.body is None else json.dumps(response.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(raw)), **response.headers}
    await _write(connection, writer, response.status, headers, raw)


async def _send_html(connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
    raw = b"<html><body>We are down for maintenance</body></html>"
    await _write(connection, writer, 200, {"content-type": "text/html", "content-length": str(len(raw))}, raw)


async def _write(
    connection: h11.Connection, writer: asyncio.StreamWriter, status: int, headers: Mapping[str, str], raw: bytes
) -> None:
    head = h11.Response(status_code=status, headers=[(name, value) for name, value in headers.items()])
    for event in (head, h11.Data(data=raw), h11.EndOfMessage()):
        writer.write(connection.send(event) or b"")
    await writer.drain()


async def _trickle(connection: h11.Connection, writer: asyncio.StreamWriter, response: Response) -> None:
    """A body that never ends, in bytes that come far apart."""
    head = h11.Response(status_code=response.status, headers=[("content-type", "application/json")])
    writer.write(connection.send(head) or b"")
    while True:
        writer.write(connection.send(h11.Data(data=b" ")) or b"")
        await writer.drain()
        await asyncio.sleep(0.1)
