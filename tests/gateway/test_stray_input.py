"""contracts/README.md: what a method does not take changes nothing, and what filters is never ignored."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx2
import pytest
from support.helpdesk import TICKET
from support.isolation import ALL
from support.system import World
from support.transports import Rest, rest_reply

# Each would be another list, another ticket, or no request at all, if the gateway took it for parameters.
BODIES = [
    b'{"status": "closed", "limit": 1}',
    b'{"id": "tkt_1", "ticket_id": "x", "foo": 1}',
    b"xx",
    b"[]",
    b"null",
    b" " * 300_000,
]


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("with_length", [True, False], ids=["with a length", "without a length"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_the_body_of_a_get_or_a_delete_is_left_out(
    rest: Rest, world: World, gateway_url: str, body: bytes, with_length: bool, http2: bool
) -> None:
    who = world.person(*ALL)
    made = [(await rest.call("helpdesk.create", who, body=TICKET)).succeeded(201) for _ in range(2)]
    one = f"/api/v1/helpdesk/tickets/{made[0]['id']}"
    async with httpx2.AsyncClient(base_url=gateway_url, http1=not http2, http2=http2) as client:

        async def send(verb: str, path: str) -> Any:
            content = body if with_length else _in_pieces(body)
            headers = {**dict(who), "content-type": "application/json"}
            return rest_reply("helpdesk", await client.request(verb, path, content=content, headers=headers))

        page = (await send("GET", "/api/v1/helpdesk/tickets")).succeeded()
        assert {ticket["id"] for ticket in page["tickets"]} == {ticket["id"] for ticket in made}
        assert (await send("GET", one)).succeeded() == made[0]
        assert (await send("GET", f"{one}/events")).succeeded()["events"]
        assert (await send("DELETE", one)).succeeded()["id"] == made[0]["id"]


# Of each API the path of a list, and parameters that an empty text is no value of.
FILTERS = [
    ("itsm", "/api/v1/tickets", name) for name in ("status", "priority", "limit", "offset", "start_date", "q")
] + [
    ("helpdesk", "/api/v1/helpdesk/tickets", name)
    for name in ("status", "overdue", "include_deleted", "created_after", "sort", "limit", "cursor", "q")
]


@pytest.mark.parametrize(("api", "path", "name"), FILTERS)
@pytest.mark.parametrize(("query", "same"), [("{0}", "{0}="), ("q=a&{0}", "q=a&{0}=")])
async def test_a_parameter_without_a_value_is_as_one_whose_value_is_empty(
    rest: Rest, world: World, api: str, path: str, name: str, query: str, same: str
) -> None:
    who = world.person(*ALL) if api == "helpdesk" else (await world.program()).credential

    async def ask(parameters: str) -> Any:
        return rest_reply(api, await rest.client.get(f"{path}?{parameters}", headers=dict(who)))

    seen, expected = await ask(query.format(name)), await ask(same.format(name))
    assert (seen.status, seen.body) == (expected.status, expected.body)
    assert seen.status in (400, 422)


@pytest.mark.parametrize(
    "query", ["metadata=x", "metadata", "metadata={}", "metadata[floor]=3", "q=a&metadata%5Bx%5D=3"]
)
async def test_metadata_that_is_no_member_is_not_ignored(rest: Rest, world: World, query: str) -> None:
    """Other conventions for objects in a query would give the whole list."""
    who = (await world.program()).credential
    found = rest_reply("itsm", await rest.client.get(f"/api/v1/tickets?{query}", headers=dict(who)))
    assert found.status == 422
    [detail] = found.body["detail"]
    assert (detail["loc"], detail["msg"]) == (
        ["query", "metadata"],
        "Input should be a parameter for each member: metadata.member",
    )
    assert (await rest.client.get("/api/v1/tickets?metadata.a%5Bx%5D=3", headers=dict(who))).status_code == 200


@pytest.mark.parametrize("body", [b"{{", b"[1", b"\xff", b'"x"', b"[]", b"1"])
async def test_a_body_that_says_nothing_is_an_object_or_none(rest: Rest, world: World, body: bytes) -> None:
    who = dict((await world.program(scopes=("webhooks:manage",))).credential)
    new = {"url": "https://127.0.0.1:9/hook", "events": ["ticket.created"]}
    path = f"/api/v1/webhooks/{(await rest.client.post('/api/v1/webhooks', json=new, headers=who)).json()['id']}"
    rotate = partial(rest.client.post, f"{path}/rotate-secret", headers={**who, "content-type": "application/json"})
    assert (await rotate(content=body)).status_code == 422
    replay = await rest.client.post(f"{path}/deliveries/dlv_1/replay", content=body, headers=who)
    assert replay.status_code == 422
    for nothing in (b"", b"{}", b'{"unknown": 1}'):
        assert (await rotate(content=nothing)).status_code == 200


async def test_a_handoff_filter_without_a_value_is_not_ignored(rest: Rest, world: World) -> None:
    project_id = await world.project()
    who = await world.member(project_id, "triager")
    for name in ("stage", "priority", "limit", "cursor"):
        for path in (f"/api/projects/{project_id}/tickets", "/api/tickets"):
            reply = rest_reply("handoff", await rest.client.get(f"{path}?{name}", headers=dict(who)))
            assert (path, name, reply.status) == (path, name, 400)
