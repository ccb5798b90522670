"""Traces, where a collector is set: W3C contexts in and out, spans made and sent by OpenTelemetry.

When off, nothing of OpenTelemetry is imported, and a call costs one check of `active`. When on, a call that is not
sampled makes no span, and keeps its trace's id, for its log line and for the services that it calls.
"""

import os
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
from cryptography.x509 import load_pem_x509_certificates

from service.errors import REASONS
from service.settings import SettingError, Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

# A trace, and the caller's span in it, neither of them all zeros. Versions to come may have more members.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = 1
# The resolution of the ratio, and how many digits of a request id decide: both are Envoy's.
_STEPS = 10_000
_DIGITS = 8
# How long a collector that hangs may delay the end of the process.
_SEND_SECONDS = 2
# gRPC's codes of failures of the service; with other codes the caller is at fault.
_OUR_FAULTS = frozenset((2, 4, 12, 13, 14, 15))
_CODES = {"ok": 0, "cancelled": 1} | {name: reason.status.value[0] for name, reason in REASONS.items()}
_MIN_ERROR_STATUS = 400

Attributes = Mapping[str, str | int]


class Trace:
    """A place in a trace: that of a call, of work in the background, or of a step of either."""

    __slots__ = ("span", "span_id", "trace_id")

    def __init__(self, trace_id: str, span_id: str, span: "Span | None" = None) -> None:
        """`span` where it is sampled; else `span_id` is the caller's."""
        self.trace_id = trace_id
        self.span_id = span_id
        self.span = span

    @property
    def headers(self) -> Mapping[str, str]:
        """What carries it on to those who are called."""
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-{'00' if self.span is None else '01'}"}

    def answered(self, status: int) -> None:
        """Note the status of an HTTP answer."""
        if self.span is not None:
            self.span.set_attribute("http.response.status_code", status)
            if status >= _MIN_ERROR_STATUS:
                self.fail(str(status))

    def fail(self, kind: str) -> None:
        """Note that it failed: only the kind, as an error's message may quote what callers sent."""
        if self.span is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - only where tracing is on

            self.span.set_attribute("error.type", kind)
            self.span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """End the span, which is sent later."""
        if self.span is not None:
            self.span.end()

    def end_call(self, outcome: str) -> Mapping[str, str]:
        """End the span of a call; returns what its log line says of it."""
        if self.span is not None:
            code = _CODES.get(outcome, _CODES["internal"])
            self.span.set_attribute("rpc.grpc.status_code", code)
            if code in _OUR_FAULTS:
                self.fail(outcome)
            elif code:
                self.span.set_attribute("error.type", outcome)
            self.span.end()
        return {"trace_id": self.trace_id}


