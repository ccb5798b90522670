"""Requests that no client library makes: twice what can be only once, a slash that is none, no path at all."""

from collections.abc import Mapping, Sequence

import pytest
from support.by_hand import by_hand

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
    reply = await by_hand(gateway_url, f"{line} HTTP/1.1", headers)
    assert reply.status == 400, reply
    # Of what is no HTTP the gateway does not know the path.
    assert set(reply.body) == ({"detail"} if api == "itsm" else {"error", "code"})


async def test_a_tunnel_is_refused(gateway_url: str) -> None:
    assert (await by_hand(gateway_url, "CONNECT a:80 HTTP/1.1")).status == 405
