"""Methods that anybody may call (health, reflection): none waits for its caller for longer than a deadline."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from service.errors import REASONS

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_TOO_LATE = REASONS["deadline_exceeded"]


def bounded(handler: Any, seconds: float) -> Handler:
    """The handler of such a method, with a deadline for a call whose message never comes."""
    decode, encode = handler.request_deserializer, handler.response_serializer
    if handler.stream_stream is not None:
        return grpc.stream_stream_rpc_method_handler(_conversation(handler.stream_stream, seconds), decode, encode)
    answer = handler.unary_unary or handler.unary_stream

    async def method(_requests: object, context: Context) -> Any:
        return await answer(await _request(context, seconds), context)

    if handler.unary_stream is not None:
        return grpc.stream_stream_rpc_method_handler(method, decode, encode)
    return grpc.stream_unary_rpc_method_handler(method, decode, encode)


async def _request(context: Context, seconds: float) -> Any:
    try:
        async with asyncio.timeout(seconds):
            message = await context.read()
    except TimeoutError:
        await context.abort(_TOO_LATE.status, _TOO_LATE.message)
    if message is grpc.aio.EOF:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "The call has no message")
    return message


def _conversation(behaviour: Any, seconds: float) -> Any:
    async def stream(requests: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(seconds):
                async for answer in behaviour(requests, context):
                    yield answer
        except TimeoutError:
            await context.abort(_TOO_LATE.status, _TOO_LATE.message)

    return stream
