"""Tickets in Freshservice: what each member maps to, how a ticket is found again, and what its failures mean."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from support.emulators.freshservice import API_KEY
from support.emulators.freshservice import Freshservice as Desk
from support.emulators.http import Response

from service.outbound import trusted_authorities
from service.providers.freshservice import Freshservice
from service.providers.port import Link, NewExternalTicket, RejectedError, UnavailableError

KEY = "01a20139-af25-72bc-a26c-14d6b397c063"
WHOLE = NewExternalTicket(KEY, "VPN is down", "Since nine.", "pending", "high", "ada@example.com")
BARE = NewExternalTicket(KEY, "VPN is down", "Since nine.", "open", None, None)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    async with desk.listening():
        yield desk


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(verify=trusted_authorities()) as client:
        yield client


@pytest.fixture
def provider(desk: Desk, client: httpx2.AsyncClient) -> Freshservice:
    return Freshservice(client, Link("freshservice", desk.url + "/", API_KEY, {"default_email": "desk@example.com"}))


@pytest.mark.parametrize(
    ("ticket", "members"),
    [
        (WHOLE, {"status": 3, "priority": 3, "email": "ada@example.com"}),
        (BARE, {"status": 2, "priority": 1, "email": "desk@example.com"}),
    ],
    ids=["every member", "required members"],
)
async def test_create(desk: Desk, provider: Freshservice, ticket: NewExternalTicket, members: dict[str, Any]) -> None:
    made = await provider.create(ticket)
    assert made == ("100", f"{desk.url}/a/tickets/100")
    (there,) = desk.tickets
    assert len(there.pop("tags")) == 1
    assert there == {"id": 100, "subject": "VPN is down", "description": "Since nine.", "source": 2, **members}


@pytest.mark.parametrize(
    ("changes", "member", "value"),
    [
        *[({"status": ours}, "status", n) for n, ours in enumerate(["open", "pending", "resolved", "closed"], 2)],
        *[({"priority": ours}, "priority", n) for n, ours in enumerate(["low", "medium", "high", "urgent"], 1)],
        ({"priority": None}, "priority", 1),
        ({"requester_email": "bob@example.com"}, "email", "bob@example.com"),
        ({"requester_email": None}, "email", "desk@example.com"),
        ({"subject": "Größe 📦"}, "subject", "Größe 📦"),
        ({"subject": "One\r\ntwo\n"}, "subject", "One two"),
        ({"description": "<b>R&D</b>"}, "description", "&lt;b&gt;R&amp;D&lt;/b&gt;"),
        ({"description": "One\r\ntwo\n\nthree"}, "description", "One<br>two<br><br>three"),
        ({"description": '"Größe" isn\'t 📦'}, "description", '"Größe" isn\'t 📦'),
    ],
)
async def test_update_changes_a_member_and_no_other(
    desk: Desk, provider: Freshservice, changes: dict[str, Any], member: str, value: object
) -> None:
    made = await provider.create(WHOLE)
    before = dict(desk.tickets[0])
    await provider.update(made.id, changes)
    assert desk.tickets == [{**before, member: value}]


async def test_update_changes_several_members(desk: Desk, provider: Freshservice) -> None:
    made = await provider.create(WHOLE)
    await provider.update(made.id, {"subject": "Up", "status": "resolved", "priority": None, "requester_email": None})
    there = desk.tickets[0]
    assert (there["subject"], there["status"], there["priority"]) == ("Up", 4, 1)
    assert (there["email"], there["description"]) == ("desk@example.com", "Since nine.")
    await provider.update(made.id, {})
    assert len(desk.requests) == 2


@pytest.mark.parametrize("is_indexed", [True, False], ids=["searched", "too fresh for the search"])
async def test_find_by_key(desk: Desk, provider: Freshservice, is_indexed: bool) -> None:
    desk.is_indexed = is_indexed
    assert await provider.find(KEY) is None
    await provider.create(WHOLE._replace(key="another"))
    made = await provider.create(WHOLE)
    assert await provider.find(KEY) == made
    assert await provider.find("never made") is None


async def test_find_checks_what_the_search_finds(desk: Desk, provider: Freshservice) -> None:
    await provider.create(WHOLE)
    (tag,) = desk.tickets[0]["tags"]
    desk.tickets[0]["tags"] = [tag[:-1] + "-"]
    assert await provider.find(KEY) is None
    # The search has deleted tickets for a while.
    desk.overrides = [Response(200, {"tickets": [{"id": 7}], "total": 1})]
    assert await provider.find(KEY) is None


async def test_rejections_have_the_vendors_words(desk: Desk, provider: Freshservice) -> None:
    with pytest.raises(RejectedError) as rejection:
        await provider.create(WHOLE._replace(subject=" ", requester_email="nobody"))
    assert str(rejection.value) == (
        "Validation failed. subject: It should not be blank as this is a mandatory field. "
        "email: It should be in the 'valid email address' format"
    )
    assert desk.tickets == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"code": "access", "message": "Upgrade\nyour plan"}, "Upgrade your plan"),
        ({"description": "No", "errors": "odd"}, "No"),
        ({"errors": [{"field": "status"}, "odd"]}, "status"),
        (["odd"], "The provider gave no reason"),
        (None, "The provider gave no reason"),
    ],
)
async def test_rejections_of_another_form(desk: Desk, provider: Freshservice, body: object, message: str) -> None:
    desk.overrides = [Response(400, body)]
    with pytest.raises(RejectedError) as rejection:
        await provider.create(WHOLE)
    assert str(rejection.value) == message


async def test_update_of_a_ticket_that_is_gone(provider: Freshservice) -> None:
    with pytest.raises(RejectedError, match=r"^The ticket is no longer in Freshservice$"):
        await provider.update("404", {"status": "closed"})


async def test_nothing_found_means_that_the_list_was_read_too(desk: Desk, provider: Freshservice) -> None:
    desk.overrides = [Response(200, {"tickets": [], "total": 0}), Response(500)]
    with pytest.raises(UnavailableError) as failure:
        await provider.find(KEY)
    assert not failure.value.in_doubt
