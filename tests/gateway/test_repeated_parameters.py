"""contracts/README.md: a query parameter that is given more than once, and commas in it, in each of the APIs.

Those of the helpdesk are in tests/integration/helpdesk/test_more_filters.py.
"""

from typing import Any

from support.system import World
from support.transports import Rest, rest_reply


async def test_a_handoff_list_takes_several_stages_with_commas_or_one_by_one(rest: Rest, world: World) -> None:
    project_id = await world.project()
    who = await world.member(project_id, "triager")
    path = {"project_id": project_id}
    for stage in ("backlog", "up_next", "validation"):
        body = {"title": stage, "description": "x", "request_type": "bug"}
        made = (await rest.call("handoff.create", who, path=path, body=body)).succeeded(201)["ticket"]
        one = {**path, "ticket_id": made["id"]}
        if stage != "backlog":
            (await rest.call("handoff.update", who, path=one, body={"stage": stage})).succeeded()

    async def ask(query: str) -> Any:
        url = f"/api/projects/{project_id}/tickets?{query}"
        return rest_reply("handoff", await rest.client.get(url, headers=dict(who)))

    for query in ("stage=backlog,up_next", "stage=backlog,%20up_next", "stage=up_next&stage=backlog"):
        found = (await ask(query)).succeeded()["tickets"]
        assert (query, {ticket["title"] for ticket in found}) == (query, {"backlog", "up_next"})
    for query, at in (("stage=backlog,up_next&stage=backlog", 0), ("stage=backlog%5C,up_next", 0)):
        (await ask(query)).failed("validation_error", paths=[f"stage.{at}"])
    # What takes one value takes the last, commas and all.
    assert len((await ask("limit=1&limit=2")).succeeded()["tickets"]) == 2
    (await ask("priority=low,high")).failed("validation_error", paths=["priority"])


async def test_an_itsm_list_takes_one_value_of_each_parameter(rest: Rest, world: World) -> None:
    program = await world.program()
    body = {"subject": "Room 2 1015", "description": "x", "metadata": {"category": "Hardware, Printers"}}
    (await rest.call("itsm.create", program.credential, body=body)).succeeded(201)

    async def ask(query: str) -> Any:
        answer = await rest.client.get(f"/api/v1/tickets?{query}", headers=dict(program.credential))
        return rest_reply("itsm", answer)

    for query, total in (
        ("metadata.category=Hardware%2C%20Printers", 1),
        ("metadata.category=Hardware", 0),
        ("status=closed&status=open", 1),
        ("status=open&status=closed", 0),
        # A space is a plus only at the end of an instant.
        ("q=room%202%201015", 1),
        ("q=2+1015", 1),
        ("start_date=2026-01-01T00:00:00+02:00", 1),
        ("end_date=2026-01-01T00:00:00%2002:00", 0),
    ):
        assert (query, (await ask(query)).succeeded()["total"]) == (query, total)
    (await ask("status=open,closed")).failed("validation_error", paths=["status"])
