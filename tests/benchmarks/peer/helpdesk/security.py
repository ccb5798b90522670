"""Who calls: an agent of a tenant."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends

from tests.benchmarks.peer.errors import ApiError
from tests.benchmarks.peer.tokens import Claims

_AGENT = "helpdesk:agent"


@dataclass(frozen=True, slots=True)
class Caller:
    """The person who calls."""

    subject: str
    tenant_id: str


def _requires(scope: str) -> Callable[[Claims], Awaitable[Caller]]:
    async def check(claims: Claims) -> Caller:
        scopes = claims.get("scope", "").split(" ")
        if "tenant_id" not in claims:
            raise ApiError(401, "invalid_token", "The token is not valid")
        if _AGENT not in scopes and scope not in scopes:
            raise ApiError(403, "missing_scope", f"A required scope is missing: {scope}")
        return Caller(claims["sub"], claims["tenant_id"])

    return check


Reader = Annotated[Caller, Depends(_requires("helpdesk:read_all"))]
Agent = Annotated[Caller, Depends(_requires(_AGENT))]
