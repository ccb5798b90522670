"""Short forms of helpdesk calls, for the tests of that API."""

from typing import Any

from support.system import Credential
from support.transports import Grpc, Reply, Rest

Door = Rest | Grpc

URL = "/api/v1/helpdesk/tickets"
TICKET = {"title": "VPN is down"}


async def create(transport: Door, person: Credential, **members: Any) -> Any:
    return (await transport.call("helpdesk.create", person, body={**TICKET, **members})).succeeded(201)


async def get(transport: Door, person: Credential, ticket: Any) -> Any:
    return (await transport.call("helpdesk.get", person, path={"id": ticket["id"]})).succeeded()


async def update(transport: Door, person: Credential, ticket: Any, **changes: Any) -> Reply:
    return await transport.call("helpdesk.update", person, path={"id": ticket["id"]}, body=changes)


async def close(transport: Door, person: Credential, ticket: Any, body: Any = None, **headers: str) -> Reply:
    return await transport.call("helpdesk.close", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def numbers(transport: Door, person: Credential) -> list[str]:
    tickets = (await transport.call("helpdesk.list", person, query={"limit": 100})).succeeded()["tickets"]
    return [ticket["number"] for ticket in tickets]
