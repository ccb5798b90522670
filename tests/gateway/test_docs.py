"""The page that shows the REST face, and its document: what the gateway says of its files, and who gets none."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from support.system import Service

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "docs"
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "form-action 'none'",
}
FRESH, KEPT = "no-cache", "public, max-age=31536000, immutable"
SERVED = [
    ("/docs", (FOLDER / "index.html").read_bytes(), "text/html; charset=utf-8", FRESH),
    ("/docs?a=/../x", (FOLDER / "index.html").read_bytes(), "text/html; charset=utf-8", FRESH),
    ("/openapi.json", (ROOT / "gen" / "openapi.json").read_bytes(), "application/json", FRESH),
    ("/docs/docs.css", (FOLDER / "docs.css").read_bytes(), "text/css; charset=utf-8", FRESH),
    ("/docs/docs.js", (FOLDER / "docs.js").read_bytes(), "text/javascript; charset=utf-8", FRESH),
    (
        "/docs/swagger-ui-bundle.js?5",
        (FOLDER / "swagger-ui-bundle.js").read_bytes(),
        "text/javascript; charset=utf-8",
        KEPT,
    ),
    ("/docs/swagger-ui.css?5", (FOLDER / "swagger-ui.css").read_bytes(), "text/css; charset=utf-8", KEPT),
    ("/docs/favicon-32x32.png", (FOLDER / "favicon-32x32.png").read_bytes(), "image/png", KEPT),
]
PATHS = ["/", *(path for path, *_ in SERVED)]


@pytest.mark.parametrize(("path", "file", "content_type", "cache"), SERVED, ids=PATHS[1:])
async def test_a_file_is_served_whole_and_for_this_origin_alone(
    client: httpx2.AsyncClient, path: str, file: bytes, content_type: str, cache: str
) -> None:
    # A part of a file is never asked for by a page, so it is not offered.
    response = await client.get(path, headers={"range": "bytes=0-3", "x-request-id": "reader-1"})
    assert (response.status_code, response.content) == (200, file)
    headers = response.headers
    assert (headers["content-type"], headers["cache-control"]) == (content_type, cache)
    assert set(headers["content-security-policy"].split("; ")) == POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert (headers["x-request-id"], "accept-ranges" in headers) == ("reader-1", False)
    head = await client.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", headers["content-length"])
    assert head.headers["x-request-id"]


async def test_the_root_leads_to_the_page(client: httpx2.AsyncClient) -> None:
    for verb in ("GET", "HEAD"):
        response = await client.request(verb, "/")
        # Without a host, which may be another one to the browser.
        assert (response.status_code, response.headers["location"]) == (302, "/docs")
        assert response.headers["x-request-id"]


@pytest.mark.parametrize("verb", ["POST", "PATCH", "DELETE", "PUT", "OPTIONS"])
@pytest.mark.parametrize("path", PATHS)
async def test_it_is_there_to_be_read(client: httpx2.AsyncClient, path: str, verb: str) -> None:
    response = await client.request(verb, path)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")
    assert response.json() == {"error": "Method Not Allowed", "code": "method_not_allowed"}


@pytest.mark.parametrize(
    "path",
    [
        "/docs/",
        "/docs/README.md",
        "/docs/nothing.js",
        "/docs/../docs/index.html",
        "/docs/..%2f..%2fenvoy.yaml",
        "/docs//docs.js/",
        "/docsx",
        "/openapi.json/",
        "/gen/openapi.json",
        "/gen/tickets.binpb",
        "/demo/credentials.json",
        "/docs/credentials.json",  # which only `tickets up` has: tests/gateway/test_up.py
    ],
)
async def test_nothing_else_is_served(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert (response.status_code, response.json()["code"]) in ((404, "not_found"), (400, "validation_error"))


async def test_a_read_has_no_body(client: httpx2.AsyncClient) -> None:
    response = await client.request("GET", "/docs", content=b"x")
    assert (response.status_code, response.json()["code"]) == (400, "validation_error")


async def test_one_address_gets_so_many_files_and_then_its_calls_still(gateway_url: str) -> None:
    async with httpx2.AsyncClient(base_url=gateway_url) as client:
        for _ in range(100):
            response = await client.get("/docs/docs.css")
            if response.status_code == 429:
                break
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert response.json() == {"error": "Too many requests", "code": "rate_limited", "retryAfter": 1}
        assert (response.headers.get("ratelimit"), response.headers["cache-control"]) == (None, "private, no-cache")
        assert (await client.get("/api/v1/tickets")).status_code == 401


@pytest.fixture(scope="module")
async def closed(directory: Path, service: Service) -> AsyncIterator[httpx2.AsyncClient]:
    """A gateway whose operator has switched it off."""
    config = envoy_config(port=free_port(), endpoints=[service.target], docs=False)
    with Envoy(config, log_file=directory / "envoy-without-docs.log") as envoy:
        envoy.wait_until_ready(upstream=True)
        async with httpx2.AsyncClient(base_url=envoy.url) as client:
            yield client


@pytest.mark.parametrize("verb", ["GET", "HEAD", "POST"])
async def test_switched_off_it_is_not_there(closed: httpx2.AsyncClient, verb: str) -> None:
    for path in PATHS:
        response = await closed.request(verb, path)
        assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
        if verb != "HEAD":
            assert response.json() == {"error": "Not Found", "code": "not_found"}
