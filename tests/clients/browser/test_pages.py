"""What a page of another origin can do in a real browser: REST, errors, grpc-web, a watch; and a stranger's cannot."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from support.sites import Site
from support.system import World
from support.transports import Grpc
from tickets.itsm.v1 import ticket_service_pb2

from service.admin import operations as admin
from service.local.envoy import Envoy

pytestmark = pytest.mark.clients

TICKET = '{"subject": "VPN is down", "description": "Since nine."}'
REST = "([url, options]) => rest(url, options)"
WEB = "([url, message, headers]) => grpcWeb(url, message, headers)"
TYPED = "tickets.itsm.v1.TicketService"


async def test_a_page_writes_reads_and_repeats(page: Any, gateway: Envoy, world: World) -> None:
    program = await world.program()
    json = {**program.credential, "content-type": "application/json"}
    tickets, key = f"{gateway.url}/api/v1/tickets", {"idempotency-key": str(uuid4())}
    options = {"method": "POST", "headers": {**json, **key}, "body": TICKET}
    made = await page.evaluate(REST, [tickets, options])
    again = await page.evaluate(REST, [tickets, options])
    assert (made["status"], again["status"], again["body"]) == (201, 201, made["body"])
    assert again["headers"]["idempotent-replayed"] == "true"
    ticket = f"{tickets}/{made['body']['id']}"
    read = await page.evaluate(REST, [ticket, {"headers": {**program.credential, "x-request-id": "page-1"}}])
    assert (read["status"], read["headers"]["x-request-id"]) == (200, "page-1")
    assert {"etag", "ratelimit", "ratelimit-policy"} <= set(read["headers"])
    change = {
        "method": "PATCH",
        "headers": {**json, "if-match": read["headers"]["etag"]},
        "body": '{"status": "closed"}',
    }
    assert (await page.evaluate(REST, [ticket, change]))["body"]["status"] == "closed"
    assert (await page.evaluate(REST, [ticket, change]))["status"] == 412


ERRORS: list[tuple[str, str, str, int, str]] = [
    ("GET", "/api/v1/tickets", "", 401, "www-authenticate"),  # the service
    ("POST", "/api/v1/tickets", "{}", 422, "ratelimit"),
    ("DELETE", "/api/v1/tickets", "", 405, "allow"),  # the gateway
    ("GET", "/api/v1/tickets/a%2Fb", "", 400, "x-request-id"),
    ("GET", "/api/v1/tickets?q=" + "a" * 17_000, "", 431, "x-request-id"),
]


@pytest.mark.parametrize(("verb", "path", "body", "status", "header"), ERRORS)
async def test_a_page_reads_errors(
    page: Any, gateway: Envoy, world: World, verb: str, path: str, body: str, status: int, header: str
) -> None:
    headers = {} if status == 401 else dict((await world.program()).credential)
    options = {"method": verb, "headers": headers} | ({"body": body} if body else {})
    read = await page.evaluate(REST, [gateway.url + path, options])
    assert (read["status"], list(read["body"])) == (status, ["detail"])
    assert read["headers"][header]


async def test_a_page_of_an_origin_that_is_not_named_reads_nothing(
    page: Any, site: Site, gateway: Envoy, world: World
) -> None:
    await page.goto(site.stranger)
    program = await world.program()
    tickets = f"{gateway.url}/api/v1/tickets"
    options: dict[str, Any] = {"headers": dict(program.credential)}
    for asked in (
        [tickets, options],
        [tickets, {**options, "method": "POST", "body": TICKET}],
        [tickets, {}],  # without a preflight: the browser asks, and keeps the answer
    ):
        with pytest.raises(Exception, match="Failed to fetch"):
            await page.evaluate(REST, asked)
    assert world.rows("SELECT count(*) FROM itsm_tickets WHERE account_id = %s", program.account_id) == [(0,)]


async def test_a_page_calls_the_typed_services_by_grpc_web(page: Any, gateway: Envoy, world: World) -> None:
    program = await world.program()
    url, headers = f"{gateway.url}/{TYPED}/CreateTicket", dict(program.credential)
    message = ticket_service_pb2.CreateTicketRequest(subject="VPN", description="Down").SerializeToString()
    done = await page.evaluate(WEB, [url, list(message), {**headers, "grpc-timeout": "5S"}])
    assert done["trailers"]["grpc-status"] == "0"
    assert ticket_service_pb2.CreateTicketResponse.FromString(bytes(done["message"])).ticket.subject == "VPN"
    refused = await page.evaluate(WEB, [url, [], headers])
    assert (refused["trailers"]["grpc-status"], refused["message"]) == ("3", None)
    assert "Field required" in refused["trailers"]["grpc-message"]
    assert refused["trailers"]["grpc-status-details-bin"]
    closed = f"{gateway.url}/tickets.admin.v1.AdminService/CreateAccount"
    assert (await page.evaluate(WEB, [closed, [], headers]))["trailers"]["grpc-status"] == "12"


async def seen(page: Any, number: int) -> list[Any]:
    """The first changes that the page's EventSource has seen."""
    await page.wait_for_function("number => seen.filter(({name}) => name === 'message').length >= number", arg=number)
    return [event for event in await page.evaluate("seen") if event["name"] == "message"]


async def test_an_event_source_follows_and_goes_on_where_it_was_cut(
    page: Any, gateway: Envoy, rpc: Grpc, world: World
) -> None:
    program = await world.program()
    headers = dict(program.credential)
    post = [f"{gateway.url}/api/v1/tickets", {"method": "POST", "headers": headers, "body": TICKET}]
    # A page's EventSource sends no credential, so the browser adds it here.
    await page.set_extra_http_headers(headers)
    await page.evaluate("url => follow(url)", f"{gateway.url}/api/v1/events")
    await page.wait_for_function("seen.length > 0")
    assert (await page.evaluate("seen"))[0]["name"] == "heartbeat"
    first = (await page.evaluate(REST, post))["body"]
    [event] = await seen(page, 1)
    assert (event["data"]["event"]["ticket_id"], event["id"]) == (first["id"], event["data"]["cursor"])
    # The gateway goes and comes back: the browser does so by itself, and misses nothing.
    await asyncio.to_thread(gateway.stop)
    await page.wait_for_function("source.readyState === EventSource.CONNECTING")
    second = (await rpc.call("itsm.create", headers, body={"subject": "VPN", "description": "Up"})).succeeded()
    gateway.start()
    await asyncio.to_thread(gateway.wait_until_ready, upstream=True)
    made = [event["data"]["event"]["ticket_id"] for event in await seen(page, 2)]
    assert made == [first["id"], second["id"]]
    # A key that is revoked ends it for good: the last event says why, and whoever comes back is refused.
    await world.operate(admin.revoke_api_key, api_key_id=program.key_id)
    await page.wait_for_function("source.readyState === EventSource.CLOSED")
    ends = [event for event in await page.evaluate("seen") if event["name"] == "error" and event["data"]]
    assert [event["data"] for event in ends] == [{"detail": "Invalid API key"}]
