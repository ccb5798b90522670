"""A ticket on a board of its own."""

from typing import Any

from board import Door, created, place
from system import Credential, World


async def filed(door: Door, world: World, role: str = "owner", **ticket: Any) -> tuple[Credential, dict[str, Any]]:
    """Someone of this role in a new project, and a ticket that they filed there."""
    project_id, who = await place(world, role)
    return who, await created(door, who, project_id, **ticket)
