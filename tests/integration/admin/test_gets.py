"""What operators get one by one and filter, and that suspending and resuming is safe to repeat."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from support.operators import SCOPES, call, made
from support.system import Credential, World
from support.transports import Grpc
from typer.testing import CliRunner

from service import jsontext
from service.__main__ import app
from service.admin import queries
from service.numbering import uuid7, uuid7_at
from service.providers.tables import deliveries
from service.storage.statement import Statement


async def got(rpc: Grpc, operator: Credential, name: str, **request: Any) -> Any:
    [resource] = (await call(rpc, operator, f"Get{name}", **request)).succeeded().values()
    return resource


async def test_everything_that_is_made_can_be_got(rpc: Grpc, operator: Credential, world: World) -> None:
    account = (await made(rpc, operator, "CreateAccount", name="Acme"))["account"]
    of_account = {"account_id": account["id"]}
    key = (await made(rpc, operator, "CreateApiKey", **of_account, scopes=SCOPES, test=True))["api_key"]
    given = {"name": "Shop", "slug": f"shop-{uuid4().hex}", **of_account}
    project = (await made(rpc, operator, "CreateProject", **given))["project"]
    of_member = {"project_id": project["id"], "user_id": str(uuid4())}
    member = (await made(rpc, operator, "AddMember", **of_member, role="member"))["member"]
    tenant = (await made(rpc, operator, "CreateTenant", name="Acme"))["tenant"]
    link = {"provider": "zendesk", "url": "https://acme.zendesk.com", "credential": "ada@example.com/token:s3cret"}
    linked = (await made(rpc, operator, "LinkProvider", **of_account, **link))["link"]
    [delivery_id] = queued(world, account["id"], datetime.now(UTC))
    [delivery] = (await made(rpc, operator, "ListDeliveries", **of_account))["deliveries"]
    assert delivery["id"] == delivery_id
    for name, request, resource in (
        ("Account", of_account, account),
        ("ApiKey", {"api_key_id": key["id"]}, key),
        ("Project", {"project_id": project["id"]}, project),
        ("Member", of_member, member),
        ("Tenant", {"tenant_id": tenant["id"]}, tenant),
        ("Link", of_account, linked),
        ("Delivery", {"delivery_id": delivery_id}, delivery),
    ):
        assert await got(rpc, operator, name, **request) == resource


async def test_a_suspension_keeps_its_first_instant_until_it_ends(
    rpc: Grpc, operator: Credential, world: World
) -> None:
    account = (await made(rpc, operator, "CreateAccount", name="Acme"))["account"]
    key = (await made(rpc, operator, "CreateApiKey", account_id=account["id"], scopes=SCOPES))["api_key"]
    tenant = (await made(rpc, operator, "CreateTenant", name="Acme"))["tenant"]
    for name, request, resource in (
        ("Account", {"account_id": account["id"]}, account),
        ("ApiKey", {"api_key_id": key["id"]}, key),
        ("Tenant", {"tenant_id": tenant["id"]}, tenant),
    ):
        [first] = (await made(rpc, operator, f"Suspend{name}", **request)).values()
        assert first["suspended_at"].endswith("Z")
        assert first == {**resource, "suspended_at": first["suspended_at"]}
        assert [first] == list((await made(rpc, operator, f"Suspend{name}", **request)).values())
        assert await got(rpc, operator, name, **request) == first
        for _ in range(2):
            assert [resource] == list((await made(rpc, operator, f"Resume{name}", **request)).values())


async def test_a_tenant_that_was_not_recorded_is_by_its_suspension(rpc: Grpc, operator: Credential) -> None:
    tenant_id = f"ten_{uuid4().hex}"
    tenant = (await made(rpc, operator, "SuspendTenant", tenant_id=tenant_id))["tenant"]
    assert (tenant["id"], tenant["name"]) == (tenant_id, tenant_id)
    await made(rpc, operator, "ResumeTenant", tenant_id=tenant_id)


async def test_a_key_from_before_has_no_prefix(rpc: Grpc, operator: Credential, world: World) -> None:
    program = await world.program()
    world.run("UPDATE api_keys SET prefix = NULL WHERE id = %s", program.key_id)
    assert (await got(rpc, operator, "ApiKey", api_key_id=program.key_id))["prefix"] is None


# Deliveries by filters


def queued(
    world: World, account_id: str, *instants: datetime, state: str = "queued", kind: str = "update"
) -> list[str]:
    """Deliveries that were queued at these instants; none is due."""
    ids = []
    for instant in instants:
        id_ = UUID(int=uuid7_at(instant).int | (uuid7().int & (1 << 62) - 1))
        world.run(
            "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
            " request_id, state, next_attempt_at, created_at) VALUES"
            " (%s, %s, %s, 2, %s, '{}', true, 'a', 'r', %s, now() + interval '1 day', %s)",
            *(id_, account_id, uuid4(), kind, state, instant),
        )
        ids.append(str(id_))
    return ids


async def test_deliveries_are_filtered(rpc: Grpc, operator: Credential, world: World) -> None:
    account_id, now = (await world.program()).account_id, datetime.now(UTC)
    days = [now - timedelta(days=days) for days in (3, 2, 1)]
    updates = queued(world, account_id, *days)
    creations = queued(world, account_id, *days, kind="create")
    dead = queued(world, account_id, *days, state="dead")
    every = sorted([*updates, *creations, *dead])
    for query, expected in (
        ({}, every),
        ({"kind": "create"}, creations),
        ({"kind": "update", "state": "queued"}, updates),
        ({"since": days[1]}, [id_ for id_ in every if id_ not in (updates[0], creations[0], dead[0])]),
        ({"since": days[1], "state": "dead"}, dead[1:]),
        ({"since": now}, []),
        ({"since": datetime(1, 1, 1, tzinfo=UTC)}, every),
        ({"since": datetime(9999, 12, 31, tzinfo=UTC)}, []),
    ):
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await made(rpc, operator, "ListDeliveries", account_id=account_id, limit=2, **query, **cursor)
            found += [one["id"] for one in page["deliveries"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert found == expected
    # A cursor is of its filters.
    page = await made(rpc, operator, "ListDeliveries", account_id=account_id, limit=1, since=days[0])
    other = await call(
        rpc, operator, "ListDeliveries", account_id=account_id, since=days[1], cursor=page["next_cursor"]
    )
    other.failed("validation_error", paths=["cursor"])


@pytest.mark.parametrize(
    ("by", "index"),
    [
        (frozenset({"account_id"}), "provider_deliveries_pkey"),
        (frozenset({"state"}), "provider_deliveries_state_idx"),
        (frozenset(), "provider_deliveries_id_idx"),
    ],
)
def test_deliveries_are_read_by_an_index(world: World, by: frozenset[str], index: str) -> None:
    statement: Statement = queries.list_page(deliveries, "id", by, after=False, since=True)
    now = datetime.now(UTC)
    values = {"account_id": uuid4(), "state": "dead", "rows": 21, "since": now, "first": uuid7_at(now)}
    sql = statement.sql.decode()
    for number, _ in reversed(list(enumerate(statement.names, 1))):
        sql = sql.replace(f"${number}", "%s")
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        # Among many of other accounts, most of them queued.
        connection.execute(
            "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
            " request_id, state) SELECT gen_random_uuid(), md5((n % 50)::text)::uuid, gen_random_uuid(), 2,"
            " 'update', '{}', true, 'a', 'r', CASE n % 100 WHEN 0 THEN 'dead' ELSE 'queued' END"
            " FROM generate_series(1, 20000) n"
        )
        connection.execute("ANALYZE provider_deliveries")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {sql}", [values[n] for n in statement.names]))
        connection.rollback()
    assert index in plan
    assert "Seq Scan" not in plan


# Webhooks that fail


async def test_failing_webhooks_are_listed_with_their_last_error(rpc: Grpc, operator: Credential, world: World) -> None:
    program = await world.program()
    key, columns = (program.account_id, True), "account_id, live, id, url, events, secret, transaction_id, event_id"
    ids = sorted(f"wh_{uuid4().hex}" for _ in range(4))
    for id_ in ids:
        world.run(
            f"INSERT INTO itsm_webhooks ({columns}) VALUES (%s, %s, %s, 'https://example.com/h', '{{}}', '', '0', 0)",
            *(*key, id_),
        )
    well, failing, disabled, untried = ids
    for id_ in (failing, disabled, untried):
        world.run("UPDATE itsm_webhooks SET failing_since = now() WHERE id = %s", id_)
    world.run("UPDATE itsm_webhooks SET is_active = false, disabled_reason = 'gone' WHERE id = %s", disabled)
    for id_, number, status, error in (
        (well, 1, 200, None),
        (failing, 1, None, "timed out"),
        (failing, 2, 503, "the receiver answered 503"),
        (disabled, 1, 410, "the receiver answered 410"),
    ):
        world.run(
            "INSERT INTO itsm_webhook_attempts (account_id, live, webhook_id, id, ticket_id, version, type, event_id,"
            " body, attempt, attempted_at, duration_ms, succeeded, status_code, error)"
            " VALUES (%s, %s, %s, %s, %s, 1, 'ticket.created', 'evt_1', '{}', %s, now(), 1, %s, %s, %s)",
            *(*key, id_, f"dlv_{number}", uuid4(), number, error is None, status, error),
        )

    async def listed(**query: Any) -> list[Any]:
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = await made(rpc, operator, "ListFailingWebhooks", **query, **cursor)
            found += page["webhooks"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    found = await listed(account_id=program.account_id, limit=1)
    shown = ("id", "is_active", "disabled_reason", "last_attempt", "last_status_code", "last_error")
    assert [tuple(one[name] for name in shown) for one in found] == [
        (failing, True, None, 2, 503, "the receiver answered 503"),
        (disabled, False, "gone", 1, 410, "the receiver answered 410"),
        (untried, True, None, None, None, None),
    ]
    assert {(one["account_id"], one["live"], one["url"]) for one in found} == {(*key, "https://example.com/h")}
    assert found[0]["failing_since"]
    assert found[0]["last_attempt_at"]
    assert [one for one in await listed(limit=100) if one["account_id"] == program.account_id] == found


async def test_the_command_shows_suspends_and_filters(
    rpc: Grpc, operator: Credential, world: World, database_url: str
) -> None:
    program = await world.program()
    [old, _] = queued(world, program.account_id, *(datetime.now(UTC) - timedelta(days=days) for days in (3, 1)))
    account, account_id = ("--account", program.account_id), program.account_id
    tenant_id = f"ten_{uuid4().hex}"

    async def run(*words: str) -> Any:
        runner = CliRunner(env={"TICKETS_DATABASE_URL": database_url})
        done = await asyncio.to_thread(runner.invoke, app, ["admin", *words])
        return jsontext.parse(done.stdout.encode()) if done.exit_code == 0 else (done.exit_code, done.stderr)

    assert await run("account", "--id", account_id) == await got(rpc, operator, "Account", account_id=account_id)
    assert await run("delivery", "--id", old) == await got(rpc, operator, "Delivery", delivery_id=old)
    since = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    assert len((await run("deliveries", *account, "--since", since, "--kind", "update"))["deliveries"]) == 1
    assert await run("failing-webhooks", *account) == {"webhooks": [], "next_cursor": None}
    for option, id_, show in (("account", account_id, "account"), ("api-key", program.key_id, "api-key")):
        suspended = await run("suspend", f"--{option}", id_)
        assert suspended["suspended_at"]
        assert await run(show, "--id", id_) == suspended
        assert (await run("resume", f"--{option}", id_))["suspended_at"] is None
    assert (await run("suspend", "--tenant", tenant_id))["suspended_at"]
    assert (await run("resume", "--tenant", tenant_id))["suspended_at"] is None
    for words in ((), (*account, "--tenant", tenant_id)):
        assert await run("suspend", *words) == (2, "name one of --account, --api-key and --tenant\n")
