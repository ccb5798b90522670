"""HTTP/2 that no library sends: calls with odd headers and prefixes, and frames that are hardly frames."""

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from urllib.parse import unquote

import grpc
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from support.frames import Peer, connected, framed, grpc_headers
from support.fuzz import Endpoint, Party
from support.fuzz_answers import grpc_problem
from support.fuzz_messages import odd_message

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# How long the other side may take to see that nothing more comes.
_MISSING_SECONDS = 0.05

Headers = list[tuple[str, str | bytes]]


@dataclass(frozen=True)
class OddCall:
    """A call that is not as gRPC has it."""

    headers: Headers
    data: bytes
    # Whether it calls a method that there is, so that its end is a documented one.
    is_known: bool

    def problem(self, answer: Mapping[str, str]) -> str | None:
        """What is wrong with its answer; there is none when it was reset."""
        status = answer.get(":status", "200")
        if status >= "500":
            return "a failure of the service"
        if "grpc-status" not in answer or not self.is_known:
            return None
        code = next(code for code in grpc.StatusCode if str(code.value[0]) == answer["grpc-status"])
        # What gRPC itself refuses has its own words and no details.
        own = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED)
        problem = grpc_problem(code, unquote(answer.get("grpc-message", "")), {"x-request-id": "1"}, allowed=own)
        return None if problem == "no details" else problem


class Caller:
    """Makes such calls on one connection, and on another one when that was closed for what one of them was."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._stack = AsyncExitStack()
        self._peer: Peer | None = None

    async def call(self, call: OddCall) -> Mapping[str, str]:
        """The headers and trailers of the answer; none when the stream or the connection was ended without."""
        if self._peer is None or self._peer.is_closed:
            await self._stack.aclose()
            self._peer = await self._stack.enter_async_context(connected(self._target))
        try:
            return await self._peer.call(call.headers, call.data)
        except ConnectionError:
            self._peer.is_closed = True
            return {}

    async def close(self) -> None:
        """Close the connection."""
        await self._stack.aclose()


@asynccontextmanager
async def lanes_to(target: str, number: int) -> AsyncIterator[Sequence[Caller]]:
    """So many of them."""
    async with AsyncExitStack() as stack:
        callers = [Caller(target) for _ in range(number)]
        for caller in callers:
            stack.push_async_callback(caller.close)
        yield callers


def odd_call(random: Random, endpoint: Endpoint, party: Party) -> OddCall:
    """A call with something wrong in its headers or in what frames its message."""
    message, metadata = odd_message(random, endpoint, party)
    content = message.SerializeToString()
    headers: Headers = [*grpc_headers(endpoint.rpc_path, dict(metadata))]
    kind = random.choice((0, 0, 0, 1, 1, 1, 2, 2, 3))
    if kind == 0:
        return OddCall(headers, random.choice(_framings(random, content)), is_known=True)
    if kind == 1:
        headers.insert(random.randint(4, len(headers)), random.choice(_METADATA))
        return OddCall(headers, framed(content), is_known=True)
    if kind == 2:
        headers = [(name, _other_path(random, endpoint) if name == ":path" else value) for name, value in headers]
        return OddCall(headers, framed(content), is_known=False)
    at = random.randrange(len(headers))
    name, value = headers[at]
    headers[at] = random.choice(((name, ""), (name, "x"), (name.upper(), value), ("x", value), (name, b"\x80\xff")))
    return OddCall(headers, framed(content), is_known=False)


def _framings(random: Random, content: bytes) -> list[bytes]:
    """What gRPC does not put around a message."""
    return [
        framed(content) + framed(content),
        framed(content) + random.randbytes(3),
        framed(content)[: random.randrange(len(content) + 5)],
        struct.pack(">BI", 0, random.choice((2**20 + 1, 2**31, 2**32 - 1))) + content,
        struct.pack(">BI", random.choice((1, 2, 3, 128, 255)), len(content)) + content,
        content,
        b"\xff" * 5,
    ]


_METADATA: Headers = [
    *(
        ("x", ""),
        ("x", "y" * 9000),
        ("x", b"\xff\xfe"),
        ("x", "a,b"),
        ("x-request-id", "x" * 300),
        ("x-request-id", ""),
    ),
    *(("authorization", "Bearer"), ("authorization", "Bearer a.b.c"), ("x-api-key", " "), ("if-match", b"\xff")),
    *(("idempotency-key", "x" * 256), ("idempotency-key", b"\xd0\xba"), ("idempotency-key", ""), ("te", "x")),
    *(("content-type", "application/grpc"), ("user-agent", ""), ("accept", "*/*"), ("grpc-accept-encoding", "x,,y")),
    *(
        ("grpc-timeout", "99999999H"),
        ("grpc-timeout", "9S"),
        ("grpc-timeout", "-1S"),
        ("grpc-timeout", "1x"),
        ("grpc-timeout", ""),
        ("x-bin", "!"),
        ("grpc-status-details-bin", "a"),
        ("lb-token", "x"),
        ("traceparent", "00-x"),
        ("cookie", "a=b"),
    ),
    *(("x-envoy-original-path", "/api/v1/tickets"), ("x-http-status", "200"), ("x-forwarded-for", "::1")),
]


def _other_path(random: Random, endpoint: Endpoint) -> str:
    path = endpoint.rpc_path
    return random.choice(
        (path + "x", path + "/x", path + "?x", path.lower(), path[1:], "/" + path, "/", "*", path.replace(".v1", ".v2"))
    )


def odd_frames(random: Random, endpoint: Endpoint, party: Party) -> bytes:
    """The frames of a call with something wrong in them."""
    message, metadata = odd_message(random, endpoint, party)
    block = Encoder().encode(grpc_headers(endpoint.rpc_path, dict(metadata)))
    frames = [
        SettingsFrame(0).serialize(),
        HeadersFrame(1, block, flags=["END_HEADERS"]).serialize(),
        DataFrame(1, framed(message.SerializeToString()[:16_000]), flags=["END_STREAM"]).serialize(),
    ]
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(frames))
        frames[at : at + random.randint(0, 1)] = [_odd_frame(random, frames[at])]
    return (b"" if random.random() < 0.05 else _PREFACE) + b"".join(frames)


def _odd_frame(random: Random, frame: bytes) -> bytes:
    kind = random.randrange(5)
    if kind == 0 or not frame:
        # Any type, flags and stream; also windows, priorities, pushes and goodbyes.
        payload = random.randbytes(random.choice((0, 1, 4, 5, 8, 40)))
        stream = random.choice((0, 1, 2, 3, 2**31 - 1))
        return _frame(random.randrange(12), random.randrange(256), stream, payload)
    if kind == 1:
        return frame[: random.randrange(len(frame))]
    if kind == 2:
        at = random.randrange(len(frame))
        return frame[:at] + random.randbytes(1) + frame[at + 1 :]
    if kind == 3:
        return frame * 2
    # A length that it does not have.
    return struct.pack(">I", random.choice((0, 1, 16_385, 2**24 - 1)))[1:] + frame[3:]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def frames_problem(target: str, frames: bytes) -> str | None:
    """What is wrong when these are sent on a connection of their own: it must be closed once nothing more comes."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(frames)
        await asyncio.sleep(_MISSING_SECONDS)
        writer.write_eof()
        await reader.read()
    except OSError:
        pass  # it was closed before, which is one way to refuse
    finally:
        writer.close()
    return None
