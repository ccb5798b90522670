"""A call from its request to its answer: credentials, deadline, repeats, pages, and watches that resume."""

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Generic, TypeAlias, TypeVar

import grpc
from grpc import StatusCode

from service.client.errors import RateLimitedError, TicketsError, UnavailableError, failure
from service.client.messages import Method
from service.client.wire import Wire

W = TypeVar("W", bound=Wire)

# A secret, or what gives a fresh one for each attempt.
Credential: TypeAlias = str | Callable[[], str]
AsyncCredential: TypeAlias = str | Callable[[], str | Awaitable[str]]

_DOUBLINGS = 20


def _full(most: float) -> float:
    return random.uniform(0, most)  # noqa: S311 - spreads callers, guards nothing


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried in all, and how long it waits in between, in seconds.

    The n-th wait is what the service asked for, and on top of it what `jitter` makes of `first` doubled n - 1 times,
    at most `longest`: by default anything from nothing to all of it.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 5.0
    jitter: Callable[[float], float] = _full

    def wait(self, failed: TicketsError, attempt: int) -> float:
        """The seconds to wait after the attempt with this number, from 1."""
        doubled = self.first * 2 ** min(attempt - 1, _DOUBLINGS)
        return (failed.retry_after or 0) + self.jitter(min(self.longest, doubled))


@dataclass(frozen=True, slots=True)
class Request:
    """One call to make; `timeout` is in seconds, and None is the client's."""

    method: Method
    # Lists and watches write into it where they go on.
    message: Any
    timeout: float | None = None
    # With one a write is safe to repeat.
    idempotency_key: str | None = None

    def may_repeat(self, failed: TicketsError) -> bool:
        """Whether another attempt cannot do twice what was to be done once."""
        if failed.status is StatusCode.RESOURCE_EXHAUSTED:
            return failed.retry_after is not None  # refused before anything was begun
        is_safe = self.method.is_read or self.idempotency_key is not None
        return is_safe and failed.status in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True, slots=True)
class Link(Generic[W]):
    """A wire and all that the calls over it share; `timeout` is in seconds."""

    wire: W
    token: AsyncCredential | None
    api_key: AsyncCredential | None
    timeout: float
    retries: Retries

    async def answer(self, request: Request) -> Any:
        """The answer's message. Raises TicketsError once there is no time, no attempt or no sense in another try."""
        deadline = time.monotonic() + (self.timeout if request.timeout is None else request.timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                metadata = await self._metadata(request)
                return await self.wire.unary(request.method, request.message, metadata, deadline - time.monotonic())
            except grpc.RpcError as error:
                failed = failure(error)
            wait = self.retries.wait(failed, attempt)
            is_over = attempt >= self.retries.attempts or time.monotonic() + wait >= deadline
            if is_over or not request.may_repeat(failed):
                raise failed
            await self.wire.sleep(wait)

    async def pages(self, request: Request) -> AsyncGenerator[Any, None]:
        """The messages of a list's pages, from the one asked for on. Each has the timeout of a call of its own."""
        while True:
            page = await self.answer(request)
            yield page
            if not _turn(request.message, page):
                return

    async def watch(self, request: Request, patience: float) -> AsyncGenerator[Any, None]:
        """The messages of a watch; it goes on behind the last one when the service goes away, or the token expires.

        Raises TicketsError: what else ends it, or `unavailable` when it could not go on for `patience` seconds.
        """
        attempt, give_up_at = 0, 0.0
        while True:
            failed: TicketsError = UnavailableError("unavailable", "The watch ended", status=StatusCode.UNAVAILABLE)
            try:
                metadata = await self._metadata(request)
                async with aclosing(self.wire.stream(request.method, request.message, metadata)) as messages:
                    async for message in messages:
                        request.message.cursor, attempt = message.cursor, 0
                        yield message
            except grpc.RpcError as error:
                failed = failure(error)
            attempt += 1
            if attempt == 1:
                give_up_at = time.monotonic() + patience
            wait = self.retries.wait(failed, attempt)
            if not _is_passing(failed, attempt) or time.monotonic() + wait >= give_up_at:
                raise failed
            await self.wire.sleep(wait)

    async def _metadata(self, request: Request) -> list[tuple[str, str]]:
        metadata = []
        if self.token is not None:
            metadata.append(("authorization", f"Bearer {await _secret(self.token)}"))
        if self.api_key is not None:
            metadata.append(("x-api-key", await _secret(self.api_key)))
        if request.idempotency_key is not None:
            metadata.append(("idempotency-key", request.idempotency_key))
        return metadata


async def _secret(credential: AsyncCredential) -> str:
    given = credential if isinstance(credential, str) else credential()
    return await given if isawaitable(given) else given


def _turn(request: Any, page: Any) -> bool:
    """Make a list's request the one of the next page; False when there is none."""
    if "next_cursor" in page.DESCRIPTOR.fields_by_name:
        request.cursor = page.next_cursor
        return bool(page.next_cursor)
    if "total" not in page.DESCRIPTOR.fields_by_name:
        return False
    request.offset += len(page.tickets)
    return bool(page.tickets) and request.offset < page.total


def _is_passing(failed: TicketsError, attempt: int) -> bool:
    """Whether a watch that ended so goes on; it tries once whether there is a fresh token."""
    if failed.reason == "token_expired":
        return attempt == 1
    return isinstance(failed, UnavailableError | RateLimitedError)
