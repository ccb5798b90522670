"""Who is let in: API keys; how long a credential is remembered; and that none is logged."""

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from support.system import AUDIENCE, ISSUER, Issuer, Service, World
from support.token_issuers import Clock, base64url, bearer, later
from support.transports import Grpc, Rest

from service.access.api_keys import is_well_formed, new_api_key
from service.access.authenticator import Authenticator
from service.access.policy import POLICIES
from service.admin import operations as admin
from service.directory import METADATA
from service.errors import TicketError
from service.local.processes import wait_for
from service.settings import Settings
from service.storage.database import Database

Transport = Rest | Grpc

MISSING, INVALID = "Missing authentication credentials", "Invalid API key"


@pytest.mark.parametrize("live", [True, False])
def test_a_key_has_its_prefix_and_160_random_bits(live: bool) -> None:
    prefix = f"itsm_sk_{'live' if live else 'test'}_"
    keys = [new_api_key(live) for _ in range(300)]
    assert all(re.fullmatch(prefix + "[0-9A-Za-z]{38}", key) and is_well_formed(key) for key in keys)
    # 27 characters of 62 hold 160 bits: each place takes (nearly) every character in turn.
    assert all(len(set(place)) > 50 for place in zip(*(key[len(prefix) :][:27] for key in keys), strict=True))


def test_any_typing_error_is_found_without_a_look_up() -> None:
    key = new_api_key(live=True)
    for at in range(len(key)):
        assert not is_well_formed(key[:at] + ("x" if key[at] != "x" else "y") + key[at + 1 :])
        assert not is_well_formed(key[:at] + key[at + 1 :])


async def test_a_call_needs_a_key(transport: Transport, world: World) -> None:
    program = await world.program()
    token = world.issuer.bearer(str(uuid4()), scope="tickets:read tickets:write")
    for credential in ({}, {"x-api-key": ""}, token, bearer(program.key)):
        reply = await transport.call("itsm.list", credential)
        reply.failed("unauthenticated", MISSING)
        if transport.name == "rest":
            assert reply.body == {"detail": MISSING}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: new_api_key(live=True), id="unknown"),
        pytest.param(lambda key: key[:-1] + ("0" if key[-1] != "0" else "1"), id="bad checksum"),
        pytest.param(lambda key: key.replace("live", "test"), id="live as test"),
        pytest.param(lambda key: key + key[-6:], id="too long"),
        pytest.param(lambda _: "itsm_sk_live_", id="prefix alone"),
        pytest.param(lambda key: hashlib.sha256(key.encode()).hexdigest(), id="its hash"),
        pytest.param(lambda key: f"Bearer {key}", id="with a scheme"),
    ],
)
async def test_another_key_is_invalid(transport: Transport, world: World, change: Callable[[str], str]) -> None:
    key = (await world.program()).key
    reply = await transport.call("itsm.list", {"x-api-key": change(key)})
    reply.failed("invalid_token", INVALID)
    if transport.name == "rest":
        assert reply.body == {"detail": INVALID}
    (await transport.call("itsm.list", {"x-api-key": key})).succeeded()


async def test_revoked_and_expired_keys_are_invalid(transport: Transport, world: World) -> None:
    now = datetime.now(UTC)
    program = await world.program(expires_at=now + timedelta(hours=1))
    revoked = await world.program(account_id=program.account_id)
    expired = await world.program(account_id=program.account_id, expires_at=now + timedelta(hours=1))
    await world.operate(admin.revoke_api_key, api_key_id=revoked.key_id)
    world.run("UPDATE api_keys SET expires_at = now() WHERE id = %s", expired.key_id)
    for other in (revoked, expired):
        (await transport.call("itsm.list", other.credential)).failed("invalid_token", INVALID)
    (await transport.call("itsm.list", program.credential)).succeeded()


async def test_only_a_keys_hash_is_stored(world: World) -> None:
    for program in (await world.program(), await world.program(test=True)):
        [(row, key_hash)] = world.rows("SELECT k::text, key_hash FROM api_keys k WHERE id = %s", program.key_id)
        assert key_hash == hashlib.sha256(program.key.encode()).digest()
        secret = program.key.rpartition("_")[2]
        for form in (secret, secret[:-6], secret.encode().hex(), base64url(secret.encode())):
            assert form not in row


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# What was verified once is remembered, but not for long


@pytest.fixture
async def authenticator(database_url: str, issuer: Issuer) -> AsyncIterator[Authenticator]:
    settings = Settings(
        database_url=database_url, pool_size=1, jwks=str(issuer.jwks), jwt_issuer=ISSUER, jwt_audience=AUDIENCE
    )
    database = Database(settings, METADATA)
    await database.open()
    authenticator = Authenticator(settings, database)
    yield authenticator
    await authenticator.close()
    await database.close()


