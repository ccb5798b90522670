"""Who calls, and what they are in a project."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from sqlalchemy import RowMapping

from tests.benchmarks.peer.database import Connection
from tests.benchmarks.peer.errors import ApiError
from tests.benchmarks.peer.tokens import Claims

from . import statements

_WORKERS = ("member", "triager", "owner")


@dataclass(frozen=True, slots=True)
class Caller:
    """The user who calls."""

    user_id: UUID
    actor_role: str | None


async def _caller(claims: Claims) -> Caller:
    try:
        return Caller(UUID(claims["sub"]), claims.get("actor_role"))
    except ValueError as error:
        raise ApiError(401, "invalid_token", "The token is not valid") from error


AnyCaller = Annotated[Caller, Depends(_caller)]


async def _project(project_id: UUID, caller: AnyCaller, connection: Connection) -> RowMapping:
    found = await connection.execute(statements.MEMBERSHIP, {"project_id": project_id, "user_id": caller.user_id})
    project = found.mappings().one_or_none()
    if project is None:
        raise ApiError(403, "forbidden", "You are not a member of this project")
    return project


# The project in the path, with the caller's part in it.
MemberProject = Annotated[RowMapping, Depends(_project)]


def require_worker(project: RowMapping, message: str) -> None:
    """Refuse who may only read."""
    if project["member_role"] not in _WORKERS:
        raise ApiError(403, "forbidden", message)
