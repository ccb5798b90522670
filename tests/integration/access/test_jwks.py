"""The keys that sign bearer tokens: where they come from, how often that is asked, and what holds while it is away."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import grpc
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.rpc import error_details_pb2
from support.system import AUDIENCE, ISSUER, Credential, Issuer, run_service
from support.token_issuers import KEY, STRANGER, Clock, KeySource, base64url, bearer, claims, jwks, key_source
from support.transports import Grpc, Rest

from service.access.authenticator import Authenticator
from service.access.jwks import KeySet
from service.access.policy import Policy
from service.errors import TicketError
from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port, wait_for
from service.settings import Settings
from service.storage.database import Database


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


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def key_of(keys: KeySet, kid: str | None) -> jwt.PyJWK:
    [key] = await keys.candidates(kid, "RS256")
    return key


async def refused(keys: KeySet, kid: str | None) -> str:
    with pytest.raises(TicketError) as failure:
        await key_of(keys, kid)
    return failure.value.reason


async def test_rotated_keys_are_found_after_a_bounded_time(source: KeySource, keys: KeySet, clock: Clock) -> None:
    await key_of(keys, "first")
    source.kids = ("second",)
    clock.now += 9.9
    assert (await refused(keys, "second"), source.fetches) == ("invalid_token", 1)
    clock.now += 0.2
    assert ((await key_of(keys, "second")).key_id, source.fetches) == ("second", 2)
    # What the issuer took back is no longer good.
    assert await refused(keys, "first") == "invalid_token"


async def test_a_key_is_looked_for_again_after_five_minutes(source: KeySource, keys: KeySet, clock: Clock) -> None:
    await key_of(keys, "first")
    source.kids = ("second",)
    clock.now += 299
    assert ((await key_of(keys, "first")).key_id, source.fetches) == ("first", 1)
    clock.now += 2
    assert (await refused(keys, "first"), source.fetches) == ("invalid_token", 2)


async def test_unknown_keys_cause_one_fetch_in_ten_seconds(source: KeySource, keys: KeySet, clock: Clock) -> None:
    await key_of(keys, "first")
    for fetches in (2, 3, 4):
        clock.now += 10.1
        storm = await asyncio.gather(*(refused(keys, f"kid {number}") for number in range(50)))
        assert (set(storm), source.fetches) == ({"invalid_token"}, fetches)


def at_once(asking: Coroutine[Any, Any, Any]) -> Any:
    """What comes of it without waiting for anything."""
    try:
        asking.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


async def test_a_source_that_fails_is_asked_once_a_second(source: KeySource, keys: KeySet, clock: Clock) -> None:
    good = await key_of(keys, "first")
    source.status = 500
    clock.now += 301
    for fetches in (2, 3, 4):
        known = (key_of(keys, "first") for _ in range(25))
        unknown = (refused(keys, f"kid {number}") for number in range(25))
        assert set(await asyncio.gather(*known, *unknown)) == {good, "invalid_token"}
        for _ in range(2):
            clock.now += 0.49
            assert at_once(key_of(keys, "first")) == good
            assert at_once(refused(keys, "other")) == "invalid_token"
        assert source.fetches == fetches
        clock.now += 0.1
    # Back again, it is heard within a second.
    source.status = 200
    source.kids = ("second",)
    assert ((await key_of(keys, "second")).key_id, source.fetches) == ("second", 5)


async def test_a_source_that_never_answered_is_asked_once_a_second(
    source: KeySource, keys: KeySet, clock: Clock
) -> None:
    source.status = 500
    for fetches in (1, 2, 3):
        storm = await asyncio.gather(*(refused(keys, f"kid {number}") for number in range(50)))
        assert set(storm) == {"unavailable"}
        clock.now += 0.98
        assert at_once(refused(keys, "first")) == "unavailable"
        assert source.fetches == fetches
        clock.now += 0.1
    source.status = 200
    assert (await key_of(keys, "first")).key_id == "first"


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
    good = await key_of(keys, "first")
    source.status, source.body = status, body
    for fetches in (2, 3):
        clock.now += 301
        for _ in range(20):
            assert await key_of(keys, "first") == good
        assert source.fetches == fetches
    async with key_set(source.url) as none_yet:
        assert await refused(none_yet, "first") == "unavailable"


async def test_a_secret_in_a_jwks_is_no_key(source: KeySource, keys: KeySet) -> None:
    source.more = [{"kty": "oct", "kid": "secret", "k": base64url(b"x" * 32), "alg": "HS256"}]
    await key_of(keys, "first")
    assert await refused(keys, "secret") == "invalid_token"


@pytest.mark.parametrize(
    "odd",
    [
        {"kid": ["a"]},
        {"kid": {"a": 1}},
        {"kid": 7},
        {"kty": "AKP"},
        {"kty": ["RSA"]},
        {"kty": None},
        {"alg": "XS256"},
        {"alg": ["RS256"]},
        {"n": 7},
        {"n": "é"},
        {"e": None},
        {"kty": "EC", "crv": ["P-256"]},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": 2},
        [],
        "key",
        None,
    ],
    ids=str,
)
async def test_an_odd_entry_does_no_harm_to_the_others(source: KeySource, keys: KeySet, odd: Any) -> None:
    source.more = [{**KEY, **odd} if isinstance(odd, dict) else odd]
    assert (await key_of(keys, "first")).key_id == "first"
    assert await refused(keys, "a") == "invalid_token"


OTHER, THIRD = (rsa.generate_private_key(65537, 2048) for _ in range(2))


def entry(key: rsa.RSAPrivateKey, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """A key as a JWKS has it."""
    named = {} if kid is None else {"kid": kid}
    return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), **named, **more}


# The keys of a JWKS; by which of them a token is signed, and which it names; whether it is good.
KEY_SETS: Mapping[str, tuple[list[dict[str, Any]], tuple[rsa.RSAPrivateKey, str | None], bool]] = {
    "two of one id, the first": ([entry(STRANGER, "a"), entry(OTHER, "a")], (STRANGER, "a"), True),
    "two of one id, the second": ([entry(STRANGER, "a"), entry(OTHER, "a")], (OTHER, "a"), True),
    "two of one id, neither": ([entry(STRANGER, "a"), entry(OTHER, "a")], (THIRD, "a"), False),
    "a key and a token without id": ([entry(STRANGER)], (STRANGER, None), True),
    "a token without id": ([entry(STRANGER, "a"), entry(OTHER, "b"), entry(THIRD)], (OTHER, None), True),
    "an id that no key has": ([entry(STRANGER, "a"), entry(OTHER)], (OTHER, "x"), True),
    "an id that no key has, and a key with another": ([entry(STRANGER, "a"), entry(OTHER)], (STRANGER, "x"), False),
    "an id that another key has": ([entry(STRANGER, "a"), entry(OTHER)], (OTHER, "a"), False),
    "a key for another algorithm": ([entry(STRANGER, alg="PS256"), entry(OTHER)], (STRANGER, None), False),
    "a key to encrypt with": ([entry(STRANGER, use="enc"), entry(OTHER)], (STRANGER, None), False),
    "a key that verifies nothing": ([entry(STRANGER, key_ops=["encrypt"]), entry(OTHER)], (STRANGER, None), False),
    "a key that verifies": ([entry(STRANGER, key_ops=["verify"], use="sig")], (STRANGER, None), True),
    "more keys than a token is worth": ([*[entry(STRANGER)] * 8, entry(OTHER)], (OTHER, None), False),
}


@pytest.mark.parametrize(("entries", "signer", "is_good"), KEY_SETS.values(), ids=KEY_SETS.keys())
async def test_a_token_is_good_by_any_key_that_it_may_mean(
    tmp_path: Path, entries: list[dict[str, Any]], signer: tuple[rsa.RSAPrivateKey, str | None], is_good: bool
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": entries}))
    settings = Settings(jwks=str(file), jwt_issuer=ISSUER, jwt_audience=AUDIENCE)
    # Nothing of a token is asked of the database.
    authenticator = Authenticator(settings, cast("Database", None))
    key, kid = signer
    token = jwt.encode(claims(sub="per_1"), key, "RS256", headers=None if kid is None else {"kid": kid})
    with nullcontext() if is_good else pytest.raises(TicketError, match="invalid_token"):
        assert (await authenticator.caller(Policy("operator"), bearer(token))).subject == "per_1"


async def test_without_a_source_no_token_is_good() -> None:
    async with key_set("") as none:
        assert await refused(none, None) == "invalid_token"


async def test_a_service_lives_with_its_key_source(directory: Path, database_url: str, issuer: Issuer) -> None:
    def token(kid: str) -> Credential:
        return bearer(jwt.encode(claims(), STRANGER, "RS256", headers={"kid": kid}))

    with key_source("first") as source, run_service(directory, database_url, issuer, jwks=source.url) as service:
        envoy = Envoy(envoy_config(port=free_port(), endpoints=[service.target]), log_file=directory / "keys-envoy.log")
        async with grpc.aio.insecure_channel(service.target) as channel, httpx2.AsyncClient(timeout=30) as client:
            with envoy:
                envoy.wait_until_ready(upstream=True)
                client.base_url = httpx2.URL(envoy.url)
                transports = (Rest(client), Grpc(channel))
                # No fault of the caller's: not 401.
                source.status = 500
                for transport in transports:
                    reply = await transport.call("handoff.list", token("first"))
                    reply.failed("unavailable")
                    if transport.name == "rest":
                        assert (reply.body["retryAfter"], reply.headers["retry-after"]) == (1, "1")
                    else:
                        retry = reply.details["google.rpc.RetryInfo"]
                        assert isinstance(retry, error_details_pb2.RetryInfo)
                        assert retry.retry_delay.seconds == 1
                source.status = 200

                def recovered() -> bool:
                    return httpx2.get(f"{envoy.url}/api/tickets", headers=dict(token("first"))).status_code == 200

                await asyncio.to_thread(wait_for, recovered, what="the service to ask again", timeout=10)
                fetched = source.fetches
                for transport in transports:
                    storm = await asyncio.gather(*(transport.call("handoff.list", token(str(n))) for n in range(40)))
                    assert {reply.failed("invalid_token")["code"] for reply in storm} == {"invalid_token"}
                assert source.fetches - fetched <= 1
                source.status = 500
                for transport in transports:
                    (await transport.call("handoff.list", token("first"))).succeeded()
