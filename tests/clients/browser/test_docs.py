"""The page at `/docs` of a running `tickets up`: what a reader sees, finds and tries out there."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.up import Up

pytestmark = pytest.mark.clients

DOCUMENT = json.loads((Path(__file__).parents[3] / "gen" / "openapi.json").read_text())
LISTED = {
    operation["operationId"]: (verb.upper(), path)
    for path, operations in DOCUMENT["paths"].items()
    for verb, operation in operations.items()
}
CREATIONS = ["handoffCreateTicket", "helpdeskCreateTicket", "itsmCreateTicket"]


def block(page: Any, name: str) -> Any:
    return page.locator(f".opblock[id$='-{name}']")


@pytest.fixture
async def opened(browser: Any, running: Up) -> AsyncIterator[Any]:
    """The page, all of whose requests went to its own origin, and which broke no rule of its own."""
    origin = f"http://127.0.0.1:{running.http_port}"
    said, asked = list[str](), list[str]()
    async with asyncio.timeout(120):
        context = await browser.new_context(viewport={"width": 1280, "height": 860})
        page = await context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        context.on("request", lambda request: asked.append(request.url))
        await page.goto(origin)
        await page.wait_for_selector("#demo:not([hidden])")
        yield page
        assert [text for text in said if "401" not in text] == []
        assert [url for url in asked if not url.startswith((f"{origin}/", "data:"))] == []
        await context.close()


async def test_it_lists_all_operations_and_finds_them(opened: Any) -> None:
    assert opened.url.endswith("/docs")
    listed = opened.locator(".opblock:has(.authorization__btn)")
    verbs = await listed.locator(".opblock-summary-method").all_inner_texts()
    paths = [path.replace("\u200b", "") for path in await listed.locator(".opblock-summary-path").all_inner_texts()]
    assert sorted(zip(verbs, paths, strict=True)) == sorted(LISTED.values())
    for words, found in (
        ("rotate", ["itsmRotateWebhookSecret"]),
        ("helpdesk/calendar patch", ["helpdeskUpdateCalendar"]),
    ):
        await opened.locator(".operation-filter-input").fill(words)
        await block(opened, "itsmListTickets").wait_for(state="detached")
        for name in LISTED:
            assert await block(opened, name).count() == (name in found)
        await opened.locator(".operation-filter-input").fill("")
        await block(opened, "itsmListTickets").wait_for()


async def test_a_deep_link_opens_its_operation(opened: Any) -> None:
    await opened.goto(f"{opened.url}#/ITSM%20tickets/itsmListTickets")
    await opened.reload()
    await block(opened, "itsmListTickets").locator(".opblock-body").wait_for()


async def try_out(page: Any, name: str) -> str:
    """Try an operation with its example out; the status that is shown."""
    shown = block(page, name)
    await shown.locator(".opblock-summary-control").click()
    await shown.get_by_role("button", name="Try it out").click()
    await shown.get_by_role("button", name="Execute").click()
    answer = shown.locator(".live-responses-table tbody .response-col_status").first
    await answer.wait_for()
    status: str = (await answer.inner_text()).split("\n")[0]
    await shown.locator(".opblock-summary-control").click()
    return status


@pytest.mark.parametrize("name", CREATIONS)
async def test_without_a_credential_it_says_so(opened: Any, name: str) -> None:
    assert await try_out(opened, name) == "401"


async def test_one_click_authorises_and_a_ticket_of_each_api_is_created(opened: Any) -> None:
    await opened.get_by_role("button", name="Use all of them").click()
    for name in CREATIONS:
        assert await try_out(opened, name) == "201"


async def test_by_another_name_of_the_machine_nothing_is_offered(browser: Any, running: Up) -> None:
    context = await browser.new_context()
    page = await context.new_page()
    seen = list[str]()
    page.on("request", lambda request: seen.append(request.url))
    # Every name of this top-level domain is this machine, to browsers.
    await page.goto(f"http://rebound.localhost:{running.http_port}/docs")
    await page.wait_for_selector(".opblock")
    assert await page.locator("#demo").is_hidden()
    assert not [url for url in seen if "credentials" in url]
    await context.close()
