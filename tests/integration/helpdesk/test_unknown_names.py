"""contracts/README.md: this API refuses members and query parameters that it does not know, naming them."""

from typing import Any

import pytest
from support.helpdesk import URL, create, new_tenant_id
from support.helpdesk_calls import ALL, write_comment
from support.methods import METHODS
from support.system import World
from support.transports import Rest

POLICY = {"name": "p", "priority": "urgent", "resolution_minutes": 60}
# The body of each write, and what was read of the same thing has beside it: stamps, which are ignored.
TICKET_STAMPS = (
    *("id", "tenant_id", "created_at", "updated_at", "created_by", "updated_by", "is_deleted", "deleted_at"),
    *("deleted_by", "schema_version", "number", "first_response_at", "resolved_at"),
)
COMMENT_STAMPS = ("id", "ticket_id", "author_id", "created_at", "updated_at")
POLICY_STAMPS = ("id", "tenant_id", "created_at", "created_by", "updated_at", "updated_by")
WRITES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "helpdesk.create": ({"title": "x"}, (*TICKET_STAMPS, "app_id")),
    "helpdesk.update": ({"title": "x"}, (*TICKET_STAMPS, "app_id")),
    "helpdesk.close": ({"resolution_note": "x"}, (*TICKET_STAMPS, "app_id")),
    "helpdesk.restore": ({}, (*TICKET_STAMPS, "app_id")),
    "helpdesk.comment": ({"body": "x"}, COMMENT_STAMPS),
    "helpdesk.edit": ({"body": "x"}, COMMENT_STAMPS),
    "helpdesk.create_policy": (POLICY, POLICY_STAMPS),
    "helpdesk.update_policy": ({"name": "q"}, POLICY_STAMPS),
    "helpdesk.update_calendar": ({"time_zone": "UTC"}, ("tenant_id", "updated_at", "updated_by")),
}
EVERY = [name for name in METHODS if name.startswith("helpdesk.")]


class Stage:
    """A ticket with a comment, and a policy, for calls of every operation."""

    def __init__(self, rest: Rest, world: World) -> None:
        self._rest, self.person = rest, world.person(*ALL)

    async def set(self) -> "Stage":
        self.ticket = await create(self._rest, self.person)
        self.comment = await write_comment(self._rest, self.person, self.ticket)
        low = {**POLICY, "priority": "low"}
        self.policy = (await self._rest.call("helpdesk.create_policy", self.person, body=low)).succeeded(201)
        return self

    async def call(self, operation: str, body: Any = None, **query: Any) -> Any:
        of_policy = "{id}" in METHODS[operation].path and "sla-policies" in METHODS[operation].path
        path = {"id": (self.policy if of_policy else self.ticket)["id"], "comment_id": self.comment["id"]}
        return await self._rest.call(operation, self.person, path=path, query=query, body=body)


@pytest.fixture
async def stage(rest: Rest, world: World) -> Stage:
    return await Stage(rest, world).set()


async def test_unknown_members_are_refused_by_their_names(stage: Stage) -> None:
    for operation, (body, stamps) in WRITES.items():
        for unknown in ("unheard_of", "Title", "status " if body else "status"):
            reply = await stage.call(operation, {**body, unknown: {"a": None}})
            reply.failed("validation_error", paths=[unknown])
        reply = await stage.call(operation, {**body, "one": 1, "two": 2})
        reply.failed("validation_error", paths=["one", "two"])
        # What the service stamps is ignored, whatever it is.
        reply = await stage.call(operation, {**body, **{stamp: ["nonsense"] for stamp in stamps}})
        reply.succeeded(METHODS[operation].status)
    hours = [{"weekday": "monday", "start": "09:00", "end": "10:00", "end_": "x"}]
    (await stage.call("helpdesk.update_calendar", {"hours": hours})).failed("validation_error", paths=["hours.0.end_"])
    # An error does not repeat a name of any length.
    [issue] = (await stage.call("helpdesk.create", {"title": "x", "y" * 10_000: 1})).failed("validation_error")[
        "issues"
    ]
    assert issue["path"] == "y" * 100


