"""A call from its request to its response: credentials, deadline, retries, pages, and watches that resume."""

import random
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Generic, TypeAlias, TypeVar

import grpc
from grpc import StatusCode
from tickets.client.errors import RateLimitedError, TicketsError, UnavailableError, failure
from tickets.client.messages import Method
from tickets.client.transport import Transport

TransportT = TypeVar("TransportT", bound=Transport)

# A secret, or a function that returns a fresh one for each attempt.
Credential: TypeAlias = str | Callable[[], str]
AsyncCredential: TypeAlias = str | Callable[[], str | Awaitable[str]]

_DOUBLINGS = 20
# Far more than any call takes; gRPC takes what is too large for it, such as infinity, for a time that has passed.
_LONGEST_SECONDS = 365 * 24 * 3600.0
_PLAIN = re.compile(r"[\x20-\x7e]*")


def _full_jitter(backoff: float) -> float:
    return random.uniform(0, backoff)  # noqa: S311 - spreads callers, guards nothing


@dataclass(frozen=True, slots=True)
class Retries:
    """How many attempts a call has in all, and how long it waits between them, in seconds.

    The n-th wait is what the service asked for plus `jitter` of the backoff: `first` doubled n - 1 times, at most
    `longest`. By default the jitter is anything from nothing to the whole backoff.
    """

    attempts: int = 4
    first: float = 0.1
    longest: float = 5.0
    jitter: Callable[[float], float] = _full_jitter

    def wait(self, error: TicketsError, attempt: int) -> float:
        """The seconds to wait after the attempt with this number, from 1."""
        backoff = self.first * 2 ** min(attempt - 1, _DOUBLINGS)
        return (error.retry_after or 0) + self.jitter(min(self.longest, backoff))


@dataclass(frozen=True, slots=True)
class Request:
    """One call to make; `timeout` is in seconds, None for the client's."""

    method: Method
    # Lists and watches write into it where they resume.
    message: Any
    timeout: float | None = None
    # Every write has one, which makes it safe to retry.
    idempotency_key: str | None = None

    def may_retry(self, error: TicketsError) -> bool:
        """Whether another attempt cannot apply a write twice."""
        if error.status is StatusCode.RESOURCE_EXHAUSTED:
            return error.retry_after is not None  # rejected before anything was done
        return error.status in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)


@dataclass(frozen=True, slots=True)
class Session(Generic[TransportT]):
    """A transport and what all calls over it share; `timeout` is in seconds."""

    transport: TransportT
    token: AsyncCredential | None
    api_key: AsyncCredential | None
    timeout: float
    retries: Retries

    async def call(self, request: Request) -> Any:
        """The response's message. Raises TicketsError when no time or no attempt is left, or a retry is not safe."""
        deadline = time.monotonic() + (self.timeout if request.timeout is None else request.timeout)
        attempt = 0
        while True:
            attempt += 1
            try:
                metadata = await self._metadata(request)
                seconds = min(deadline - time.monotonic(), _LONGEST_SECONDS)
                return await self.transport.unary(request.method, request.message, metadata, seconds)
            except grpc.RpcError as error:
                failed = failure(error)
            wait = self.retries.wait(failed, attempt)
            is_over = attempt >= self.retries.attempts or time.monotonic() + wait >= deadline
            if is_over or not request.may_retry(failed):
                raise failed
            await self.transport.sleep(wait)

    async def pages(self, request: Request) -> AsyncGenerator[Any, None]:
        """The pages of a list, from the requested one on. Each page has the timeout of a call of its own."""
        while True:
            page = await self.call(request)
            yield page
            if not _turn_page(request.message, page):
                return

    async def watch(self, request: Request, resume_timeout: float) -> AsyncGenerator[Any, None]:
        """The responses of a watch; it resumes after the last one when it breaks, or the token expires.

        Raises TicketsError: what else ends it, or `unavailable` when it cannot resume within `resume_timeout` seconds.
        """
        attempt, give_up_at = 0, 0.0
        while True:
            failed: TicketsError = UnavailableError("unavailable", "The watch ended", status=StatusCode.UNAVAILABLE)
            try:
                metadata = await self._metadata(request)
                async with aclosing(self.transport.stream(request.method, request.message, metadata)) as messages:
                    async for message in messages:
                        request.message.cursor, attempt = message.cursor, 0
                        yield message
            except grpc.RpcError as error:
                failed = failure(error, is_watch=True)
            attempt += 1
            if attempt == 1:
                give_up_at = time.monotonic() + resume_timeout
            wait = self.retries.wait(failed, attempt)
            if not _is_transient(failed, attempt) or time.monotonic() + wait >= give_up_at:
                raise failed
            await self.transport.sleep(wait)

    async def _metadata(self, request: Request) -> list[tuple[str, str]]:
        metadata = []
        if self.token is not None:
            metadata.append(("authorization", f"Bearer {_plain('token', await _secret(self.token))}"))
        if self.api_key is not None:
            metadata.append(("x-api-key", _plain("api_key", await _secret(self.api_key))))
        if request.idempotency_key is not None:
            metadata.append(("idempotency-key", _plain("idempotency_key", request.idempotency_key)))
        return metadata


def _plain(name: str, text: str) -> str:
    """The text of metadata. Raises ValueError, as gRPC would: but its words quote all metadata, secrets too."""
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{name}: it has characters that are not printable ASCII")
    return text


async def _secret(credential: AsyncCredential) -> str:
    secret = credential if isinstance(credential, str) else credential()
    return await secret if isawaitable(secret) else secret


def _turn_page(request: Any, page: Any) -> bool:
    """Turn a list's request into the one for the next page; False when there is none."""
    if "next_cursor" in page.DESCRIPTOR.fields_by_name:
        request.cursor = page.next_cursor
        if "offset" in request.DESCRIPTOR.fields_by_name:
            request.ClearField("offset")  # it was for the first page: the cursor goes on from there
        return bool(page.next_cursor)
    if "total" not in page.DESCRIPTOR.fields_by_name:
        return False
    request.offset += len(page.tickets)
    return bool(page.tickets) and request.offset < page.total


def _is_transient(error: TicketsError, attempt: int) -> bool:
    """Whether a watch resumes after such an error; it tries once whether there is a fresh token."""
    if error.reason == "token_expired":
        return attempt == 1
    return isinstance(error, UnavailableError | RateLimitedError)
