"""The keys that sign bearer tokens: where they come from, how often that is asked, and what holds while it is away."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx2
import jwt
import pytest
from google.rpc import error_details_pb2
from support.system import Credential, Issuer, run_service
from support.token_issuers import KEY, STRANGER, Clock, KeySource, base64url, bearer, claims, jwks, key_source
from support.transports import Grpc, Rest

from service.access.jwks import KeySet
from service.errors import TicketError
from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port, wait_for


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


def at_once(asking: Coroutine[Any, Any, Any]) -> Any:
    """What comes of it without waiting for anything."""
    try:
        asking.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


async def test_a_source_that_fails_is_asked_once_a_second(source: KeySource, keys: KeySet, clock: Clock) -> None:
    good = await keys.key("first")
    source.status = 500
    clock.now += 301
    for fetches in (2, 3, 4):
        known = (keys.key("first") for _ in range(25))
        unknown = (refused(keys, f"kid {number}") for number in range(25))
        assert set(await asyncio.gather(*known, *unknown)) == {good, "invalid_token"}
        for _ in range(2):
            clock.now += 0.49
            assert at_once(keys.key("first")) == good
            assert at_once(refused(keys, "other")) == "invalid_token"
        assert source.fetches == fetches
        clock.now += 0.1
    # Back again, it is heard within a second.
    source.status = 200
    source.kids = ("second",)
    assert ((await keys.key("second")).key_id, source.fetches) == ("second", 5)


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
    assert (await keys.key("first")).key_id == "first"


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
    assert (await keys.key("first")).key_id == "first"
    assert await refused(keys, "a") == "invalid_token"


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
