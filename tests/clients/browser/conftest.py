"""A headless chromium with a page of another origin, and a gateway that names this origin."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support.sites import Site
from support.system import Service

from service.local.envoy import Envoy, envoy_config
from service.local.processes import free_port

PAGE = Path(__file__).parent / "page"
# It stays off the network: each of these would look for somebody else's hosts.
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's own name
        """Say nothing of each request."""


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(PAGE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        yield Site(f"http://127.0.0.1:{port}", f"http://localhost:{port}")
        server.shutdown()


@pytest.fixture(scope="session")
def gateway(directory: Path, service: Service, site: Site) -> Iterator[Envoy]:
    config = envoy_config(port=free_port(), endpoints=[service.target], cors_origins=site.named)
    with Envoy(config, log_file=directory / "envoy-for-browsers.log") as envoy:
        envoy.wait_until_ready(upstream=True)
        yield envoy


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright  # noqa: PLC0415 - only `make test-clients` installs it

    chromium = shutil.which("chromium")
    assert chromium, "no chromium: `make test-clients` says how to install it"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=FLAGS, chromium_sandbox=False, headless=True
        )
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Any, site: Site) -> AsyncIterator[Any]:
    """A page of the origin that the gateway names."""
    async with asyncio.timeout(60):
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(site.named)
        yield page
        await context.close()
