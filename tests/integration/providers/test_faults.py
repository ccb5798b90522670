"""What holds for every vendor: what its failures mean, and that what nobody can know is never taken for known."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import pytest
from pydantic import ValidationError
from support.emulators.http import FAULTS, Fault, Response, Server
from support.emulators.vendors import FRESHSERVICE, JIRA, SERVICENOW, VENDORS, ZENDESK, Vendor, asking

from service.providers import OPTIONS, http
from service.providers.port import Link, LinkBrokenError, NewExternalTicket, Provider, UnavailableError

KEY = "01a20139-af25-72bc-a26c-14d6b397c063"
# Made and looked for with one request, whoever the vendor is.
NEW = NewExternalTicket(KEY, "VPN is down", "Since nine.", "open", "high", None)
NOWHERE = "0" * 32

Call = Callable[[Provider], Coroutine[Any, Any, object]]
CALLS: Mapping[str, Call] = {
    "create": lambda adapter: adapter.create(NEW),
    "find": lambda adapter: adapter.find(KEY),
    "update": lambda adapter: adapter.update(NOWHERE, {"subject": "Changed"}),
}

each_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=[one.name for one in VENDORS])
each_call = pytest.mark.parametrize("call", CALLS)


@pytest.fixture
async def desk(vendor: Vendor) -> AsyncIterator[Server]:
    async with vendor.emulator().listening() as desk:
        yield desk


def at(vendor: Vendor, desk: Server, credential: str | None = None) -> Link:
    return Link(vendor.name, desk.url + "/", credential or vendor.credential, vendor.options)


def patience(fault: Fault) -> float:
    return 0.1 if fault.split()[0] in ("hang", "slow") else 10


def retry_after(fault: Fault) -> float | None:
    return 17 if fault in ("429", "500", "503") else None


@each_vendor
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_creation_that_fails_is_made_once_in_the_end(vendor: Vendor, desk: Server, fault: Fault) -> None:
    desk.retry_after = "17"
    desk.faults = [fault]
    async with asking(at(vendor, desk), patience(fault)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.create(NEW)
    # A 429 says that nothing was done; of anything else nobody can know.
    assert failure.value.done is (False if fault == "429" else None)
    assert failure.value.retry_after == retry_after(fault)
    async with asking(at(vendor, desk)) as adapter:
        found = await adapter.find(KEY)
        assert (found is not None, len(vendor.has(desk))) == (FAULTS[fault], FAULTS[fault])
        made = found or await adapter.create(NEW)
    assert [str(one[vendor.id]) for one in vendor.has(desk)] == [made.id]


@each_vendor
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_search_that_fails_has_done_nothing(vendor: Vendor, desk: Server, fault: Fault) -> None:
    desk.retry_after = "17"
    desk.faults = [fault]
    async with asking(at(vendor, desk), patience(fault)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.find(KEY)
    assert (failure.value.done, failure.value.retry_after) == (False, retry_after(fault))


@pytest.mark.parametrize(
    ("vendor", "fault"),
    # Jira's answer to an update has no body that could be slow.
    [(vendor, fault) for vendor in VENDORS for fault in FAULTS if (vendor, fault) != (JIRA, "slow")],
    ids=lambda value: value.name if isinstance(value, Vendor) else value,
)
async def test_an_update_that_fails_can_be_done_again(vendor: Vendor, desk: Server, fault: Fault) -> None:
    desk.retry_after = "17"
    subject = vendor.told["subject"].name
    async with asking(at(vendor, desk), patience(fault)) as adapter:
        made = await adapter.create(NEW)
        desk.faults = [fault]
        with pytest.raises(UnavailableError) as failure:
            await adapter.update(made.id, {"subject": "Changed"})
    assert failure.value.done is (False if fault == "429" else None)
    assert failure.value.retry_after == retry_after(fault)
    assert (vendor.has(desk)[0][subject] == "Changed") == FAULTS[fault]
    async with asking(at(vendor, desk)) as adapter:
        await adapter.update(made.id, {"subject": "Changed"})
    assert [one[subject] for one in vendor.has(desk)] == ["Changed"]


@each_vendor
async def test_who_has_no_more_patience_is_not_held_by_an_answer_that_never_ends(vendor: Vendor, desk: Server) -> None:
    desk.faults = ["slow"]
    async with asking(at(vendor, desk)) as adapter:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await adapter.create(NEW)


@each_vendor
@each_call
async def test_nobody_listens(vendor: Vendor, call: str) -> None:
    async with vendor.emulator().listening() as desk:
        pass
    async with asking(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await CALLS[call](adapter)
    assert failure.value.done is False


@each_vendor
@each_call
async def test_a_wrong_credential_is_for_the_operator(vendor: Vendor, desk: Server, call: str) -> None:
    async with asking(at(vendor, desk, vendor.credential + "?")) as adapter:
        with pytest.raises(LinkBrokenError, match="401"):
            await CALLS[call](adapter)
    assert vendor.has(desk) == []


@each_vendor
@pytest.mark.parametrize("call", ["create", "find"])
@pytest.mark.parametrize("body", [None, {"error": "InvalidEndpoint", "description": "Not found"}])
async def test_a_wrong_address_is_for_the_operator(vendor: Vendor, desk: Server, call: str, body: object) -> None:
    desk.says = [Response(404, body)]
    async with asking(at(vendor, desk)) as adapter:
        with pytest.raises(LinkBrokenError):
            await CALLS[call](adapter)


@each_vendor
@each_call
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_an_address_that_has_moved_is_for_the_operator(
    vendor: Vendor, desk: Server, call: str, status: int
) -> None:
    # With words in JSON, as an answer to the ticket would have: they are no rejection of it.
    moved = Response(status, {"message": "Moved", "error": {"message": "Moved"}}, {"location": f"{desk.url}/elsewhere"})
    async with asking(at(vendor, desk)) as adapter:
        made = await adapter.create(NEW)
        asked = len(desk.requests)
        desk.says = [moved]
        with pytest.raises(LinkBrokenError, match=f"^it answered {status}: its address is another$"):
            await (adapter.update(made.id, {"subject": "Changed"}) if call == "update" else CALLS[call](adapter))
    # Nobody follows: who is there is not whom the operator named.
    assert len(desk.requests) == asked + 1


@each_vendor
@pytest.mark.parametrize(("call", "done"), [("create", None), ("find", False), ("update", None)])
async def test_an_answer_that_is_too_large_is_none(
    vendor: Vendor, desk: Server, monkeypatch: pytest.MonkeyPatch, call: str, done: object
) -> None:
    # Quotation marks count too.
    monkeypatch.setattr(http, "_MAX_BYTES", 100_001)
    async with asking(at(vendor, desk)) as adapter:
        made = await adapter.create(NEW)
        desk.says = [Response(200, "x" * 100_000)]
        with pytest.raises(UnavailableError, match=r"^its answer is too large$") as failure:
            await (adapter.update(made.id, {"subject": "Changed"}) if call == "update" else CALLS[call](adapter))
        assert failure.value.done is done
        # A ticket with a long description comes back whole.
        desk.says = [Response(200, "x" * 99_999)]
        await adapter.update(made.id, {"subject": "Changed"})


NOT_A_NUMBER = ({"ticket": {"id": "no number"}}, {"ticket": {"id": True}})
_NO_NUMBER: tuple[object, ...] = (
    None,
    [],
    {},
    {"ticket": None},
    {"ticket": {}},
    {"ticket": {"id": "no number"}},
    {"ticket": {"id": True}},
)
_NO_SYS_ID: tuple[object, ...] = (
    None,
    [],
    {},
    {"result": None},
    {"result": {}},
    {"result": {"sys_id": 7}},
    {"result": {"sys_id": ""}},
)
_NO_KEY: tuple[object, ...] = (None, [], {}, {"issueKey": None}, {"issueKey": 7}, {"issueKey": ""})


@pytest.mark.parametrize(
    ("vendor", "body"),
    [
        *[(FRESHSERVICE, body) for body in _NO_NUMBER],
        *[(ZENDESK, body) for body in _NO_NUMBER],
        *[(SERVICENOW, body) for body in _NO_SYS_ID],
        *[(JIRA, body) for body in _NO_KEY],
    ],
)
async def test_created_and_not_told_what(vendor: Vendor, desk: Server, body: object) -> None:
    desk.says = [Response(201, body)]
    async with asking(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.create(NEW)
    assert failure.value.done is None


# What a search answers with: under which name a vendor has what it found, one that says that it is ours, at one vendor
# or another, and what it says of its id.
LISTS = [(FRESHSERVICE, "tickets"), (ZENDESK, "tickets"), (SERVICENOW, "result"), (JIRA, "issues")]
OURS = {"external_id": KEY, "correlation_id": KEY, "fields": {"description": f"VPN is down\n\nReference: {KEY}"}}
NO_IDS: list[dict[str, Any]] = [{}, {"id": "", "sys_id": "", "key": ""}, {"id": "no number", "sys_id": 7, "key": 7}]
EMPTY: dict[str, object] = {"nothing at all": None, "no list": {}}


@pytest.mark.parametrize(("vendor", "name"), LISTS, ids=[vendor.name for vendor, _ in LISTS])
@pytest.mark.parametrize("there", [None, {}, *([OURS | no_id] for no_id in NO_IDS), *EMPTY])
async def test_found_and_not_told_what(vendor: Vendor, desk: Server, name: str, there: Any) -> None:
    desk.says = [Response(200, EMPTY[there] if isinstance(there, str) else {name: there})]
    async with asking(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.find(KEY)
    assert failure.value.done is False


@pytest.mark.parametrize(
    ("vendor", "wrong"),
    [
        (FRESHSERVICE, {"default_email": None}),
        (FRESHSERVICE, {"default_email": "nobody"}),
        (ZENDESK, {"closed_as": "pending"}),
        (SERVICENOW, {"close_code": ""}),
        (SERVICENOW, {"hold_reason": 1}),
        (SERVICENOW, {"close_notes": None}),
        (JIRA, {"service_desk_id": None}),
        (JIRA, {"request_type_id": "../1"}),
        (JIRA, {"transitions": {"solved": "1"}}),
        (JIRA, {"transitions": {"open": "Reopen"}}),
        (JIRA, {"priorities": {"high": ""}}),
        (JIRA, {"reference_field": "labels"}),
        *[(vendor, {"more": 1}) for vendor in VENDORS],
    ],
)
def test_options_are_those_that_are_known(vendor: Vendor, wrong: dict[str, object]) -> None:
    assert OPTIONS[vendor.name].model_validate(vendor.options)
    with pytest.raises(ValidationError):
        OPTIONS[vendor.name].model_validate({**vendor.options, **wrong})


@pytest.mark.parametrize(
    ("vendor", "required"),
    [(FRESHSERVICE, "default_email"), (JIRA, "service_desk_id"), (JIRA, "request_type_id")],
)
def test_some_options_have_no_default(vendor: Vendor, required: str) -> None:
    with pytest.raises(ValidationError):
        OPTIONS[vendor.name].model_validate({name: vendor.options[name] for name in vendor.options if name != required})
