"""Operators and providers: links with their credentials, and deliveries; over gRPC and as commands."""

import asyncio
import json
import os
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from support import operators
from support.provider_lab import Desk, Process, deliveries, external, link, own_database
from support.system import ENCRYPTION_KEY, Credential, Issuer, Service, World
from support.transports import Grpc, Reply
from typer.testing import CliRunner

from service.__main__ import app
from service.admin import operations as admin
from service.admin.direct import as_operator
from service.directory import METADATA
from service.errors import TicketError
from service.operation import Dependencies
from service.settings import Settings
from service.storage.database import Database
from service.vault import Vault

SECRET = "geheim-🔑"
CREDENTIALS = {
    "freshservice": SECRET,
    "zendesk": f"me@example.com/token:{SECRET}",
    "servicenow": f"me:{SECRET}",
    "jira": f"me@example.com:{SECRET}",
}
UNKNOWN = "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33"
# Options that a link to each vendor may have.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "freshservice": [{"default_email": "desk@example.com"}],
    "zendesk": [{}, {"closed_as": "solved"}],
    "servicenow": [{}, {"close_code": "Done", "close_notes": "Done", "hold_reason": "2"}],
    "jira": [
        {"service_desk_id": "1", "request_type_id": "2"},
        {
            "service_desk_id": "1",
            "request_type_id": "2",
            "transitions": {"closed": "31"},
            "priorities": {"high": "High"},
            "reference_field": "customfield_10042",
        },
    ],
}


@pytest.fixture
def operator(world: World) -> Credential:
    return world.issuer.bearer("operator", scope="tickets:admin")


async def call(rpc: Grpc, who: Credential, method: str, /, **request: Any) -> Reply:
    if "options" in request:
        request["options_json"] = json.dumps(request.pop("options"))
    return await operators.call(rpc, who, method, **request)


def a_link(**changed: Any) -> dict[str, Any]:
    credential = CREDENTIALS.get(changed.get("provider", "freshservice"), SECRET)
    given = {"provider": "freshservice", "url": "https://acme.freshservice.com", "credential": credential}
    return {**given, "options": {"default_email": "desk@example.com"}, **changed}


# Links


@pytest.mark.parametrize(
    ("provider", "options"), [(name, options) for name, several in OPTIONS.items() for options in several], ids=str
)
async def test_an_account_is_linked_to_one_provider(
    rpc: Grpc, operator: Credential, world: World, provider: str, options: dict[str, Any]
) -> None:
    account_id = (await world.program()).account_id
    await world.operate(admin.link_provider, account_id=account_id, **a_link())
    url = "https://desk.example:8443/"
    given = a_link(account_id=account_id, provider=provider, url=url, options=options)
    shown = (await call(rpc, operator, "LinkProvider", **given)).succeeded()["link"]
    stamps = {name: shown[name] for name in ("created_at", "updated_at")}
    assert shown == {"account_id": account_id, "provider": provider, "url": url, "options": options, **stamps}
    assert datetime.fromisoformat(shown["created_at"]) < datetime.fromisoformat(shown["updated_at"])
    columns = "provider, url, options::text"
    [(*kept, kept_options)] = world.rows(f"SELECT {columns} FROM provider_links WHERE account_id = %s", account_id)
    assert (kept, json.loads(kept_options)) == ([provider, url], options)
    # A second unlink changes nothing.
    for _ in range(2):
        assert (await call(rpc, operator, "UnlinkProvider", account_id=account_id)).succeeded() == {}
        assert world.rows("SELECT 1 FROM provider_links WHERE account_id = %s", account_id) == []


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"provider": "acme"}, ["provider"]),
        ({"provider": ""}, ["provider"]),
        *(
            ({"url": url}, ["url"])
            for url in (
                *("", "acme.example", "ftp://acme.example", "https://", "https://acme.example/api", "https://a b"),
                *("https://user:word@acme.example", "https://acme.example?x", "https://acme.example#x"),
                *("https://acme.example\n", "https://acme.example:123456", "https://" + "a" * 255, "HTTPS://é.example"),
                # Addresses that no connection can be made to.
                *("https://acme.example:65536", "https://acme.example:99999", "https://xn--a", "https://xn--"),
            )
        ),
        ({"credential": ""}, ["credential"]),
        ({"credential": "a\0b"}, ["credential"]),
        ({"credential": "x" * 4097}, ["credential"]),
        ({"options": []}, ["options"]),
        ({"options": {}}, ["options.default_email"]),
        ({"options": {"default_email": "nobody"}}, ["options.default_email"]),
        ({"options": {"default_email": "a@example.com", "else": 1}}, ["options.else"]),
        ({"provider": "zendesk"}, ["options.default_email"]),
        ({"provider": "zendesk", "options": {"closed_as": "open"}}, ["options.closed_as"]),
        ({"provider": "servicenow", "options": {"close_code": ""}}, ["options.close_code"]),
        ({"provider": "jira", "options": {}}, ["options.service_desk_id", "options.request_type_id"]),
        (
            {"provider": "jira", "options": {**OPTIONS["jira"][0], "reference_field": "summary"}},
            ["options.reference_field"],
        ),
        ({"account_id": "acme"}, ["account_id"]),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_a_malformed_link_is_refused_by_path(
    rpc: Grpc, operator: Credential, world: World, changed: dict[str, Any], paths: list[str]
) -> None:
    account_id = (await world.program()).account_id
    reply = await call(rpc, operator, "LinkProvider", **{"account_id": account_id, **a_link(**changed)})
    reply.failed("validation_error", paths=paths)
    assert world.rows("SELECT 1 FROM provider_links WHERE account_id = %s", account_id) == []


