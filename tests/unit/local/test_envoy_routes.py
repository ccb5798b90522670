"""deploy/envoy.yaml beside the protos: each path has its verbs and its time there, with or without a slash."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from google.api import annotations_pb2

from service.local.envoy import envoy_config
from service.server import DESCRIPTORS

VERBS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE", "PROPFIND")
MANAGER = envoy_config(port=1, endpoints=["a:1"])["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
ROUTES = MANAGER["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]


def published() -> Mapping[str, Mapping[str, Any]]:
    """Each path of the protos, with its methods by their verbs. HEAD is a GET."""
    paths: dict[str, dict[str, Any]] = {}
    for descriptor in DESCRIPTORS:
        for method in descriptor.methods if descriptor.name == "TicketRest" else ():
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            verbs = paths.setdefault(re.sub(r"{\w+}", "x-1", getattr(rule, verb)), {})
            verbs |= dict.fromkeys(("GET", "HEAD") if verb == "get" else (verb.upper(),), method)
    return paths


PATHS = published()


def route_of(verb: str, path: str, content_type: str = "application/json") -> Any:
    """The first route that matches, as Envoy takes it."""
    headers = {":method": verb, "content-type": content_type, "grpc-timeout": "1S", "grpc-encoding": "identity"}
    return next(route for route in ROUTES if _matches(route["match"], headers, path))


def _matches(match: Mapping[str, Any], headers: Mapping[str, str], path: str) -> bool:
    if "grpc" in match and not re.fullmatch(r"application/grpc(\+.*)?", headers["content-type"]):
        return False
    if not all(_header_matches(header, headers[header["name"]]) for header in match.get("headers", ())):
        return False
    if "safe_regex" in match:
        return re.fullmatch(match["safe_regex"]["regex"], path) is not None
    if "path" in match:
        return bool(match["path"] == path)
    return path.startswith(str(match["prefix"]))


def _header_matches(header: Mapping[str, Any], value: str) -> bool:
    words = header["string_match"]
    found = re.fullmatch(words["exact"] if "exact" in words else words["safe_regex"]["regex"], value) is not None
    return found != bool(header.get("invert_match"))


GRPC = ("application/grpc", "application/grpc+proto", "application/grpc-web", "application/grpc-web-text+proto")
APIS = ("tickets.handoff.v1", "tickets.helpdesk.v1", "tickets.itsm.v1")


@pytest.mark.parametrize("service", DESCRIPTORS, ids=lambda service: str(service.full_name))
def test_the_typed_services_of_the_three_apis_are_offered_and_no_other(service: Any) -> None:
    for method in service.methods:
        for content_type in GRPC:
            route = route_of("POST", f"/{service.full_name}/{method.name}", content_type)
            assert ("route" in route) == (service.file.package in APIS), "see `method` in deploy/envoy.yaml"
            # Only here is the filter of grpc-web asked.
            assert "envoy.filters.http.grpc_web" in route["typed_per_filter_config"]


@pytest.mark.parametrize("path", PATHS)
def test_a_verb_that_a_path_has_is_served_and_any_other_is_told_which_it_has(path: str) -> None:
    methods = PATHS[path]
    for verb in VERBS:
        route, method = route_of(verb, path), methods.get(verb)
        if method is None:
            [allow] = route["response_headers_to_add"]
            assert (route["direct_response"], allow["header"]["key"]) == ({"status": 405}, "allow")
            assert set(allow["header"]["value"].split(", ")) == set(methods)
        else:
            lasting = "0s" if method.name == "WatchTickets" else "305s"
            assert route["route"]["timeout"] == (lasting if method.server_streaming else "15s")
            assert route["route"].get("priority") == ("HIGH" if method.server_streaming else None)


@pytest.mark.parametrize("path", PATHS)
def test_a_slash_at_the_end_means_the_same_path(path: str) -> None:
    for verb in VERBS:
        assert route_of(verb, path) is route_of(verb, f"{path}/")


@pytest.mark.parametrize("path", ["/api", "/api/tickets/x", "/api/v1/events/x", "/api/v1/tickets/x/y", "/api/ticketsx"])
def test_no_other_path_is_told_of_verbs(path: str) -> None:
    assert all("direct_response" not in route_of(verb, path) for verb in VERBS)
