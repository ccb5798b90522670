"""HTTP/1 line by line, as no client library sends it."""

import asyncio
from collections.abc import Sequence
from urllib.parse import urlsplit

import h11
import httpx2

from support.transports import Reply, rest_reply

_TIMEOUT_SECONDS = 20


async def by_hand(gateway_url: str, line: str, headers: Sequence[str] = (), api: str = "") -> Reply:
    """Send a request without a body as these lines; its reply."""
    return rest_reply(api, await response_by_hand(gateway_url, line, headers))


async def response_by_hand(
    gateway_url: str, line: str, headers: Sequence[str] = (), *, first_line: bool = False
) -> httpx2.Response:
    """The response to these lines; with `first_line` only up to its body's first, of a body that does not end."""
    parts = urlsplit(gateway_url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    host = [] if line.endswith("HTTP/1.0") else ["Host: a"]  # which HTTP/1.0 does not know
    writer.write("\r\n".join([line, *host, *headers, "", ""]).encode("latin-1"))
    parser = h11.Connection(h11.CLIENT)
    if line.startswith("HEAD "):
        parser.send(h11.Request(method=b"HEAD", target=b"/", headers=[(b"host", b"a")]))
    head, body = None, b""
    while not isinstance(event := parser.next_event(), h11.EndOfMessage) and not (first_line and b"\n" in body):
        if event is h11.NEED_DATA:
            parser.receive_data(await asyncio.wait_for(reader.read(65536), _TIMEOUT_SECONDS))
        elif isinstance(event, h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
    writer.close()
    assert head is not None
    return httpx2.Response(head.status_code, headers=list(head.headers), content=body)
