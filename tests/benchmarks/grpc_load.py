"""A lean gRPC load generator: `python grpc_load.py PLAN.json`, which prints one line of JSON.

It speaks HTTP/2 from prebuilt bytes on plain sockets, because what Debian has does not fit: h2load sends one constant
request (no fresh idempotency keys, no random ids), counts an answer with a failed `grpc-status` as a success, and ghz
is not packaged. As wrk does, each connection has one request in flight. A request's fixed headers are sent once and
named by their index from then on, as every client does. The header table of the responses is set to size 0, so that
each says its `grpc-status` in plain letters, which are looked for in every single answer; the details of a failure are
asked for as plain bytes too.

Its CPU per request is reported with the result. Nothing of grpcio is in it.
"""

import heapq
import itertools
import json
import random
import re
import select
import socket
import struct
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_BIG_WINDOW = 2**31 - 1
_OK = b"\x0bgrpc-status\x010"
# UNAVAILABLE, of a process that has enough to do, and RESOURCE_EXHAUSTED, of a caller who has.
_REFUSALS = (b"\x0bgrpc-status\x0214", b"\x0bgrpc-status\x018")
# In the details of a failure: the seconds to wait, fewer than 128.
_RETRY_INFO = re.compile(rb"google\.rpc\.RetryInfo\x12.\x0a.\x08(.)", re.DOTALL)
# SETTINGS_HEADER_TABLE_SIZE 0, SETTINGS_INITIAL_WINDOW_SIZE at most, gRPC's own for binary metadata as it is.
_SETTINGS = struct.pack(">HIHIHI", 1, 0, 4, _BIG_WINDOW, 0xFE03, 1)
# Who is told to come back in a second does so in one to one and a half: not all at the same moment.
_JITTER = (1.0, 1.5)

Refused: TypeAlias = Literal["fail", "obey", "insist"]


@dataclass(frozen=True)
class Plan:
    """What to send where. `bodies` are messages in hex, taken in turn."""

    target: str
    path: str
    metadata: dict[str, str]
    bodies: list[str]
    concurrency: int
    seconds: float
    # As many before anything is counted.
    warm_up: float = 0
    # End sooner, with this many calls answered. 0: do not.
    requests: int = 0
    # A file of messages in hex, one a line, each naming a ticket: a request is one of them and a body. Empty: none.
    # (Of GET by REST: a file of ids.)
    ids: str = ""
    # Take them in order and each once, instead of at random.
    once: bool = False
    # What idempotency keys begin with. Empty: none are sent.
    fresh: str = ""
    # What becomes of a call that was refused with a time to come back: it is a failure, or it is `shed` and its caller
    # waits for that time (`obey`) or does not (`insist`).
    refused: Refused = "fail"


@dataclass
class Tally:
    """What came of it."""

    latencies: list[int] = field(default_factory=list)
    shed: int = 0
    failed: int = 0
    first_failure: str = ""

    def fail(self, why: str) -> None:
        """Count a failure; the first is told."""
        self.failed += 1
        self.first_failure = self.first_failure or why


class Requests:
    """The bytes of one request after another."""

    def __init__(self, plan: Plan) -> None:
        self._bodies = itertools.cycle([bytes.fromhex(body) for body in plan.bodies])
        self._named = [bytes.fromhex(line) for line in Path(plan.ids).read_text().split()] if plan.ids else []
        self._once = iter(self._named) if plan.once else None
        self._fresh = plan.fresh.encode()
        self._count = 0
        fixed = [(b":path", plan.path), (b":authority", plan.target), (b"content-type", "application/grpc")]
        fixed += [(b"te", "trailers"), (b"user-agent", "grpc-load")]
        fixed += [(name.encode(), value) for name, value in plan.metadata.items()]
        # Literals each time: the server keeps no table of them (service/transport/tuning.py).
        self._head = b"\x83\x86" + b"".join(b"\x00" + _text(name) + _text(value.encode()) for name, value in fixed)

    def next(self, stream: int) -> bytes:
        """A request on a stream of its connection."""
        self._count += 1
        head = self._head
        if self._fresh:
            head += b"\x00" + _text(b"idempotency-key") + _text(self._fresh + b"%d" % self._count)
        body = self._name() + next(self._bodies)
        message = b"\0" + len(body).to_bytes(4, "big") + body
        return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, message)

    def _name(self) -> bytes:
        """The part of a message that names a ticket."""
        if self._once is not None:
            name = next(self._once, None)
            if name is None:
                raise RuntimeError("every ticket was named once: more are needed for so long a turn")
            return name
        return random.choice(self._named) if self._named else b""  # noqa: S311 - not a secret


_NO_ERROR = bytes(4)


