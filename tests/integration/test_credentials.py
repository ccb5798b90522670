"""Who is let in: bearer tokens, the keys that sign them, and API keys."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.rpc import error_details_pb2
from harness import Grpc, Rest, rest_reply
from system import AUDIENCE, ISSUER, Credential, Issuer, Service, World, run_service

from service.admin import operations as admin
from service.auth import POLICIES, Authenticator, is_well_formed, new_api_key
from service.database import Database
from service.directory import METADATA
from service.errors import TicketError
from service.jwks import KeySet
from service.local import Envoy, envoy_config, free_port, wait_for
from service.settings import Settings

Door = Rest | Grpc
Forge = Callable[[Issuer], str]

STRANGER = rsa.generate_private_key(65537, 2048)


def bearer(token: str, scheme: str = "Bearer") -> Credential:
    return {"authorization": f"{scheme} {token}"}


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a good token with these changes; what is None is left out."""
    now = int(time.time())
    good = {"sub": str(uuid4()), "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 3600}
    return {name: value for name, value in {**good, **changed}.items() if value is not None}


def told(**changed: Any) -> Forge:
    """A token that the issuer signed, of claims with these changes."""
    return lambda issuer: jwt.encode(claims(**changed), issuer.ec, "ES256", headers={"kid": "ec"})


def later(claim: str, seconds: int) -> Forge:
    """A token with this claim so many seconds from the moment it is made."""

    def forge(issuer: Issuer) -> str:
        return told(**{claim: int(time.time()) + seconds})(issuer)

    return forge


def signed(algorithm: str, kid: str | None, key: Callable[[Issuer], Any]) -> Forge:
    """A token of good claims, signed with any key."""
    return lambda issuer: jwt.encode(claims(), key(issuer), algorithm, headers={"kid": kid} if kid else None)


def forged(algorithm: str, secret: Callable[[Issuer], bytes] | None = None) -> Forge:
    """A token that no library would make: with an HMAC under this secret, or with no signature at all."""

    def forge(issuer: Issuer) -> str:
        header = {"alg": algorithm, "typ": "JWT", "kid": "rsa"}
        head = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims()))
        return f"{head}.{base64url(hmac.digest(secret(issuer), head.encode(), 'sha256')) if secret else ''}"

    return forge


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def public_pem(issuer: Issuer) -> bytes:
    return issuer.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def tampered(part: int, change: Callable[[str], str]) -> Forge:
    """A good token with one of its three parts changed."""

    def forge(issuer: Issuer) -> str:
        parts = issuer.token(str(uuid4())).split(".")
        parts[part] = change(parts[part])
        return ".".join(parts)

    return forge


