"""Two transports: over gRPC's blocking channel and over its asynchronous one.

Everything else is written once, as coroutines over a transport. Nothing that a blocking transport does waits for an
event loop, so its coroutines finish at the first step, and the caller gets the value instead of an awaitable.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from tickets.client.messages import Method

T = TypeVar("T")
Metadata: TypeAlias = Sequence[tuple[str, str]]


class Transport(Protocol):
    """What both transports do."""

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """Make a call with one response, within `seconds`. Raises grpc.RpcError."""

    def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """Make a call with a stream of responses; closing the stream cancels the call. Raises grpc.RpcError."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        """What the caller gets for a coroutine."""

    def iterate(self, generator: AsyncGenerator[T, None]) -> Any:
        """What the caller gets for an asynchronous generator."""


class Blocking:
    """Over a grpc.Channel: callers get values and generators."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """As Transport."""
        return _stub(self._channel.unary_unary, method)(message, metadata=metadata, timeout=seconds)

    async def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """As Transport."""
        call = _stub(self._channel.unary_stream, method)(message, metadata=metadata)
        try:
            for response in call:
                yield response
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        """As Transport."""
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it to its end, and return its value."""
        try:
            coroutine.send(None)
        except StopIteration as done:
            value: T = done.value
            return value
        coroutine.close()
        raise RuntimeError("a blocking transport never waits")

    def iterate(self, generator: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Run it from item to item."""
        try:
            while True:
                try:
                    item = self.run(_next(generator))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self.run(_close(generator))


class Asynchronous:
    """Over a grpc.aio.Channel: callers get coroutines and asynchronous generators.

    A channel belongs to the event loop it is opened in, so one of our own is opened at the first call in a loop.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel]) -> None:
        self._open = open_channel
        self._opened: tuple[asyncio.AbstractEventLoop, grpc.aio.Channel] | None = None

    @property
    def _channel(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened[0] is not loop:
            self._opened = loop, self._open()
        return self._opened[1]

    async def close(self) -> None:
        """Close the channel, if there is one; calls in flight are cancelled."""
        if self._opened is not None:
            await self._opened[1].close()

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """As Transport."""
        return await _stub(self._channel.unary_unary, method)(message, metadata=metadata, timeout=seconds)

    async def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """As Transport."""
        call = _stub(self._channel.unary_stream, method)(message, metadata=metadata)
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        """As Transport."""
        await asyncio.sleep(seconds)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Return it as it is."""
        return coroutine

    def iterate(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Return it as it is."""
        return generator


def _stub(make: Callable[..., Any], method: Method) -> Any:
    return make(
        method.path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=method.response.FromString,
    )


async def _next(generator: AsyncGenerator[T, None]) -> T:
    return await anext(generator)


async def _close(generator: AsyncGenerator[T, None]) -> None:
    await generator.aclose()