async def test_an_unknown_account_is_not_linked(rpc: Grpc, operator: Credential) -> None:
    reply = await call(rpc, operator, "LinkProvider", account_id=UNKNOWN, **a_link())
    reply.failed("not_found", "Account not found")


@pytest.mark.parametrize(
    ("settings", "changed", "reason"),
    [
        # Credentials travel encrypted, but for development.
        ({"encryption_keys": ENCRYPTION_KEY}, {"url": "http://127.0.0.1:8080"}, "validation_error"),
        ({"allow_private_targets": True}, {}, "unavailable"),
    ],
    ids=["plain http", "no key to encrypt with"],
)
async def test_settings_that_allow_no_link(
    world: World, settings: dict[str, Any], changed: dict[str, Any], reason: str
) -> None:
    account_id = (await world.program()).account_id
    given = Settings(database_url=world.database_url, pool_size=1, **settings)
    database = Database(given, METADATA)
    await database.open()
    try:
        operator = Dependencies(settings=given, database=database, vault=Vault(given))
        with pytest.raises(TicketError) as raised:
            await as_operator(operator, admin.link_provider, {"account_id": account_id, **a_link(**changed)})
    finally:
        await database.close()
    assert raised.value.reason == reason
    assert world.rows("SELECT 1 FROM provider_links WHERE account_id = %s", account_id) == []


# The credential


@pytest.mark.parametrize(
    ("provider", "credential", "form"),
    [
        ("freshservice", "key:X", "an API key, without a colon"),
        ("zendesk", "me@example.com:secret", "mail/token:token"),
        ("zendesk", "me@example.com/token:", "mail/token:token"),
        ("servicenow", SECRET, "user:password"),
        ("servicenow", f":{SECRET}", "user:password"),
        ("jira", "me@example.com:", "mail:token"),
    ],
)
async def test_a_credential_in_another_form_than_its_vendors_is_refused(
    rpc: Grpc, operator: Credential, world: World, provider: str, credential: str, form: str
) -> None:
    account_id = (await world.program()).account_id
    link = {**a_link(provider=provider, credential=credential), "options": OPTIONS[provider][0]}
    refused = await call(rpc, operator, "LinkProvider", account_id=account_id, **link)
    assert refused.failed("validation_error", paths=["credential"])
    assert f"Input should be {form}" in f"{refused.body} {refused.details}"
    assert credential not in f"{refused.body} {refused.details}"