# Bearer tokens


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda issuer: issuer.token(str(uuid4()), algorithm="RS256"), id="RS256"),
        pytest.param(lambda issuer: issuer.token(str(uuid4()), algorithm="ES256"), id="ES256"),
        pytest.param(told(aud=["someone", AUDIENCE]), id="one audience of several"),
        pytest.param(later("exp", -2), id="expired within the leeway"),
        pytest.param(later("nbf", 8), id="not yet valid, within the leeway"),
        pytest.param(told(app_id="x" * 64, actor_role="y" * 64, tenant_id="z" * 64), id="claims of 64"),
        pytest.param(told(iat=None, email="jane@example.com", groups=["a"]), id="claims nobody asks for"),
    ],
)
async def test_good_tokens_are_accepted(door: Door, issuer: Issuer, token: Forge) -> None:
    (await door.call("handoff.list", bearer(token(issuer)))).succeeded()


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
async def test_the_schemes_case_and_blanks_do_not_matter(door: Door, issuer: Issuer, scheme: str) -> None:
    (await door.call("handoff.list", bearer(issuer.token(str(uuid4())), scheme))).succeeded()


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda _: "garbled", id="garbled"),
        pytest.param(lambda _: "a.b.c", id="three parts of nothing"),
        pytest.param(tampered(0, lambda part: part[1:]), id="garbled header"),
        pytest.param(tampered(1, lambda _: base64url(json.dumps(claims()).encode())), id="tampered payload"),
        pytest.param(tampered(1, lambda _: base64url(b"[]")), id="payload that is no object"),
        pytest.param(tampered(2, lambda part: part[::-1]), id="tampered signature"),
        pytest.param(tampered(2, lambda _: ""), id="no signature"),
        pytest.param(forged("none"), id="alg none"),
        pytest.param(forged("None"), id="alg None"),
        pytest.param(forged("HS256", public_pem), id="HS256 with the public key's PEM"),
        pytest.param(forged("HS256", lambda issuer: public_pem(issuer).strip()), id="HS256 with the PEM trimmed"),
        pytest.param(forged("HS256", lambda issuer: issuer.jwks.read_bytes()), id="HS256 with the JWKS"),
        pytest.param(forged("HS256", lambda _: b""), id="HS256 with nothing"),
        pytest.param(forged("RS256", public_pem), id="HMAC that says RS256"),
        pytest.param(signed("ES256", "rsa", lambda issuer: issuer.ec), id="ES256 with the kid of the RSA key"),
        pytest.param(signed("RS256", "ec", lambda issuer: issuer.rsa), id="RS256 with the kid of the EC key"),
        pytest.param(signed("RS512", "rsa", lambda issuer: issuer.rsa), id="RS512 by the right key"),
        pytest.param(signed("PS256", "rsa", lambda issuer: issuer.rsa), id="PS256 by the right key"),
        pytest.param(signed("RS256", "rsa", lambda _: STRANGER), id="another's key"),
        pytest.param(signed("RS256", "other", lambda issuer: issuer.rsa), id="unknown kid"),
        pytest.param(signed("RS256", None, lambda issuer: issuer.rsa), id="no kid"),
        pytest.param(told(iss="https://issuer.test/"), id="wrong issuer"),
        pytest.param(told(iss=None), id="no issuer"),
        pytest.param(told(aud="tickets"), id="wrong audience"),
        pytest.param(told(aud=[]), id="empty audience"),
        pytest.param(told(aud=None), id="no audience"),
        pytest.param(told(exp=None), id="no expiry"),
        pytest.param(told(exp="soon"), id="expiry that is no time"),
        pytest.param(later("nbf", 3600), id="not yet valid"),
        pytest.param(later("iat", 3600), id="issued in the future"),
        pytest.param(told(sub=None), id="no sub"),
        pytest.param(told(sub=""), id="empty sub"),
        pytest.param(told(sub="per_1"), id="sub that is no UUID"),
        pytest.param(told(scope=["a"]), id="scope that is no text"),
        pytest.param(told(app_id="x" * 65), id="app_id too long"),
        pytest.param(told(actor_role="x" * 65), id="actor_role too long"),
        pytest.param(told(tenant_id="x" * 65), id="tenant_id too long"),
        pytest.param(told(tenant_id=7), id="tenant_id that is no text"),
        pytest.param(told(app_id="a\0b"), id="app_id with a NUL"),
        pytest.param(told(padding="x" * 8192), id="token too long"),
    ],
)
async def test_other_tokens_are_not_valid(door: Door, issuer: Issuer, token: Forge) -> None:
    (await door.call("handoff.list", bearer(token(issuer)))).failed("invalid_token")


@pytest.mark.parametrize("seconds", [11, 3600])
async def test_an_expired_token_says_so(door: Door, issuer: Issuer, seconds: int) -> None:
    (await door.call("handoff.list", bearer(later("exp", -seconds)(issuer)))).failed("token_expired")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Basic amFuZTpzZWNyZXQ=", "Token {}", "{}", "Basic {}", "{} Bearer"]
)
async def test_no_token_is_unauthenticated(door: Door, issuer: Issuer, header: str | None) -> None:
    credential = {} if header is None else {"authorization": header.format(issuer.token(str(uuid4())))}
    for operation in ("handoff.list", "helpdesk.list"):
        (await door.call(operation, credential)).failed("unauthenticated", "Missing authentication credentials")


async def test_bytes_that_are_no_text_are_no_token(rest: Rest) -> None:
    for header, reason in ((b"Bearer \xff\xfe", "invalid_token"), (b"\xc3\xa9", "unauthenticated")):
        response = await rest.client.get("/api/tickets", headers={b"authorization": header})
        rest_reply("handoff", response).failed(reason)


async def test_a_helpdesk_token_needs_a_tenant_and_no_uuid(door: Door, issuer: Issuer) -> None:
    scope = "helpdesk:read helpdesk:agent"
    (await door.call("helpdesk.list", issuer.bearer("per_1", scope=scope))).failed("invalid_token")
    (await door.call("helpdesk.list", issuer.bearer("per_1", scope=scope, tenant_id=""))).failed("invalid_token")
    (await door.call("helpdesk.list", issuer.bearer("per_1", scope=scope, tenant_id="ten_1"))).succeeded()


