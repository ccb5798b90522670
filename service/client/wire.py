"""How calls travel: over gRPC's blocking channel or over its asynchronous one.

All else is written once, as coroutines over a wire. Nothing a blocking wire does ever waits for an event loop, so its
coroutines run to their end at the first step, and the caller gets the value instead of an awaitable.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from service.client.messages import Method

T = TypeVar("T")
Metadata: TypeAlias = Sequence[tuple[str, str]]


class Wire(Protocol):
    """One of the two."""

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """One call that takes so many seconds at most. Raises grpc.RpcError."""

    def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """One call that answers with many messages, and is cancelled when it is closed. Raises grpc.RpcError."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def one(self, answer: Coroutine[Any, Any, T]) -> Any:
        """What the caller gets for a coroutine."""

    def each(self, answers: AsyncGenerator[T, None]) -> Any:
        """What the caller gets for an asynchronous generator."""


class Blocking:
    """Over a grpc.Channel: callers get values and generators."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """As Wire."""
        return _stub(self._channel.unary_unary, method)(message, metadata=metadata, timeout=seconds)

    async def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """As Wire."""
        call = _stub(self._channel.unary_stream, method)(message, metadata=metadata)
        try:
            for answer in call:
                yield answer
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        """As Wire."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    def one(self, answer: Coroutine[Any, Any, T]) -> T:
        """Run it to its end."""
        try:
            answer.send(None)
        except StopIteration as done:
            value: T = done.value
            return value
        answer.close()
        raise RuntimeError("a blocking wire never waits")

    def each(self, answers: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Run it from answer to answer."""
        try:
            while True:
                try:
                    answer = self.one(_next(answers))
                except StopAsyncIteration:
                    return
                yield answer
        finally:
            self.one(_close(answers))


class Asynchronous:
    """Over a grpc.aio.Channel: callers get coroutines and asynchronous generators."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """As Wire."""
        return await _stub(self._channel.unary_unary, method)(message, metadata=metadata, timeout=seconds)

    async def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """As Wire."""
        call = _stub(self._channel.unary_stream, method)(message, metadata=metadata)
        try:
            async for answer in call:
                yield answer
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        """As Wire."""
        await asyncio.sleep(seconds)

    def one(self, answer: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Itself."""
        return answer

    def each(self, answers: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Itself."""
        return answers


def _stub(make: Callable[..., Any], method: Method) -> Any:
    return make(
        method.path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=method.response.FromString,
    )


async def _next(answers: AsyncGenerator[T, None]) -> T:
    return await anext(answers)


async def _close(answers: AsyncGenerator[T, None]) -> None:
    await answers.aclose()
