"""HTTP/2 frame by frame: what no client library sends. h2 keeps the state of a connection, and checks none of it."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import HeadersFrame, RstStreamFrame

# Another address of this machine than the one that other callers of a test have.
FLOODER = "127.0.0.2"
# What turns a hang into a failure.
_PATIENCE = 20
_CANCEL = 8

Headers = Sequence[tuple[str, str | bytes]]


def grpc_headers(path: str, metadata: Mapping[str, str | bytes]) -> Headers:
    """The headers of a gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "tickets"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *metadata.items(),
    ]


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    """A message with the prefix that gRPC gives it."""
    return struct.pack(">BI", compressed, len(message)) + message


@dataclass
class Answer:
    """What came back on a stream, or that it was reset."""

    headers: dict[str, str] = field(default_factory=dict)
    is_over: bool = False
    was_reset: bool = False

    def take(self, event: Event) -> None:
        if isinstance(event, ResponseReceived | TrailersReceived):
            self.headers |= {bytes(name).decode(): bytes(value).decode("latin-1") for name, value in event.headers}
        # What has answered before it has read everything resets the stream afterwards.
        self.was_reset |= isinstance(event, StreamReset) and not self.is_over
        self.is_over |= isinstance(event, StreamEnded | StreamReset)


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.is_closed = False
        self._reader, self._writer = reader, writer
        unchecked = H2Configuration(
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            validate_inbound_headers=False,
        )
        self._state = H2Connection(unchecked)
        self._state.initiate_connection()
        self._answers: dict[int, Answer] = {}
        self._changed = asyncio.Condition()
        self._pings = self._pongs = 0
        # The other side has said that it will take no more calls.
        self.was_dismissed = False

    async def begin(self, headers: Headers, *, end: bool = False) -> int:
        """Begin a stream, and end it without a message if told to."""
        stream = self._state.get_next_available_stream_id()
        self._answers[stream] = Answer()
        self._state.send_headers(stream, headers, end_stream=end)
        await self._send()
        return stream

    async def send(self, stream: int, data: bytes, *, end: bool = True) -> None:
        """Send so much of the data as the other side takes before it answers."""
        rest = memoryview(data)
        if end and not rest:
            self._state.send_data(stream, b"", end_stream=True)
            await self._send()
        while rest and not (self.is_closed or self._answers[stream].is_over):
            window = min(self._state.local_flow_control_window(stream), self._state.max_outbound_frame_size, len(rest))
            if window == 0:
                async with self._changed:
                    await asyncio.wait_for(self._changed.wait(), _PATIENCE)
                continue
            self._state.send_data(stream, bytes(rest[:window]), end_stream=end and window == len(rest))
            rest = rest[window:]
            await self._send()

    async def call(self, headers: Headers, data: bytes = b"\0\0\0\0\0") -> dict[str, str]:
        """One call with its message; the headers and trailers of the answer."""
        stream = await self.begin(headers)
        await self.send(stream, data)
        return await self.answer(stream)

    async def answer(self, stream: int) -> dict[str, str]:
        """The headers and trailers of the answer; none when the stream was reset or the connection closed."""
        answer = self._answers[stream]
        async with self._changed:
            over = self._changed.wait_for(lambda: answer.is_over or self.is_closed)
            await asyncio.wait_for(over, _PATIENCE)
        return {} if answer.was_reset else answer.headers

    async def ping(self) -> None:
        """Ask whether the other side is there, and wait for its answer."""
        self._pings += 1
        self._state.ping(self._pings.to_bytes(8))
        await self._send()
        async with self._changed:
            answered = self._changed.wait_for(lambda: self._pongs == self._pings or self.is_closed)
            await asyncio.wait_for(answered, _PATIENCE)

    async def read(self) -> None:
        """Take what comes until the connection closes."""
        try:
            while data := await self._reader.read(65536):
                for event in self._state.receive_data(data):
                    self._take(event)
                await self._send()
                await self._notify()
        except OSError:
            pass
        finally:
            self.is_closed = True
            await self._notify()

    def _take(self, event: Event) -> None:
        self._pongs += isinstance(event, PingAckReceived)
        self.was_dismissed |= isinstance(event, ConnectionTerminated)
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self._state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if not isinstance(event, ConnectionTerminated) and (stream := getattr(event, "stream_id", None)):
            self._answers[stream].take(event)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _send(self) -> None:
        self._writer.write(self._state.data_to_send())
        await self._writer.drain()


@asynccontextmanager
async def connected(target: str) -> AsyncIterator[Peer]:
    """A connection to `host:port`, from the flooder's address."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(FLOODER, 0))
    peer = Peer(reader, writer)
    reading = asyncio.create_task(peer.read())
    try:
        yield peer
    finally:
        reading.cancel()
        writer.close()


async def reset_rapidly(target: str, headers: Headers, size: int) -> int:
    """Begin calls and reset each at once, until so many bytes are sent or it is closed; returns how many."""
    block = Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in headers])
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), local_addr=(FLOODER, 0))
    reading = asyncio.create_task(reader.read())
    state, sent = H2Connection(), 0
    state.initiate_connection()
    writer.write(state.data_to_send())
    try:
        for stream in range(1, 2**31, 2):
            call = HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"])
            frames = call.serialize() + RstStreamFrame(stream, _CANCEL).serialize()
            writer.write(frames)
            sent += len(frames)
            if sent > size or reading.done():
                break
            if stream % 200 == 1:
                await writer.drain()
                await asyncio.sleep(0)
    except OSError:
        pass  # it is closed, which is one way to defend oneself
    finally:
        reading.cancel()
        writer.close()
    return sent
