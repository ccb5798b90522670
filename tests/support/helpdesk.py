"""Short forms of helpdesk calls, for the tests of that API."""

from typing import Any
from uuid import uuid4

from support.system import Credential
from support.transports import Grpc, Reply, Rest

Transport = Rest | Grpc

URL = "/api/v1/helpdesk/tickets"
TICKET = {"title": "VPN is down"}


def new_tenant_id() -> str:
    return f"ten_{uuid4().hex}"


async def create(transport: Transport, person: Credential, **members: Any) -> Any:
    return (await transport.call("helpdesk.create", person, body={**TICKET, **members})).succeeded(201)


async def get(transport: Transport, person: Credential, ticket: Any) -> Any:
    return (await transport.call("helpdesk.get", person, path={"id": ticket["id"]})).succeeded()


async def update(transport: Transport, person: Credential, ticket: Any, **changes: Any) -> Reply:
    return await transport.call("helpdesk.update", person, path={"id": ticket["id"]}, body=changes)


async def close(transport: Transport, person: Credential, ticket: Any, body: Any = None, **headers: str) -> Reply:
    return await transport.call("helpdesk.close", person, path={"id": ticket["id"]}, body=body, headers=headers)


async def numbers(transport: Transport, person: Credential) -> list[str]:
    tickets = (await transport.call("helpdesk.list", person, query={"limit": 100})).succeeded()["tickets"]
    return [ticket["number"] for ticket in tickets]
