"""Tickets in Zendesk: what each member maps to, how a ticket is found again, and what its failures mean."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx2
import pytest
from support.emulators.http import Response
from support.emulators.zendesk import AGENT, CREDENTIAL
from support.emulators.zendesk import Zendesk as Desk

from service.outbound import trusted_authorities
from service.providers.port import Link, NewExternalTicket, RejectedError, UnavailableError
from service.providers.zendesk import Zendesk

KEY = "01a20139-af25-72bc-a26c-14d6b397c063"
WHOLE = NewExternalTicket(KEY, "VPN is down", "Since nine.", "pending", "high", "ada@example.com")
BARE = NewExternalTicket(KEY, "VPN is down", "Since nine.", "open", None, None)
ADA = {"name": "ada", "email": "ada@example.com"}

Call = Callable[[Zendesk], Coroutine[Any, Any, object]]
CALLS: dict[str, Call] = {
    "create": lambda provider: provider.create(WHOLE),
    "update": lambda provider: provider.update("500", {"subject": "Changed"}),
}


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    async with desk.listening():
        yield desk


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(verify=trusted_authorities()) as client:
        yield client


def at(desk: Desk, client: httpx2.AsyncClient, **options: object) -> Zendesk:
    return Zendesk(client, Link("zendesk", desk.url + "/", CREDENTIAL, options))


@pytest.fixture
def provider(desk: Desk, client: httpx2.AsyncClient) -> Zendesk:
    return at(desk, client)


@pytest.mark.parametrize(
    ("ticket", "members"),
    [
        (WHOLE, {"status": "pending", "priority": "high", "requester": ADA}),
        (BARE, {"status": "open", "priority": None, "requester": {"email": AGENT}}),
    ],
    ids=["every member", "required members"],
)
async def test_create(desk: Desk, provider: Zendesk, ticket: NewExternalTicket, members: dict[str, Any]) -> None:
    made = await provider.create(ticket)
    assert made == ("500", f"{desk.url}/agent/tickets/500")
    comments = [{"body": "Since nine."}]
    same = {"id": 500, "external_id": KEY, "subject": "VPN is down", "comments": comments}
    assert desk.tickets == [{**same, **members}]
    assert desk.requests[0].headers["idempotency-key"] == KEY


@pytest.mark.parametrize(
    ("changes", "member", "value"),
    [
        ({"status": "open"}, "status", "open"),
        ({"status": "pending"}, "status", "pending"),
        ({"status": "resolved"}, "status", "solved"),
        ({"status": "closed"}, "status", "closed"),
        ({"priority": "low"}, "priority", "low"),
        ({"priority": "medium"}, "priority", "normal"),
        ({"priority": "high"}, "priority", "high"),
        ({"priority": "urgent"}, "priority", "urgent"),
        ({"priority": None}, "priority", None),
        ({"requester_email": "bob@example.com"}, "requester", {"name": "bob", "email": "bob@example.com"}),
        ({"requester_email": None}, "requester", {"name": "agent", "email": AGENT}),
        ({"subject": "Größe 📦"}, "subject", "Größe 📦"),
        ({"subject": "One\r\ntwo\n"}, "subject", "One two"),
    ],
)
async def test_update_changes_a_member_and_no_other(
    desk: Desk, provider: Zendesk, changes: dict[str, Any], member: str, value: object
) -> None:
    made = await provider.create(WHOLE)
    before = dict(desk.tickets[0])
    await provider.update(made.id, changes)
    assert desk.tickets == [{**before, member: value}]


async def test_a_changed_description_is_an_internal_note(desk: Desk, provider: Zendesk) -> None:
    made = await provider.create(WHOLE)
    await provider.update(made.id, {"description": "Since ten.\n<b>Größe</b> 📦"})
    note = {"body": "Description:\n\nSince ten.\n<b>Größe</b> 📦", "public": False}
    assert desk.tickets[0]["comments"] == [{"body": "Since nine."}, note]


async def test_update_changes_several_members(desk: Desk, provider: Zendesk) -> None:
    made = await provider.create(WHOLE)
    await provider.update(made.id, {"subject": "Up", "description": "Now.", "status": "resolved", "priority": None})
    there = desk.tickets[0]
    assert (there["subject"], there["status"], there["priority"], len(there["comments"])) == ("Up", "solved", None, 2)
    assert there["requester"] == ADA
    await provider.update(made.id, {})
    assert len(desk.requests) == 2


async def test_find_by_key(provider: Zendesk) -> None:
    assert await provider.find(KEY) is None
    # The emulator's list is as loose as a list may be.
    await provider.create(WHOLE._replace(key=KEY.upper()))
    assert await provider.find(KEY) is None
    made = await provider.create(WHOLE)
    assert await provider.find(KEY) == made
    assert await provider.find(f"never made,{KEY}") is None


async def test_creation_is_idempotent(desk: Desk, provider: Zendesk) -> None:
    made = await provider.create(WHOLE)
    assert await provider.create(WHOLE) == made
    # Changed here before the first answer was known: the key is taken, and only `find` can tell by what.
    with pytest.raises(UnavailableError) as failure:
        await provider.create(WHOLE._replace(subject="Changed"))
    assert failure.value.in_doubt
    assert await provider.find(KEY) == made
    assert len(desk.tickets) == 1


@pytest.mark.parametrize("call", ["create", "update"])
async def test_conflicts_are_transient(desk: Desk, provider: Zendesk, call: str) -> None:
    desk.overrides = [Response(409, {"error": "DatabaseConflict", "description": "Retry the request"})]
    with pytest.raises(UnavailableError):
        await CALLS[call](provider)


@pytest.mark.parametrize("changes", [{"subject": "Up"}, {"status": "open"}, {"status": "closed", "subject": "Up"}])
async def test_a_closed_ticket_is_final(desk: Desk, provider: Zendesk, changes: dict[str, object]) -> None:
    made = await provider.create(WHOLE._replace(status="closed"))
    before = dict(desk.tickets[0])
    with pytest.raises(RejectedError) as rejection:
        await provider.update(made.id, changes)
    assert str(rejection.value) == "The ticket is closed in Zendesk: it can neither be changed nor reopened there"
    assert desk.tickets == [before]


async def test_closing_again_does_not_fail(desk: Desk, provider: Zendesk) -> None:
    made = await provider.create(WHOLE)
    for _ in range(2):
        await provider.update(made.id, {"status": "closed"})
    assert desk.tickets[0]["status"] == "closed"


async def test_a_link_can_close_so_that_tickets_can_be_reopened(desk: Desk, client: httpx2.AsyncClient) -> None:
    provider = at(desk, client, closed_as="solved")
    made = await provider.create(WHOLE._replace(status="closed"))
    assert desk.tickets[0]["status"] == "solved"
    await provider.update(made.id, {"status": "open"})
    assert desk.tickets[0]["status"] == "open"


async def test_rejections_have_the_vendors_words(desk: Desk, provider: Zendesk) -> None:
    with pytest.raises(RejectedError) as rejection:
        await provider.create(WHOLE._replace(requester_email="nobody"))
    assert str(rejection.value) == "Record validation errors. Requester: Email: is not properly formatted"
    assert desk.tickets == []


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"error": {"title": "Invalid", "message": "No\nsuch attribute"}}, "No such attribute"),
        (413, {"error": "TooLarge"}, "TooLarge"),
        (422, {"description": "No", "details": {"base": "odd", "status": ["odd", {}]}}, "No"),
        (422, {"details": ["odd"]}, "The provider gave no reason"),
        (422, ["odd"], "The provider gave no reason"),
        (422, None, "The provider gave no reason"),
    ],
)
async def test_rejections_of_another_form(
    desk: Desk, provider: Zendesk, status: int, body: object, message: str
) -> None:
    for call in ("create", "update"):
        desk.overrides = [Response(status, body)]
        with pytest.raises(RejectedError) as rejection:
            await CALLS[call](provider)
        assert str(rejection.value) == message


async def test_update_of_a_ticket_that_is_gone(provider: Zendesk) -> None:
    with pytest.raises(RejectedError, match=r"^The ticket is no longer in Zendesk$"):
        await provider.update("404", {"status": "closed"})