# The keys that sign them


def jwks(*kids: str, more: Sequence[Mapping[str, str]] = ()) -> bytes:
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True)
    return json.dumps({"keys": [*({**jwk, "kid": kid} for kid in kids), *more]}).encode()


class KeySource:
    """A web server that answers a JWKS, and counts how often it is asked."""

    def __init__(self, *kids: str) -> None:
        self.kids = kids
        self.status = 200
        self.fetches = 0
        # Instead of the JWKS.
        self.body: bytes | None = None
        self.more: list[dict[str, str]] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.fetches += 1
                body = jwks(*source.kids, more=source.more) if source.body is None else source.body
                self.send_response(source.status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"


@contextmanager
def key_source(*kids: str) -> Iterator[KeySource]:
    source = KeySource(*kids)
    thread = threading.Thread(target=source.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield source
    finally:
        source.server.shutdown()
        source.server.server_close()
        thread.join()


@pytest.fixture
def source() -> Iterator[KeySource]:
    with key_source("first") as source:
        yield source


@asynccontextmanager
async def key_set(source: str) -> AsyncIterator[KeySet]:
    keys = KeySet(source)
    yield keys
    await keys.close()


@pytest.fixture
async def keys(source: KeySource) -> AsyncIterator[KeySet]:
    async with key_set(source.url) as keys:
        yield keys


class Clock:
    """The time as the code under test sees it: it stands (nearly) still until it is moved."""

    def __init__(self) -> None:
        self.now = time.time()

    def look(self) -> float:
        self.now += 1e-5
        return self.now

    def datetime(self) -> Any:
        return SimpleNamespace(now=lambda tz: datetime.fromtimestamp(self.now, tz))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.jwks.time", SimpleNamespace(monotonic=clock.look))
    monkeypatch.setattr("service.auth.time", SimpleNamespace(time=clock.look))
    return clock


async def refused(keys: KeySet, kid: str | None) -> str:
    with pytest.raises(TicketError) as failure:
        await keys.key(kid)
    return failure.value.reason


async def test_rotated_keys_are_found_after_a_bounded_time(source: KeySource, keys: KeySet, clock: Clock) -> None:
    await keys.key("first")
    source.kids = ("second",)
    clock.now += 9.9
    assert (await refused(keys, "second"), source.fetches) == ("invalid_token", 1)
    clock.now += 0.2
    assert ((await keys.key("second")).key_id, source.fetches) == ("second", 2)
    # What the issuer took back is no longer good.
    assert await refused(keys, "first") == "invalid_token"


async def test_a_key_is_looked_for_again_after_five_minutes(source: KeySource, keys: KeySet, clock: Clock) -> None:
    await keys.key("first")
    source.kids = ("second",)
    clock.now += 299
    assert ((await keys.key("first")).key_id, source.fetches) == ("first", 1)
    clock.now += 2
    assert (await refused(keys, "first"), source.fetches) == ("invalid_token", 2)


async def test_unknown_keys_cause_one_fetch_in_ten_seconds(source: KeySource, keys: KeySet, clock: Clock) -> None:
    await keys.key("first")
    for fetches in (2, 3, 4):
        clock.now += 10.1
        storm = await asyncio.gather(*(refused(keys, f"kid {number}") for number in range(50)))
        assert (set(storm), source.fetches) == ({"invalid_token"}, fetches)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, None),
        (404, None),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [{"kty": "RSA"}]}'),
        (200, jwks("second") + b" " * 256 * 1024),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_keys_stay_good_while_their_source_is_not(
    source: KeySource, keys: KeySet, clock: Clock, status: int, body: bytes | None
) -> None:
    good = await keys.key("first")
    source.status, source.body = status, body
    for fetches in (2, 3):
        clock.now += 301
        for _ in range(20):
            assert await keys.key("first") == good
        assert source.fetches == fetches
    async with key_set(source.url) as none_yet:
        assert await refused(none_yet, "first") == "unavailable"


async def test_a_secret_in_a_jwks_is_no_key(source: KeySource, keys: KeySet) -> None:
    source.more = [{"kty": "oct", "kid": "secret", "k": base64url(b"x" * 32), "alg": "HS256"}]
    await keys.key("first")
    assert await refused(keys, "secret") == "invalid_token"


