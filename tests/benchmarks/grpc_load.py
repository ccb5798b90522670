"""A lean gRPC load generator: `python grpc_load.py PLAN.json`, which prints one line of JSON.

It speaks HTTP/2 from prebuilt bytes on plain sockets, because what Debian has does not fit: h2load sends one constant
request (no fresh idempotency keys, no random ids), counts an answer with a failed `grpc-status` as a success, and ghz
is not packaged. As wrk does, each connection has one request in flight. A request's fixed headers are sent once and
named by their index from then on, as every client does. The header table of the responses is set to size 0, so that
each says its `grpc-status` in plain letters, which are looked for in every single answer.

Its CPU per request is reported with the result. Nothing of grpcio is in it.
"""

import itertools
import json
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
_BIG_WINDOW = 2**31 - 1
_OK = b"\x0bgrpc-status\x010"
# SETTINGS_HEADER_TABLE_SIZE 0, SETTINGS_INITIAL_WINDOW_SIZE at most.
_SETTINGS = struct.pack(">HIHI", 1, 0, 4, _BIG_WINDOW)


@dataclass(frozen=True)
class Plan:
    """What to send where. `bodies` are messages in hex, taken in turn."""

    target: str
    path: str
    key: str
    bodies: list[str]
    concurrency: int
    seconds: float
    # A file of ids; each request names one in its field 1, a string. Empty: none.
    ids: str = ""
    # What idempotency keys begin with. Empty: none are sent.
    fresh: str = ""


@dataclass
class Tally:
    """What came of it."""

    latencies: list[int] = field(default_factory=list)
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
        self._ids = Path(plan.ids).read_bytes().split() if plan.ids else []
        self._fresh = plan.fresh.encode()
        self._count = 0
        fixed = [(b":path", plan.path), (b":authority", plan.target), (b"content-type", "application/grpc")]
        fixed += [(b"te", "trailers"), (b"user-agent", "grpc-load"), (b"x-api-key", plan.key)]
        # Literals that enter the server's table, then the places that they have there: the newest first.
        self._first_head = b"\x83\x86" + b"".join(
            b"\x40" + _text(name) + _text(value.encode()) for name, value in fixed
        )
        self._next_head = b"\x83\x86" + bytes(0x80 | 62 + place for place in reversed(range(len(fixed))))

    def next(self, stream: int) -> bytes:
        """A request on a stream of its connection."""
        self._count += 1
        head = self._first_head if stream == 1 else self._next_head
        if self._fresh:
            head += b"\x00" + _text(b"idempotency-key") + _text(self._fresh + b"%d" % self._count)
        body = next(self._bodies)
        if self._ids:
            body = b"\x0a\x24" + random.choice(self._ids) + body  # noqa: S311 - not a secret
        message = b"\0" + len(body).to_bytes(4, "big") + body
        return frame(HEADERS, END_HEADERS, stream, head) + frame(DATA, END_STREAM, stream, message)


class Connection:
    """One connection with one request in flight."""

    def __init__(self, target: str, requests: Requests, tally: Tally) -> None:
        host, _, port = target.partition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._requests = requests
        self._tally = tally
        self._stream = -1
        self._started = 0
        self._rest = b""
        widen = struct.pack(">I", _BIG_WINDOW - 65535)
        self._greeting = (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, _SETTINGS) + frame(WINDOW_UPDATE, 0, 0, widen)
        )

    def send(self) -> None:
        """Send the next request."""
        self._stream += 2
        request = self._greeting + self._requests.next(self._stream)
        self._greeting = b""
        self._started = time.perf_counter_ns()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take in what came; whether the request in flight is answered."""
        received = self.socket.recv(262144)
        if not received:
            raise ConnectionError("the server closed the connection")
        answered = False
        for kind, flags, payload in self._frames(received):
            if kind == HEADERS and flags & END_STREAM:
                answered = True
                self._tally.latencies.append(time.perf_counter_ns() - self._started)
                if _OK not in payload:
                    self._tally.fail(f"no grpc-status 0: {payload[:300]!r}")
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind in (RST_STREAM, GOAWAY):
                raise ConnectionError(f"the server gave up: {payload!r}")
        return answered

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
    # Lengths under 127 take one byte.
    if len(text) >= 127:
        raise ValueError(f"longer than 126 bytes: {text!r}")
    return bytes((len(text),)) + text


def run(plan: Plan) -> dict[str, object]:
    """Keep each connection busy for the plan's seconds."""
    tally, requests = Tally(), Requests(plan)
    connections = [Connection(plan.target, requests, tally) for _ in range(plan.concurrency)]
    poll = select.epoll()
    by_file = {connection.socket.fileno(): connection for connection in connections}
    for number in by_file:
        poll.register(number, select.EPOLLIN)
    started, used = time.perf_counter(), time.process_time()
    deadline = started + plan.seconds
    for connection in connections:
        connection.send()
    while (now := time.perf_counter()) < deadline:
        for number, _ in poll.poll(deadline - now):
            connection = by_file[number]
            if connection.receive():
                connection.send()
    elapsed = time.perf_counter() - started
    used = time.process_time() - used
    latencies = sorted(tally.latencies) or [0]
    return {
        "requests": len(tally.latencies),
        "seconds": elapsed,
        "cpu_seconds": used,
        "failed": tally.failed,
        "first_failure": tally.first_failure,
        "p50_ms": latencies[len(latencies) // 2] / 1e6,
        "p99_ms": latencies[len(latencies) * 99 // 100] / 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(run(Plan(**json.loads(Path(sys.argv[1]).read_text())))))
