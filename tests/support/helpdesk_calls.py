"""Short forms of helpdesk calls about one ticket: its comments, its history, its deletion, its versions."""

from typing import Any
from uuid import uuid4

from support.helpdesk import Door
from support.system import Credential
from support.transports import Reply

ALL = ("read", "write", "agent")
MISSING = "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISSING_COMMENT = "cmt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISMATCH = "Idempotency key reused with a different payload"


def tenant() -> str:
    return f"ten_{uuid4().hex}"


async def say(transport: Door, person: Credential, ticket: Any, key: str | None = None, **members: Any) -> Reply:
    headers = {} if key is None else {"idempotency-key": key}
    body = {"body": "x", **members}
    return await transport.call("helpdesk.comment", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def said(transport: Door, person: Credential, ticket: Any, **members: Any) -> Any:
    return (await say(transport, person, ticket, **members)).succeeded(201)


async def edit(transport: Door, person: Credential, comment: Any, body: str = "y") -> Reply:
    path = {"id": comment["ticket_id"], "comment_id": comment["id"]}
    return await transport.call("helpdesk.edit", person, path=path, body={"body": body})


async def page(transport: Door, person: Credential, ticket: Any, member: str, **query: Any) -> Reply:
    return await transport.call(f"helpdesk.{member}", person, path={"id": ticket["id"]}, query=query)


async def comments(transport: Door, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(transport, person, ticket, "comments", limit=100)).succeeded()
    assert set(answer) == {"comments", "next_cursor"}
    found: list[Any] = answer["comments"]
    return found


async def events(transport: Door, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(transport, person, ticket, "events", limit=100)).succeeded()
    assert set(answer) == {"events", "next_cursor"}
    found: list[Any] = answer["events"]
    return found


async def delete(transport: Door, person: Credential, ticket: Any) -> Reply:
    return await transport.call("helpdesk.delete", person, path={"id": ticket["id"]})


async def restore(transport: Door, person: Credential, ticket: Any) -> Reply:
    return await transport.call("helpdesk.restore", person, path={"id": ticket["id"]})


async def whole(transport: Door, person: Credential, ticket: Any) -> Any:
    """The ticket, deleted or not."""
    reply = await transport.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    return reply.succeeded()


async def etag(transport: Door, person: Credential, ticket: Any) -> str:
    reply = await transport.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    reply.succeeded()
    return reply.headers["etag"]
