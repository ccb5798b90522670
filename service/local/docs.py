"""The page that shows the REST face: where the gateway finds it, and what demo credentials it may offer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

CREDENTIALS: Final = "credentials.json"
_ROUTE: Final = "docs"
_FILTERS: Final = ("tickets.docs", "envoy.filters.http.file_server")
# No other name will do, as anybody's DNS may resolve one to this machine.
_THIS_MACHINE: Final = r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?"


def leave_out_docs(manager: Mapping[str, Any]) -> None:
    """Take the page, its document and what serves them out of this HTTP connection manager."""
    filters, routes = manager["http_filters"], _routes(manager)
    filters[:] = [entry for entry in filters if entry["name"] not in _FILTERS]
    routes[:] = [route for route in routes if route.get("name") != _ROUTE]


def fill_in_docs(manager: Mapping[str, Any], folder: Path, document: Path) -> None:
    """Name the page's folder, and its document."""
    folders = {"/docs/": folder, "/gen/": document.parent}
    for mapping in _mappings(manager):
        mapping["file_path_prefix"] = f"{folders[mapping['request_path_prefix']]}/"


def offer_credentials(manager: Mapping[str, Any], folder: Path) -> None:
    """Offer the page the demo credentials in this folder, but no page of another origin or of another host name."""
    _mappings(manager).append({"request_path_prefix": "/demo/", "file_path_prefix": f"{folder.absolute()}/"})
    routes = _routes(manager)
    place, page = next((place, route) for place, route in enumerate(routes) if route["match"].get("path") == "/docs")
    same_page = [
        {"name": ":authority", "string_match": {"safe_regex": {"regex": _THIS_MACHINE}}},
        {"name": "origin", "present_match": False},
    ]
    file = {"file": f"/demo/{CREDENTIALS}", "cache": "no-store"}
    route = {
        **page,
        "match": {"path": f"/docs/{CREDENTIALS}", "headers": same_page},
        "metadata": {"filter_metadata": {"tickets.docs": file}},
    }
    routes.insert(place, route)


def _routes(manager: Mapping[str, Any]) -> list[Any]:
    routes: list[Any] = manager["route_config"]["virtual_hosts"][0]["routes"]
    return routes


def _mappings(manager: Mapping[str, Any]) -> list[Any]:
    (files,) = (entry for entry in manager["http_filters"] if entry["name"] == _FILTERS[1])
    mappings: list[Any] = files["typed_config"]["path_mappings"]
    return mappings
