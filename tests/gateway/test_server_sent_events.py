"""Watches as server-sent events: the same objects as the lines have, ids that resume, and ends that say why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from support.sse import listening, next_change
from support.system import World
from support.transports import Rest

from service.admin import operations as admin


@dataclass(frozen=True)
class Watched:
    """The watch of one API, who watches, and how a ticket is made in it."""

    api: str
    url: str
    who: Mapping[str, str]
    create: str
    path: Mapping[str, str]
    body: Mapping[str, Any]

    async def created(self, rest: Rest) -> Any:
        ticket = (await rest.call(self.create, self.who, path=self.path, body=self.body)).succeeded(201)
        return ticket.get("ticket", ticket)["id"]


@pytest.fixture(params=["handoff", "helpdesk", "itsm"])
async def watched(request: pytest.FixtureRequest, world: World) -> Watched:
    if request.param == "itsm":
        who, body = (await world.program()).credential, {"subject": "VPN", "description": "Down"}
        return Watched("itsm", "/api/v1/events", who, "itsm.create", {}, body)
    if request.param == "helpdesk":
        person = world.person("read", "write", "agent")
        return Watched("helpdesk", "/api/v1/helpdesk/events", person, "helpdesk.create", {}, {"title": "a\nb"})
    project_id = await world.project()
    who = await world.member(project_id, "owner")
    new = {"title": "a", "description": "b\r\n\r\nc", "request_type": "bug", "roles": ["backend"]}
    path = {"project_id": project_id}
    return Watched("handoff", f"/api/projects/{project_id}/events", who, "handoff.create", path, new)


async def test_events_carry_what_lines_carry_and_resume_after_their_id(rest: Rest, watched: Watched) -> None:
    async with listening(rest.client, watched.url, watched.who) as events:
        first = await anext(events)
        # It comes at once, and says where the watch begins and when to come back.
        assert (first.name, first.data, first.retry) == ("heartbeat", {"event": None, "cursor": first.last_id}, 2000)
        made = [await watched.created(rest) for _ in range(3)]
        seen = [await next_change(events) for _ in made]
    assert [event.data["event"]["ticket_id"] for event in seen] == made
    assert [event.name for event in seen] == ["message"] * 3
    assert [event.last_id for event in seen] == [event.data["cursor"] for event in seen]
    # The same as lines.
    async with rest.client.stream(
        "GET", watched.url, params={"cursor": first.last_id}, headers=dict(watched.who)
    ) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        lines = response.aiter_lines()
        assert [httpx2.Response(200, text=await anext(lines)).json() for _ in made] == [event.data for event in seen]
    # An id is later than the cursor that stays in the address.
    async with listening(
        rest.client, watched.url, watched.who, last_id=seen[0].last_id, cursor=first.last_id
    ) as events:
        assert [await next_change(events) for _ in made[1:]] == seen[1:]
    # An id that is empty is none, as an EventSource has it before its first event.
    async with listening(rest.client, watched.url, watched.who, last_id="", cursor=seen[1].last_id) as events:
        assert (await next_change(events)).data == seen[2].data


ACCEPT = [
    ("text/event-stream", "text/event-stream"),
    ("Text/Event-Stream; charset=utf-8, */*;q=0.1", "text/event-stream"),
    ("application/json, text/event-stream", "text/event-stream"),
    ("text/event-stream, application/x-ndjson", "application/x-ndjson"),
    ("*/*", "application/x-ndjson"),
    ("text/event-streams", "application/x-ndjson"),
    ("text/event-stream;q=0, */*", "application/x-ndjson"),
    ("text/event-stream; charset=utf-8 ; Q=0.000", "application/x-ndjson"),
    ("text/event-stream;q=0.001", "text/event-stream"),
    ("text/event-stream, application/x-ndjson;q=0", "text/event-stream"),
    ("text/html", "application/x-ndjson"),
    ("", "application/x-ndjson"),
]


@pytest.mark.parametrize(("accept", "content_type"), ACCEPT)
async def test_lines_stay_the_default(client: httpx2.AsyncClient, world: World, accept: str, content_type: str) -> None:
    headers = {**world.person("read"), "accept": accept}
    head = await client.head("/api/v1/helpdesk/events", headers=headers)
    assert (head.status_code, head.headers["content-type"], head.content) == (200, content_type, b"")
    assert (head.headers["cache-control"], head.headers["x-accel-buffering"]) == ("no-store", "no")


@pytest.mark.parametrize("last_id", [b"x", b"%00", b"a" * 2000, b"\xff\xfe"])
async def test_an_id_that_is_no_cursor_is_refused_as_a_document(
    client: httpx2.AsyncClient, world: World, last_id: bytes
) -> None:
    plain = {"accept": "text/event-stream", **world.person("read")}
    headers = [*((name.encode(), value.encode()) for name, value in plain.items()), (b"last-event-id", last_id)]
    response = await client.get("/api/v1/helpdesk/events", headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
    assert [issue["path"] for issue in response.json()["issues"]] == ["cursor"]


async def test_a_watch_that_is_refused_is_a_document(client: httpx2.AsyncClient) -> None:
    for path in ("/api/v1/events", "/api/v1/helpdesk/events"):
        response = await client.get(path, headers={"accept": "text/event-stream"})
        assert (response.status_code, response.headers["content-type"]) == (401, "application/json")


async def test_a_revoked_key_ends_its_events_with_the_error(rest: Rest, world: World) -> None:
    program = await world.program()
    async with listening(rest.client, "/api/v1/events", program.credential) as events:
        first = await anext(events)
        await world.operate(admin.revoke_api_key, api_key_id=program.key_id)
        last = await next_change(events)
        assert (last.name, last.data, last.last_id) == ("error", {"detail": "Invalid API key"}, first.last_id)
        assert [event async for event in events] == []
    again = await rest.client.get("/api/v1/events", headers={"accept": "text/event-stream", **program.credential})
    assert again.status_code == 401


async def test_a_removed_member_ends_as_lines_end(rest: Rest, world: World) -> None:
    project_id = await world.project()
    user_id = "5b0f3cf0-7a43-4d57-9b43-b3a4a1a3f1d0"
    who, author = await world.member(project_id, "viewer", user_id), await world.member(project_id)
    async with listening(rest.client, f"/api/projects/{project_id}/events", who) as events:
        await anext(events)
        await world.operate(admin.remove_member, project_id=project_id, user_id=user_id)
        body = {"title": "a", "description": "b", "request_type": "bug", "roles": ["backend"]}
        (await rest.call("handoff.create", author, path={"project_id": project_id}, body=body)).succeeded(201)
        last = await next_change(events)
    assert (last.name, last.data["code"]) == ("error", "forbidden")
