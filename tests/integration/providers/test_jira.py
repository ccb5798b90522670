"""The adapter for Jira Service Management against a strict emulator of its API, over real sockets."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import pytest
from support.emulators import jira as emulator
from support.emulators.http import FAULTS, Fault, Response
from support.emulators.vendors import connected, new

from service.providers.port import (
    Link,
    LinkBrokenError,
    Provider,
    RejectedError,
    UnavailableError,
)

REQUIRED = {"service_desk_id": emulator.DESK, "request_type_id": emulator.REQUEST_TYPE}
OPTIONS: dict[str, Any] = REQUIRED | {
    "transitions": {"open": "21", "pending": "11", "resolved": "31", "closed": "41"},
    "priorities": {"urgent": "Highest", "high": "High", "medium": "Medium", "low": "Low"},
}
WITH_FIELD = OPTIONS | {"reference_field": emulator.REFERENCE_FIELD}


def adapter(
    url: str, options: Mapping[str, Any] = OPTIONS, *, credential: str = emulator.CREDENTIAL, answer_seconds: float = 10
) -> AbstractAsyncContextManager[Provider]:
    return connected(Link("jira", url + "/", credential, options), answer_seconds)


@pytest.fixture
async def site() -> AsyncIterator[emulator.Jira]:
    async with emulator.jira() as site:
        site.customers = {"bob@example.com": "account-bob", "ada@example.com": "account-ada"}
        yield site


@pytest.fixture
async def desk(site: emulator.Jira) -> AsyncIterator[Provider]:
    async with adapter(site.url) as desk:
        yield desk


@pytest.mark.parametrize("has_field", [True, False])
async def test_a_ticket_with_every_member(site: emulator.Jira, has_field: bool) -> None:
    ticket = new(status="resolved", priority="urgent", requester_email="ada@example.com")
    async with adapter(site.url, WITH_FIELD if has_field else OPTIONS) as desk:
        made = await desk.create(ticket)
    assert made == ("ITH-1", f"{site.url}/browse/ITH-1")
    marked = {"description": "Since nine.", emulator.REFERENCE_FIELD: ticket.key}
    assert site.issues == [
        {
            "key": "ITH-1",
            "summary": "Mail is down",
            "priority": {"name": "Highest"},
            "reporter": {"accountId": "account-ada"},
            "status": "Resolved",
            **(marked if has_field else {"description": f"Since nine.\n\nReference: {ticket.key}"}),
        }
    ]


async def test_a_ticket_with_only_the_required_members(site: emulator.Jira) -> None:
    async with adapter(site.url, REQUIRED) as desk:
        await desk.create(new())
    [request] = site.requests
    assert set(request.body) == {"serviceDeskId", "requestTypeId", "requestFieldValues"}
    assert set(request.body["requestFieldValues"]) == {"summary", "description"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("two\r\nlines\n", "two lines"), ("Ünïcödé 🎫 漢字", "Ünïcödé 🎫 漢字"), ('"a" \\ {b}\t[c]', '"a" \\ {b} [c]')],
)
async def test_a_summary_is_one_line_and_a_description_is_as_it_is(site: emulator.Jira, text: str, line: str) -> None:
    async with adapter(site.url, WITH_FIELD) as desk:
        made = await desk.create(new(subject=text, description=text))
        await desk.update(made.id, {"subject": text * 2, "description": text})
    assert (site.issues[0]["summary"], site.issues[0]["description"]) == (" ".join((text * 2).split()), text)
    assert site.requests[0].body["requestFieldValues"]["summary"] == line


@pytest.mark.parametrize(
    ("priority", "theirs"),
    [("urgent", "Highest"), ("high", "High"), ("medium", "Medium"), ("low", "Low"), (None, "Medium")],
)
async def test_priorities(site: emulator.Jira, desk: Provider, priority: str | None, theirs: str) -> None:
    await desk.create(new(priority=priority))
    other = await desk.create(new())
    await desk.update(other.id, {"priority": priority})
    assert [one["priority"]["name"] for one in site.issues] == [theirs, theirs]


async def test_a_priority_without_a_name_is_not_sent(site: emulator.Jira) -> None:
    async with adapter(site.url, REQUIRED | {"priorities": {"high": "High"}}) as desk:
        made = await desk.create(new(priority="high"))
        requests = len(site.requests)
        await desk.update(made.id, {"priority": "low"})
        await desk.update(made.id, {"priority": None})
    assert (site.issues[0]["priority"]["name"], len(site.requests)) == ("High", requests)


@pytest.mark.parametrize(
    ("statuses", "theirs"),
    [
        (("open",), "Waiting for support"),
        (("pending",), "Waiting for customer"),
        (("resolved",), "Resolved"),
        (("closed",), "Closed"),
        (("pending", "open"), "Waiting for support"),
        (("resolved", "open"), "Waiting for support"),
        (("pending", "resolved", "closed"), "Closed"),
        # Twice, as after a lost answer.
        (("pending", "pending"), "Waiting for customer"),
        (("resolved", "resolved"), "Resolved"),
        (("open", "open"), "Waiting for support"),
    ],
)
async def test_statuses_are_reached_by_transitions(
    site: emulator.Jira, desk: Provider, statuses: tuple[str, ...], theirs: str
) -> None:
    made = await desk.create(new(status=statuses[0]))
    other = await desk.create(new())
    for status in statuses[1:]:
        await desk.update(made.id, {"status": status})
    for status in statuses:
        await desk.update(other.id, {"status": status})
    assert [site.status_of(made.id), site.status_of(other.id)] == [theirs, theirs]


async def test_a_status_without_a_transition_is_left_as_it_is(site: emulator.Jira) -> None:
    async with adapter(site.url, REQUIRED) as desk:
        made = await desk.create(new(status="pending"))
        await desk.update(made.id, {"status": "closed"})
    assert (site.status_of(made.id), len(site.requests)) == ("Waiting for support", 1)


async def test_a_transition_that_the_workflow_refuses(site: emulator.Jira, desk: Provider) -> None:
    made = await desk.create(new(status="closed"))
    with pytest.raises(RejectedError, match=r"^The transition 21 is not valid for the status Closed of this issue$"):
        await desk.update(made.id, {"status": "open", "subject": "Again"})
    assert (site.status_of(made.id), site.issues[0]["summary"]) == ("Closed", "Again")
    # A request stays created.
    async with adapter(site.url, REQUIRED | {"transitions": {"resolved": "99"}}) as unlucky:
        other = await unlucky.create(new(status="resolved"))
    assert site.status_of(other.id) == "Waiting for support"


async def test_an_issue_that_another_request_moves_is_moved_later(site: emulator.Jira, desk: Provider) -> None:
    made = await desk.create(new())
    site.is_transitioning = True
    with pytest.raises(UnavailableError) as failure:
        await desk.update(made.id, {"status": "closed"})
    with pytest.raises(UnavailableError) as failure:
        await desk.create(new(status="closed"))
    assert failure.value.in_doubt


@pytest.mark.parametrize(
    ("email", "account"),
    [("ada@example.com", "account-ada"), ("ADA@example.com", "account-ada"), (None, emulator.MYSELF)],
)
async def test_a_requester_becomes_the_reporter(
    site: emulator.Jira, desk: Provider, email: str | None, account: str
) -> None:
    site.customers = {"ada@example.com.au": "account-other", **site.customers}
    made = await desk.create(new(requester_email="bob@example.com"))
    await desk.update(made.id, {"requester_email": email})
    assert site.issues[0]["reporter"] == {"accountId": account}


async def test_a_requester_whom_jira_does_not_know_is_a_rejection(site: emulator.Jira, desk: Provider) -> None:
    with pytest.raises(RejectedError, match=r"^Customer eve@example\.com does not exist"):
        await desk.create(new(requester_email="eve@example.com"))
    made = await desk.create(new(subject="Mail is slow"))
    with pytest.raises(RejectedError, match=r"^The reporter specified is not a user: eve@example\.com$"):
        await desk.update(made.id, {"requester_email": "eve@example.com", "subject": "Again"})
    assert [one["summary"] for one in site.issues] == ["Mail is slow"]


async def test_an_update_edits_the_fields_and_then_moves(site: emulator.Jira, desk: Provider) -> None:
    ticket = new()
    made = await desk.create(ticket)
    before = dict(site.issues[0])
    changes = {"subject": "Mail is slow", "description": "Since ten.", "status": "pending", "priority": "high"}
    await desk.update(made.id, changes | {"requester_email": "ada@example.com"})
    assert site.issues == [
        before
        | {
            "summary": "Mail is slow",
            "description": f"Since ten.\n\nReference: {ticket.key}",
            "status": "Waiting for customer",
            "priority": {"name": "High"},
            "reporter": {"accountId": "account-ada"},
        }
    ]
    assert [one.method for one in site.requests if one.method != "GET"] == ["POST", "PUT", "POST"]
    assert await desk.find(ticket.key) == made


@pytest.mark.parametrize("options", [OPTIONS, WITH_FIELD], ids=["description", "field"])
async def test_only_the_request_of_a_key_is_found(site: emulator.Jira, options: Mapping[str, Any]) -> None:
    ticket, unknown = new(), str(uuid4())
    async with adapter(site.url, options) as desk:
        # A ticket that only mentions a key is not the key's ticket.
        for text in (ticket.key, f"Reference: {ticket.key}", f"{ticket.key} is broken"):
            await desk.create(new(description=text))
        seen = f"See {ticket.key}"
        site.issues.append({**site.issues[0], "key": "BY-HAND", "description": seen, emulator.REFERENCE_FIELD: seen})
        made = await desk.create(ticket)
        assert await desk.find(ticket.key) == made
        assert await desk.find(ticket.key.upper()) is None
        assert await desk.find(unknown) is None
        assert await desk.find(f'{unknown}" OR key = "ITH-1') is None
        # People edit descriptions; a request without its last line is no longer found, nor is another one.
        if options == OPTIONS:
            site.issues[-1]["description"] = None
            await desk.update(made.id, {"description": "Since ten."})
            assert (site.issues[-1]["description"], await desk.find(ticket.key)) == ("Since ten.", None)


async def test_a_rejection_has_the_vendors_message(site: emulator.Jira, desk: Provider) -> None:
    made = await desk.create(new())
    with pytest.raises(RejectedError, match=r"^description: The entered text is too long\."):
        await desk.update(made.id, {"description": "x" * 40_000})
    with pytest.raises(RejectedError, match=r"^Your request could not be created\. You must specify a summary"):
        await desk.create(new(subject="\n"))
    site.refusal = "No requests\non  Sundays"
    with pytest.raises(RejectedError, match=r"^No requests on Sundays$"):
        await desk.create(new())
    assert len(site.issues) == 1


@pytest.mark.parametrize(
    "changes", [{"subject": "Again"}, {"description": "Again"}, {"status": "closed"}, {"priority": "low"}]
)
async def test_a_change_of_a_deleted_issue_is_rejected(desk: Provider, changes: Mapping[str, Any]) -> None:
    with pytest.raises(RejectedError, match=r"^Issue does not exist or you do not have permission to see it\.$"):
        await desk.update("ITH-9", changes)


@pytest.mark.parametrize(
    ("options", "credential"),
    [(OPTIONS, "desk@example.com:wrong"), (OPTIONS | {"request_type_id": "26"}, emulator.CREDENTIAL)],
    ids=["401", "no such request type"],
)
async def test_a_wrong_link_is_for_the_operator(
    site: emulator.Jira, options: Mapping[str, Any], credential: str
) -> None:
    async with adapter(site.url, options, credential=credential) as desk:
        with pytest.raises(LinkBrokenError):
            await desk.create(new())
        if credential != emulator.CREDENTIAL:
            with pytest.raises(LinkBrokenError):
                await desk.find("key")
            with pytest.raises(LinkBrokenError):
                await desk.update("ITH-1", {"subject": "Again"})
    async with adapter(site.url, REQUIRED | {"reference_field": "customfield_1"}) as desk:
        with pytest.raises(LinkBrokenError, match="Error in the JQL Query"):
            await desk.find("key")


@pytest.mark.parametrize("fault", ["429", "500", "reset", "hang", "html"])
async def test_a_request_that_is_created_but_not_moved_is_in_doubt(site: emulator.Jira, fault: Fault) -> None:
    ticket = new(status="closed")
    site.faults_after_creation = [fault]
    async with adapter(site.url, answer_seconds=0.3 if fault == "hang" else 10) as desk:
        with pytest.raises(UnavailableError) as failure:
            await desk.create(ticket)
    assert failure.value.in_doubt
    assert failure.value.retry_after == (1 if fault in ("429", "500") else None)
    async with adapter(site.url) as desk:
        assert await desk.find(ticket.key) is not None


# A slow body does not matter here: an answer of 204 has none.
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "slow"])
async def test_an_update_that_fails_before_it_moves_can_be_repeated(fault: Fault) -> None:
    async with emulator.jira() as site:
        async with adapter(site.url, answer_seconds=0.3 if "hang" in fault else 10) as desk:
            made = await desk.create(new())
            site.faults.append(fault)
            with pytest.raises(UnavailableError) as failure:
                await desk.update(made.id, {"subject": "Again", "status": "closed"})
            assert failure.value.in_doubt == (fault != "429")
        async with adapter(site.url) as desk:
            await desk.update(made.id, {"subject": "Again", "status": "closed"})
        assert (site.issues[0]["summary"], site.status_of(made.id)) == ("Again", "Closed")


@pytest.mark.parametrize("fault", ["429", "500", "reset", "hang", "html"])
@pytest.mark.parametrize("asks", ["find", "description", "requester_email", "status"])
async def test_a_failed_read_has_changed_nothing(site: emulator.Jira, asks: str, fault: Fault) -> None:
    async with adapter(site.url, answer_seconds=0.3 if fault == "hang" else 10) as desk:
        site.faults.append(fault)
        with pytest.raises(UnavailableError) as failure:
            await (desk.find("key") if asks == "find" else desk.update("ITH-1", {"status": "closed", asks: "closed"}))
    assert not failure.value.in_doubt


@pytest.mark.parametrize("body", [None, {}, [7], {"issues": 7}, {"transitions": [7], "fields": {}}])
async def test_an_answer_without_the_expected_members_has_changed_nothing(
    site: emulator.Jira, desk: Provider, body: Any
) -> None:
    made = await desk.create(new())
    before = dict(site.issues[0])
    site.garbled = Response(200, body)
    with pytest.raises(UnavailableError) as failure:
        await desk.find("key")
    assert not failure.value.in_doubt
    for changes in ({"status": "closed"}, {"requester_email": None}):
        with pytest.raises(UnavailableError) as failure:
            await desk.update(made.id, changes)
        assert not failure.value.in_doubt
    assert site.issues == [before]