async def test_a_credential_is_encrypted_and_never_shown(
    rpc: Grpc, operator: Credential, world: World, service: Service
) -> None:
    account_id = (await world.program()).account_id
    reply = await call(rpc, operator, "LinkProvider", account_id=account_id, **a_link())
    assert SECRET not in str(reply.succeeded())
    # A refusal does not quote it either.
    refused = await call(rpc, operator, "LinkProvider", account_id=account_id, **a_link(credential=SECRET + "\0"))
    refused.failed("validation_error")
    assert SECRET not in f"{refused.body} {refused.details}"
    [(row, sealed)] = world.rows("SELECT l::text, credential FROM provider_links l WHERE account_id = %s", account_id)
    assert SECRET not in row
    assert SECRET.encode() not in bytes(sealed)
    assert Vault(Settings(encryption_keys=ENCRYPTION_KEY)).open(bytes(sealed)) == SECRET
    log = service.log.read_text()
    assert SECRET not in log
    assert json.dumps(SECRET).strip('"') not in log


async def test_encryption_keys_are_replaced_while_links_stay(database_url: str, issuer: Issuer) -> None:
    new = Fernet.generate_key().decode()
    with own_database(database_url) as url:
        world = World(url, issuer)
        # With both keys, as it must be during the change, and with the new one only, which is too early.
        running = [Process(world, keys) for keys in (f"{new},{ENCRYPTION_KEY}", new)]
        async with Desk().listening() as desk:
            assert isinstance(desk, Desk)
            program = await world.program()
            await link(world, program, desk)
            for process in running:
                await process.database.open()
            there, queued = [await process.create(program) for process in running]
            assert there["external_ticket_id"] == external(desk)["external_ticket_id"]
            assert queued["external_ticket_id"] is None
            message = "the credential cannot be decrypted"
            assert deliveries(world, program.account_id) == [("create", "queued", message)]
            assert len(desk.requests) == 1
            await running[0].work_until_empty()
            assert len(desk.tickets) == 2
            for process in running:
                await process.deliveries.close()
                await process.database.close()
        await world.close()


# Deliveries


def dead(world: World, account_id: str, number: int, state: str = "dead") -> list[str]:
    """The ids of so many deliveries, inserted in this order; none is due."""
    first = uuid4().int & ~0xFF
    ids = [str(UUID(int=first + n)) for n in range(number)]
    for n, id_ in enumerate(ids):
        world.run(
            "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
            " request_id, state, attempts, next_attempt_at, last_error) VALUES"
            " (%s, %s, %s, %s, 'update', '{\"subject\": \"s\"}', true, 'a', 'r', %s, 7, now() + interval '1 day', %s)",
            *(id_, account_id, str(uuid4()), n + 2, state, "the provider answered 503" if n else None),
        )
    return ids


async def test_deliveries_are_listed_in_pages(rpc: Grpc, operator: Credential, world: World) -> None:
    account_id = (await world.program()).account_id
    ids = dead(world, account_id, 5)
    [queued] = dead(world, account_id, 1, "queued")
    everything = sorted([*ids, queued])

    async def listed(**query: Any) -> list[Any]:
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await call(rpc, operator, "ListDeliveries", account_id=account_id, **query, **cursor)).succeeded()
            assert len(page["deliveries"]) <= query.get("limit", 20)
            found += page["deliveries"]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    for limit in (1, 2, 6, 100):
        assert [one["id"] for one in await listed(limit=limit)] == everything
    assert [one["id"] for one in await listed(state="dead", limit=2)] == ids
    assert [one["id"] for one in await listed(state="queued")] == [queued]
    first, second = (await listed(state="dead"))[:2]
    assert first == {
        "id": ids[0],
        "account_id": account_id,
        "version": 2,
        "kind": "update",
        "state": "dead",
        "attempts": 7,
        **{name: first[name] for name in ("ticket_id", "next_attempt_at", "created_at")},
        "last_error": None,
    }
    assert second["last_error"] == "the provider answered 503"
    # Without a filter they are those of all accounts.
    page = (await call(rpc, operator, "ListDeliveries", limit=100)).succeeded()["deliveries"]
    assert {one["id"] for one in page} >= set(everything) or len(page) == 100
    # A cursor is of its list.
    page = (await call(rpc, operator, "ListDeliveries", account_id=account_id, limit=1)).succeeded()
    reply = await call(rpc, operator, "ListDeliveries", limit=1, cursor=page["next_cursor"])
    reply.failed("validation_error", paths=["cursor"])


