"""contracts/README.md: what is created with null for every optional member is what is created without them."""

from typing import Any, NamedTuple

import pytest
from support import handoff, helpdesk
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Rest

from service.fields import Section, other_names
from service.handoff import commands as handoff_commands
from service.helpdesk import commands as helpdesk_commands
from service.itsm import commands as itsm_commands

# Different for each that is created.
OWN = {
    *("id", "number", "ticket_ref", "created_at", "updated_at"),
    *("tenant_id", "ticket_id", "project_id", "billing_account_id", "handoff_request_id", "reported_by_user_id"),
}


class Creation(NamedTuple):
    """One creation: its body's model, and what it requires."""

    operation: str
    model: type[Section]
    body: dict[str, Any]

    def nulls(self) -> dict[str, None]:
        return dict.fromkeys({*self.model.model_fields, *other_names(self.model)} - set(self.body))


CREATIONS = (
    Creation("handoff.create", handoff_commands.NewTicket, handoff.TICKET),
    Creation("helpdesk.create", helpdesk_commands.NewTicket, helpdesk.TICKET),
    Creation("helpdesk.comment", helpdesk_commands.NewComment, {"body": "Look here."}),
    Creation(
        "helpdesk.create_policy",
        helpdesk_commands.NewPolicy,
        {"name": "Urgent", "priority": "urgent", "resolution_minutes": 240},
    ),
    Creation("itsm.create", itsm_commands.NewTicket, {"subject": "VPN is down", "description": "Since nine."}),
)


async def party(rest: Rest, world: World, operation: str) -> tuple[Credential, dict[str, str]]:
    """Somebody in a place of their own, and the path of what they create."""
    if operation.startswith("handoff"):
        project_id, who = await handoff.new_project(world)
        return who, {"project_id": project_id}
    if operation.startswith("itsm"):
        return (await world.program()).credential, {}
    who = world.person("read", "write", "agent", tenant_id=helpdesk.new_tenant_id())
    return who, {"id": (await helpdesk.create(rest, who))["id"]} if operation == "helpdesk.comment" else {}


def shared(created: Any) -> Any:
    """What two creations of the same have in common."""
    if isinstance(created, list):
        return [shared(one) for one in created]
    if not isinstance(created, dict):
        return created
    return {name: shared(value) for name, value in created.items() if name not in OWN}


@pytest.mark.parametrize("creation", CREATIONS, ids=lambda creation: creation.operation)
async def test_null_in_a_creation_is_the_same_as_a_missing_key(rest: Rest, world: World, creation: Creation) -> None:
    made = []
    for nulls in ({}, creation.nulls()):
        who, path = await party(rest, world, creation.operation)
        reply = await rest.call(creation.operation, who, path=path, body={**creation.body, **nulls})
        made.append(shared(reply.succeeded(METHODS[creation.operation].status)))
    assert made[0] == made[1]
    # What is required is still required.
    for name in creation.body:
        reply = await rest.call(creation.operation, who, path=path, body={**creation.body, name: None})
        reply.failed("validation_error", paths=[name])
