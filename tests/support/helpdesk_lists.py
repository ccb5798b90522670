"""The helpdesk's list, queried at both transports."""

from typing import Any
from urllib.parse import quote, urlencode

from support.helpdesk import URL, Transport
from support.system import Credential
from support.transports import Grpc, Reply, rest_reply

SORTS = ("-created_at", "created_at", "-updated_at", "due_at", "-priority")


async def page(transport: Transport, person: Credential, **query: Any) -> Reply:
    if isinstance(transport, Grpc):
        return await transport.call("helpdesk.list", person, query=query)
    # As in RFC 3986: a space is escaped, not written as a plus.
    encoded = urlencode(query, quote_via=quote)
    return rest_reply("helpdesk", await transport.client.get(f"{URL}?{encoded}", headers=dict(person)))


async def listed(transport: Transport, person: Credential, **query: Any) -> list[Any]:
    tickets: list[Any] = (await page(transport, person, **query)).succeeded()["tickets"]
    return tickets


async def letters(transport: Transport, person: Credential, **query: Any) -> str:
    """The first letters of the listed titles, in order."""
    return "".join(ticket["title"][0] for ticket in await listed(transport, person, **query))


async def cursor_of(transport: Transport, person: Credential, **query: Any) -> str:
    cursor = (await page(transport, person, **query, limit=1)).succeeded()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor
