"""CORS in the gateway's config, for the origins that an operator names.

Envoy's own filter answers preflights and marks the service's answers. It does not mark answers that Envoy makes itself,
so each mapper of such an answer gets a twin for these origins: a page can only read an answer that names its origin.
"""

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

# What clients send: credentials, conditions, keys, and what grpc-web and EventSource have beside them.
_ALLOWED: Final = (
    "authorization, x-api-key, content-type, idempotency-key, if-match, if-none-match, last-event-id, cache-control,"
    " x-request-id, x-grpc-web, x-user-agent, grpc-timeout, connect-protocol-version, connect-timeout-ms"
)
# What a page may read of an answer.
_EXPOSED: Final = (
    "etag, retry-after, x-request-id, idempotent-replayed, ratelimit, ratelimit-policy, allow, www-authenticate,"
    " grpc-status, grpc-message, grpc-status-details-bin"
)
_VERBS: Final = "GET, HEAD, POST, PATCH, DELETE"
_SECONDS: Final = "7200"  # no browser remembers a preflight for longer
_NAME: Final = "envoy.filters.http.cors"
_TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http.cors.v3"
_VARY: Final = {"header": {"key": "vary", "value": "Origin"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"}


def allow_origins(manager: dict[str, Any], origins: Sequence[str]) -> None:
    """Let pages of these origins call what this HTTP connection manager serves; without any, it stays as it is."""
    if not origins:
        return
    names = [entry["name"] for entry in manager["http_filters"]]
    # The filter comes after the rate limit of an address, which preflights must not bypass.
    behind_limit = names.index("envoy.filters.http.header_mutation")
    manager["http_filters"].insert(behind_limit, {"name": _NAME, "typed_config": {"@type": f"{_TYPE}.Cors"}})
    host = manager["route_config"]["virtual_hosts"][0]
    host["typed_per_filter_config"] = {
        _NAME: {
            "@type": f"{_TYPE}.CorsPolicy",
            "allow_origin_string_match": [{"exact": origin} for origin in origins],
            "allow_methods": _VERBS,
            "allow_headers": _ALLOWED,
            "expose_headers": _EXPOSED,
            "max_age": _SECONDS,
        }
    }
    host["response_headers_to_add"] = [*host.get("response_headers_to_add", []), _VARY]
    origin = _named(origins)
    asked = {"name": "access-control-request-method", "present_match": True}
    preflight: list[Mapping[str, Any]] = [{"name": ":method", "string_match": {"exact": "OPTIONS"}}, asked, origin]
    # The filter only acts on routes to a cluster; it answers before the cluster is called.
    host["routes"] = [
        {"match": {"prefix": "/", "headers": preflight}, "route": {"cluster": "tickets"}},
        *host["routes"],
    ]
    mappers = manager["local_reply_config"]["mappers"]
    manager["local_reply_config"]["mappers"] = [
        _permission(preflight),
        *(twin for mapper in mappers for twin in _twins(mapper, origin)),
    ]


def _named(origins: Sequence[str]) -> Mapping[str, Any]:
    return {"name": "origin", "string_match": {"safe_regex": {"regex": "|".join(map(re.escape, origins))}}}


def _twins(mapper: Mapping[str, Any], origin: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A mapper for callers of these origins, and for all others."""
    readable = {"access-control-allow-origin": "%REQ(ORIGIN)%", "access-control-expose-headers": _EXPOSED}
    headers = [*mapper.get("headers_to_add", []), *_headers({"vary": "Origin"})]
    filters = {"and_filter": {"filters": [{"header_filter": {"header": origin}}, mapper["filter"]]}}
    return [
        copy.deepcopy({**mapper, "filter": filters, "headers_to_add": [*headers, *_headers(readable)]}),
        {**mapper, "headers_to_add": headers},
    ]


def _permission(preflight: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The answer to a preflight that Envoy rejects before any filter, such as one of a path with an escaped slash.

    It permits the request, which is then rejected in the same way, with an answer that the page can read.
    """
    permitted = {
        "access-control-allow-origin": "%REQ(ORIGIN)%",
        "access-control-allow-methods": _VERBS,
        "access-control-allow-headers": _ALLOWED,
        "access-control-max-age": _SECONDS,
        "vary": "Origin",
    }
    return {
        "filter": {"and_filter": {"filters": [{"header_filter": {"header": header}} for header in preflight]}},
        "status_code": 200,
        "headers_to_add": _headers(permitted),
        "body_format_override": {"text_format_source": {"inline_string": ""}},
    }


def _headers(values: Mapping[str, str]) -> list[Mapping[str, Any]]:
    return [
        {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in values.items()
    ]
