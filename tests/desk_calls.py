"""Short forms of helpdesk calls about one ticket: its comments, its history, its deletion, its versions."""

from typing import Any
from uuid import uuid4

from desk import Door
from harness import Reply
from system import Credential

ALL = ("read", "write", "agent")
MISSING = "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISSING_COMMENT = "cmt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISMATCH = "Idempotency key reused with a different payload"


def tenant() -> str:
    return f"ten_{uuid4().hex}"


async def say(door: Door, person: Credential, ticket: Any, key: str | None = None, **members: Any) -> Reply:
    headers = {} if key is None else {"idempotency-key": key}
    body = {"body": "x", **members}
    return await door.call("helpdesk.comment", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def said(door: Door, person: Credential, ticket: Any, **members: Any) -> Any:
    return (await say(door, person, ticket, **members)).succeeded(201)


async def edit(door: Door, person: Credential, comment: Any, body: str = "y") -> Reply:
    path = {"id": comment["ticket_id"], "comment_id": comment["id"]}
    return await door.call("helpdesk.edit", person, path=path, body={"body": body})


async def page(door: Door, person: Credential, ticket: Any, member: str, **query: Any) -> Reply:
    return await door.call(f"helpdesk.{member}", person, path={"id": ticket["id"]}, query=query)


async def comments(door: Door, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(door, person, ticket, "comments", limit=100)).succeeded()
    assert set(answer) == {"comments", "next_cursor"}
    found: list[Any] = answer["comments"]
    return found


async def events(door: Door, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(door, person, ticket, "events", limit=100)).succeeded()
    assert set(answer) == {"events", "next_cursor"}
    found: list[Any] = answer["events"]
    return found


async def delete(door: Door, person: Credential, ticket: Any) -> Reply:
    return await door.call("helpdesk.delete", person, path={"id": ticket["id"]})


async def restore(door: Door, person: Credential, ticket: Any) -> Reply:
    return await door.call("helpdesk.restore", person, path={"id": ticket["id"]})


async def whole(door: Door, person: Credential, ticket: Any) -> Any:
    """The ticket, deleted or not."""
    reply = await door.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    return reply.succeeded()


async def etag(door: Door, person: Credential, ticket: Any) -> str:
    reply = await door.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    reply.succeeded()
    return reply.headers["etag"]
