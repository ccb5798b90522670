"""contracts/helpdesk.md at both transports: a ticket's members, their bounds, and changes of them."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from support.helpdesk import TICKET, URL, Transport, create, get, new_tenant_id, update
from support.helpdesk_calls import events as history
from support.methods import METHODS
from support.system import Credential, World
from support.transports import Grpc, Rest, rest_reply
from tickets.helpdesk.v1 import ticket_service_pb2

# `everything` adds a policy of the tenant.
EVERYTHING = {
    "title": "Zoë's VPN 🎫",
    "description": "# Since nine\n\nNothing.",
    "type": "problem",
    "status": "pending",
    "priority": "urgent",
    "category": "Network",
    "submitted_by_id": "per_01JABCDEFGHJKMNPQRSTVWXYZ0",
    "assigned_to_id": "2b1f0e9c-6d52-4a55-9d3a-2f7c1a3c9b11",
    "team_id": "grp_1",
    "due_at": "2030-02-20T14:30:00.25Z",
    "related_asset_id": "ast_1",
    "related_vulnerability_id": "vul_1",
    "tags": ["vpn", "日本", ""],
    "source": "portal",
    "source_type": "frontend",
}
VALUES = {
    "id": re.compile(r"tkt_[0-9A-HJKMNP-TV-Z]{26}"),
    "number": re.compile(r"TKT-\d{4,}"),
    "created_at": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"),
}
DEFAULTS = {
    "source": "edm",
    "source_type": "api",
    "is_deleted": False,
    "deleted_at": None,
    "deleted_by": None,
    "schema_version": 1,
    "description": None,
    "type": "incident",
    "status": "open",
    "priority": "medium",
    "category": None,
    "assigned_to_id": None,
    "team_id": None,
    "sla_policy": None,
    "first_response_at": None,
    "resolved_at": None,
    "due_at": None,
    "related_asset_id": None,
    "related_vulnerability_id": None,
    "tags": [],
}
STAMPS = {"id", "tenant_id", "created_at", "updated_at", "created_by", "updated_by", "number", "submitted_by_id"}
CLEARABLE = [
    "description",
    "category",
    "assigned_to_id",
    "team_id",
    "sla_policy",
    "due_at",
    "related_asset_id",
    "related_vulnerability_id",
]
FIXED = ["title", "type", "status", "priority", "source_type"]
# Opaque ids; the SLA policy's is checked.
IDS = ["assigned_to_id", "team_id", "related_asset_id", "related_vulnerability_id"]
# Changes of these replace a due instant that was given.
MATCHED = ["priority", "type", "sla_policy"]
VOCABULARIES = {
    "type": ["incident", "service_request", "change", "problem"],
    "status": ["open", "in_progress", "pending", "resolved", "closed"],
    "priority": ["low", "medium", "high", "urgent"],
    "source_type": ["frontend", "backend", "server", "system", "api"],
}
# Of members that a new ticket and a change share.
BROKEN = [
    ({"title": "x" * 256}, ["title"]),
    ({"title": "a\0b"}, ["title"]),
    ({"description": "x" * 65_537}, ["description"]),
    ({"description": "\0"}, ["description"]),
    ({"category": "x" * 256}, ["category"]),
    ({"category": "\0"}, ["category"]),
    *(({name: value}, [name]) for name in [*IDS, "sla_policy"] for value in ("", "x" * 65, "a\0b")),
    *(({name: word}, [name]) for name in VOCABULARIES for word in ("other", "INCIDENTS")),
    ({"tags": ["a\0b"]}, ["tags"]),
    ({"tags": {"a\0b": 1}}, ["tags"]),
    ({"tags": {"a": [{"b": "\0"}]}}, ["tags"]),
    ({"tags": ["x" * 16_381]}, ["tags"]),
    ({"title": "x" * 256, "type": "x", "tags": "\0"}, ["title", "type", "tags"]),
]
EDGES = {
    "title": "é" * 255,
    "description": "x" * 65_536,
    "category": "x" * 255,
    **dict.fromkeys(IDS, "x" * 64),
    "tags": ["x" * (16_384 - len('[""]'))],
}
RESOLUTION_MINUTES = 60


async def everything(transport: Transport, world: World, tenant_id: str) -> dict[str, Any]:
    """Every member of a new ticket, with a policy that its priority and type would not match."""
    agent = world.person("agent", tenant_id=tenant_id)
    return {**EVERYTHING, "sla_policy": await policy(transport, agent, "low", RESOLUTION_MINUTES)}


async def policy(transport: Transport, agent: Credential, priority: str, minutes: int) -> str:
    body = {"name": "x", "priority": priority, "resolution_minutes": minutes}
    made = (await transport.call("helpdesk.create_policy", agent, body=body)).succeeded(201)
    return str(made["id"])


def minutes_after(instant: str, minutes: int) -> str:
    later = datetime.fromisoformat(instant) + timedelta(minutes=minutes)
    return later.isoformat().replace("+00:00", "Z")


# The ticket


async def test_a_ticket_is_created_with_the_documented_defaults(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("write", "agent", tenant_id=tenant_id, sub="per_7")
    ticket = await create(transport, person)
    # A person's ticket does not have this key in JSON; a typed message has it unset.
    assert ticket.pop("app_id", "absent") == ("absent" if transport.name == "rest" else None)
    assert set(ticket) == {*DEFAULTS, *STAMPS, "title"}
    assert {name: ticket[name] for name in DEFAULTS} == DEFAULTS
    assert (type(ticket["is_deleted"]), type(ticket["schema_version"])) == (bool, int)
    assert (ticket["title"], ticket["tenant_id"], ticket["number"]) == ("VPN is down", tenant_id, "TKT-0001")
    assert ticket["created_by"] == ticket["updated_by"] == ticket["submitted_by_id"] == "per_7"
    assert ticket["updated_at"] == ticket["created_at"]
    assert all(form.fullmatch(ticket[name]) for name, form in VALUES.items())


async def test_every_member_is_stored_and_read_back(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", "agent", tenant_id=tenant_id)
    given = await everything(transport, world, tenant_id)
    made = await create(transport, person, **given)
    assert {name: made[name] for name in given} == {**given, "due_at": "2030-02-20T14:30:00.250000Z"}
    assert await get(transport, person, made) == made


async def test_a_ticket_is_the_same_at_both_transports(rest: Rest, rpc: Grpc, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", "agent", tenant_id=tenant_id, app_id="app_1")
    made = await create(rest, person, **await everything(rest, world, tenant_id))
    assert await get(rpc, person, made) == made


async def test_ids_sort_by_creation(transport: Transport, world: World) -> None:
    person = world.person("write", "agent")
    ids = [(await create(transport, person))["id"] for _ in range(20)]
    assert ids == sorted(ids)


# Input


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        *BROKEN,
        ({"title": ""}, ["title"]),
        ({"source": ""}, ["source"]),
        ({"source": "x" * 65}, ["source"]),
        ({"source": "\0"}, ["source"]),
        ({"submitted_by_id": ""}, ["submitted_by_id"]),
        ({"submitted_by_id": "x" * 65}, ["submitted_by_id"]),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_broken_bounds_of_a_new_ticket_are_reported_by_path(
    transport: Transport, world: World, changed: Any, paths: list[str]
) -> None:
    person = world.person("read", "write", "agent")
    reply = await transport.call("helpdesk.create", person, body={**TICKET, **changed})
    reply.failed("validation_error", paths=paths)
    assert (await transport.call("helpdesk.list", person)).succeeded()["tickets"] == []


@pytest.mark.parametrize(("changed", "paths"), BROKEN, ids=lambda value: str(value)[:60])
async def test_broken_bounds_of_a_change_are_reported_by_path(
    transport: Transport, world: World, changed: Any, paths: list[str]
) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person)
    (await update(transport, person, made, **changed)).failed("validation_error", paths=paths)
    assert await get(transport, person, made) == made


async def test_a_title_is_required(transport: Transport, world: World) -> None:
    reply = await transport.call("helpdesk.create", world.person("write", "agent"), body={"description": "x"})
    reply.failed("validation_error", paths=["title"])


async def test_bounds_hold_at_their_edges(transport: Transport, world: World) -> None:
    person = world.person("write", "agent")
    made = await create(transport, person, **EDGES, source="x" * 64, submitted_by_id="x" * 64)
    assert {name: made[name] for name in EDGES} == EDGES
    assert (made["source"], made["submitted_by_id"]) == ("x" * 64, "x" * 64)
    own = await create(transport, person)
    changed = (await update(transport, person, own, **EDGES)).succeeded()
    assert {name: changed[name] for name in EDGES} == EDGES
    least = {"title": "x", "category": "", "description": "", **dict.fromkeys(IDS, "x"), "tags": {}}
    changed = (await update(transport, person, own, **least)).succeeded()
    assert {name: changed[name] for name in least} == least


@pytest.mark.parametrize(("member", "word"), [(name, word) for name, words in VOCABULARIES.items() for word in words])
async def test_every_value_of_a_vocabulary_is_stored(
    transport: Transport, world: World, member: str, word: str
) -> None:
    person = world.person("write", "agent")
    assert (await create(transport, person, **{member: word}))[member] == word
    changed = await update(transport, person, await create(transport, person), **{member: word})
    assert changed.succeeded()[member] == word


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2030-02-20T14:30:00Z", "2030-02-20T14:30:00Z"),
        ("2030-02-20T14:30:00+02:00", "2030-02-20T12:30:00Z"),
        ("2030-02-20T23:30:00.000001-05:30", "2030-02-21T05:00:00.000001Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
async def test_times_come_with_any_offset_and_leave_in_utc(
    transport: Transport, world: World, given: str, kept: str
) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person, due_at=given)
    assert made["due_at"] == kept
    assert await get(transport, person, made) == made
    assert (await update(transport, person, await create(transport, person), due_at=given)).succeeded()[
        "due_at"
    ] == kept


@pytest.mark.parametrize("seconds", [-62_135_596_801, 253_402_300_800, 2**62])
async def test_a_timestamp_out_of_range_is_rejected(rpc: Grpc, world: World, seconds: int) -> None:
    request = ticket_service_pb2.CreateTicketRequest(title="x")
    request.due_at.seconds = seconds
    reply = await rpc.send(METHODS["helpdesk.create"], request, world.person("write", "agent"))
    reply.failed("validation_error", paths=["due_at"])


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        (b"{}", ["title"]),
        (b"null", ["body"]),
        (b"", ["body"]),
        (b"[]", ["body"]),
        (b'"title"', ["body"]),
        (b'{"title": null}', ["title"]),
        (b'{"title": 12}', ["title"]),
        (b'{"title": ["x"]}', ["title"]),
        (b'{"title": "x", "description": 1}', ["description"]),
        (b'{"title": "x", "type": 1}', ["type"]),
        (b'{"title": "x", "priority": true}', ["priority"]),
        (b'{"title": "x", "source_type": {}}', ["source_type"]),
        (b'{"title": "x", "team_id": 17}', ["team_id"]),
        (b'{"title": "x", "submitted_by_id": 17}', ["submitted_by_id"]),
        (b'{"title": "x", "due_at": 1893456000}', ["due_at"]),
        (b'{"title": "x", "due_at": "1893456000"}', ["due_at"]),
        (b'{"title": "x", "due_at": "tomorrow"}', ["due_at"]),
        (b'{"title": "x", "due_at": "2030-02-30T00:00:00Z"}', ["due_at"]),
        (b'{"title": "x", "due_at": "0001-01-01T00:00:00+01:00"}', ["due_at"]),
        (b'{"title": "x",}', ["body"]),
        (b'{"title": "x"} {}', ["body"]),
        (b"{'title': 'x'}", ["body"]),
        (b'{"title": "x", "tags": {"n": NaN}}', ["body"]),
        (b'{"title": "x", "tags": {"n": 01}}', ["body"]),
        (b'{"title": "\\ud800"}', ["body"]),
        (b'{"title": "\xff"}', ["body"]),
    ],
)
async def test_json_is_strict_and_types_are_not_guessed(
    rest: Rest, world: World, text: bytes, paths: list[str]
) -> None:
    person = world.person("read", "write", "agent")
    response = await rest.client.post(URL, content=text, headers=person)
    rest_reply("helpdesk", response).failed("validation_error", paths=paths)
    assert (await rest.call("helpdesk.list", person)).succeeded()["tickets"] == []


async def test_null_in_a_new_ticket_means_absent(rest: Rest, world: World) -> None:
    given = {**dict.fromkeys(CLEARABLE), "submitted_by_id": None}
    made = await create(rest, world.person("write", "agent", sub="per_7"), **given)
    assert {name: made[name] for name in CLEARABLE} == dict.fromkeys(CLEARABLE)
    assert made["submitted_by_id"] == "per_7"


# Changes


@pytest.mark.parametrize("member", [*CLEARABLE, *FIXED, "tags"])
async def test_a_patch_changes_only_the_members_given(transport: Transport, world: World, member: str) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "write", "agent", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_2")
    made = await create(transport, person, **await everything(transport, world, tenant_id))
    value = {**EDGES, "type": "change", "status": "open", "priority": "low", "source_type": "server"}.get(member)
    changes = {member: value or "2031-01-01T00:00:00Z"}
    minutes = RESOLUTION_MINUTES
    if member == "sla_policy":
        minutes *= 2
        changes = {member: await policy(transport, agent, "high", minutes)}
    expected = {**made, **changes}
    if member in MATCHED:
        expected["due_at"] = minutes_after(made["created_at"], minutes)
    changed = (await update(transport, agent, made, **changes)).succeeded()
    assert changed["updated_at"] > made["updated_at"]
    assert changed == {**expected, "updated_at": changed["updated_at"], "updated_by": "per_2"}
    assert await get(transport, person, made) == changed


async def test_every_patch_moves_updated_at_even_one_that_changes_nothing(transport: Transport, world: World) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person)
    for changes in ({}, {"title": made["title"]}, {"category": None}):
        changed = (await update(transport, person, made, **changes)).succeeded()
        assert changed["updated_at"] > made["updated_at"]
        assert changed == {**made, "updated_at": changed["updated_at"]}
        made = changed


@pytest.mark.parametrize("member", CLEARABLE)
async def test_null_clears_nullable_members(transport: Transport, world: World, member: str) -> None:
    tenant_id = new_tenant_id()
    person = world.person("read", "agent", tenant_id=tenant_id)
    made = await create(transport, person, **await everything(transport, world, tenant_id))
    cleared = (await update(transport, person, made, **{member: None})).succeeded()
    expected = {**made, member: None, "updated_at": cleared["updated_at"]}
    # Nothing is due without a policy.
    assert cleared == (expected | {"due_at": None} if member == "sla_policy" else expected)
    assert await get(transport, person, made) == cleared


@pytest.mark.parametrize("member", FIXED)
async def test_clearing_a_required_member_is_rejected(transport: Transport, world: World, member: str) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person)
    (await update(transport, person, made, **{member: None})).failed("validation_error", paths=[member])
    (await update(transport, person, made, **{member: None, "category": "x"})).failed(
        "validation_error", paths=[member]
    )
    assert await get(transport, person, made) == made


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"x"', b"{"])
async def test_a_patch_is_an_object(rest: Rest, world: World, text: bytes) -> None:
    person = world.person("read", "write", "agent")
    made = await create(rest, person)
    response = await rest.client.patch(f"{URL}/{made['id']}", content=text, headers=person)
    rest_reply("helpdesk", response).failed("validation_error", paths=["body"])
    assert await get(rest, person, made) == made


async def test_a_mask_selects_the_members_to_change(rpc: Grpc, world: World) -> None:
    person = world.person("read", "write", "agent")
    made = await create(rpc, person, category="Network", team_id="grp_1")
    request = ticket_service_pb2.UpdateTicketRequest(id=made["id"], title="New", tags_json='["a"]', team_id="grp_2")
    request.update_mask.paths.extend(["title", "category", "tags_json"])
    changed = (await rpc.send(METHODS["helpdesk.update"], request, person)).succeeded()
    expected = {**made, "title": "New", "category": None, "tags": ["a"]}
    assert changed == {**expected, "updated_at": changed["updated_at"]}


@pytest.mark.parametrize("name", ["id", "number", "created_by", "tags", "etag", "update_mask", "title.x", "*", ""])
async def test_a_mask_names_only_what_can_be_changed(rpc: Grpc, world: World, name: str) -> None:
    person = world.person("read", "write", "agent")
    made = await create(rpc, person)
    request = ticket_service_pb2.UpdateTicketRequest(id=made["id"], title="New")
    request.update_mask.paths.extend(["title", name])
    (await rpc.send(METHODS["helpdesk.update"], request, person)).failed("validation_error", paths=["update_mask"])
    assert await get(rpc, person, made) == made


async def test_instants_in_histories_are_as_in_answers(transport: Transport, world: World) -> None:
    person = world.person("read", "write", "agent")
    made = await create(transport, person, due_at="2030-01-01T00:00:00Z")
    for given in ("2031-01-01T01:00:00+01:00", "2031-01-01T00:00:00.25Z", "0001-02-03T04:05:06.000007Z", None):
        changed = (await update(transport, person, made, due_at=given)).succeeded()
        seen = (await history(transport, person, made))[-1]["changes"]["due_at"]
        assert seen == {"from": made["due_at"], "to": changed["due_at"]}
        made = changed
