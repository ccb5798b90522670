"""contracts/helpdesk.md at both transports: who may write and not read does not learn which tickets exist.

And a token of one application changes nothing that the tenant's other applications share.
"""

from typing import Any

import pytest
from support.helpdesk import Transport, create, new_tenant_id, update
from support.helpdesk_calls import MISSING, write_comment
from support.system import World
from support.transports import Reply

# Every write that names a ticket.
WRITES: dict[str, Any] = {
    "helpdesk.update": {"title": "New"},
    "helpdesk.close": None,
    "helpdesk.delete": None,
    "helpdesk.restore": None,
    "helpdesk.comment": {"body": "Hello"},
    "helpdesk.edit": {"body": "Hello"},
}


def told(reply: Reply) -> Any:
    """All that a failure tells its caller; what differs between any two calls is left out."""
    varying = {"x-request-id", "date", "x-envoy-upstream-service-time", "ratelimit"}
    return reply.status, reply.body, {name: text for name, text in reply.headers.items() if name not in varying}


@pytest.mark.parametrize(
    "condition", [{}, {"if-match": '"1"'}, {"if-match": '"x"'}, {"idempotency-key": "key"}], ids=str
)
@pytest.mark.parametrize("operation", WRITES)
async def test_a_ticket_of_others_is_as_one_that_does_not_exist(
    transport: Transport, world: World, operation: str, condition: dict[str, str]
) -> None:
    tenant_id = new_tenant_id()
    other = world.person("read", "write", tenant_id=tenant_id, sub="per_other")
    made = await create(transport, other)
    comment = await write_comment(transport, other, made)
    writer = world.person("write", tenant_id=tenant_id)

    async def attempt(id_or_number: str, comment_id: str) -> Any:
        path = {"id": id_or_number} | ({"comment_id": comment_id} if operation == "helpdesk.edit" else {})
        reply = await transport.call(operation, writer, path=path, body=WRITES[operation], headers=condition)
        reply.failed("not_found", "Ticket not found")
        return told(reply)

    nothing = await attempt(MISSING, comment["id"])
    for id_or_number in (made["id"], made["number"], "TKT-0999", "nonsense"):
        for comment_id in (comment["id"], f"cmt_{'0' * 26}"):
            assert await attempt(id_or_number, comment_id) == nothing


async def test_who_reads_it_is_told_that_a_ticket_is_not_theirs(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    made = await create(transport, world.person("write", tenant_id=tenant_id, sub="per_other"))
    reader, stranger = (world.person(scope, "write", tenant_id=tenant_id) for scope in ("read_all", "read"))
    (await update(transport, reader, made, title="x")).failed("forbidden")
    (await update(transport, stranger, made, title="x")).failed("not_found", "Ticket not found")


async def test_a_writer_changes_their_own_ticket_without_reading(transport: Transport, world: World) -> None:
    writer = world.person("write")
    made = await create(transport, writer)
    assert (await update(transport, writer, made, title="New")).succeeded()["title"] == "New"


async def test_a_token_of_one_application_does_not_change_what_the_tenant_shares(
    transport: Transport, world: World
) -> None:
    tenant_id = new_tenant_id()
    agent = world.person("agent", tenant_id=tenant_id)
    application = world.person("read", "write", "agent", tenant_id=tenant_id, app_id="app_1")
    policy = {"name": "Urgent", "priority": "urgent", "resolution_minutes": 60}
    made = (await transport.call("helpdesk.create_policy", agent, body=policy)).succeeded(201)
    calendar = (await transport.call("helpdesk.calendar", agent)).succeeded()
    path = {"id": made["id"]}
    for operation, where, body in (
        ("helpdesk.create_policy", None, {**policy, "priority": "low"}),
        ("helpdesk.update_policy", path, {"resolution_minutes": 1}),
        ("helpdesk.update_policy", {"id": "sla_none"}, {"resolution_minutes": 1}),
        ("helpdesk.update_calendar", None, {"time_zone": "Europe/Berlin"}),
    ):
        (await transport.call(operation, application, path=where, body=body)).failed(
            "forbidden", "A token of one application cannot change what the whole tenant shares"
        )
    # It reads them: its tickets go by them.
    assert (await transport.call("helpdesk.policies", application)).succeeded()["sla_policies"] == [made]
    assert (await transport.call("helpdesk.policy", application, path=path)).succeeded() == made
    assert (await transport.call("helpdesk.calendar", application)).succeeded() == calendar