async def admitted(authenticator: Authenticator, method: tuple[str, str], credential: Mapping[str, str]) -> bool | str:
    try:
        return bool(await authenticator.caller(POLICIES[method], credential))
    except TicketError as error:
        return error.reason


ITSM, HANDOFF = ("tickets.itsm.v1", "ListTickets"), ("tickets.handoff.v1", "ListTickets")


async def test_a_token_that_was_accepted_is_no_key(transport: Transport, world: World) -> None:
    token = world.issuer.token(str(uuid4()), scope="tickets:read tickets:write")
    (await transport.call("handoff.list", bearer(token))).succeeded()
    one, ticket = {"ticket_id": str(uuid4())}, {"subject": "a", "description": "b"}
    for operation, path, body in (
        ("itsm.list", None, None),
        ("itsm.get", one, None),
        ("itsm.create", None, ticket),
        ("itsm.update", one, ticket),
    ):
        (await transport.call(operation, {"x-api-key": token}, path=path, body=body)).failed("invalid_token", INVALID)


async def test_a_key_that_was_accepted_is_no_token(transport: Transport, world: World) -> None:
    program = await world.program()
    (await transport.call("itsm.list", program.credential)).succeeded()
    # The key's id is a UUID, as a user's is.
    project_id = await world.project()
    await world.member(project_id, user_id=program.key_id)
    ticket = {"title": "a", "description": "b", "request_type": "bug"}
    for operation, path, body in (
        ("handoff.list", None, None),
        ("handoff.create", {"project_id": project_id}, ticket),
        ("helpdesk.list", None, None),
        ("helpdesk.create", None, {"title": "a"}),
    ):
        (await transport.call(operation, bearer(program.key), path=path, body=body)).failed("invalid_token")


async def test_a_revoked_key_works_for_five_seconds_at_most(
    authenticator: Authenticator, world: World, clock: Clock
) -> None:
    program = await world.program()
    assert await admitted(authenticator, ITSM, program.credential) is True
    await world.operate(admin.revoke_api_key, api_key_id=program.key_id)
    clock.now += 5
    assert await admitted(authenticator, ITSM, program.credential) == "invalid_token"


async def test_a_key_is_remembered_no_longer_than_it_lives(
    authenticator: Authenticator, world: World, clock: Clock
) -> None:
    program = await world.program(expires_at=datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1))
    clock.now += 3600 - 1
    assert await admitted(authenticator, ITSM, program.credential) is True
    world.run("UPDATE api_keys SET expires_at = now() WHERE id = %s", program.key_id)
    clock.now += 1
    assert await admitted(authenticator, ITSM, program.credential) == "invalid_token"


async def test_a_token_is_remembered_no_longer_than_it_lives(
    authenticator: Authenticator, issuer: Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential = bearer(later("exp", 60)(issuer))
    monkeypatch.setattr("jwt.api_jwt.datetime", clock.datetime())
    clock.now += 65
    assert await admitted(authenticator, HANDOFF, credential) is True
    clock.now += 10
    assert await admitted(authenticator, HANDOFF, credential) == "token_expired"


# And after all that


async def test_no_credential_is_logged(directory: Path, transport: Transport, service: Service, world: World) -> None:
    program, revoked = await world.program(), await world.program()
    await world.operate(admin.revoke_api_key, api_key_id=revoked.key_id)
    user = world.issuer.bearer(str(uuid4()))
    calls = {
        "ok": ("itsm.list", program.credential),
        "invalid_token": ("itsm.list", revoked.credential),
        "unauthenticated": ("handoff.list", {"authorization": "Basic amFuZTpzZWNyZXQ="}),
        "token_expired": ("handoff.list", bearer(later("exp", -60)(world.issuer))),
        "forbidden": ("handoff.create", user),
    }
    ids = {outcome: str(uuid4()) for outcome in calls}
    for outcome, (operation, credential) in calls.items():
        path = {"project_id": str(uuid4())} if operation == "handoff.create" else None
        body = {"title": "secret title", "description": "y", "request_type": "bug"} if path else None
        headers = {"x-request-id": ids[outcome]}
        await transport.call(operation, credential, path=path, body=body, headers=headers)

    def logged() -> dict[str, str]:
        return {line["request_id"]: line["outcome"] for line in service.lines() if line["event"] == "call"}

    # A call's line is written once it is answered.
    wait_for(lambda: logged().keys() >= set(ids.values()), what="the log lines", timeout=10)
    assert {outcome: logged()[request_id] for outcome, request_id in ids.items()} == {name: name for name in calls}
    text = service.log.read_bytes() + (directory / "envoy.log").read_bytes()
    # A JWT begins with these letters, whatever it says: `{"`.
    for secret in (b"eyJ", b"itsm_sk_", b"amFuZTpzZWNyZXQ", b"secret title"):
        assert secret not in text
    for part in (program.key.rpartition("_")[2], user["authorization"].rpartition(".")[2]):
        assert part.encode() not in text