async def test_a_token_without_kid_is_good_only_where_there_is_one_key(source: KeySource) -> None:
    async with key_set(source.url) as one:
        assert (await one.key(None)).key_id == "first"
    source.kids = ("first", "second")
    async with key_set(source.url) as two, key_set("") as none:
        assert await refused(two, None) == await refused(none, None) == "invalid_token"


async def test_a_service_lives_with_its_key_source(directory: Path, database_url: str, issuer: Issuer) -> None:
    def token(kid: str) -> Credential:
        return bearer(jwt.encode(claims(), STRANGER, "RS256", headers={"kid": kid}))

    with key_source("first") as source, run_service(directory, database_url, issuer, jwks=source.url) as service:
        envoy = Envoy(envoy_config(port=free_port(), endpoints=[service.target]), log_file=directory / "keys-envoy.log")
        async with grpc.aio.insecure_channel(service.target) as channel, httpx.AsyncClient(timeout=30) as client:
            with envoy:
                envoy.wait_until_ready(upstream=True)
                client.base_url = httpx.URL(envoy.url)
                doors = (Rest(client), Grpc(channel))
                # No fault of the caller's: not 401.
                source.status = 500
                for door in doors:
                    reply = await door.call("handoff.list", token("first"))
                    reply.failed("unavailable")
                    if door.name == "rest":
                        assert (reply.body["retryAfter"], reply.headers["retry-after"]) == (1, "1")
                    else:
                        retry = reply.details["google.rpc.RetryInfo"]
                        assert isinstance(retry, error_details_pb2.RetryInfo)
                        assert retry.retry_delay.seconds == 1
                source.status = 200
                await asyncio.sleep(1)  # as told
                (await doors[0].call("handoff.list", token("first"))).succeeded()
                fetched = source.fetches
                for door in doors:
                    storm = await asyncio.gather(*(door.call("handoff.list", token(str(n))) for n in range(40)))
                    assert {reply.failed("invalid_token")["code"] for reply in storm} == {"invalid_token"}
                assert source.fetches - fetched <= 1
                source.status = 500
                for door in doors:
                    (await door.call("handoff.list", token("first"))).succeeded()


# API keys

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


async def test_a_call_needs_a_key(door: Door, world: World) -> None:
    program = await world.program()
    token = world.issuer.bearer(str(uuid4()), scope="tickets:read tickets:write")
    for credential in ({}, {"x-api-key": ""}, token, bearer(program.key)):
        reply = await door.call("itsm.list", credential)
        reply.failed("unauthenticated", MISSING)
        if door.name == "rest":
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
async def test_another_key_is_invalid(door: Door, world: World, change: Callable[[str], str]) -> None:
    key = (await world.program()).key
    reply = await door.call("itsm.list", {"x-api-key": change(key)})
    reply.failed("invalid_token", INVALID)
    if door.name == "rest":
        assert reply.body == {"detail": INVALID}
    (await door.call("itsm.list", {"x-api-key": key})).succeeded()


async def test_revoked_and_expired_keys_are_invalid(door: Door, world: World) -> None:
    now = datetime.now(UTC)
    program = await world.program(expires_at=now + timedelta(hours=1))
    revoked = await world.program(account_id=program.account_id)
    expired = await world.program(account_id=program.account_id, expires_at=now + timedelta(hours=1))
    await world.operate(admin.revoke_api_key, api_key_id=revoked.key_id)
    world.run("UPDATE api_keys SET expires_at = now() WHERE id = %s", expired.key_id)
    for other in (revoked, expired):
        (await door.call("itsm.list", other.credential)).failed("invalid_token", INVALID)
    (await door.call("itsm.list", program.credential)).succeeded()


async def test_only_a_keys_hash_is_stored(world: World) -> None:
    for program in (await world.program(), await world.program(test=True)):
        [(row, key_hash)] = world.rows("SELECT k::text, key_hash FROM api_keys k WHERE id = %s", program.key_id)
        assert key_hash == hashlib.sha256(program.key.encode()).digest()
        secret = program.key.rpartition("_")[2]
        for form in (secret, secret[:-6], secret.encode().hex(), base64url(secret.encode())):
            assert form not in row


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


async def test_no_credential_is_logged(directory: Path, door: Door, service: Service, world: World) -> None:
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
        await door.call(operation, credential, path=path, body=body, headers=headers)

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
