"""A load generator for GET over HTTP/1.1: `python -m tests.benchmarks.rest_load PLAN.json`, as grpc_load.py does it.

For what wrk cannot do: keep the latencies of refused requests apart, and wait for as long as a refusal asks.
"""

import json
import random
import re
import sys
from pathlib import Path

from .grpc_load import Connection, Plan, Requests, Tally, run

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
# Of a process that has enough to do, and of a caller who has.
_REFUSALS = (b"503", b"429")
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)\r\n", re.IGNORECASE)


class RestRequests(Requests):
    """The bytes of one GET after another. The plan's path may hold `{id}`."""

    def __init__(self, plan: Plan) -> None:
        headers = "".join(f"{name}: {value}\r\n" for name, value in plan.metadata.items())
        self._text = f"GET {plan.path} HTTP/1.1\r\nhost: {plan.target}\r\n{headers}\r\n".encode()
        self._ids = Path(plan.ids).read_bytes().split() or [b""]

    def next(self, stream: int) -> bytes:
        """A request."""
        return self._text.replace(b"{id}", random.choice(self._ids), 1)  # noqa: S311 - not a secret


class RestConnection(Connection):
    """A connection that speaks HTTP/1.1 and stays open."""

    def __init__(self, plan: Plan, requests: Requests, tally: Tally) -> None:
        super().__init__(plan, requests, tally)
        self._rest = b""

    def _read(self, received: bytes) -> float | None:
        self._rest += received
        head, end, body = self._rest.partition(b"\r\n\r\n")
        if not end:
            return None
        status, length = head[9:12], _LENGTH.search(head + b"\r\n")
        if length is not None and len(body) < int(length[1]):
            return None
        self._rest = b""
        if length is None:
            return self._answered(f"of unknown length: {head[:300]!r}")
        if status == b"200":
            return self._answered()
        retry = _RETRY_AFTER.search(head + b"\r\n") if status in _REFUSALS else None
        return self._answered(f"not 200: {head[:300]!r}", retry and int(retry[1]))


if __name__ == "__main__":
    given = Plan(**json.loads(Path(sys.argv[1]).read_text()))
    print(json.dumps(run(given, RestRequests(given), RestConnection)))
