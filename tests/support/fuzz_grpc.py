"""Calls whose message is whatever bytes, and what came of them."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from support.fuzz import Endpoint, timely
from support.fuzz_answers import grpc_problem

# A watch goes on: it is read so long, and then ended.
_WATCH_SECONDS = 0.2
_TEXT = 300
# What is larger than this gRPC itself refuses at the service's port (protos/README.md, Limits).
_RECEIVED_BYTES = 2**20 + 64 * 1024

_Ended = tuple[grpc.StatusCode, str, dict[str, Any], list[bytes]]


async def grpc_call_problem(
    channel: grpc.aio.Channel,
    endpoint: Endpoint,
    message: bytes,
    metadata: Iterable[tuple[str, str | bytes]],
) -> tuple[str | None, bool]:
    """What is wrong with the answer to a call with this message, and whether it succeeded."""
    metadata = tuple(metadata)
    invoke: Any = channel.unary_stream if endpoint.is_watch else channel.unary_unary
    call = invoke(endpoint.rpc_path)(message, metadata=metadata)
    answering = _begun(call) if endpoint.is_watch else _answered(call)
    code, text, trailing, answers = await timely(answering, (endpoint.rpc_path, message, metadata))
    allowed = [grpc.StatusCode.RESOURCE_EXHAUSTED] if len(message) > _RECEIVED_BYTES else []
    problem = grpc_problem(code, text, trailing, allowed=allowed) or _answers_problem(endpoint, answers)
    if problem is not None:
        problem = f"{problem}: {endpoint.rpc_path} {message[:_TEXT]!r} {_shown(metadata)} → {code} {text[:_TEXT]}"
    return problem, code is grpc.StatusCode.OK


def _shown(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    return {name: value[:60] for name, value in metadata}


async def _answered(call: Any) -> _Ended:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", _pairs(error.trailing_metadata()), []
    return await call.code(), "", _pairs(await call.trailing_metadata()), [answer]


async def _begun(call: Any) -> _Ended:
    """What a watch says at first; one that fails does so at once."""
    reading = asyncio.create_task(call.read())
    await asyncio.wait([reading], timeout=_WATCH_SECONDS)
    if not reading.done() or (reading.exception() is None and reading.result() is not grpc.aio.EOF):
        answers = [reading.result()] if reading.done() else []
        call.cancel()
        await asyncio.wait([reading])
        return grpc.StatusCode.OK, "", {"x-request-id": "of a watch that goes on"}, answers
    return await call.code(), await call.details() or "", _pairs(await call.trailing_metadata()), []


def _pairs(metadata: Any) -> dict[str, Any]:
    return {name: value for name, value in metadata or ()}  # noqa: C416 - gRPC's pairs are no tuples


def _answers_problem(endpoint: Endpoint, answers: Iterable[bytes]) -> str | None:
    try:
        for answer in answers:
            endpoint.typed.output_type._concrete_class.FromString(answer)
    except DecodeError:
        return "an answer that is no message of the method"
    return None
