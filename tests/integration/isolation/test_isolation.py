"""What belongs to somebody else answers as what does not exist, to the byte, and nothing is written.

Every method of every service has its cases in support/isolation.py: one without them fails here.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import grpc
import pytest
from support import watches as watching
from support.handoff_watch import Watch
from support.isolation import (
    ALL,
    HANDOFF,
    HELPDESK,
    ITSM,
    Ask,
    Names,
    absent,
    handoff_things,
    helpdesk_things,
    itsm_things,
)
from support.methods import METHODS, Method
from support.operators import SERVICE
from support.system import Credential, World
from support.transports import Grpc, Reply, Rest

from service.directory import METADATA
from service.server import DESCRIPTORS

Transport = Rest | Grpc
APIS = {"itsm": ITSM, "helpdesk": HELPDESK, "handoff": HANDOFF}
# Merged, purged and tried again in the background, whatever the callers do. (None of the parties has a provider.)
MOVING = {
    "itsm_totals",
    "itsm_total_changes",
    "itsm_totals_floor",
    "itsm_day_totals",
    "itsm_day_recounts",
    "itsm_keys",
    "helpdesk_keys",
    "helpdesk_sla_keys",
    "handoff_keys",
    "helpdesk_reclocks",
    "provider_deliveries",
}


def test_every_method_of_every_service_has_its_cases() -> None:
    served: dict[str, set[str]] = {}
    for service in DESCRIPTORS:
        if service.full_name.startswith("tickets.") and service.name != "TicketRest":
            served.setdefault(service.full_name.split(".")[1], set()).update(method.name for method in service.methods)
    assert served.pop("admin")  # all of it is for operators: the last test
    assert served == {api: set(methods) for api, methods in APIS.items()}
    for methods in APIS.values():
        for name, asks in methods.items():
            assert {METHODS[ask.operation].name for ask in asks or ()} <= {name}


class Party:
    """Somebody with things of their own."""

    def __init__(self, credential: Credential, things: Names) -> None:
        self.credential = credential
        self.things = things


async def itsm_parties(world: World, rpc: Grpc) -> tuple[Party, Sequence[Party]]:
    scopes = ("tickets:read", "tickets:write", "webhooks:manage")
    owner = await world.program(scopes=scopes)
    strangers = [
        await world.program(scopes=scopes),
        await world.program(scopes=scopes, account_id=owner.account_id, test=True),
    ]
    first, *others = [Party(one.credential, await itsm_things(world, rpc, one)) for one in (owner, *strangers)]
    return first, others


async def helpdesk_parties(world: World, rpc: Grpc) -> tuple[Party, Sequence[Party]]:
    tenant_id = f"ten_{uuid4().hex}"
    owner = world.person(*ALL, tenant_id=tenant_id)
    strangers = [
        (world.person(*ALL), True),
        (world.person(*ALL, tenant_id=tenant_id, app_id="app_2"), False),
        (world.person("read", "write", tenant_id=tenant_id, app_id="app_3"), False),
        # Another person of the same tenant, who sees their own tickets.
        (world.person("read", "write", tenant_id=tenant_id, sub="per_2"), False),
    ]
    things = await helpdesk_things(rpc, owner, is_tenants=True)
    return Party(owner, things), [
        Party(one, await helpdesk_things(rpc, one, is_tenants=is_tenants)) for one, is_tenants in strangers
    ]


async def handoff_parties(world: World, rpc: Grpc) -> tuple[Party, Sequence[Party]]:
    parties = []
    for _ in range(2):
        project_id, user_id = await world.project(), str(uuid4())
        who = await world.member(project_id, "owner", user_id)
        parties.append(Party(who, await handoff_things(rpc, who, project_id, user_id)))
    return parties[0], parties[1:]


PARTIES = {"itsm": itsm_parties, "helpdesk": helpdesk_parties, "handoff": handoff_parties}


def everything(world: World) -> Mapping[str, Any]:
    """A digest of each table."""
    return {name: world.rows(_digest(name)) for name in METADATA.tables if name not in MOVING}


def _digest(table: str) -> str:
    # The clocks of other tests' tickets run on, and their webhooks are tried again: these have none, and are off.
    of_one_off = "webhook_id IN (SELECT id FROM itsm_webhooks WHERE NOT is_active)"
    still = {
        # A date of one's own is due without a policy too.
        "helpdesk_tickets": "sla_policy IS NULL AND due_at IS NULL",
        "helpdesk_events": "type NOT LIKE 'sla.%'",
        "itsm_webhooks": "NOT is_active",
        "itsm_webhook_messages": of_one_off,
        "itsm_webhook_attempts": of_one_off,
    }
    # When a key was last used is written later than it was.
    text = "(to_jsonb(t) - 'last_used_at')::text" if table == "api_keys" else "t::text"
    rows = f"{table} t WHERE {still.get(table, 'true')}"
    return f"SELECT count(*), md5(string_agg({text}, ';' ORDER BY {text})) FROM {rows}"


def as_seen(reply: Reply, names: Names) -> Any:
    """All that a caller sees, without what differs from call to call and the names that they sent themselves."""
    hidden = {"x-request-id", "date", "ratelimit"}
    headers = {name: value for name, value in reply.headers.items() if name.lower() not in hidden}
    details = {name: message.SerializeToString(deterministic=True) for name, message in reply.details.items()}
    text = repr((reply.status, reply.body, sorted(headers.items()), sorted(details.items())))
    for thing, name in names.items():
        text = text.replace(name, f"<{thing}>")
    return text


@pytest.mark.parametrize("keyed", [False, True], ids=["without a key", "with a key"])
@pytest.mark.parametrize("api", APIS)
async def test_what_is_somebody_elses_answers_as_what_does_not_exist(
    transport: Transport, rpc: Grpc, world: World, api: str, keyed: bool
) -> None:
    owner, strangers = await PARTIES[api](world, rpc)
    nothing = {thing: absent(name) for thing, name in owner.things.items()}
    asks = [ask for asks in APIS[api].values() for ask in asks or ()]
    before = everything(world)
    # Who asks makes no difference to a key: it belongs to one caller.
    for stranger in strangers[:1] if keyed else strangers:
        for ask in asks:
            if any(thing not in stranger.things for _, thing in ask.path):
                continue
            await _is_the_same(transport, stranger, ask, owner.things, nothing, keyed=keyed)
    assert everything(world) == before


async def _is_the_same(
    transport: Transport, stranger: Party, ask: Ask, theirs: Names, nothing: Names, *, keyed: bool
) -> None:
    pairs = zip(ask.requests(stranger.things, theirs), ask.requests(stranger.things, nothing), strict=True)
    for foreign, missing in pairs:
        replies = []
        for sections in (foreign, missing):
            headers = {"idempotency-key": str(uuid4()), "if-match": "*"} if keyed else {}
            replies.append(await transport.call(ask.operation, stranger.credential, headers=headers, **sections))
        seen, expected = as_seen(replies[0], theirs), as_seen(replies[1], nothing)
        assert seen == expected, (ask.operation, foreign)
        # An answer of this kind shows that something would have been there to see.
        assert "Secret" not in seen, (ask.operation, foreign)


@pytest.mark.parametrize("api", ["itsm", "helpdesk"])
async def test_a_watch_goes_on_from_no_cursor_of_somebody_else(
    transport: Transport, rpc: Grpc, world: World, api: str
) -> None:
    watches = {"itsm": watching.ITSM, "helpdesk": watching.HELPDESK}[api]
    owner, strangers = await PARTIES[api](world, rpc)
    cursor = await watches.start_cursor(transport, owner.credential)
    for stranger in strangers:
        seen = []
        for name in (cursor, absent(cursor)):
            async with watches.watching(transport, stranger.credential, name) as stream:
                reply = await anext(stream)
            assert isinstance(reply, Reply)
            seen.append(as_seen(reply, {"cursor": name}))
        assert seen[0] == seen[1]


async def test_a_watch_of_somebody_elses_project_is_one_of_no_project(
    transport: Transport, rpc: Grpc, world: World
) -> None:
    owner, (stranger,) = await handoff_parties(world, rpc)
    seen = []
    for project_id in (owner.things["project"], str(uuid4())):
        async with Watch(transport, stranger.credential, project_id) as watch:
            seen.append(as_seen(await watch.refused("forbidden"), {"project": project_id}))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("api", APIS)
async def test_the_owner_is_answered(transport: Transport, rpc: Grpc, world: World, api: str) -> None:
    """Or the cases above would compare two refusals of something that nobody can ask for."""
    owner, _ = await PARTIES[api](world, rpc)
    last = {"itsm.delete_webhook", "helpdesk.delete"}
    asks = [ask for asks in APIS[api].values() for ask in asks or ()]
    for ask in sorted(asks, key=lambda ask: ask.operation in last):
        sections = next(ask.requests(owner.things, owner.things))
        reply = await transport.call(ask.operation, owner.credential, **sections)
        assert reply.status in (200, 201, 202, 204, grpc.StatusCode.OK), (ask, reply.body)


async def test_operators_methods_refuse_everybody_else_alike(rpc: Grpc, world: World) -> None:
    program, project_id, user_id = await world.program(), await world.project(), str(uuid4())
    member = await world.member(project_id, "owner", user_id)
    there = {"account_id": program.account_id, "project_id": project_id, "user_id": user_id}
    before = everything(world)
    for method in SERVICE.methods:
        fields = method.input_type.fields_by_name
        for who in (program.credential, member, world.person(*ALL), {}):
            seen = set()
            for names in (there, {name: absent(value) for name, value in there.items()}):
                request = method.input_type._concrete_class(**{name: names[name] for name in names if name in fields})
                reply = await rpc.send(Method("admin", "", "", 0, SERVICE, method.name), request, who)
                assert reply.status in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED), method.name
                seen.add(as_seen(reply, names))
            assert len(seen) == 1, method.name
    assert everything(world) == before
