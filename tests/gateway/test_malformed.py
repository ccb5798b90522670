"""Requests that no client library makes: twice what can be only once, a slash that is none, no path at all."""

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import h11
import httpx2
import pytest
from support.transports import Reply, rest_reply

ITSM_PATH, HANDOFF_PATH = "/api/v1/tickets", "/api/tickets"
MALFORMED: Mapping[str, tuple[str, str, Sequence[str]]] = {
    "two hosts": ("itsm", f"GET {ITSM_PATH}", ["Host: b"]),
    "two hosts, handoff": ("handoff", f"GET {HANDOFF_PATH}", ["Host: b"]),
    "two API keys": ("itsm", f"GET {ITSM_PATH}", ["X-API-Key: a", "X-API-Key: b"]),
    "two tokens": ("handoff", f"GET {HANDOFF_PATH}", ["Authorization: Bearer a", "Authorization: Bearer b"]),
    "two idempotency keys": ("itsm", f"POST {ITSM_PATH}", ["Idempotency-Key: a", "Idempotency-Key: b"]),
    "a backslash": ("itsm", f"GET {ITSM_PATH}\\a", []),
    "an escaped backslash": ("itsm", f"GET {ITSM_PATH}%5Ca", []),
    "a backslash, handoff": ("handoff", "GET /api\\tickets", []),
    "gRPC and an escaped slash": ("itsm", f"POST {ITSM_PATH}/a%2Fb", ["Content-Type: application/grpc"]),
    "gRPC and an escaped slash, handoff": ("handoff", f"POST {HANDOFF_PATH}/a%2Fb", ["Content-Type: application/grpc"]),
    "two lengths": ("unknown", f"POST {ITSM_PATH}", ["Content-Length: 1", "Content-Length: 2"]),
    "a space in a name": ("unknown", f"GET {ITSM_PATH}", ["a b: c"]),
}


@pytest.mark.parametrize(("api", "line", "headers"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_request_is_a_400_in_the_apis_shape(
    gateway_url: str, api: str, line: str, headers: Sequence[str]
) -> None:
    reply = await by_hand(gateway_url, f"{line} HTTP/1.1", ["Host: a", *headers])
    assert reply.status == 400, reply
    # Of what is no HTTP the gateway does not know the path.
    assert set(reply.body) == ({"detail"} if api == "itsm" else {"error", "code"})


async def test_a_tunnel_is_refused(gateway_url: str) -> None:
    assert (await by_hand(gateway_url, "CONNECT a:80 HTTP/1.1", ["Host: a"])).status == 405


async def by_hand(gateway_url: str, line: str, headers: Sequence[str]) -> Reply:
    """Send a request without a body as these lines."""
    parts = urlsplit(gateway_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write("\r\n".join([line, *headers, "", ""]).encode())
    parser = h11.Connection(h11.CLIENT)
    head, body = None, b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            parser.receive_data(await asyncio.wait_for(reader.read(65536), 20))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
    writer.close()
    assert head is not None
    return rest_reply("", httpx2.Response(head.status_code, headers=list(head.headers), content=body))