class Tracing:
    """The traces of a process."""

    def __init__(self, provider: "TracerProvider", ratio: float) -> None:
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - only where tracing is on

        self._tracer: Tracer = provider.get_tracer("tickets")
        self._sampled_steps = round(ratio * _STEPS)
        self.kind = SpanKind

    def samples(self, cause: str) -> bool:
        """Whether to sample a request with this id, and what it causes: as Envoy decides, so alike in each process."""
        try:
            step = int(cause[:_DIGITS], 16)
        except ValueError:
            step = random.randrange(_STEPS)  # noqa: S311 - guards nothing
        return step % _STEPS < self._sampled_steps

    def call(self, path: str, metadata: Mapping[str, Any], request_id: str) -> Trace | None:
        """Begin the trace of a call, or go on with its caller's, who has decided then whether it is sampled."""
        given = metadata.get("traceparent")
        parent = _TRACEPARENT.fullmatch(given) if isinstance(given, str) else None
        if parent is None and not self.samples(request_id):
            return None
        if parent is not None and not int(parent[3], 16) & _SAMPLED:
            trace = Trace(parent[1], parent[2])
        else:
            service, _, method = path[1:].rpartition("/")
            named = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
            context = None if parent is None else _remote(parent[1], parent[2])
            trace = self.begin(path[1:], self.kind.SERVER, {**named, "tickets.request_id": request_id}, context)
        CURRENT.set(trace)
        return trace

    def begin(self, name: str, kind: "SpanKind", attributes: Attributes, context: Any = None) -> Trace:
        """Begin a span, whose parent is in the context, or which has none."""
        from opentelemetry.context import Context  # noqa: PLC0415 - only where tracing is on

        span = self._tracer.start_span(name, context or Context(), kind, dict(attributes))
        ids = span.get_span_context()
        return Trace(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", span)


# None: off.
active: Tracing | None = None
# The trace of the call, or the work, that a task is about.
CURRENT: "ContextVar[Trace | None]" = ContextVar("trace", default=None)


def is_sampled() -> bool:
    """Whether what the task is about is in a trace that is sampled."""
    trace = CURRENT.get()
    return trace is not None and trace.span is not None


@contextmanager
def step(name: str, attributes: Attributes) -> Iterator[Trace | None]:
    """Something that the current work asks of others, as a span of its own where it is sampled."""
    current = CURRENT.get()
    if current is None or current.span is None or active is None:
        yield current
        return
    trace = active.begin(name, active.kind.CLIENT, attributes, _within(current.span))
    try:
        yield trace
    except BaseException as error:
        trace.fail(type(error).__name__)
        raise
    finally:
        trace.end()


@contextmanager
def request(method: str, url: str, whose: str) -> Iterator[Trace | None]:
    """An HTTP request. Of its address only the host is recorded: path and query may hold anything."""
    if CURRENT.get() is None:
        yield None
        return
    host = urlsplit(url).hostname or ""
    with step(f"{method} {whose}", {"http.request.method": method, "server.address": host}) as trace:
        yield trace


@contextmanager
def work(name: str, attribute: str, cause: str) -> Iterator[None]:
    """Work in the background: a trace of its own, sampled by the id of what caused it, which links the two."""
    if active is None or not active.samples(cause):
        yield
        return
    trace = active.begin(name, active.kind.INTERNAL, {attribute: cause})
    token = CURRENT.set(trace)
    try:
        yield
    except BaseException as error:
        trace.fail(type(error).__name__)
        raise
    finally:
        CURRENT.reset(token)
        trace.end()


def start(settings: Settings, stack: AsyncExitStack) -> None:
    """Trace, if the settings say where to; the stack ends it. Raises SettingError where something is missing for it."""
    global active  # noqa: PLW0603 - a process has one, or none
    if not settings.otlp_endpoint:
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - the extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the extra
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415 - the extra
    except ImportError:
        raise SettingError("TICKETS_OTLP_ENDPOINT: install the extra `otel` of tickets-service") from None
    credentials = collector_credentials(settings.otlp_ca)
    # What is not sampled gets no further than `call`. A full queue drops spans and waits for nobody.
    # Which process answered: of a call that the gateway has repeated, each attempt is a span of another one.
    resource = Resource.create({"service.name": "tickets", "service.instance.id": f"{gethostname()}:{os.getpid()}"})
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(settings.otlp_endpoint, credentials is None, credentials, timeout=_SEND_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    active = Tracing(provider, settings.trace_sample_ratio)
    stack.callback(_stop, provider)


def collector_credentials(ca: str) -> "grpc.ChannelCredentials | None":
    """What the collector is connected to with, by TLS; None where no CA is set. Raises SettingError."""
    if not ca:
        return None
    try:
        pem = Path(ca).read_bytes()
        load_pem_x509_certificates(pem)
    except OSError as error:
        raise SettingError(f"TICKETS_OTLP_CA: {ca}: {error.strerror}") from None
    except ValueError:
        raise SettingError(f"TICKETS_OTLP_CA: {ca}: is no certificate in PEM") from None
    return grpc.ssl_channel_credentials(pem)


def _stop(provider: "TracerProvider") -> None:
    global active  # noqa: PLW0603 - as above
    active = None
    provider.shutdown()


def _within(span: "Span") -> Any:
    from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - only where tracing is on

    return set_span_in_context(span)


def _remote(trace_id: str, span_id: str) -> Any:
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags  # noqa: PLC0415 - as above

    ids = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(_SAMPLED))
    return _within(NonRecordingSpan(ids))