async def test_a_requeued_delivery_is_attempted_at_once(rpc: Grpc, operator: Credential, world: World) -> None:
    program = await world.program()
    async with Desk().listening() as desk:
        assert isinstance(desk, Desk)
        await link(world, program, desk)
        ticket = (await rpc.call("itsm.create", program.credential, body={"subject": "a", "description": "b"})).body
        [id_] = dead(world, program.account_id, 1)
        world.run("UPDATE provider_deliveries SET ticket_id = %s WHERE id = %s", ticket["id"], id_)
        again = (await call(rpc, operator, "RequeueDelivery", delivery_id=id_)).succeeded()["delivery"]
        assert (again["id"], again["state"], again["attempts"]) == (id_, "queued", 0)
        async with asyncio.timeout(20):
            while deliveries(world, program.account_id):  # noqa: ASYNC110 - another process works here
                await asyncio.sleep(0.05)
        assert desk.writes[1:] == [("PUT", {"subject": "a"})]
        (await call(rpc, operator, "RequeueDelivery", delivery_id=id_)).failed("not_found", "Delivery not found")


# As commands


async def run(world: World, *arguments: str, given: str = "") -> tuple[int, str, str]:
    """Run `tickets admin …` here, with this on its standard input; returns the exit code, stdout and stderr."""
    settings = {"DATABASE_URL": world.database_url, "ENCRYPTION_KEYS": ENCRYPTION_KEY}
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("TICKETS_")}
    runner = CliRunner(env=environment | {f"TICKETS_{name}": value for name, value in settings.items()})
    result = await asyncio.to_thread(runner.invoke, app, ["admin", *arguments], input=given)
    return result.exit_code, result.stdout, result.stderr


async def test_commands_link_list_requeue_and_unlink(world: World) -> None:
    account_id = (await world.program()).account_id

    async def admin(*arguments: str, given: str = "") -> Any:
        code, output, errors = await run(world, *arguments, given=given)
        assert (code, errors, output.count("\n")) == (0, "", 1)
        assert SECRET not in output
        return json.loads(output)

    options = {"default_email": "desk@example.com"}
    options_of_link = ("--account", account_id, "--provider", "freshservice", "--url", "https://acme.freshservice.com")
    shown = await admin("link-provider", *options_of_link, "--options", json.dumps(options), given=SECRET + "\n")
    assert (shown["account_id"], shown["options"], "credential" in shown) == (account_id, options, False)
    [(sealed,)] = world.rows("SELECT credential FROM provider_links WHERE account_id = %s", account_id)
    assert Vault(Settings(encryption_keys=ENCRYPTION_KEY)).open(bytes(sealed)) == SECRET

    ids = dead(world, account_id, 2)
    found = await admin("deliveries", "--account", account_id)
    assert [one["id"] for one in found["deliveries"]] == ids
    assert (await admin("deliveries", "--account", account_id, "--state", "queued"))["deliveries"] == []
    assert (await admin("deliveries", "--requeue", ids[0]))["id"] == ids[0]
    for _ in range(2):
        assert await admin("unlink-provider", "--account", account_id) == {}
    assert world.rows("SELECT 1 FROM provider_links WHERE account_id = %s", account_id) == []


async def test_commands_report_errors_on_stderr(world: World) -> None:
    account_id = (await world.program()).account_id
    command = ("link-provider", "--provider", "zendesk", "--url", "https://acme.zendesk.com", "--account")
    for message, arguments, given in (
        ("Account not found\n", (*command, UNKNOWN), CREDENTIALS["zendesk"]),
        ("credential: ", (*command, account_id), ""),
        ("credential: ", (*command, account_id), "\n" + SECRET),
        ("--options is not valid JSON\n", (*command, account_id, "--options", "{"), CREDENTIALS["zendesk"]),
        ("options.else: ", (*command, account_id, "--options", '{"else": 1}'), CREDENTIALS["zendesk"]),
        ("url: ", (*command, account_id, "--url", "http://acme.zendesk.com"), CREDENTIALS["zendesk"]),
        ("Delivery not found\n", ("deliveries", "--requeue", UNKNOWN), ""),
    ):
        code, output, errors = await run(world, *arguments, given=given)
        assert (code, output, errors.count("\n")) == (1, "", 1), arguments
        assert errors.startswith(message)
        assert SECRET not in errors
