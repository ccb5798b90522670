"""Two transports: over gRPC's blocking channel and over its asynchronous one.

Everything else is written once, as coroutines over a transport. Nothing that a blocking transport does waits for an
event loop, so its coroutines finish at the first step, and the caller gets the value instead of an awaitable.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message
from tickets.client.errors import closed
from tickets.client.messages import Method

T = TypeVar("T")
Metadata: TypeAlias = Sequence[tuple[str, str]]


class Transport(Protocol):
    """What both transports do. Calls raise grpc.RpcError, and TicketsError when the transport is closed."""

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """Make a call with one response, within `seconds`."""

    def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """Make a call with a stream of responses; closing the stream cancels the call."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        """What the caller gets for a coroutine."""

    def iterate(self, generator: AsyncGenerator[T, None]) -> Any:
        """What the caller gets for an asynchronous generator."""


class Blocking:
    """Over a grpc.Channel: callers get values and generators."""

    def __init__(self, channel: grpc.Channel, *, is_owner: bool) -> None:
        self._channel = channel
        self._is_owner = is_owner
        self._is_closed = False

    def close(self) -> None:
        """Make no more calls. The channel is closed by its owner alone; calls in flight are cancelled then."""
        self._is_closed = True
        if self._is_owner:
            self._channel.close()

    @contextmanager
    def _open(self) -> Iterator[grpc.Channel]:
        """The channel, for one call."""
        if self._is_closed:
            raise closed()
        try:
            yield self._channel
        except ValueError as error:  # what gRPC raises for a channel that is closed, and for odd metadata
            if "closed channel" not in str(error):
                raise
            raise closed() from error
        except grpc.RpcError as error:
            if self._is_closed and _status(error) is grpc.StatusCode.CANCELLED:
                raise closed() from error
            raise

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """As Transport."""
        with self._open() as channel:
            return _stub(channel.unary_unary, method)(message, metadata=metadata, timeout=seconds)

    async def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """As Transport."""
        with self._open() as channel:
            call = _stub(channel.unary_stream, method)(message, metadata=metadata)
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

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel], *, is_owner: bool) -> None:
        self._open_channel = open_channel
        self._is_owner = is_owner
        self._is_closed = False
        self._opened: tuple[asyncio.AbstractEventLoop, grpc.aio.Channel] | None = None
        self._streams = set[grpc.aio.Call]()

    async def close(self) -> None:
        """As Blocking."""
        self._is_closed = True
        if self._is_owner and self._opened is not None:
            # A channel that is closed forgets the streams that wait for a response: these would wait for ever.
            for call in self._streams:
                call.cancel()
            await self._opened[1].close()

    @contextmanager
    def _open(self) -> Iterator[grpc.aio.Channel]:
        """The channel, for one call."""
        if self._is_closed:
            raise closed()
        try:
            yield self._channel()
        except grpc.aio.UsageError as error:  # what gRPC raises for a channel that is closed
            raise closed() from error
        except asyncio.CancelledError as error:
            # A channel that is closed cancels its calls: that is no request to cancel the task that waits for one.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise closed() from error

    def _channel(self) -> grpc.aio.Channel:
        loop = asyncio.get_running_loop()
        if self._opened is None or self._opened[0] is not loop:
            self._opened = loop, self._open_channel()
        return self._opened[1]

    async def unary(self, method: Method, message: Message, metadata: Metadata, seconds: float) -> Any:
        """As Transport."""
        with self._open() as channel:
            return await _stub(channel.unary_unary, method)(message, metadata=metadata, timeout=seconds)

    async def stream(self, method: Method, message: Message, metadata: Metadata) -> AsyncGenerator[Any, None]:
        """As Transport."""
        with self._open() as channel:
            call = _stub(channel.unary_stream, method)(message, metadata=metadata)
            self._streams.add(call)
            try:
                async for response in call:
                    yield response
            finally:
                self._streams.discard(call)
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


def _status(error: grpc.RpcError) -> grpc.StatusCode:
    call: Any = error
    status: grpc.StatusCode = call.code()
    return status


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
