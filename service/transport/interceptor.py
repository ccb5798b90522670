"""What happens around every call: request id, credentials, limits, deadline, documented errors, one log line."""

import asyncio
import os
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any, NamedTuple, NoReturn, Protocol, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError

from service import tracing
from service.access.authenticator import Authenticator
from service.access.key_uses import WRITE_SECONDS
from service.access.policy import POLICIES, Policy
from service.access.suspensions import LOOK_SECONDS
from service.background import Periodic
from service.errors import TicketError
from service.operation import CALL, Answer, Call
from service.settings import Settings
from service.storage.database import Database
from service.storage.waiting import OWNER
from service.transport.admission import AdmissionControl, Task
from service.transport.fairness import CallPlace, Fairness
from service.transport.logs import CallLog
from service.transport.metrics import Metrics
from service.transport.open_methods import bounded
from service.transport.rate_limits import RateLimits

# Metadata keys that a call may have once.
_SINGLE = ("authorization", "x-api-key", "idempotency-key", "if-match")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
# Subtracted from the caller's deadline, so that the failure still arrives in time.
_FAILURE_SECONDS = 0.05
_UNTRACED: Mapping[str, str] = {}

_log = structlog.get_logger()
# The metadata of the call that the task handles.
_METADATA: "ContextVar[Sequence[tuple[str, str | bytes]]]" = ContextVar("metadata")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Metadata: TypeAlias = Mapping[str, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
MaybeHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


class Failures(Protocol):
    """How a service reports failures, and the request's id, to its callers."""

    def begin(self, context: Context, request_id: str) -> None:
        """Send the caller the request's id."""

    async def fail(self, context: Context, error: TicketError, answer: Answer) -> Any:
        """The response that reports the failure; or raises, having aborted the call."""

    async def break_off(self, context: Context, error: TicketError) -> NoReturn:
        """Abort a stream that had begun."""


class Method(NamedTuple):
    """What is known of a method before it is called."""

    path: str
    # Package and name, the key of POLICIES.
    key: tuple[str, str]
    policy: Policy | None
    failures: Failures
    decode: Callable[[bytes], Any]


class CallInterceptor(grpc.GenericRpcHandler):
    """Wraps every method of every service. A method without an entry in POLICIES is refused.

    Services are registered here instead of at the server, which then asks this handler for the method of each call: a
    chain of gRPC's own interceptors takes longer, and reads the metadata a second time.
    """

    def __init__(
        self,
        settings: Settings,
        authenticator: Authenticator,
        rate_limits: RateLimits,
        admission: AdmissionControl,
        fairness: Fairness,
        metrics: Metrics,
        failures: Mapping[str, Failures],
        log: CallLog,
    ) -> None:
        self._longest = settings.default_deadline_seconds
        self._max_bytes = settings.max_request_bytes
        self._authenticator = authenticator
        self.suspensions = authenticator.suspensions
        self.periodic = (
            Periodic("suspensions", LOOK_SECONDS, authenticator.suspensions.look),
            Periodic("key_uses", WRITE_SECONDS, authenticator.key_uses.write),
        )
        self._rate_limits = rate_limits
        self._admission = admission
        self._fairness = fairness
        self._metrics = metrics
        self._failures = failures
        self._log = log
        self._wrapped: dict[str, Handler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Register the methods of a service, by their names; generated code calls it."""
        for name, handler in handlers.items():
            path = f"/{service}/{name}"
            self._wrapped[path] = self._wrap(path, handler)

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Nothing: generated code calls it too, with the same methods."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> MaybeHandler:
        """The method of a call; None, which is gRPC's own UNIMPLEMENTED, when there is no such method."""
        _METADATA.set(handler_call_details.invocation_metadata or ())
        return self._wrapped.get(handler_call_details.method)

    def _wrap(self, path: str, handler: Any) -> Handler:
        service, _, name = path.removeprefix("/").rpartition("/")
        # A REST service shares the policies of its typed sister.
        key = (service.rpartition(".")[0].replace(".rest.", "."), name)
        policy = POLICIES.get(key)
        if policy is not None and policy.who == "none":
            return bounded(handler, self._longest)  # health and reflection answer by themselves
        # Requests are taken as bytes, so that one that cannot be decoded fails with the documented error instead of
        # gRPC's; and as streams of one message, so that it is read after its caller is authenticated. (gRPC would first
        # buffer all of a unary request, and wait forever for one that never comes.)
        method = Method(path, key, policy, self._failures[service], handler.request_deserializer)
        if handler.unary_stream is not None:
            streaming = self._stream(method, handler.unary_stream)
            return grpc.stream_stream_rpc_method_handler(streaming, None, handler.response_serializer)
        unary = self._unary(method, handler.unary_unary)
        return grpc.stream_unary_rpc_method_handler(unary, None, handler.response_serializer)

    def _unary(self, method: Method, behaviour: Any) -> Any:
        async def unary(_requests: object, context: Context) -> Any:
            line = _Line(method.path)
            task = place = None
            try:
                metadata = _begin(method, context, line)
                await self._admission.wait_while_held()
                task = self._admission.begin(self._seconds(context))
                place = await self._admit(method, metadata, line)
                await self._turn(place, line)
                data = await place.read(self._read(method, context))
                call, message = _call(method, data, metadata, line, place)
                call.until = self._admission.until(task)
                return await self._begun(task, await behaviour(message, context), line.answer, context)
            except asyncio.CancelledError:
                failure = None if task is None else self._admission.failure_of(task)
                if task is None or failure is None:
                    line.outcome = "cancelled"
                    raise
                task.uncancel()
                return await method.failures.fail(context, line.failed(failure), line.answer)
            except Exception as error:
                # The outermost catch: the text of an exception must not leave the service.
                if task is not None:
                    await self._admission.finish(task)
                return await method.failures.fail(context, line.failed(error), line.answer)
            finally:
                if place is not None:
                    place.end()
                if task is not None:
                    self._admission.end(task)
                line.write(self._log, self._metrics)

        return unary

    async def _begun(self, task: Task, message: Any, answer: Answer, context: Context) -> Any:
        """The message of an answer, when what goes before it is sent."""
        await self._admission.finish(task)
        if answer.initial_metadata:
            await context.send_initial_metadata(answer.initial_metadata)
        return message

    def _seconds(self, context: Context) -> float:
        left = context.time_remaining()
        return self._longest if left is None else min(left - _FAILURE_SECONDS, self._longest)

    def _stream(self, method: Method, behaviour: Any) -> Any:
        async def stream(_requests: object, context: Context) -> AsyncIterator[Any]:
            line = _Line(method.path)
            begun, task, place = False, None, None
            try:
                metadata = _begin(method, context, line)
                await self._admission.wait_while_held()
                task = self._admission.begin_stream()
                place = await self._admit(method, metadata, line)
                self._rate_limits.take(place.kind, place.caller, line.answer)
                self._admission.reject_if_queued(place.is_of_many)
                data = await self._read_in_time(method, context)
                _, request = _call(method, data, metadata, line, place)
                async for message in behaviour(request, context):
                    yield message
                    begun = True
                line.outcome = CALL.get().outcome or line.outcome
                await self._admission.wait_while_held()
            except asyncio.CancelledError:
                failure = None if task is None else self._admission.failure_of(task)
                if task is None or failure is None:
                    line.outcome = "cancelled"
                    raise
                task.uncancel()
                yield await self._stream_failure(method, context, line, failure, begun=begun)
            except Exception as error:
                # The outermost catch, as in `_unary`.
                yield await self._stream_failure(method, context, line, error, begun=begun)
            finally:
                if place is not None:
                    place.end()
                if task is not None:
                    self._admission.end(task)
                line.write(self._log, self._metrics)

        return stream

    @staticmethod
    async def _stream_failure(method: Method, context: Context, line: "_Line", error: Exception, *, begun: bool) -> Any:
        failure = line.failed(error)
        if begun:
            await method.failures.break_off(context, failure)
        return await method.failures.fail(context, failure, line.answer)

    async def _admit(self, method: Method, metadata: Metadata, line: "_Line") -> CallPlace:
        """Authenticate and authorise the caller. Raises TicketError."""
        if method.policy is None:
            raise TicketError("forbidden")
        caller = await self._authenticator.caller(method.policy, metadata)
        line.caller = caller.subject
        return CallPlace(self._fairness, method.policy.kind, caller)

    async def _turn(self, place: CallPlace, line: "_Line") -> None:
        """Wait for a call's turn. Raises TicketError.

        What can be done later is not done before, as somebody else's call may have come behind many of its owner's: no
        message is read, and who has used up the rate limit hears of that in turn.
        """
        refusal = None
        try:
            self._rate_limits.take(place.kind, place.caller, line.answer)
        except TicketError as error:
            refusal = error
        place.count_call()
        self._admission.reject_if_queued(place.is_of_many)
        await place.take()
        if refusal is not None:
            raise refusal

    async def _read(self, method: Method, context: Context) -> bytes:
        """The request's message, which is not read before its caller is known. Raises TicketError."""
        data: Any = await context.read()
        if data is grpc.aio.EOF:
            raise TicketError("validation_error", "The call has no message")
        message: bytes = data
        if len(message) > self._max_bytes and _size(method, message) > self._max_bytes:
            raise TicketError("payload_too_large")
        return message

    async def _read_in_time(self, method: Method, context: Context) -> bytes:
        """As `_read`; a message that never comes ends by the default deadline."""
        try:
            async with asyncio.timeout(self._longest):
                return await self._read(method, context)
        except TimeoutError:
            raise TicketError("deadline_exceeded") from None


def call_interceptor(
    settings: Settings,
    database: Database,
    admission: AdmissionControl,
    metrics: Metrics,
    failures: Mapping[str, Failures],
    stack: AsyncExitStack,
) -> CallInterceptor:
    """The interceptor of a process; the stack gives back what it holds."""
    authenticator = Authenticator(settings, database)
    stack.push_async_callback(authenticator.close)
    rate_limits = RateLimits(settings)
    stack.callback(rate_limits.close)
    log = CallLog(settings.log_level, sys.stderr.fileno(), settings.log_format)
    stack.callback(log.flush)
    return CallInterceptor(settings, authenticator, rate_limits, admission, Fairness(settings), metrics, failures, log)


class _Line:
    """The log line of one call, and what its answer carries beside it."""

    __slots__ = ("_started", "answer", "caller", "outcome", "path", "request_id", "trace")

    def __init__(self, path: str) -> None:
        self.path = path
        self.outcome = "ok"
        self.caller = ""
        self.request_id = ""
        self.answer = Answer()
        self.trace: tracing.Trace | None = None
        self._started = time.perf_counter()

    def failed(self, error: Exception) -> TicketError:
        """The failure to report; what is not a TicketError is logged with its traceback and leaves as `internal`."""
        if not isinstance(error, TicketError):
            _log.error("failure", request_id=self.request_id, method=self.path, exc_info=error)
            error = TicketError("internal")
        self.outcome = error.reason
        return error

    def write(self, log: CallLog, metrics: Metrics) -> None:
        """Write the line and count the call: no secrets, no bodies."""
        seconds = time.perf_counter() - self._started
        metrics.count(self.path, self.outcome, seconds)
        traced = _UNTRACED if self.trace is None else self.trace.end_call(self.outcome)
        log.write(
            method=self.path,
            outcome=self.outcome,
            caller=self.caller,
            request_id=self.request_id,
            ms=round(seconds * 1000, 2),
            **traced,
        )
        if self.outcome == "internal":
            log.flush()  # so that the log of a failure is complete at once


def _begin(method: Method, context: Context, line: _Line) -> Metadata:
    """Read the call's metadata, and send the caller the request id. Raises TicketError when a key is repeated."""
    given = _METADATA.get()
    metadata: dict[str, Any] = dict(given)
    line.request_id = _request_id(metadata.get("x-request-id"))
    if tracing.active is not None:
        line.trace = tracing.active.call(method.path, metadata, line.request_id)
    line.answer.is_head = metadata.get("x-http-method") == "HEAD"
    method.failures.begin(context, line.request_id)
    if len(metadata) != len(given):
        names = Counter(name for name, _ in given)
        if repeated := [name for name in _SINGLE if names[name] > 1]:
            raise TicketError("validation_error", f"There is more than one {repeated[0]}")
    return metadata


def _size(method: Method, data: bytes) -> int:
    """The bytes of a request that a limit is about: of REST, the body without what the gateway wraps it in."""
    body = getattr(_decoded(method, data), "body", None) if ".rest." in method.path else None
    return len(data) if body is None else len(body.data)


def _decoded(method: Method, data: bytes) -> Any:
    try:
        return method.decode(data)
    except DecodeError:
        raise TicketError("validation_error", "The request is not a message of this method") from None


def _call(method: Method, data: bytes, metadata: Metadata, line: _Line, place: CallPlace) -> tuple[Call, Any]:
    """The call, and its request decoded. Raises TicketError."""
    message = _decoded(method, data)
    key, if_match = metadata.get("idempotency-key"), metadata.get("if-match")
    call = Call(method.key, line.request_id, key, place.caller, if_match, place=place, answer=line.answer)
    call.path = metadata.get("x-envoy-original-path")
    line.answer.headers_in_status = call.path is not None and "x-gateway" not in metadata
    call.if_none_match = metadata.get("if-none-match")
    CALL.set(call)
    OWNER.set(place.caller.owner)
    return call, message


def _request_id(given: str | bytes | None) -> str:
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return given
    return os.urandom(16).hex()
