"""contracts/helpdesk.md at both transports: who sets which members; anything else is 403 and names them.

Each cell of the table is in tests/unit/helpdesk/test_rights.py.
"""

from typing import Any

import pytest
from support.helpdesk import TICKET, Transport, create, get, new_tenant_id, update
from support.helpdesk_calls import ALL
from support.system import World

# What everyone sets in a creation.
FREE = {
    "title": "New",
    "description": "x",
    "type": "change",
    "priority": "urgent",
    "category": "Network",
    "tags": ["vpn"],
    "related_asset_id": "ast_1",
    "related_vulnerability_id": "vul_1",
    "source_type": "frontend",
}
LATER = {name: FREE[name] for name in FREE if name not in ("type", "priority", "source_type")}
# What only agents set, and never `source` and `submitted_by_id`, which integrations set in creations.
KEPT: dict[str, Any] = {
    "status": "pending",
    "assigned_to_id": "per_2",
    "team_id": "grp_1",
    "sla_policy": "sla_01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "due_at": "2030-01-01T00:00:00Z",
}
NAMED = {"submitted_by_id": "per_2", "source": "other"}
APP = {"app_id": "app_1"}


@pytest.mark.parametrize(("claims", "named"), [({}, {}), (APP, NAMED)], ids=["a requester", "an integration"])
async def test_creations(transport: Transport, world: World, claims: dict[str, str], named: dict[str, Any]) -> None:
    person = world.person("read", "write", **claims)
    made = await create(transport, person, **FREE, **named)
    assert {name: made[name] for name in {**FREE, **named}} == {**FREE, **named}
    refused = {**NAMED, **KEPT} if not named else KEPT
    for name, value in refused.items():
        reply = await transport.call("helpdesk.create", person, body={**TICKET, name: value})
        reply.failed("forbidden", f"Only agents can set {name}", paths=[name])
    reply = await transport.call("helpdesk.create", person, body={**FREE, **refused})
    reply.failed("forbidden", f"Only agents can set {', '.join(sorted(refused))}", paths=sorted(refused))
    # The defaults may be named. What was refused took no number.
    own = await create(transport, person, status="open", source="edm", submitted_by_id="per_1")
    assert own["number"] == "TKT-0002"


@pytest.mark.parametrize("claims", [{}, APP], ids=["a requester", "an integration"])
async def test_changes(transport: Transport, world: World, claims: dict[str, str]) -> None:
    person = world.person("read", "write", **claims)
    made = await create(transport, person)
    changed = (await update(transport, person, made, **LATER)).succeeded()
    assert {name: changed[name] for name in LATER} == LATER
    refused = {**KEPT, **NAMED, "type": "problem", "priority": "low", "source_type": "server"}
    for name, value in refused.items():
        reply = await update(transport, person, made, title="Taken", **{name: value})
        reply.failed("forbidden", f"Only agents can set {name}", paths=[name])
    for status in ("in_progress", "resolved"):
        (await update(transport, person, made, status=status)).failed("forbidden", paths=["status"])
    assert await get(transport, person, made) == changed
    for status in ("closed", "open"):
        assert (await update(transport, person, made, status=status)).succeeded()["status"] == status
    # To send what is there is no change: what was read may be sent back.
    read = await get(transport, person, made)
    kept = {name: read[name] for name in (*KEPT, *NAMED, "type", "priority") if read[name] is not None}
    assert (await update(transport, person, made, **kept, title="Once more")).succeeded()["title"] == "Once more"


@pytest.mark.parametrize("claims", [{}, APP], ids=["a person", "an application"])
async def test_agents_set_everything(transport: Transport, world: World, claims: dict[str, str]) -> None:
    tenant_id = new_tenant_id()
    policy = {"name": "p", "priority": "urgent", "resolution_minutes": 60}
    manager = world.person("agent", tenant_id=tenant_id)
    made = (await transport.call("helpdesk.create_policy", manager, body=policy)).succeeded(201)
    everything = {**FREE, **KEPT, **NAMED, "sla_policy": made["id"]}
    agent = world.person("agent", tenant_id=tenant_id, **claims)
    for ticket in (
        await create(transport, agent, **everything),
        (await update(transport, agent, await create(transport, agent), **everything)).succeeded(),
    ):
        assert {name: ticket[name] for name in everything} == everything


async def test_the_submitter_and_the_source_cannot_be_cleared(transport: Transport, world: World) -> None:
    agent = world.person(*ALL)
    made = await create(transport, agent)
    for name in NAMED:
        (await update(transport, agent, made, **{name: None})).failed("validation_error", paths=[name])
    # A person's UUID has one form.
    uuid = "0F8FAD5B-D9CB-469F-A165-70867728950E"
    changed = (await update(transport, agent, made, submitted_by_id=f"urn:uuid:{uuid}")).succeeded()
    assert changed["submitted_by_id"] == uuid.lower()
