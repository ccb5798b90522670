"""Envoy's own metrics at a port of their own: their reader must not reach the admin port, which can stop Envoy."""

from typing import Any

_PATH = "/stats/prometheus"
_SECONDS = "10s"
_TYPES = "type.googleapis.com/envoy.extensions.filters"


def show_metrics(config: dict[str, Any], host: str, port: int) -> None:
    """Add a listener that passes one path on to the admin port, which the config must have."""
    address = config["admin"]["address"]["socket_address"]
    config["static_resources"]["listeners"].append(_listener(host, port))
    config["static_resources"]["clusters"].append(
        {
            "name": "admin",
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "admin",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": dict(address)}}}]}],
            },
        }
    )


def _listener(host: str, port: int) -> dict[str, Any]:
    route = {
        # Neither a path below it nor another verb, such as the POST that resets what is counted.
        "match": {"path": _PATH, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        "route": {"cluster": "admin", "timeout": _SECONDS},
    }
    manager = {
        "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "metrics",
        "codec_type": "HTTP1",
        "normalize_path": False,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": _SECONDS,
        "common_http_protocol_options": {"idle_timeout": "300s"},
        "route_config": {"virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.http.router.v3.Router"},
            }
        ],
    }
    return {
        "name": "metrics",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "enable_reuse_port": False,
        # Scrapes do not count against the limits of callers.
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
