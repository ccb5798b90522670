"""A collector of traces: an OTLP receiver that keeps what comes."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from support.authority import Pair

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


@dataclass(frozen=True)
class Received:
    """One span, with the service that sent it, and which of its processes."""

    service: str
    instance: str
    name: str
    trace_id: str
    id: str
    parent: str
    kind: str
    attributes: Mapping[str, Any]
    has_failed: bool


class Collector:
    """Keeps spans, and all that was sent as it came."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        self.raw = b""
        self.target = ""

    async def _export(self, request: Any, _context: object) -> Any:
        self.raw += request.SerializeToString()
        for resource in request.resource_spans:
            sender = _values(resource.resource.attributes)
            self.spans += [_received(sender, span) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    @asynccontextmanager
    async def listening(self, pair: Pair) -> AsyncIterator["Collector"]:
        """Listen on loopback, by TLS with this certificate, until the end of the block."""
        server = grpc.aio.server()
        export = grpc.unary_unary_rpc_method_handler(
            self._export,
            trace_service_pb2.ExportTraceServiceRequest.FromString,
            trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {"Export": export}),))
        credentials = grpc.ssl_server_credentials([(pair.key, pair.cert)])
        self.target = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    def of(self, trace_id: str) -> list[Received]:
        """The spans of a trace, so far."""
        return [span for span in self.spans if span.trace_id == trace_id]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in attributes}


def _received(sender: Mapping[str, Any], span: Any) -> Received:
    return Received(
        sender["service.name"],
        sender.get("service.instance.id", ""),
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        _values(span.attributes),
        span.status.code == 2,
    )
