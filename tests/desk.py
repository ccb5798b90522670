"""Short forms of helpdesk calls, for the tests of that API."""

from typing import Any

from harness import Grpc, Reply, Rest
from system import Credential

Door = Rest | Grpc

URL = "/api/v1/helpdesk/tickets"
TICKET = {"title": "VPN is down"}


async def create(door: Door, person: Credential, **members: Any) -> Any:
    return (await door.call("helpdesk.create", person, body={**TICKET, **members})).succeeded(201)


async def get(door: Door, person: Credential, ticket: Any) -> Any:
    return (await door.call("helpdesk.get", person, path={"id": ticket["id"]})).succeeded()


async def update(door: Door, person: Credential, ticket: Any, **changes: Any) -> Reply:
    return await door.call("helpdesk.update", person, path={"id": ticket["id"]}, body=changes)


async def close(door: Door, person: Credential, ticket: Any, body: Any = None, **headers: str) -> Reply:
    return await door.call("helpdesk.close", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def numbers(door: Door, person: Credential) -> list[str]:
    tickets = (await door.call("helpdesk.list", person, query={"limit": 100})).succeeded()["tickets"]
    return [ticket["number"] for ticket in tickets]
