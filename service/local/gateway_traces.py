"""Traces that begin at the gateway: its spans go to the collector that the service's go to."""

from collections.abc import Mapping
from typing import Any, Final

from service.local.tls import server_of
from service.settings import Settings

_CLUSTER: Final = "otlp"
_HTTP2: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def trace(config: Mapping[str, Any], settings: Settings) -> None:
    """Have Envoy trace and send spans, as the settings say. Without an endpoint the config stays as it is."""
    if not settings.otlp_endpoint:
        return
    resources = config["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    host, _, port = settings.otlp_endpoint.rpartition(":")
    manager["tracing"] = {
        "random_sampling": {"value": settings.trace_sample_ratio * 100},
        "client_sampling": {"value": 0},  # by a header of Envoy's own; what a traceparent says counts
        # A span for each attempt would cost every request as much again, sampled or not; the service's spans show it.
        "spawn_upstream_span": False,
        # A span has only the path's first character, which is a slash: the rest may hold what people search for.
        "max_path_tag_length": 1,
        "operation": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)% gateway",
        "custom_tags": [{"tag": "tickets.request_id", "value": "%REQ(X-REQUEST-ID)%"}],
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "service_name": "tickets-gateway",
                "grpc_service": {"envoy_grpc": {"cluster_name": _CLUSTER}, "timeout": "2s"},
            },
        },
    }
    host = host.strip("[]")
    cluster = _collector(host, int(port))
    if settings.otlp_ca:
        cluster["transport_socket"] = server_of(host, settings.otlp_ca)
    resources["clusters"].append(cluster)


def _collector(host: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": host, "port_value": port}}
    return {
        "name": _CLUSTER,
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            _HTTP2: {
                "@type": f"type.googleapis.com/{_HTTP2}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": _CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
