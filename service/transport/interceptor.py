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
        if service not in self._failures:
            # Health and reflection are gRPC's own and answer by themselves, also in methods that newer releases add.
            return bounded(handler, self._longest)
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
            record = _CallRecord(method.path)
            try:
                metadata = _begin(method, context, record)
                await self._admission.wait_while_held()
                record.task = task = self._admission.begin(self._seconds(context))
                place = await self._admit(method, metadata, record)
                await self._turn(place, record)
                data = await place.read(self._read(method, context))
                call, message = _decode_and_publish(method, data, metadata, record, place)
                call.until = self._admission.until(task)
                return await self._begun(task, await behaviour(message, context), record.answer, context)
            except asyncio.CancelledError:
                failure = self._failure_of(record)
                if failure is None:
                    raise
                return await method.failures.fail(context, record.failed(failure), record.answer)
            except Exception as error:
                # The outermost catch: the text of an exception must not leave the service.
                if record.task is not None:
                    await self._admission.finish(record.task)
                return await method.failures.fail(context, record.failed(error), record.answer)
            finally:
                self._end(record)

        return unary

    def _failure_of(self, record: "_CallRecord") -> TicketError | None:
        """What to report of a call that was cancelled here, such as `deadline_exceeded`; None: its caller has left."""
        failure = None if record.task is None else self._admission.failure_of(record.task)
        if record.task is None or failure is None:
            record.outcome = "cancelled"
            return None
        record.task.uncancel()
        return failure

    def _end(self, record: "_CallRecord") -> None:
        if record.place is not None:
            record.place.end()
        if record.task is not None:
            self._admission.end(record.task)
        record.write(self._log, self._metrics)

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
            record, begun = _CallRecord(method.path), False
            try:
                metadata = _begin(method, context, record)
                await self._admission.wait_while_held()
                record.task = self._admission.begin_stream()
                place = await self._admit(method, metadata, record)
                self._rate_limits.take(place.kind, place.caller, record.answer)
                self._admission.reject_if_queued(place.has_average_share)
                data = await self._read_in_time(method, context)
                _, request = _decode_and_publish(method, data, metadata, record, place)
                async for message in behaviour(request, context):
                    yield message
                    begun = True
                record.outcome = CALL.get().outcome or record.outcome
                await self._admission.wait_while_held()
            except asyncio.CancelledError:
                failure = self._failure_of(record)
                if failure is None:
                    raise
                yield await self._stream_failure(method, context, record, failure, begun=begun)
            except Exception as error:
                # The outermost catch, as in `_unary`.
                yield await self._stream_failure(method, context, record, error, begun=begun)
            finally:
                self._end(record)

        return stream

    @staticmethod
    async def _stream_failure(
        method: Method, context: Context, record: "_CallRecord", error: Exception, *, begun: bool
    ) -> Any:
        failure = record.failed(error)
        if begun:
            await method.failures.break_off(context, failure)
        return await method.failures.fail(context, failure, record.answer)

    async def _admit(self, method: Method, metadata: Metadata, record: "_CallRecord") -> CallPlace:
        """Authenticate and authorise the caller. Raises TicketError."""
        if method.policy is None:
            raise TicketError("forbidden")
        caller = await self._authenticator.caller(method.policy, metadata)
        record.caller = caller.subject
        record.place = CallPlace(self._fairness, method.policy.kind, caller)
        return record.place

    async def _turn(self, place: CallPlace, record: "_CallRecord") -> None:
        """Take a token of the rate limit, and wait for the call's place. Raises TicketError.

        Another owner's call may have arrived behind many of this one's, so a call does as little as possible before its
        turn: its message is not read yet, and a refusal for the rate is raised only when the place is there.
        """
        refusal = None
        try:
            self._rate_limits.take(place.kind, place.caller, record.answer)
        except TicketError as error:
            refusal = error
        place.count_call()
        self._admission.reject_if_queued(place.has_average_share)
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


class _CallRecord:
    """What is known of a call in flight: what its log line says, its answer's headers, its task and its place."""

    __slots__ = ("_started", "answer", "caller", "outcome", "path", "place", "request_id", "task", "trace")

    def __init__(self, path: str) -> None:
        self.path = path
        # None before the call is admitted.
        self.task: Task | None = None
        # None before its caller is known.
        self.place: CallPlace | None = None
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


def _begin(method: Method, context: Context, record: _CallRecord) -> Metadata:
    """Read the call's metadata, and send the caller the request id. Raises TicketError when a key is repeated."""
    given = _METADATA.get()
    metadata: dict[str, Any] = dict(given)
    record.request_id = _request_id(metadata.get("x-request-id"))
    if tracing.active is not None:
        record.trace = tracing.active.call(method.path, metadata, record.request_id)
    record.answer.is_head = metadata.get("x-http-method") == "HEAD"
    method.failures.begin(context, record.request_id)
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


def _decode_and_publish(
    method: Method, data: bytes, metadata: Metadata, record: _CallRecord, place: CallPlace
) -> tuple[Call, Any]:
    """The call, and its request decoded; sets CALL and OWNER for the current task. Raises TicketError."""
    message = _decoded(method, data)
    key, if_match = metadata.get("idempotency-key"), metadata.get("if-match")
    call = Call(method.key, record.request_id, key, place.caller, if_match, place=place, answer=record.answer)
    call.path = metadata.get("x-envoy-original-path")
    record.answer.headers_in_status = call.path is not None and "x-gateway" not in metadata
    call.if_none_match = metadata.get("if-none-match")
    CALL.set(call)
    OWNER.set(place.caller.owner)
    return call, message


def _request_id(given: str | bytes | None) -> str:
    if isinstance(given, str) and _REQUEST_ID.fullmatch(given):
        return given
    return os.urandom(16).hex()
