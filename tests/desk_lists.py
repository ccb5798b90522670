"""The helpdesk's list, queried at both doors."""

from typing import Any
from urllib.parse import quote, urlencode

from desk import URL, Door
from harness import Grpc, Reply, rest_reply
from system import Credential

SORTS = ("-created_at", "created_at", "-updated_at", "due_at", "-priority")


async def page(door: Door, person: Credential, **query: Any) -> Reply:
    if isinstance(door, Grpc):
        return await door.call("helpdesk.list", person, query=query)
    # As RFC 3986 has it: a space is no plus.
    encoded = urlencode(query, quote_via=quote)
    return rest_reply("helpdesk", await door.client.get(f"{URL}?{encoded}", headers=dict(person)))


async def listed(door: Door, person: Credential, **query: Any) -> list[Any]:
    tickets: list[Any] = (await page(door, person, **query)).succeeded()["tickets"]
    return tickets


async def letters(door: Door, person: Credential, **query: Any) -> str:
    """The first letters of the titles, as they are listed."""
    return "".join(ticket["title"][0] for ticket in await listed(door, person, **query))


async def cursor_of(door: Door, person: Credential, **query: Any) -> str:
    cursor = (await page(door, person, **query, limit=1)).succeeded()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor
