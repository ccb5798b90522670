"""contracts/itsm.md, Webhooks: registration, secrets, changes, the log; and one message all the way."""

import asyncio
import base64
import re
from datetime import datetime
from typing import Any, get_args

import grpc
import pytest
from support.emulators.http import Response
from support.methods import METHODS
from support.system import Credential, Program, World
from support.transports import Grpc, Rest
from support.webhook_lab import EVENTS, Account, Machine, Receiver, signatures, until

from service.errors import TicketError
from service.itsm import webhooks
from service.itsm.commands import WebhookEvent

Transport = Rest | Grpc

# Nobody listens there: no message has to arrive.
URL = "https://127.0.0.1:9/hook"
NEW = {"url": URL, "events": ["ticket.created", "ticket.closed"]}
DOCUMENTED = {"id", "url", "events", "is_active", "created_at", "updated_at"}
OURS = {"disabled_reason", "failing_since", "missed_events_at"}
TICKET = {"subject": "VPN is down", "description": "Since nine."}
VALID = ", ".join(get_args(WebhookEvent))
MANAGE = ("tickets:read", "tickets:write", "webhooks:manage")


@pytest.fixture
async def program(world: World) -> Program:
    return await world.program(scopes=MANAGE)


async def register(transport: Transport, credential: Credential, **members: Any) -> Any:
    return (await transport.call("itsm.create_webhook", credential, body={**NEW, **members})).succeeded(201)


async def listed(transport: Transport, credential: Credential) -> Any:
    return (await transport.call("itsm.webhooks", credential)).succeeded()["webhooks"]


def without_secret(webhook: Any) -> Any:
    return {name: value for name, value in webhook.items() if name != "secret"}


async def test_a_webhook_is_registered_and_its_secret_shown_once(
    transport: Transport, world: World, program: Program
) -> None:
    made = await register(transport, program.credential)
    assert set(made) == DOCUMENTED | OURS | {"secret"}
    assert re.fullmatch("wh_[0-9A-HJKMNP-TV-Z]{26}", made["id"])
    assert {name: made[name] for name in NEW} == NEW
    assert made["is_active"]
    assert {made[name] for name in OURS} == {None}
    kind, _, key = made["secret"].partition("_")
    assert (kind, len(base64.b64decode(key, validate=True))) == ("whsec", 32)
    [shown] = await listed(transport, program.credential)
    assert shown.get("secret") is None
    assert without_secret(shown) == without_secret(made)
    # The database does not have it in clear text.
    [(kept,)] = world.rows("SELECT secret FROM itsm_webhooks WHERE id = %s", made["id"])
    assert key.encode() not in kept


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"url": None}, ["url"]),
        ({"url": ""}, ["url"]),
        ({"url": "hook"}, ["url"]),
        ({"url": "ftp://example.com/"}, ["url"]),
        ({"url": "https://user@example.com/"}, ["url"]),
        ({"url": "https://user:word@example.com/"}, ["url"]),
        ({"url": "https://example.com/#there"}, ["url"]),
        ({"url": "https://example.com/a b"}, ["url"]),
        ({"url": "https://example.com\\@127.0.0.1/"}, ["url"]),
        ({"url": "https://exämple.com/"}, ["url"]),
        ({"url": "https://example.com:0/"}, ["url"]),
        ({"url": "https://example.com:65536/"}, ["url"]),
        ({"url": "https://[::1/"}, ["url"]),
        ({"url": "https://example.com/" + "x" * 2029}, ["url"]),
        ({"events": []}, ["events"]),
        ({"events": ["ticket.created", "ticket.created"]}, ["events"]),
    ],
    ids=str,
)
async def test_violated_bounds_are_reported_by_path(
    transport: Transport, program: Program, changed: Any, paths: list[str]
) -> None:
    reply = await transport.call("itsm.create_webhook", program.credential, body={**NEW, **changed})
    reply.failed("validation_error", paths=paths)
    assert await listed(transport, program.credential) == []


async def test_an_unknown_event_is_a_400(transport: Transport, program: Program) -> None:
    body = {**NEW, "events": ["ticket.created", "ticket.deleted"]}
    reply = await transport.call("itsm.create_webhook", program.credential, body=body)
    reply.failed("unknown_event", f"Invalid event type: ticket.deleted. Valid events: {VALID}")
    webhook = await register(transport, program.credential)
    path = {"webhook_id": webhook["id"]}
    reply = await transport.call("itsm.update_webhook", program.credential, path=path, body={"events": ["*"]})
    reply.failed("unknown_event", f"Invalid event type: *. Valid events: {VALID}")


async def test_names_of_the_public_catalogue_are_kept_and_shown(transport: Transport, program: Program) -> None:
    names = ["ticket.created", "ticket.updated", "call.completed"]
    made = await register(transport, program.credential, events=names)
    assert made["events"] == names
    path, names = {"webhook_id": made["id"]}, VALID.split(", ")
    assert {"ticket.note_added", "call.completed"} <= set(names)
    reply = await transport.call("itsm.update_webhook", program.credential, path=path, body={"events": names})
    assert reply.succeeded()["events"] == names
    assert [one["events"] for one in await listed(transport, program.credential)] == [names]


async def test_members_change_one_by_one(transport: Transport, program: Program) -> None:
    made = await register(transport, program.credential)
    path = {"webhook_id": made["id"]}
    expected = without_secret(made)
    for changes in (
        {"url": URL + "/b"},
        {"url": URL.replace("https", "HTTPS")},
        {"events": EVENTS},
        {"is_active": False},
        {"is_active": True},
    ):
        changed = (await transport.call("itsm.update_webhook", program.credential, path=path, body=changes)).succeeded()
        assert changed["updated_at"] > expected["updated_at"]
        expected |= {**changes, "updated_at": changed["updated_at"]}
        assert without_secret(changed) == expected
    for same in ({}, {"events": EVENTS}, {"url": expected["url"], "is_active": True}):
        changed = (await transport.call("itsm.update_webhook", program.credential, path=path, body=same)).succeeded()
        assert without_secret(changed) == expected
    for cleared in ("url", "events", "is_active"):
        reply = await transport.call("itsm.update_webhook", program.credential, path=path, body={cleared: None})
        reply.failed("validation_error", paths=[cleared])


async def test_a_secret_is_rotated_and_the_new_one_shown_once(transport: Transport, program: Program) -> None:
    made = await register(transport, program.credential)
    path = {"webhook_id": made["id"]}
    rotated = (await transport.call("itsm.rotate_secret", program.credential, path=path)).succeeded()
    assert rotated["secret"] not in (None, made["secret"])
    assert rotated["updated_at"] > made["updated_at"]
    assert [one.get("secret") for one in await listed(transport, program.credential)] == [None]


async def test_a_deleted_webhook_is_gone(transport: Transport, program: Program) -> None:
    gone, other = await register(transport, program.credential), await register(transport, program.credential)
    path = {"webhook_id": gone["id"]}
    assert (await transport.call("itsm.delete_webhook", program.credential, path=path)).succeeded(204) == {}
    assert [one["id"] for one in await listed(transport, program.credential)] == [other["id"]]
    (await transport.call("itsm.delete_webhook", program.credential, path=path)).failed(
        "not_found", "Webhook not found"
    )


ONE = [
    ("itsm.update_webhook", {"is_active": False}),
    ("itsm.delete_webhook", None),
    ("itsm.rotate_secret", None),
    ("itsm.deliveries", None),
]


@pytest.mark.parametrize(("operation", "body"), ONE)
async def test_a_webhook_of_another_account_or_mode_is_not_found(
    transport: Transport, world: World, operation: str, body: Any
) -> None:
    owner = await world.program(scopes=MANAGE)
    webhook = without_secret(await register(transport, owner.credential))
    strangers = [
        await world.program(scopes=MANAGE),
        await world.program(scopes=MANAGE, account_id=owner.account_id, test=True),
    ]
    for stranger in strangers:
        assert await listed(transport, stranger.credential) == []
        for webhook_id in (webhook["id"], "wh_0", "x" * 64):
            path = {"webhook_id": webhook_id}
            reply = await transport.call(operation, stranger.credential, path=path, body=body)
            reply.failed("not_found", "Webhook not found")
    assert [without_secret(one) for one in await listed(transport, owner.credential)] == [webhook]


@pytest.mark.parametrize(
    "operation", ["itsm.create_webhook", "itsm.webhooks", "itsm.replay", *(name for name, _ in ONE)]
)
async def test_every_method_asks_for_the_scope(transport: Transport, world: World, operation: str) -> None:
    program = await world.program()
    named = {"webhook_id": "wh_0", "delivery_id": "dlv_0"}
    path = {name: value for name, value in named.items() if name in METHODS[operation].path}
    reply = await transport.call(operation, program.credential, path=path)
    reply.failed("missing_scope", "API key missing required scope: webhooks:manage")


async def test_an_account_has_at_most_twenty_in_each_mode(transport: Transport, world: World, program: Program) -> None:
    message = "An account can have at most 20 webhooks"
    replies = await asyncio.gather(
        *(transport.call("itsm.create_webhook", program.credential, body=NEW) for _ in range(24))
    )
    assert len(await listed(transport, program.credential)) == 20
    refused = [reply for reply in replies if reply.status not in (201, grpc.StatusCode.OK)]
    assert len(refused) == 4
    for reply in (*refused, await transport.call("itsm.create_webhook", program.credential, body=NEW)):
        reply.failed("already_exists", message)
    test = await world.program(scopes=MANAGE, account_id=program.account_id, test=True)
    await register(transport, test.credential)
    # A deleted one makes room for another.
    gone = {"webhook_id": (await listed(transport, program.credential))[7]["id"]}
    (await transport.call("itsm.delete_webhook", program.credential, path=gone)).succeeded(204)
    await register(transport, program.credential)
    (await transport.call("itsm.create_webhook", program.credential, body=NEW)).failed("already_exists", message)


@pytest.mark.parametrize(
    ("status", "is_active", "reason"), [(500, True, None), (410, False, "The receiver answered 410 Gone")]
)
async def test_a_webhook_that_fails_shows_since_when_and_why_it_is_disabled(
    transport: Transport,
    world: World,
    program: Program,
    receiver: Receiver,
    status: int,
    is_active: bool,
    reason: str | None,
) -> None:
    credential = program.credential
    # For as many attempts as there may be before the test ends.
    receiver.planned["/hook"] = [Response(status)] * 20
    made = await register(transport, credential, url=receiver.url + "/hook")
    path = {"webhook_id": made["id"]}
    (await transport.call("itsm.create", credential, body=TICKET)).succeeded(201)
    shown = await _failing(transport, credential)
    [(since,)] = world.rows("SELECT failing_since FROM itsm_webhooks WHERE id = %s", made["id"])
    assert datetime.fromisoformat(shown["failing_since"]) == since
    assert (shown["is_active"], shown["disabled_reason"]) == (is_active, reason)
    # The same address is no other one.
    same = (await transport.call("itsm.update_webhook", credential, path=path, body={"url": made["url"]})).succeeded()
    assert (same["is_active"], same["failing_since"]) == (is_active, shown["failing_since"])
    # Enabled by its account, it is as new.
    receiver.planned.clear()
    on = (await transport.call("itsm.update_webhook", credential, path=path, body={"is_active": True})).succeeded()
    assert (on["is_active"], on["disabled_reason"], on["failing_since"]) == (True, None, None)


async def _failing(transport: Transport, credential: Credential) -> Any:
    """The one webhook that is listed, once it fails."""
    while True:
        [webhook] = await listed(transport, credential)
        if webhook["failing_since"] is not None:
            return webhook


async def test_a_change_is_sent_logged_and_replayed(transport: Transport, program: Program, receiver: Receiver) -> None:
    credential = program.credential
    webhook = await register(transport, credential, url=receiver.url + "/hook")
    path = {"webhook_id": webhook["id"]}
    ticket = (await transport.call("itsm.create", credential, body=TICKET)).succeeded(201)
    await until(lambda: len(receiver.requests) == 1)
    (request,) = receiver.requests
    assert request.body["type"] == "ticket.created"
    assert request.body["data"] == ticket
    assert request.headers["webhook-signature"] == signatures(request, webhook["secret"])
    entry = await _logged(transport, credential, path)
    assert entry == {
        "id": entry["id"],
        "event_id": request.body["id"],
        "type": "ticket.created",
        "ticket_id": ticket["id"],
        "attempt": 1,
        "attempted_at": entry["attempted_at"],
        "duration_ms": entry["duration_ms"],
        "succeeded": True,
        "status_code": 200,
        "error": None,
    }
    replay = await transport.call("itsm.replay", credential, path={**path, "delivery_id": entry["id"]})
    assert replay.succeeded(202) == entry
    await until(lambda: len(receiver.requests) == 2)
    assert receiver.requests[1].raw == request.raw
    for wrong in ({**path, "delivery_id": "dlv_0"}, {"webhook_id": "wh_0", "delivery_id": entry["id"]}):
        (await transport.call("itsm.replay", credential, path=wrong)).failed("not_found", "Delivery not found")


async def _logged(transport: Transport, credential: Credential, path: dict[str, str]) -> Any:
    """The one entry of a log, which is written after its message was sent."""
    while True:
        deliveries = (await transport.call("itsm.deliveries", credential, path=path)).succeeded()["deliveries"]
        if deliveries:
            return deliveries[0]


REFUSED = [
    ("http://93.184.216.34/hook", "it is not an https address"),
    ("https://127.0.0.1/hook", "its host is not on the public Internet"),
    ("https://169.254.169.254/latest/meta-data", "its host is not on the public Internet"),
    ("https://[::ffff:10.0.0.1]:8443/hook", "its host is not on the public Internet"),
    ("https://localhost/hook", "its host is not on the public Internet"),
    ("https://nowhere.invalid/hook", "its host has no address"),
]


@pytest.mark.parametrize(("url", "why"), REFUSED)
async def test_addresses_are_checked_where_private_ones_are_not_allowed(database_url: str, url: str, why: str) -> None:
    account = Account()
    async with Machine(database_url).process(allow_private_targets=False) as strict:
        webhook = await strict.register(account, "https://93.184.216.34/hook")
        change = strict.do(account, webhooks.update_webhook, webhook_id=webhook["id"], url=url)
        for attempt in (strict.register(account, url), change):
            with pytest.raises(TicketError) as refused:
                await attempt
            assert (refused.value.reason, refused.value.message) == ("url_refused", f"The address is refused: {why}")
        assert await strict.do(account, webhooks.list_webhooks) == {"webhooks": [without_secret(webhook)]}


async def test_without_an_encryption_key_no_webhook_is_created(database_url: str) -> None:
    async with Machine(database_url).process(encryption_keys="") as keyless:
        with pytest.raises(TicketError) as refused:
            await keyless.register(Account(), URL)
    # Which setting an operator has to make is not for callers.
    assert (refused.value.reason, refused.value.message) == ("unavailable", "Webhooks are not available on this server")
