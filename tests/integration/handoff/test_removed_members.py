"""contracts/handoff.md, "Who may do what": a member who is removed during a change changes nothing."""

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from support.handoff import created, history, read
from support.system import World
from support.transports import Rest

from service.access.policy import Caller
from service.directory import METADATA
from service.errors import TicketError
from service.handoff import changes, lifecycle
from service.operation import Call
from service.settings import Settings
from service.storage.database import Database


@pytest.mark.parametrize(
    ("operation", "rule", "body"),
    [
        (changes.update_ticket, "changed", {"title": "After", "roles": ["qa"]}),
        (changes.bulk_update_tickets, "changed", {"action": "move", "stage": "up_next", "ticket_ids": ["1"]}),
        (changes.report_deployment, "deployed", {"merge_sha": "9fceb02", "outcome": "deployed"}),
    ],
    ids=["update", "bulk", "deploy"],
)
async def test_a_member_who_is_removed_during_a_change_changes_nothing(
    rest: Rest, world: World, monkeypatch: pytest.MonkeyPatch, operation: Any, rule: str, body: dict[str, Any]
) -> None:
    user_id, project_id = str(uuid4()), await world.project()
    who = await world.member(project_id, "owner", user_id)
    ticket = await created(rest, who, project_id, roles=["backend", "design"])
    decide = getattr(lifecycle, rule)

    def removed_meanwhile(*given: Any) -> Any:
        world.run("DELETE FROM project_members WHERE user_id = %s", user_id)
        return decide(*given)

    monkeypatch.setattr(lifecycle, rule, removed_meanwhile)
    database = Database(Settings(database_url=world.database_url, pool_size=1), METADATA)
    await database.open()
    try:
        call = Call(("tickets.handoff.v1", "Test"), "r", None, Caller(user_id, frozenset()))
        path = {"project_id": project_id, "ticket_id": ticket["id"]}
        with pytest.raises(TicketError) as failure:
            await operation(SimpleNamespace(database=database), call, {"path": path, "header": {}, "body": body})
    finally:
        await database.close()
    assert failure.value.reason == "forbidden"
    colleague = await world.member(project_id, "viewer")
    assert await read(rest, colleague, ticket) == {**ticket, "can_triage": False}
    assert len(await history(rest, colleague, ticket)) == 1
    assert world.rows("SELECT 1 FROM handoff_deployments WHERE project_id = %s", project_id) == []
