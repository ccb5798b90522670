"""The adapter for ServiceNow against a strict emulator of its Table API, over real sockets."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any
from uuid import uuid4

import pytest
from support.emulators import servicenow as emulator
from support.emulators.http import Fault, Response
from support.emulators.vendors import connected, new

from service.providers.port import (
    Link,
    LinkBrokenError,
    Provider,
    RejectedError,
    UnavailableError,
)

NO_REFERENCE = "0" * 32
HARD_TEXTS = ("two\nlines", "Ünïcödé 🎫 漢字", '"quoted" \\ ^ = & javascript:', " spaces ")


def adapter(
    url: str, *, credential: str = emulator.CREDENTIAL, options: Any = None, answer_seconds: float = 10
) -> AbstractAsyncContextManager[Provider]:
    return connected(Link("servicenow", url + "/", credential, options or {}), answer_seconds)


@pytest.fixture
async def instance() -> AsyncIterator[emulator.ServiceNow]:
    async with emulator.servicenow() as instance:
        yield instance


@pytest.fixture
async def desk(instance: emulator.ServiceNow) -> AsyncIterator[Provider]:
    async with adapter(instance.url) as desk:
        yield desk


def without_ids(incident: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in incident.items() if name not in ("sys_id", "number")}


async def test_a_ticket_with_every_member(instance: emulator.ServiceNow, desk: Provider) -> None:
    instance.user("ada@example.com", active=False)
    caller = instance.user("ADA@example.com")
    ticket = new(status="resolved", priority="urgent", requester_email="ada@example.com")
    made = await desk.create(ticket)
    [incident] = instance.incidents
    assert made.id == incident["sys_id"]
    assert made.url == f"{instance.url}/nav_to.do?uri=incident.do%3Fsys_id%3D{made.id}"
    assert without_ids(incident) == {
        "short_description": "Mail is down",
        "description": "Since nine.",
        "correlation_id": ticket.key,
        "caller_id": caller,
        "impact": "1",
        "urgency": "1",
        "priority": "1",
        "state": "6",
        "close_code": "Solution provided",
        "close_notes": "Resolved by the requester's organisation",
    }


async def test_a_ticket_with_only_the_required_members(instance: emulator.ServiceNow, desk: Provider) -> None:
    ticket = new()
    await desk.create(ticket)
    assert without_ids(instance.incidents[0]) == {
        "short_description": "Mail is down",
        "description": "Since nine.",
        "correlation_id": ticket.key,
        "impact": "3",
        "urgency": "3",
        "priority": "5",
        "state": "1",
    }


@pytest.mark.parametrize("text", HARD_TEXTS)
async def test_texts_arrive_as_they_are(instance: emulator.ServiceNow, desk: Provider, text: str) -> None:
    made = await desk.create(new(subject=text, description=text))
    await desk.update(made.id, {"description": text * 2})
    incident = instance.incidents[0]
    assert (incident["short_description"], incident["description"]) == (text, text * 2)


@pytest.mark.parametrize(
    ("priority", "theirs"), [("urgent", "1"), ("high", "2"), ("medium", "3"), ("low", "4"), (None, "5")]
)
async def test_priorities(instance: emulator.ServiceNow, desk: Provider, priority: str | None, theirs: str) -> None:
    made = await desk.create(new(priority=priority))
    other = await desk.create(new(priority="high" if priority is None else None))
    await desk.update(other.id, {"priority": priority})
    assert [one["priority"] for one in instance.incidents] == [theirs, theirs]
    assert made != other


@pytest.mark.parametrize(
    ("status", "at_first", "later", "beside"),
    [
        ("open", "1", "2", {}),
        ("pending", "3", "3", {"hold_reason": "4"}),
        ("resolved", "6", "6", {"close_code": "Resolved by caller", "close_notes": "Thanks"}),
        ("closed", "7", "7", {"close_code": "Resolved by caller", "close_notes": "Thanks"}),
    ],
)
async def test_states_with_the_members_that_they_demand(
    instance: emulator.ServiceNow, status: str, at_first: str, later: str, beside: dict[str, str]
) -> None:
    options = {"close_code": "Resolved by caller", "close_notes": "Thanks", "hold_reason": "4"}
    async with adapter(instance.url, options=options) as desk:
        await desk.create(new(status=status))
        other = await desk.create(new())
        await desk.update(other.id, {"status": status})
    first, second = instance.incidents
    assert (first["state"], second["state"]) == (at_first, later)
    assert {name: first[name] for name in options if name in first} == beside
    assert {name: second[name] for name in options if name in second} == beside


@pytest.mark.parametrize("email", ["ada@example.com", "o^r^ADA@example.com", None, "nobody@example.com"])
async def test_the_requester_is_a_user_or_nobody(
    instance: emulator.ServiceNow, desk: Provider, email: str | None
) -> None:
    known = {
        address: instance.user(address) for address in ("bob@example.com", "ada@example.com", "o^r^ada@example.com")
    }
    caller = known.get((email or "").lower())
    await desk.create(new(requester_email=email))
    other = await desk.create(new(requester_email="bob@example.com"))
    await desk.update(other.id, {"requester_email": email})
    first, second = instance.incidents
    assert (first.get("caller_id"), second["caller_id"]) == (caller, caller or "")


async def test_nobody_is_the_requester_where_users_cannot_be_searched(
    instance: emulator.ServiceNow, desk: Provider
) -> None:
    instance.user("bob@example.com")
    instance.ignores_conditions = True
    await desk.create(new(requester_email="ada@example.com"))
    assert "caller_id" not in instance.incidents[0]


async def test_an_update_is_one_request(instance: emulator.ServiceNow, desk: Provider) -> None:
    made = await desk.create(new(priority="low"))
    before = dict(instance.incidents[0])
    await desk.update(made.id, {"subject": "Mail is slow"})
    assert instance.incidents == [before | {"short_description": "Mail is slow"}]
    requests = len(instance.requests)
    await desk.update(made.id, {"description": "Since ten.", "status": "pending", "priority": "high"})
    changed = {"description": "Since ten.", "state": "3", "hold_reason": "1"}
    changed |= {"impact": "2", "urgency": "1", "priority": "2", "short_description": "Mail is slow"}
    assert instance.incidents == [before | changed]
    assert len(instance.requests) == requests + 1


async def test_only_the_ticket_of_a_key_is_found(instance: emulator.ServiceNow, desk: Provider) -> None:
    other, ticket = new(), new()
    await desk.create(other)
    made = await desk.create(ticket)
    assert await desk.find(ticket.key) == made
    assert await desk.find(ticket.key.upper()) is None
    assert await desk.find(f"{uuid4()}^ORcorrelation_id={ticket.key}") is None
    instance.ignores_conditions = True
    assert await desk.find(ticket.key) == made
    assert await desk.find(str(uuid4())) is None


async def test_a_rejection_has_the_vendors_message(instance: emulator.ServiceNow, desk: Provider) -> None:
    made = await desk.create(new())
    instance.refusal = (400, "Operation Failed", "No incidents\non  Sundays")
    with pytest.raises(RejectedError, match=r"^Operation Failed: No incidents on Sundays$"):
        await desk.create(new())
    with pytest.raises(RejectedError, match=r"^Operation Failed: No incidents on Sundays$"):
        await desk.update(made.id, {"subject": "Again"})
    assert len(instance.incidents) == 1


async def test_a_change_of_a_deleted_incident_is_rejected(desk: Provider) -> None:
    with pytest.raises(RejectedError, match=r"^No Record found: Record doesn't exist"):
        await desk.update(NO_REFERENCE, {"subject": "Again"})


@pytest.mark.parametrize(
    ("path", "credential"), [("", "ticket.service:wrong"), ("/elsewhere", emulator.CREDENTIAL)], ids=["401", "no API"]
)
async def test_a_wrong_link_is_for_the_operator(instance: emulator.ServiceNow, path: str, credential: str) -> None:
    async with adapter(instance.url + path, credential=credential) as desk:
        with pytest.raises(LinkBrokenError):
            await desk.find("key")
        if not path:
            with pytest.raises(LinkBrokenError):
                await desk.create(new())
            with pytest.raises(LinkBrokenError):
                await desk.update(NO_REFERENCE, {"subject": "Again"})


async def test_an_instance_without_the_table_is_for_the_operator(instance: emulator.ServiceNow, desk: Provider) -> None:
    instance.refusal = (404, "Invalid table", "")
    with pytest.raises(LinkBrokenError):
        await desk.create(new())


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        *((refusal, RejectedError) for refusal in emulator.BY_RULES.values()),
        *((refusal, LinkBrokenError) for refusal in emulator.BY_RIGHTS.values()),
        # What only looks like a rule.
        ((403, "Data Policy Exception", "No"), LinkBrokenError),
        ((403, "Operation Failed", "Security beats Data Policy Exception"), LinkBrokenError),
        ((403, "Operation Failed", ""), LinkBrokenError),
        ((401, "Operation Failed", "Data Policy Exception: Short description is mandatory"), LinkBrokenError),
    ],
    ids=[*emulator.BY_RULES, *emulator.BY_RIGHTS, "message", "in between", "nothing", "401"],
)
async def test_rules_reject_a_record_and_missing_permissions_are_for_the_operator(
    instance: emulator.ServiceNow, desk: Provider, refusal: emulator.Refusal, error: type[Exception]
) -> None:
    made = await desk.create(new())
    before = dict(instance.incidents[0])
    instance.refusal = refusal
    for write in (desk.create(new()), desk.update(made.id, {"status": "closed"})):
        with pytest.raises(error) as failure:
            await write
        if error is RejectedError:
            assert str(failure.value) == " ".join(f"{refusal[1]}: {refusal[2]}".split())
    assert instance.incidents == [before]


async def test_a_data_policy_of_the_instance_rejects_what_it_demands(
    instance: emulator.ServiceNow, desk: Provider
) -> None:
    message = "Operation Failed: Data Policy Exception: The following fields are mandatory: short_description"
    made = await desk.create(new())
    for write in (desk.create(new(subject="")), desk.update(made.id, {"subject": ""})):
        with pytest.raises(RejectedError, match=f"^{message}$"):
            await write
    assert [one["short_description"] for one in instance.incidents] == ["Mail is down"]


@pytest.mark.parametrize("refusal", [*emulator.BY_RULES.values(), *emulator.BY_RIGHTS.values()])
async def test_a_refused_search_is_not_a_rejection_of_the_ticket(
    instance: emulator.ServiceNow, desk: Provider, refusal: emulator.Refusal
) -> None:
    made = await desk.create(new())
    before = dict(instance.incidents[0])
    instance.search_refusal = refusal
    requester = {"requester_email": "ada@example.com"}
    for call in (desk.find("key"), desk.create(new(**requester)), desk.update(made.id, requester)):
        with pytest.raises(LinkBrokenError):
            await call
    assert instance.incidents == [before]


@pytest.mark.parametrize(
    "body", [None, [], "no", {"error": "no"}, {"error": None}, {"error": {"detail": ["Data Policy Exception"]}}]
)
async def test_a_403_without_a_message_is_for_the_operator(
    instance: emulator.ServiceNow, desk: Provider, body: Any
) -> None:
    instance.overrides = [Response(403, body)]
    with pytest.raises(LinkBrokenError):
        await desk.create(new())


@pytest.mark.parametrize("fault", ["429", "500", "reset", "hang", "html"])
async def test_a_failed_search_for_the_requester_has_changed_nothing(fault: Fault) -> None:
    async with emulator.servicenow(fault) as instance:
        async with adapter(instance.url, answer_seconds=0.3 if fault == "hang" else 10) as desk:
            with pytest.raises(UnavailableError) as failure:
                await desk.create(new(requester_email="ada@example.com"))
        assert not failure.value.in_doubt
        assert instance.incidents == []
