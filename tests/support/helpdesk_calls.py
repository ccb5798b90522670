"""Short forms of helpdesk calls about one ticket: its comments, its history, its deletion, its versions."""

from typing import Any

from support.helpdesk import Transport
from support.system import Credential
from support.transports import Reply

ALL = ("read", "write", "agent")
MISSING = "tkt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISSING_COMMENT = "cmt_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MISMATCH = "Idempotency key reused with a different payload"


async def post_comment(
    transport: Transport, person: Credential, ticket: Any, key: str | None = None, **members: Any
) -> Reply:
    headers = {} if key is None else {"idempotency-key": key}
    body = {"body": "x", **members}
    return await transport.call("helpdesk.comment", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def write_comment(transport: Transport, person: Credential, ticket: Any, **members: Any) -> Any:
    return (await post_comment(transport, person, ticket, **members)).succeeded(201)


async def edit(transport: Transport, person: Credential, comment: Any, body: str = "y") -> Reply:
    path = {"id": comment["ticket_id"], "comment_id": comment["id"]}
    return await transport.call("helpdesk.edit", person, path=path, body={"body": body})


async def page(transport: Transport, person: Credential, ticket: Any, member: str, **query: Any) -> Reply:
    return await transport.call(f"helpdesk.{member}", person, path={"id": ticket["id"]}, query=query)


async def comments(transport: Transport, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(transport, person, ticket, "comments", limit=100)).succeeded()
    assert set(answer) == {"comments", "next_cursor"}
    found: list[Any] = answer["comments"]
    return found


async def events(transport: Transport, person: Credential, ticket: Any) -> list[Any]:
    answer = (await page(transport, person, ticket, "events", limit=100)).succeeded()
    assert set(answer) == {"events", "next_cursor"}
    found: list[Any] = answer["events"]
    return found


async def delete(transport: Transport, person: Credential, ticket: Any) -> Reply:
    return await transport.call("helpdesk.delete", person, path={"id": ticket["id"]})


async def restore(transport: Transport, person: Credential, ticket: Any) -> Reply:
    return await transport.call("helpdesk.restore", person, path={"id": ticket["id"]})


async def get_with_deleted(transport: Transport, person: Credential, ticket: Any) -> Any:
    """The ticket, deleted or not."""
    reply = await transport.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    return reply.succeeded()


async def etag(transport: Transport, person: Credential, ticket: Any) -> str:
    reply = await transport.call("helpdesk.get", person, path={"id": ticket["id"]}, query={"include_deleted": True})
    reply.succeeded()
    return reply.headers["etag"]
