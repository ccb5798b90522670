"""Short forms of AdminService calls, and a project with all settings."""

import re
from typing import Any
from uuid import uuid4

from tickets.admin.v1 import admin_service_pb2

from support.methods import Method
from support.system import Credential, World
from support.transports import Grpc, Reply, with_enums

SERVICE: Any = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
SCOPES = ["tickets:read", "tickets:write"]
LIVE_KEY = re.compile(r"itsm_sk_live_[0-9A-Za-z]{38}")
# The id of nothing.
UNKNOWN = "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33"
# Settings of a project, and other values of each.
SETTINGS: dict[str, Any] = {
    "name": "Shop",
    "backend_repo": "acme/api",
    "frontend_repo": "acme/web",
    "github_repo": "acme/shop",
    "default_roles": ["qa", "backend"],
}
OTHERS: dict[str, Any] = {
    "name": "Zoë & Söhne",
    "backend_repo": "x" * 255,
    "frontend_repo": "x",
    "github_repo": "x" * 39 + "/" + "A.b-c_9" + "x" * 93,
    "default_roles": ["frontend", "backend", "design", "devops", "qa", "test", "other"],
}


def operator_of(world: World) -> Credential:
    """The credential of an operator, whose subject need not be a UUID."""
    return world.issuer.bearer("operator", scope="tickets:read tickets:admin")


async def call(rpc: Grpc, who: Credential, method: str, /, **request: Any) -> Reply:
    descriptor = SERVICE.methods_by_name[method].input_type
    message = descriptor._concrete_class(**with_enums(descriptor, request))
    return await rpc.send(Method("admin", "", "", 0, SERVICE, method), message, who)


async def made(rpc: Grpc, who: Credential, method: str, /, **request: Any) -> Any:
    return (await call(rpc, who, method, **request)).succeeded()


async def set_up(rpc: Grpc, operator: Credential) -> dict[str, Any]:
    """A new project with all of SETTINGS."""
    made_: dict[str, Any] = await made(rpc, operator, "CreateProject", slug=f"shop-{uuid4().hex}", **SETTINGS)
    project: dict[str, Any] = made_["project"]
    return project
