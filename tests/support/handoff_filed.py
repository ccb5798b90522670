"""A ticket on a board of its own."""

from typing import Any

from support.handoff import Door, created, place
from support.system import Credential, World


async def filed(transport: Door, world: World, role: str = "owner", **ticket: Any) -> tuple[Credential, dict[str, Any]]:
    """Someone of this role in a new project, and a ticket that they filed there."""
    project_id, who = await place(world, role)
    return who, await created(transport, who, project_id, **ticket)
