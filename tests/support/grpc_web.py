"""grpc-web by hand: one call over HTTP/1.1, as a browser's library makes it."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import httpx2
from google.protobuf.message import Message
from google.rpc import status_pb2

_TRAILERS = 0x80


@dataclass(frozen=True)
class WebReply:
    """What came back: messages, and the status wherever it was."""

    response: httpx2.Response
    messages: list[bytes]
    trailers: Mapping[str, str]

    @property
    def status(self) -> int:
        return int(self.trailers["grpc-status"])

    @property
    def message(self) -> str:
        return unquote(self.trailers["grpc-message"])

    def details(self) -> status_pb2.Status:
        raw = self.trailers["grpc-status-details-bin"]
        return status_pb2.Status.FromString(base64.b64decode(raw + "=" * (-len(raw) % 4)))


async def call(
    client: httpx2.AsyncClient,
    method: str,
    request: Message | bytes,
    headers: Mapping[str, str],
    *,
    content_type: str = "application/grpc-web+proto",
) -> WebReply:
    """One call of a method, such as `tickets.itsm.v1.TicketService/CreateTicket`."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    body = struct.pack(">BI", 0, len(data)) + data
    if "text" in content_type:
        body = base64.b64encode(body)
    sent = {"content-type": content_type, "accept": content_type, "x-grpc-web": "1", **headers}
    response = await client.post(f"/{method}", content=body, headers=sent)
    assert response.headers["content-type"].startswith("application/grpc-web"), response.text
    answer = response.content
    if "text" in response.headers["content-type"]:  # in pieces, each padded
        answer = b"".join(base64.b64decode(answer[at : at + 4]) for at in range(0, len(answer), 4))
    messages, trailers = list[bytes](), dict[str, str]()
    while answer:
        flags, length = struct.unpack(">BI", answer[:5])
        part, answer = answer[5 : 5 + length], answer[5 + length :]
        if flags & _TRAILERS:
            trailers = dict(line.split(":", 1) for line in part.decode().split("\r\n") if line)
        else:
            messages.append(part)
    # Without a message they are the headers.
    return WebReply(response, messages, trailers or response.headers)
