"""HTTP/1.1 byte by byte: connections that send what they are told, and requests with anything wrong on the wire."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from urllib.parse import urlsplit

import h11

from support.fuzz_answers import HttpAnswer
from support.fuzz_requests import Request

# How long the gateway may take to see that something is missing, before the sender ends.
_MISSING_SECONDS = 0.05
_ENDLESS = "application/x-ndjson"


class HttpConnection:
    """One connection to the gateway, made anew when the gateway has closed it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, verb: str = "GET", is_whole: bool = True) -> HttpAnswer | None:
        """Send these bytes; the answer, or None when the connection was closed without one.

        Of a request that may not be whole nothing more is sent, and its connection is not used again.
        """
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        ending = None if is_whole else asyncio.create_task(_end(writer))
        parser = h11.Connection(h11.CLIENT)
        if verb == "HEAD":
            parser.send(h11.Request(method=b"HEAD", target=b"/", headers=[(b"host", b"a")]))
        try:
            answer = await _read(reader, parser)
        finally:
            if ending is not None:
                ending.cancel()
            if ending is not None or parser.their_state is not h11.DONE:
                self.close()
        return answer

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _end(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(_MISSING_SECONDS)
    if writer.can_write_eof():
        writer.write_eof()


async def _read(reader: asyncio.StreamReader, parser: h11.Connection) -> HttpAnswer | None:
    head = await _next(reader, parser)
    while isinstance(head, h11.InformationalResponse):
        head = await _next(reader, parser)
    if not isinstance(head, h11.Response):
        return None
    headers = [(name.decode(), value.decode("latin-1")) for name, value in head.headers]
    if dict(headers).get("content-type") == _ENDLESS:
        return HttpAnswer(head.status_code, headers)
    body, event = b"", await _next(reader, parser)
    while isinstance(event, h11.Data):
        body += event.data
        event = await _next(reader, parser)
    # Closed in the midst of an answer.
    is_cut = isinstance(event, h11.ConnectionClosed)
    return None if is_cut else HttpAnswer(head.status_code, headers, body)


async def _next(reader: asyncio.StreamReader, parser: h11.Connection) -> h11.Event | type:
    while (event := parser.next_event()) is h11.NEED_DATA:
        try:
            data = await reader.read(262144)
        except ConnectionError:
            data = b""  # it was closed with something unread, which is one way to refuse
        if not data:
            return h11.ConnectionClosed()
        parser.receive_data(data)
    return event


@dataclass
class Wire:
    """A request as it goes over the wire."""

    verb: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    # Whether it is one whole request of HTTP with the path of its API, and so must be answered in that API's shape.
    is_http: bool = True

    def http(self) -> bytes:
        """As HTTP/1.1."""
        lines = [b" ".join((self.verb, self.target, self.version)), *(b": ".join(header) for header in self.headers)]
        return b"\r\n".join([*lines, b"", b""]) + self.body


def wire(request: Request) -> Wire:
    """A request on the wire, as it should be."""
    return Wire(
        request.endpoint.verb.encode(),
        request.target().encode(),
        b"HTTP/1.1",
        [(name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in request.head()],
        request.payload(),
    )


_VERBS = (
    b"HEAD",
    b"PUT",
    b"OPTIONS",
    b"TRACE",
    b"get",
    b"PRI",
    b"GE\x00T",
    b"",
    b"X" * 5000,
    b"PATCH",
    b"DELETE",
    b"POST",
)
_TARGETS = (
    *(b"*", b"/", b"//", b"/api/v1/tickets/", b"/api//v1/tickets", b"/api/v1/./tickets", b"/api/v1/x/../tickets"),
    *(
        b"/api/v1/tickets/%",
        b"/api/v1/tickets/%zz",
        b"/api/v1/tickets/%00",
        b"/api/v1/tickets/%ff%fe",
        b"/%61pi/v1/tickets",
    ),
    *(
        b"/api/v1/tickets?%",
        b"/api/v1/tickets?=&&=",
        b"/api/v1/tickets?limit=1&limit=%zz&limit",
        b"/api/v1/tickets?a#b",
    ),
    *(b"/api/v1/helpdesk/tickets/%C0%80", b"/api/tickets?cursor=%ED%A0%80", b"/api/tickets;x=1", b"/api/v1/tickets%3F"),
    *(b"http://tickets/api/v1/tickets", b"https://a:b@tickets/api/tickets", b"api/v1/tickets", b"?", b"", b"/\xff"),
    *(
        b"/api/v1/tickets?" + b"a=b&" * 3000,
        b"/api/v1/tickets/" + b"x" * 20_000,
        b"/" + b"a/" * 2000,
        b"/api/v1/tickets/..%2e/",
    ),
    *(b"/tickets.itsm.v1.TicketService/CreateTicket", b"/grpc.health.v1.Health/Check", b"/api/v1/tickets/\xe2\x98\x83"),
)
_HEADERS = (
    *(
        (b"Accept", b"application/xml"),
        (b"Accept-Encoding", b"br, gzip;q=0, *"),
        (b"Expect", b"nothing"),
        (b"Cookie", b"\xff" * 99),
    ),
    *(
        (b"Content-Type", b"text/plain"),
        (b"Content-Type", b"\xff"),
        (b"Content-Type", b"application/json; charset=utf-16"),
    ),
    *((b"Content-Type", b"multipart/form-data; boundary=x"), (b"Content-Encoding", b"gzip"), (b"Range", b"bytes=0-1")),
    *(
        (b"X-Http-Status", b"500"),
        (b"X-Retry-Safe", b"true"),
        (b"X-Envoy-Original-Path", b"/api/tickets"),
        (b"X-A-Bin", b"!!!"),
    ),
    *((b"X-Envoy-Upstream-Rq-Timeout-Ms", b"1"), (b"X-Envoy-Max-Retries", b"9"), (b"X-Forwarded-For", b"::1, x")),
    *((b"Grpc-Timeout", b"1n"), (b"Grpc-Timeout", b"-1S"), (b"Grpc-Encoding", b"snappy"), (b"Grpc-Status", b"13")),
    *(
        (b"Grpc-Message", b"%"),
        (b"Te", b"trailers, deflate"),
        (b"X-Request-Id", b"x" * 5000),
        (b"X-Request-Id", b" \t\xff"),
    ),
    *((b"Connection", b"close, x-a"), (b"Connection", b"upgrade"), (b"Upgrade", b"h2c"), (b"Upgrade", b"websocket")),
    *(
        (b"A_b", b"c"),
        (b":path", b"/x"),
        (b"a b", b"c"),
        (b"", b"x"),
        (b"X\xff", b"y"),
        (b"X", b"a\x00b"),
        (b"X", b"a\x01b"),
    ),
    *(
        (b"X", b"a\r\n folded"),
        (b"X", b"x" * 40_000),
        (b"If-None-Match", b"*"),
        (b"If-Match", b'"1", *, ,'),
        (b"Origin", b"null"),
    ),
    *((b"Idempotency-Key", b""), (b"Idempotency-Key", b"\xd0\xba"), (b"Transfer-Encoding", b"gzip"), (b"Host", b"")),
)
_VERSIONS = (b"HTTP/1.2", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b"", b"HTTP/11", b"HTTP/1.1\r\n")
_LENGTHS = (b"-1", b"+2", b"0x2", b"", b"2, 2", b"2,3", b"99999999999999999999", b"1", b"0", b" 2 ", b"2_0")
_ENCODINGS = (b"chunked", b"chunked", b"Chunked", b"gzip, chunked", b"chunked, chunked", b"x")
_PIECES = (b"%", b"%2", b"%2F", b"%5c", b"\\", b"/", b"//", b"..", b"/./", b"?", b"#", b"\xff", b"\x7f", b"&", b"%00")
_SOUND = re.compile(rb"[A-Za-z0-9-]+")
_CHUNKS = (
    *(
        b"0\r\n\r\n",
        b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n',
        b"2\r\n{}0\r\n\r\n",
        b"2\n{}\n0\n\n",
        b"2\r\n{",
        b"",
        b"-1\r\n",
    ),
    *(b'2;ext="x"\r\n{}\r\n0\r\nTrailer: x\r\n\r\n', b"2\r\n{}\r\n0\r\nX-Api-Key: a\r\n\r\n"),
    *(b"zz\r\n{}\r\n", b"ffffffffffffffffff\r\n{}", b"0x2\r\n{}\r\n0\r\n\r\n"),
)


# What decides where the request ends, or who is asked.
_MAX_VALUE = 32 * 1024  # beyond it the gateway looks at nothing else
_FRAMING = (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect")


def _odd_verb(random: Random, wire: Wire) -> None:
    wire.verb = random.choice(_VERBS)
    wire.is_http &= wire.verb.isalpha() and wire.verb.isupper() and len(wire.verb) < 10 and wire.verb != b"PRI"


def _odd_target(random: Random, wire: Wire) -> None:
    if random.random() < 0.5:
        wire.target = random.choice(_TARGETS)
    else:
        at = random.randint(0, len(wire.target))
        wire.target = wire.target[:at] + random.choice(_PIECES) + wire.target[at + random.randint(0, 3) :]
    wire.is_http = False


def _odd_header(random: Random, wire: Wire) -> None:
    _put(random, wire, *random.choice(_HEADERS))


def _header_twice(random: Random, wire: Wire) -> None:
    name, value = random.choice(wire.headers or [(b"host", b"x")])
    spelled = random.choice((name.upper(), name.title(), name))
    _put(random, wire, spelled, random.choice((value, b"x", b"", value * 2)))


def _put(random: Random, wire: Wire, name: bytes, value: bytes) -> None:
    wire.headers.insert(random.randint(0, len(wire.headers)), (name, value))
    is_sound = _SOUND.fullmatch(name) and value.isascii() and value.decode().isprintable()
    wire.is_http &= bool(is_sound) and name.lower() not in _FRAMING and len(value) < _MAX_VALUE


def _no_header(random: Random, wire: Wire) -> None:
    if wire.headers:
        name, _ = wire.headers.pop(random.randrange(len(wire.headers)))
        wire.is_http &= name not in _FRAMING


def _odd_version(random: Random, wire: Wire) -> None:
    wire.version, wire.is_http = random.choice(_VERSIONS), False


def _cut(random: Random, wire: Wire) -> None:
    wire.body, wire.is_http = wire.body[: random.randint(0, len(wire.body))], False


def _odd_length(random: Random, wire: Wire) -> None:
    wire.headers = [header for header in wire.headers if header[0] != b"content-length"]
    wire.headers.append((b"Content-Length", random.choice(_LENGTHS)))
    wire.is_http = False


def _chunked(random: Random, wire: Wire) -> None:
    if random.random() < 0.8:
        wire.headers = [header for header in wire.headers if header[0] != b"content-length"]
    wire.headers.append((b"Transfer-Encoding", random.choice(_ENCODINGS)))
    wire.body, wire.is_http = random.choice(_CHUNKS), False


def _noise(random: Random, wire: Wire) -> None:
    wire.verb, wire.is_http = random.randbytes(random.randint(1, 200)), False


_ODDITIES: Sequence[Callable[[Random, Wire], None]] = (
    *[_odd_target] * 4,
    *[_odd_header] * 4,
    *[_header_twice] * 2,
    _odd_verb,
    _no_header,
    _odd_version,
    _cut,
    _odd_length,
    *[_chunked] * 2,
    _noise,
)


def odd_wire(random: Random, request: Request) -> Wire:
    """A request with something wrong on the wire."""
    given = wire(request)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_ODDITIES)(random, given)
    return given