class Connection(ABC):
    """One connection with one request in flight. How an answer looks is for its protocol to say."""

    greeting = b""

    def __init__(self, plan: Plan, requests: Requests, tally: Tally) -> None:
        host, _, port = plan.target.partition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._refused = plan.refused
        self._requests = requests
        self._tally = tally
        self._stream = -1
        self._started = 0

    def send(self) -> None:
        """Send the next request."""
        self._stream += 2
        request = self._requests.next(self._stream)
        if self._stream == 1:
            request = self.greeting + request
        self._started = time.perf_counter_ns()
        self.socket.sendall(request)

    def receive(self) -> float | None:
        """Take in what came: how long to wait with the next request, or None if the one in flight has no answer yet."""
        received = self.socket.recv(262144)
        if not received:
            raise ConnectionError("the server closed the connection")
        return self._read(received)

    @abstractmethod
    def _read(self, received: bytes) -> float | None:
        """What `receive` returns."""

    def _answered(self, failure: str = "", come_back: int | None = None) -> float:
        """Count an answer. `come_back` is in so many seconds."""
        if come_back is not None and self._refused != "fail":
            self._tally.shed += 1
            return come_back * random.uniform(*_JITTER) if self._refused == "obey" else 0  # noqa: S311 - as above
        self._tally.latencies.append(time.perf_counter_ns() - self._started)
        if failure:
            self._tally.fail(failure)
        return 0


class GrpcConnection(Connection):
    """A connection that speaks gRPC."""

    def __init__(self, plan: Plan, requests: Requests, tally: Tally) -> None:
        super().__init__(plan, requests, tally)
        widen = struct.pack(">I", _BIG_WINDOW - 65535)
        self.greeting = (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, _SETTINGS) + frame(WINDOW_UPDATE, 0, 0, widen)
        )
        self._rest = b""

    def _read(self, received: bytes) -> float | None:
        wait = None
        for kind, flags, payload in self._frames(received):
            if kind == HEADERS and flags & END_STREAM:
                wait = self._ended(payload)
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            # After its answer a server may reset a stream without an error (RFC 9113, 8.1).
            elif kind == GOAWAY or (kind == RST_STREAM and payload != _NO_ERROR):
                raise ConnectionError(f"the server gave up: {payload!r}")
        return wait

    def _ended(self, trailers: bytes) -> float:
        if _OK in trailers:
            return self._answered()
        retry = _RETRY_INFO.search(trailers) if any(status in trailers for status in _REFUSALS) else None
        return self._answered(f"no grpc-status 0: {trailers[:300]!r}", retry and retry[1][0])

    def _frames(self, received: bytes) -> Iterator[tuple[int, int, bytes]]:
        buffer = self._rest + received
        at = 0
        while len(buffer) - at >= 9:
            end = at + 9 + int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) < end:
                break
            yield buffer[at + 3], buffer[at + 4], buffer[at + 9 : end]
            at = end
        self._rest = buffer[at:]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: bytes) -> bytes:
    # The length has seven bits of its first byte; what does not fit follows, seven bits a byte, the lowest first.
    head, more = [min(len(text), 127)], len(text) - 127
    while more >= 128:
        head.append(128 | more & 127)
        more >>= 7
    return bytes([*head, more] if more >= 0 else head) + text


class Callers:
    """All connections, each with a request in flight unless its caller waits."""

    def __init__(self, plan: Plan, requests: Requests, protocol: type[Connection]) -> None:
        self.tally = Tally()
        made = [protocol(plan, requests, self.tally) for _ in range(plan.concurrency)]
        self._by_file = {connection.socket.fileno(): connection for connection in made}
        self._poll = select.epoll()
        for number in self._by_file:
            self._poll.register(number, select.EPOLLIN)
        # Who waits: until when, and who.
        self._waiting: list[tuple[float, int]] = []

    def begin(self) -> None:
        """Send the first requests."""
        for connection in self._by_file.values():
            connection.send()

    def work(self, seconds: float, requests: int = 0) -> None:
        """Keep them busy for so long, or until so many requests are answered."""
        deadline = time.perf_counter() + seconds
        while (now := time.perf_counter()) < deadline and not 0 < requests <= len(self.tally.latencies):
            while self._waiting and self._waiting[0][0] <= now:
                self._by_file[heapq.heappop(self._waiting)[1]].send()
            until = min(deadline, self._waiting[0][0]) if self._waiting else deadline
            for number, _ in self._poll.poll(until - now):
                self._attend(number)

    def _attend(self, number: int) -> None:
        wait = self._by_file[number].receive()
        if wait:
            heapq.heappush(self._waiting, (time.perf_counter() + wait, number))
        elif wait is not None:
            self._by_file[number].send()


def run(plan: Plan, requests: Requests, protocol: type[Connection]) -> dict[str, object]:
    """Keep each connection busy for the plan's seconds."""
    callers = Callers(plan, requests, protocol)
    tally = callers.tally
    started, used = time.perf_counter(), time.process_time()
    callers.begin()
    if plan.warm_up:
        callers.work(plan.warm_up)
        tally.latencies.clear()
        tally.shed = 0
        started, used = time.perf_counter(), time.process_time()
    callers.work(plan.seconds, plan.requests)
    elapsed = time.perf_counter() - started
    used = time.process_time() - used
    latencies = sorted(tally.latencies) or [0]
    return {
        "requests": len(tally.latencies),
        "seconds": elapsed,
        "cpu_seconds": used,
        "shed": tally.shed,
        "failed": tally.failed,
        "first_failure": tally.first_failure,
        "p50_ms": latencies[len(latencies) // 2] / 1e6,
        "p99_ms": latencies[len(latencies) * 99 // 100] / 1e6,
    }


if __name__ == "__main__":
    given = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(run(given, Requests(given), GrpcConnection)))
