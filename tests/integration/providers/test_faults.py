"""For every vendor: what its failures mean, and that a request that may have been processed stays in doubt."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import ValidationError
from support.emulators.http import FAULTS, Fault, Response, Server, speaking
from support.emulators.vendors import FRESHSERVICE, JIRA, SERVICENOW, VENDORS, ZENDESK, Vendor, connected

from service.providers import OPTIONS, http
from service.providers.port import Link, LinkBrokenError, NewExternalTicket, Provider, UnavailableError

KEY = "01a20139-af25-72bc-a26c-14d6b397c063"
# Created, and searched for, with one request at every vendor.
NEW = NewExternalTicket(KEY, "VPN is down", "Since nine.", "open", "high", None)
NO_REFERENCE = "0" * 32

Call = Callable[[Provider], Coroutine[Any, Any, object]]
CALLS: Mapping[str, Call] = {
    "create": lambda adapter: adapter.create(NEW),
    "find": lambda adapter: adapter.find(KEY),
    "update": lambda adapter: adapter.update(NO_REFERENCE, {"subject": "Changed"}),
}

each_vendor = pytest.mark.parametrize("vendor", VENDORS, ids=[one.name for one in VENDORS])
each_call = pytest.mark.parametrize("call", CALLS)


@pytest.fixture
async def desk(vendor: Vendor) -> AsyncIterator[Server]:
    async with vendor.emulator().listening() as desk:
        yield desk


def at(vendor: Vendor, desk: Server, credential: str | None = None) -> Link:
    return Link(vendor.name, desk.url + "/", credential or vendor.credential, vendor.options)


def answer_seconds(fault: Fault) -> float:
    return 0.1 if fault.split()[0] in ("hang", "slow") else 10


def retry_after(fault: Fault) -> float | None:
    return 17 if fault in ("429", "500", "503") else None


@each_vendor
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_creation_that_fails_is_made_once_in_the_end(vendor: Vendor, desk: Server, fault: Fault) -> None:
    desk.retry_after = "17"
    desk.faults = [fault]
    async with connected(at(vendor, desk), answer_seconds(fault)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.create(NEW)
    # A 429 means that nothing was done; any other failure leaves it in doubt.
    assert failure.value.in_doubt == (fault != "429")
    assert failure.value.retry_after == retry_after(fault)
    async with connected(at(vendor, desk)) as adapter:
        found = await adapter.find(KEY)
        assert (found is not None, len(vendor.has(desk))) == (FAULTS[fault], FAULTS[fault])
        made = found or await adapter.create(NEW)
    assert [str(one[vendor.id]) for one in vendor.has(desk)] == [made.id]


@each_vendor
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_search_that_fails_has_done_nothing(vendor: Vendor, desk: Server, fault: Fault) -> None:
    desk.retry_after = "17"
    desk.faults = [fault]
    async with connected(at(vendor, desk), answer_seconds(fault)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.find(KEY)
    assert (failure.value.in_doubt, failure.value.retry_after) == (False, retry_after(fault))


@pytest.mark.parametrize(
    ("vendor", "fault"),
    # Jira's answer to an update has no body that could be slow.
    [(vendor, fault) for vendor in VENDORS for fault in FAULTS if (vendor, fault) != (JIRA, "slow")],
    ids=lambda value: value.name if isinstance(value, Vendor) else value,
)
async def test_an_update_that_fails_can_be_done_again(vendor: Vendor, desk: Server, fault: Fault) -> None:
    desk.retry_after = "17"
    subject = vendor.mirrored["subject"].name
    async with connected(at(vendor, desk), answer_seconds(fault)) as adapter:
        made = await adapter.create(NEW)
        desk.faults = [fault]
        with pytest.raises(UnavailableError) as failure:
            await adapter.update(made.id, {"subject": "Changed"})
    assert failure.value.in_doubt == (fault != "429")
    assert failure.value.retry_after == retry_after(fault)
    assert (vendor.has(desk)[0][subject] == "Changed") == FAULTS[fault]
    async with connected(at(vendor, desk)) as adapter:
        await adapter.update(made.id, {"subject": "Changed"})
    assert [one[subject] for one in vendor.has(desk)] == ["Changed"]


@each_vendor
async def test_an_answer_that_never_ends_does_not_outlast_a_deadline(vendor: Vendor, desk: Server) -> None:
    desk.faults = ["slow"]
    async with connected(at(vendor, desk)) as adapter:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await adapter.create(NEW)


@each_vendor
@each_call
async def test_a_refused_connection_leaves_nothing_in_doubt(vendor: Vendor, call: str) -> None:
    async with vendor.emulator().listening() as desk:
        pass
    async with connected(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await CALLS[call](adapter)
    assert not failure.value.in_doubt


@each_vendor
@each_call
async def test_a_wrong_credential_is_for_the_operator(vendor: Vendor, desk: Server, call: str) -> None:
    async with connected(at(vendor, desk, vendor.credential + "?")) as adapter:
        with pytest.raises(LinkBrokenError, match="401"):
            await CALLS[call](adapter)
    assert vendor.has(desk) == []


@each_vendor
@pytest.mark.parametrize("call", ["create", "find"])
@pytest.mark.parametrize("body", [None, {"error": "InvalidEndpoint", "description": "Not found"}])
async def test_a_wrong_address_is_for_the_operator(vendor: Vendor, desk: Server, call: str, body: object) -> None:
    desk.overrides = [Response(404, body)]
    async with connected(at(vendor, desk)) as adapter:
        with pytest.raises(LinkBrokenError):
            await CALLS[call](adapter)


@each_vendor
@each_call
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_an_address_that_has_moved_is_for_the_operator(
    vendor: Vendor, desk: Server, call: str, status: int
) -> None:
    # With a message in JSON, as a rejection has: it is not one.
    moved = Response(status, {"message": "Moved", "error": {"message": "Moved"}}, {"location": f"{desk.url}/elsewhere"})
    async with connected(at(vendor, desk)) as adapter:
        made = await adapter.create(NEW)
        requests = len(desk.requests)
        desk.overrides = [moved]
        with pytest.raises(LinkBrokenError, match=f"^the provider answered {status}: its address is wrong$"):
            await (adapter.update(made.id, {"subject": "Changed"}) if call == "update" else CALLS[call](adapter))
    # The redirect is not followed: it leads to an address that the operator did not name.
    assert len(desk.requests) == requests + 1


@each_vendor
@pytest.mark.parametrize(("call", "in_doubt"), [("create", True), ("find", False), ("update", True)])
async def test_an_answer_that_is_too_large_is_not_read(
    vendor: Vendor, desk: Server, monkeypatch: pytest.MonkeyPatch, call: str, in_doubt: bool
) -> None:
    # Quotation marks count too.
    monkeypatch.setattr(http, "_MAX_BYTES", 100_001)
    async with connected(at(vendor, desk)) as adapter:
        made = await adapter.create(NEW)
        desk.overrides = [Response(200, "x" * 100_000)]
        with pytest.raises(UnavailableError, match=r"^the provider's answer is too large$") as failure:
            await (adapter.update(made.id, {"subject": "Changed"}) if call == "update" else CALLS[call](adapter))
        assert failure.value.in_doubt == in_doubt
        # A ticket with a long description comes back whole.
        desk.overrides = [Response(200, "x" * 99_999)]
        await adapter.update(made.id, {"subject": "Changed"})


HEAD = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def answered(sent: bytes) -> AsyncIterator[Provider]:
    """A vendor (all have it in common) whose answer is these bytes."""
    async with (
        speaking(sent) as url,
        connected(Link(ZENDESK.name, url, ZENDESK.credential, ZENDESK.options)) as adapter,
    ):
        yield adapter


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        # As long as a small answer, and a few seconds of the process's time.
        (CHUNKED + b"1\r\n \r\n" * 9_000, "the provider's answer is too large"),
        (HEAD + b"content-encoding: gzip\r\n\r\nnot compressed", "the provider's answer cannot be decompressed"),
        (HEAD + b"content-length: 9\r\n\r\n{", "no complete HTTP answer came"),
        (b"220 desk.example ESMTP\r\n\r\n", "no complete HTTP answer came"),
        (b"", "no complete HTTP answer came"),
    ],
    ids=["tiny pieces", "not compressed", "half", "another protocol", "nothing"],
)
async def test_operators_can_read_why_there_was_no_answer(answer: bytes, why: str) -> None:
    async with answered(answer) as adapter:
        with pytest.raises(UnavailableError, match=f"^{why}$") as failure:
            await adapter.create(NEW)
    assert failure.value.in_doubt


async def test_others_have_their_turn_while_an_answer_comes_in_pieces() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with answered(CHUNKED + b"1\r\n \r\n" * 9_000) as adapter:
        working = asyncio.create_task(others())
        with suppress(UnavailableError):
            await adapter.create(NEW)
        working.cancel()
    # They would have a few for each read.
    assert turns > 100


@each_vendor
@pytest.mark.parametrize("status", [429, 503])
async def test_a_provider_may_say_until_when_to_wait(vendor: Vendor, desk: Server, status: int) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    desk.overrides = [Response(status, {"message": "no"}, {"retry-after": until})]
    async with connected(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.create(NEW)
    assert failure.value.retry_after == pytest.approx(3600, abs=60)


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
async def test_a_creation_whose_answer_has_no_id_is_in_doubt(vendor: Vendor, desk: Server, body: object) -> None:
    desk.overrides = [Response(201, body)]
    async with connected(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.create(NEW)
    assert failure.value.in_doubt


# Answers to a search: the member with the list, an entry that is ours at one vendor or another, and entries without a
# usable id.
LISTS = [(FRESHSERVICE, "tickets"), (ZENDESK, "tickets"), (SERVICENOW, "result"), (JIRA, "issues")]
OURS = {"external_id": KEY, "correlation_id": KEY, "fields": {"description": f"VPN is down\n\nReference: {KEY}"}}
NO_IDS: list[dict[str, Any]] = [{}, {"id": "", "sys_id": "", "key": ""}, {"id": "no number", "sys_id": 7, "key": 7}]
EMPTY: dict[str, object] = {"nothing at all": None, "no list": {}}


@pytest.mark.parametrize(("vendor", "name"), LISTS, ids=[vendor.name for vendor, _ in LISTS])
@pytest.mark.parametrize("there", [None, {}, *([OURS | no_id] for no_id in NO_IDS), *EMPTY])
async def test_a_search_whose_answer_has_no_id_has_found_nothing_certain(
    vendor: Vendor, desk: Server, name: str, there: Any
) -> None:
    desk.overrides = [Response(200, EMPTY[there] if isinstance(there, str) else {name: there})]
    async with connected(at(vendor, desk)) as adapter:
        with pytest.raises(UnavailableError) as failure:
            await adapter.find(KEY)
    assert not failure.value.in_doubt


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
def test_unknown_and_malformed_options_are_refused(vendor: Vendor, wrong: dict[str, object]) -> None:
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
