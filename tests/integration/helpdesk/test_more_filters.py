"""contracts/helpdesk.md at both transports: filters by what a ticket is about, and values with commas (README.md)."""

from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from support.helpdesk import URL, Transport, create, new_tenant_id
from support.helpdesk_calls import ALL
from support.helpdesk_lists import letters, page
from support.system import Credential, World
from support.transports import Grpc, Rest, rest_reply

TICKETS: dict[str, dict[str, Any]] = {
    "a": {"related_asset_id": "ast_1", "related_vulnerability_id": "vul_1", "category": "Hardware, Printers"},
    "b": {"related_asset_id": "ast_2", "source": "monitor", "category": "Hardware"},
    "c": {"related_vulnerability_id": "vul_2", "source": "monitor, second", "category": "Printers"},
    "d": {"related_asset_id": "ast,3", "category": "C:\\dir", "team_id": "room 2 1015"},
}


@pytest.fixture(scope="module")
async def tenant(world: World, channel: grpc.aio.Channel) -> Credential:
    """An agent of a tenant with the tickets a to d, e of the application app_1, f of app_2 with an SLA policy."""
    rpc, tenant_id = Grpc(channel), new_tenant_id()
    agent = world.person(*ALL, tenant_id=tenant_id)
    for title, members in TICKETS.items():
        await create(rpc, agent, title=title, **members)
    await create(rpc, world.person("write", tenant_id=tenant_id, app_id="app_1"), title="e")
    policy = {"name": "p", "priority": "urgent", "resolution_minutes": 60}
    (await rpc.call("helpdesk.create_policy", agent, body=policy)).succeeded(201)
    await create(rpc, world.person("write", tenant_id=tenant_id, app_id="app_2"), title="f", priority="urgent")
    return agent


CASES: list[tuple[dict[str, Any], str]] = [
    ({"related_asset_id": "ast_1"}, "a"),
    ({"related_asset_id": "ast_1,ast_2"}, "ab"),
    ({"related_asset_id": "ast"}, ""),
    # It ends as an instant does whose plus was read as a space.
    ({"team_id": "room 2 1015"}, "d"),
    ({"related_vulnerability_id": "vul_1"}, "a"),
    ({"related_vulnerability_id": "vul_2, vul_1"}, "ac"),
    ({"app_id": "app_1"}, "e"),
    ({"app_id": "app_2,app_1"}, "ef"),
    ({"app_id": "app_3"}, ""),
    ({"source": "monitor"}, "b"),
    ({"source": "edm"}, "adef"),
    ({"source": "edm,monitor"}, "abdef"),
    ({"number": "TKT-0003"}, "c"),
    ({"number": "TKT-0003,TKT-0001,TKT-0099"}, "ac"),
    ({"number": "TKT-0003", "source": "edm"}, ""),
    ({"related_asset_id": "ast_1", "related_vulnerability_id": "vul_1", "number": "TKT-0001", "q": "a"}, "a"),
]


@pytest.mark.parametrize(("query", "expected"), CASES, ids=str)
async def test_each_filter_lists_the_tickets_that_match(
    transport: Transport, tenant: Credential, query: dict[str, Any], expected: str
) -> None:
    if transport.name == "grpc":
        # A typed message has its values one by one.
        query = {name: value if name == "q" else value.replace(", ", ",").split(",") for name, value in query.items()}
    assert await letters(transport, tenant, **query, sort="created_at") == expected


async def test_the_filter_by_policy(transport: Transport, tenant: Credential) -> None:
    policies = (await transport.call("helpdesk.policies", tenant)).succeeded()["sla_policies"]
    policy_id = policies[0]["id"]
    assert await letters(transport, tenant, sla_policy=policy_id) == "f"
    assert await letters(transport, tenant, sla_policy=f"sla_none,{policy_id}") == "f"
    assert await letters(transport, tenant, sla_policy="sla_none") == ""


async def test_an_application_filters_among_its_own(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    one, two = (world.person("read", "write", tenant_id=tenant_id, app_id=app_id) for app_id in ("app_1", "app_2"))
    for person in (one, two):
        await create(transport, person, title="x", related_asset_id="ast_1")
    assert await letters(transport, one, app_id="app_1", related_asset_id="ast_1") == "x"
    assert await letters(transport, one, app_id="app_2") == ""


BOUNDS: list[tuple[dict[str, str], str]] = [
    *(({"number": text}, "number.0") for text in ("", "1", "tkt-0001", "TKT-1", "TKT-" + "9" * 19, "none")),
    ({"number": "TKT-0001,x"}, "number.1"),
    *(
        ({name: text}, f"{name}.0")
        for name in ("related_asset_id", "related_vulnerability_id", "app_id", "sla_policy", "source")
        for text in ("", "x" * 65)
    ),
]


@pytest.mark.parametrize(("query", "path"), BOUNDS, ids=str)
async def test_values_out_of_bounds_are_rejected(
    transport: Transport, tenant: Credential, query: dict[str, str], path: str
) -> None:
    (await page(transport, tenant, **query)).failed("validation_error", paths=[path])


# Commas (README.md, Repeated query parameters)

COMMAS: list[tuple[str, str]] = [
    # Given once it is split at commas, and blanks around them are no part of a value.
    ("category=Hardware%2C%20Printers", "bc"),
    ("category=Hardware,Printers", "bc"),
    # After a backslash, which a URL has in percent-encoding, the comma belongs to the value.
    ("category=Hardware%5C,%20Printers", "a"),
    ("category=Hardware%5C%2C%20Printers", "a"),
    ("category=Hardware%5C,%20Printers,Hardware", "ab"),
    # Given twice, each is one value.
    ("category=Hardware%2C%20Printers&category=Hardware%2C%20Printers", "a"),
    ("category=Hardware%2C%20Printers&category=Hardware", "ab"),
    ("category=Hardware&category=Printers", "bc"),
    # Any other backslash is one.
    ("category=C:%5Cdir", "d"),
    ("source=monitor%5C,%20second", "c"),
    ("related_asset_id=ast%5C,3,ast_1", "ad"),
]


@pytest.mark.parametrize(("query", "expected"), COMMAS)
async def test_commas_and_repetitions(rest: Rest, tenant: Credential, query: str, expected: str) -> None:
    answer = await rest.client.get(f"{URL}?{query}&sort=created_at", headers=dict(tenant))
    found: Sequence[Any] = rest_reply("helpdesk", answer).succeeded()["tickets"]
    assert "".join(ticket["title"] for ticket in found) == expected


async def test_a_repeated_value_has_its_bounds(rest: Rest, tenant: Credential) -> None:
    for query, path in (("status=open&status=done", "status.1"), ("status=open,closed&status=open", "status.0")):
        answer = await rest.client.get(f"{URL}?{query}", headers=dict(tenant))
        rest_reply("helpdesk", answer).failed("validation_error", paths=[path])