async def test_what_was_read_may_be_sent_back(stage: Stage) -> None:
    read = {
        "helpdesk.update": stage.ticket,
        "helpdesk.edit": stage.comment,
        "helpdesk.update_policy": stage.policy,
        "helpdesk.update_calendar": (await stage.call("helpdesk.calendar")).succeeded(),
    }
    for operation, body in read.items():
        (await stage.call(operation, body)).succeeded()
    # A comment stays what it is.
    (await stage.call("helpdesk.edit", {**stage.comment, "internal": True})).failed(
        "validation_error", paths=["internal"]
    )


async def test_unknown_query_parameters_are_refused_by_their_names(stage: Stage) -> None:
    for operation in EVERY:
        body = WRITES[operation][0] if operation in WRITES else None
        # (`id` is in many paths, and a query of none.)
        for unknown in ("page", "Status", "id", "tenant_id", "status[]", "title"):
            (await stage.call(operation, body, **{unknown: "x"})).failed("validation_error", paths=[unknown])
        reply = await stage.call(operation, body, one="1", two="")
        reply.failed("validation_error", paths=["one", "two"])


async def test_unknown_parameters_of_a_watch_are_refused(rest: Rest, world: World) -> None:
    answer = await rest.client.get("/api/v1/helpdesk/events?since=x", headers=dict(world.person("read")))
    assert (answer.status_code, [issue["path"] for issue in answer.json()["issues"]]) == (400, ["since"])


async def test_a_parameter_without_a_value_or_with_another_spelling_is_unknown_too(rest: Rest, world: World) -> None:
    person = dict(world.person("read"))
    for query, name in (("page", "page"), ("p%61ge=1", "page"), ("?limit=1", "?limit")):
        answer = await rest.client.get(f"{URL}?{query}", headers=person)
        assert (query, answer.status_code) == (query, 400)
        assert (query, [issue["path"] for issue in answer.json()["issues"]]) == (query, [name])
    assert (await rest.client.get(f"{URL}?", headers=person)).status_code == 200
    assert (await rest.client.get(f"{URL}?l%69mit=1&", headers=person)).status_code == 200


async def test_the_other_apis_ignore_names_that_they_do_not_know(rest: Rest, world: World) -> None:
    program, who = await world.program(), await world.member(await world.project())
    body = {"subject": "x", "description": "x", "unheard_of": 1}
    (await rest.call("itsm.create", program.credential, body=body, query={"page": 1})).succeeded(201)
    (await rest.call("handoff.list", who, query={"page": 1})).succeeded()


MINUTES = {"first_response_mins": "first_response_minutes", "resolution_mins": "resolution_minutes"}


@pytest.mark.parametrize("alias", MINUTES)
async def test_minutes_of_a_policy_have_a_second_name(rest: Rest, world: World, alias: str) -> None:
    person, name = world.person("agent"), MINUTES[alias]
    body = {**POLICY, "resolution_minutes": 60, "first_response_minutes": 60}

    async def change(**given: Any) -> Any:
        return await rest.call("helpdesk.update_policy", person, path={"id": made["id"]}, body=given)

    made = (
        await rest.call("helpdesk.create_policy", person, body={**{n: body[n] for n in body if n != name}, alias: 17})
    ).succeeded(201)
    assert made[name] == 17
    assert alias not in made
    assert (await change(**{alias: 18})).succeeded()[name] == 18
    assert (await change(**{alias: 19, name: 19})).succeeded()[name] == 19
    [issue] = (await change(**{alias: 20, name: 21})).failed("validation_error")["issues"]
    assert issue == {"path": alias, "message": f"Input should be as {name}, which it means"}
    for value in (0, "5", 1.5):
        (await change(**{alias: value})).failed("validation_error", paths=[alias])


async def test_a_policy_has_the_usual_stamps(rest: Rest, world: World) -> None:
    tenant_id = new_tenant_id()
    one, other = (world.person("agent", tenant_id=tenant_id, sub=sub) for sub in ("per_1", "per_2"))
    made = (await rest.call("helpdesk.create_policy", one, body=POLICY)).succeeded(201)
    assert (made["tenant_id"], made["created_by"], made["updated_by"]) == (tenant_id, "per_1", "per_1")
    assert made["created_at"] == made["updated_at"]
    path = {"id": made["id"]}
    changed = (await rest.call("helpdesk.update_policy", other, path=path, body={"name": "q"})).succeeded()
    assert (changed["created_by"], changed["updated_by"]) == ("per_1", "per_2")
    assert changed["created_at"] == made["created_at"] < changed["updated_at"]
