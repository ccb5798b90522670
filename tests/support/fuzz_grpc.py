"""Calls whose message is whatever bytes, and what came of them."""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from support.fuzz import Endpoint, timely
from support.fuzz_answers import grpc_problem

# A watch goes on: it is read so long, and then ended.
_WATCH_SECONDS = 0.3
_TEXT = 300


async def grpc_call_problem(
    channel: grpc.aio.Channel,
    endpoint: Endpoint,
    message: bytes,
    metadata: Iterable[tuple[str, str | bytes]],
    succeeded: set[str] | None = None,
) -> str | None:
    """What is wrong with the answer to a call with this message."""
    allowed: tuple[grpc.StatusCode, ...] = ()
    if endpoint.is_watch:
        call: Any = channel.unary_stream(endpoint.rpc_path)(message, metadata=tuple(metadata), timeout=_WATCH_SECONDS)
        allowed = (grpc.StatusCode.DEADLINE_EXCEEDED,)
    else:
        call = channel.unary_unary(endpoint.rpc_path)(message, metadata=tuple(metadata))
    code, text, trailing, answers = await timely(_ended(call, is_stream=endpoint.is_watch), (endpoint, message))
    problem = grpc_problem(code, text, trailing, allowed=allowed) or _answers_problem(endpoint, answers)
    if problem is not None:
        return f"{problem}: {endpoint.rpc_path} {message[:_TEXT]!r} {_shown(metadata)} → {code} {text[:_TEXT]}"
    if succeeded is not None and (code is grpc.StatusCode.OK or code in allowed):
        succeeded.add(f"{endpoint.api}.{endpoint.name}")
    return None


def _shown(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str | bytes]:
    return {name: value[:60] for name, value in metadata}


async def _ended(call: Any, *, is_stream: bool) -> tuple[grpc.StatusCode, str, dict[str, Any], list[bytes]]:
    answers: list[bytes] = []
    try:
        if is_stream:
            async for answer in call:
                answers.append(answer)
        else:
            answers.append(await call)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or "", _pairs(error.trailing_metadata()), answers
    return await call.code(), "", _pairs(await call.trailing_metadata()), answers


def _pairs(metadata: Any) -> dict[str, Any]:
    return {name: value for name, value in metadata or ()}  # noqa: C416 - gRPC's pairs are no tuples


def _answers_problem(endpoint: Endpoint, answers: Iterable[bytes]) -> str | None:
    try:
        for answer in answers:
            endpoint.typed.output_type._concrete_class.FromString(answer)
    except DecodeError:
        return "an answer that is no message of the method"
    return None
