"""Whose idempotency keys those of the handoff API are."""

from typing import Any, Protocol
from uuid import UUID

from service.handoff import tables
from service.idempotency import Keys
from service.operation import Call


class _Path(Protocol):
    @property
    def project_id(self) -> UUID: ...


class _OfProject(Protocol):
    """A command about a project."""

    @property
    def path(self) -> _Path: ...


def _owner(call: Call, command: _OfProject) -> dict[str, Any]:
    """They are the caller's, in each project."""
    return {"project_id": command.path.project_id, "user_id": UUID(call.caller.subject)}


KEYS = Keys(tables.keys, _owner)
