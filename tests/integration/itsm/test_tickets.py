"""contracts/itsm.md at both transports."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.system import World
from support.transports import Grpc, Rest

from service.itsm import total_queries

Transport = Rest | Grpc

TICKET = {"subject": "VPN is down", "description": "Since nine."}
MEMBERS = {
    "id",
    "subject",
    "description",
    "status",
    "priority",
    "requester_email",
    "external_provider",
    "external_ticket_id",
    "external_ticket_url",
    "metadata",
    "created_at",
    "updated_at",
}
RFC_3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


async def test_a_ticket_is_created_with_the_documented_defaults(transport: Transport, world: World) -> None:
    program = await world.program()
    ticket = (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    assert set(ticket) == MEMBERS
    assert UUID(ticket["id"])
    assert ticket["status"] == "open"
    assert ticket["metadata"] == {}
    nothing = {"priority", "requester_email", "external_provider", "external_ticket_id", "external_ticket_url"}
    assert {name for name in MEMBERS if ticket[name] is None} == nothing
    assert RFC_3339_UTC.fullmatch(ticket["created_at"])
    assert ticket["updated_at"] == ticket["created_at"]


async def test_every_member_is_stored_and_read_back(transport: Transport, world: World) -> None:
    program = await world.program()
    given = {
        **TICKET,
        "status": "pending",
        "priority": "urgent",
        "requester_email": "jane@example.com",
        "metadata": {"category": "Network", "deep": [1, {"ok": True, "no": None}], "Zoë": "日本 🎫"},
    }
    made = (await transport.call("itsm.create", program.credential, body=given)).succeeded(201)
    assert {name: made[name] for name in given} == given
    read = await transport.call("itsm.get", program.credential, path={"ticket_id": made["id"]})
    assert read.succeeded() == made


@pytest.mark.parametrize(
    ("changed", "paths"),
    [
        ({"subject": ""}, ["subject"]),
        ({"subject": "x" * 256}, ["subject"]),
        ({"description": ""}, ["description"]),
        ({"subject": "a\0b"}, ["subject"]),
        ({"description": "\0"}, ["description"]),
        ({"status": "reopened"}, ["status"]),
        ({"priority": "critical"}, ["priority"]),
        ({"requester_email": "nobody"}, ["requester_email"]),
        ({"metadata": {"note": "a\0b"}}, ["metadata"]),
        ({"metadata": {"a\0b": 1}}, ["metadata"]),
        ({"metadata": {"note": "x" * 262_144}}, ["metadata"]),
        ({"metadata": []}, ["metadata"]),
        ({"subject": "", "description": "", "status": "x"}, ["subject", "description", "status"]),
    ],
    ids=str,
)
async def test_errors_are_reported_by_path(transport: Transport, world: World, changed: Any, paths: list[str]) -> None:
    program = await world.program()
    reply = await transport.call("itsm.create", program.credential, body={**TICKET, **changed})
    reply.failed("validation_error", paths=paths)
    assert await total(transport, program) == 0


async def total(transport: Transport, program: Any, **query: Any) -> int:
    total: int = (await transport.call("itsm.list", program.credential, query=query)).succeeded()["total"]
    return total


async def test_bounds_hold_at_their_edges(transport: Transport, world: World) -> None:
    program = await world.program()
    given = {"subject": "x" * 255, "description": "y", "metadata": {"n": "x" * (262_144 - len('{"n":""}'))}}
    ticket = (await transport.call("itsm.create", program.credential, body=given)).succeeded(201)
    assert ticket["subject"] == given["subject"]
    assert ticket["metadata"] == given["metadata"]


async def test_a_patch_changes_the_named_members_only(transport: Transport, world: World) -> None:
    program = await world.program()
    first = {**TICKET, "priority": "high", "requester_email": "jane@example.com", "metadata": {"a": 1}}
    made = (await transport.call("itsm.create", program.credential, body=first)).succeeded(201)
    path = {"ticket_id": made["id"]}
    changed = (
        await transport.call("itsm.update", program.credential, path=path, body={"subject": "Solved"})
    ).succeeded()
    assert changed["updated_at"] > made["updated_at"]
    assert changed == {**made, "subject": "Solved", "updated_at": changed["updated_at"]}
    cleared = await transport.call(
        "itsm.update", program.credential, path=path, body={"priority": None, "requester_email": None}
    )
    assert (cleared.body["priority"], cleared.body["requester_email"]) == (None, None)
    replaced = await transport.call("itsm.update", program.credential, path=path, body={"metadata": {"b": 2}})
    assert replaced.succeeded()["metadata"] == {"b": 2}


@pytest.mark.parametrize("member", ["subject", "description", "status", "metadata"])
async def test_a_required_member_cannot_be_cleared(transport: Transport, world: World, member: str) -> None:
    program = await world.program()
    made = (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    path = {"ticket_id": made["id"]}
    reply = await transport.call("itsm.update", program.credential, path=path, body={member: None})
    reply.failed("validation_error", paths=[member])
    assert (await transport.call("itsm.get", program.credential, path=path)).succeeded() == made


async def test_any_status_may_follow_any_other(transport: Transport, world: World) -> None:
    program = await world.program()
    made = (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    for status in ("closed", "open", "resolved", "pending", "closed", "resolved", "open", "pending", "open"):
        reply = await transport.call(
            "itsm.update", program.credential, path={"ticket_id": made["id"]}, body={"status": status}
        )
        assert reply.succeeded()["status"] == status


async def test_each_write_leaves_one_event(transport: Transport, world: World) -> None:
    program = await world.program()
    made = (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    path = {"ticket_id": made["id"]}
    await transport.call("itsm.update", program.credential, path=path, body={"status": "closed", "priority": "low"})
    await transport.call(
        "itsm.update", program.credential, path=path, body={"status": "open"}, headers={"x-request-id": "r-7"}
    )
    await transport.call("itsm.update", program.credential, path=path, body={"subject": "Other"})
    events = world.rows(
        "SELECT version, type, changes, actor, request_id FROM itsm_events WHERE ticket_id = %s ORDER BY version",
        made["id"],
    )
    assert [event[:3] for event in events] == [
        (1, "ticket.created", {}),
        (2, "ticket.closed", {"status": {"from": "open", "to": "closed"}, "priority": {"from": None, "to": "low"}}),
        (3, "ticket.reopened", {"status": {"from": "closed", "to": "open"}}),
        (4, "ticket.updated", {"subject": {"from": TICKET["subject"], "to": "Other"}}),
    ]
    assert {event[3] for event in events} == {program.key_id}
    assert events[2][4] == "r-7"


async def test_concurrent_patches_lose_nothing(transport: Transport, world: World) -> None:
    program = await world.program()
    made = (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    path = {"ticket_id": made["id"]}
    replies = await asyncio.gather(
        *(transport.call("itsm.update", program.credential, path=path, body={"subject": f"s{n}"}) for n in range(20))
    )
    assert {reply.succeeded()["subject"] for reply in replies} == {f"s{n}" for n in range(20)}
    events = world.rows("SELECT version, changes FROM itsm_events WHERE ticket_id = %s ORDER BY version", made["id"])
    assert [version for version, _ in events] == list(range(1, 22))
    subjects = [changes["subject"] for _, changes in events[1:]]
    assert [change["from"] for change in subjects[1:]] == [change["to"] for change in subjects[:-1]]


async def test_a_list_is_newest_first_with_the_exact_total(transport: Transport, world: World) -> None:
    program = await world.program()
    made = [(await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201) for _ in range(5)]
    whole = (await transport.call("itsm.list", program.credential)).succeeded()
    assert whole == {"tickets": made[::-1], "total": 5, "limit": 20, "offset": 0}
    page = (await transport.call("itsm.list", program.credential, query={"limit": 2, "offset": 1})).succeeded()
    assert page == {"tickets": [made[3], made[2]], "total": 5, "limit": 2, "offset": 1}
    past_the_end = (await transport.call("itsm.list", program.credential, query={"offset": 5})).succeeded()
    assert past_the_end == {"tickets": [], "total": 5, "limit": 20, "offset": 5}


async def test_a_list_filters_by_status_and_time_inclusively(transport: Transport, world: World) -> None:
    program = await world.program()
    made = [
        (await transport.call("itsm.create", program.credential, body={**TICKET, "status": status})).succeeded(201)
        for status in ("open", "closed", "open")
    ]
    assert await total(transport, program, status="open") == 2
    assert await total(transport, program, status="resolved") == 0
    middle = made[1]["created_at"]
    assert await total(transport, program, start_date=middle) == 2
    assert await total(transport, program, end_date=middle) == 2
    assert await total(transport, program, start_date=middle, end_date=middle, status="closed") == 1
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat().replace("+00:00", "Z")
    assert await total(transport, program, start_date=later) == 0


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 101}, ["limit"]),
        ({"offset": -1}, ["offset"]),
        ({"limit": 0, "offset": -1}, ["limit", "offset"]),
    ],
    ids=str,
)
async def test_lists_out_of_range_are_refused(transport: Transport, world: World, query: Any, paths: list[str]) -> None:
    program = await world.program()
    (await transport.call("itsm.list", program.credential, query=query)).failed("validation_error", paths=paths)


async def test_unknown_tickets_and_those_of_others_are_not_found_alike(transport: Transport, world: World) -> None:
    program, stranger = await world.program(), await world.program()
    test_key = await world.program(account_id=program.account_id, test=True)
    made = (await transport.call("itsm.create", program.credential, body=TICKET)).succeeded(201)
    missing = await transport.call("itsm.get", program.credential, path={"ticket_id": str(uuid4())})
    missing.failed("not_found", "Ticket not found")
    for other in (stranger, test_key):
        for operation, body in (("itsm.get", None), ("itsm.update", {"status": "closed"})):
            reply = await transport.call(operation, other.credential, path={"ticket_id": made["id"]}, body=body)
            assert reply.failed("not_found") == missing.body
        assert await total(transport, other) == 0
    assert (await transport.call("itsm.get", program.credential, path={"ticket_id": made["id"]})).succeeded() == made


async def test_an_id_that_is_not_a_uuid_is_invalid(transport: Transport, world: World) -> None:
    program = await world.program()
    (await transport.call("itsm.get", program.credential, path={"ticket_id": "17"})).failed(
        "validation_error", paths=["ticket_id"]
    )
    reply = await transport.call("itsm.update", program.credential, path={"ticket_id": "17"}, body={"status": "open"})
    reply.failed("validation_error", paths=["ticket_id"])


async def test_a_key_needs_the_scope_of_the_operation(transport: Transport, world: World) -> None:
    reader = await world.program(scopes=("tickets:read",))
    writer = await world.program(scopes=("tickets:write",), account_id=reader.account_id)
    made = (await transport.call("itsm.create", writer.credential, body=TICKET)).succeeded(201)
    path = {"ticket_id": made["id"]}
    write_message = "API key missing required scope: tickets:write"
    read_message = "API key missing required scope: tickets:read"
    (await transport.call("itsm.create", reader.credential, body=TICKET)).failed("missing_scope", write_message)
    (await transport.call("itsm.update", reader.credential, path=path, body={})).failed("missing_scope", write_message)
    (await transport.call("itsm.get", writer.credential, path=path)).failed("missing_scope", read_message)
    (await transport.call("itsm.list", writer.credential)).failed("missing_scope", read_message)
    (await transport.call("itsm.get", reader.credential, path=path)).succeeded()


# Idempotency


async def test_the_same_key_and_body_give_the_first_answer_again(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "key 1"}
    body = {**TICKET, "metadata": {"a": 1, "b": [1.5]}}
    first = await transport.call("itsm.create", program.credential, body=body, headers=headers)
    first.succeeded(201)
    assert "idempotent-replayed" not in first.headers
    path = {"ticket_id": first.body["id"]}
    await transport.call("itsm.update", program.credential, path=path, body={"status": "closed"})
    # Equal values, not equal bytes: the members in another order, the number written otherwise.
    again = {"metadata": {"b": [1.50], "a": 1.0}, **dict(reversed(TICKET.items()))}
    second = await transport.call("itsm.create", program.credential, body=again, headers=headers)
    assert second.succeeded(201) == first.body
    assert second.headers["idempotent-replayed"] == "true"
    assert await total(transport, program) == 1


async def test_the_same_key_with_another_body_is_refused(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": str(uuid4())}
    (await transport.call("itsm.create", program.credential, body=TICKET, headers=headers)).succeeded(201)
    for other in ({**TICKET, "subject": "Other"}, {**TICKET, "status": "open"}):
        reply = await transport.call("itsm.create", program.credential, body=other, headers=headers)
        reply.failed("idempotency_mismatch", "Idempotency key reused with a different payload")
    assert await total(transport, program) == 1


async def test_keys_belong_to_the_account_and_its_mode(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "shared"}
    others = [
        await world.program(),
        await world.program(account_id=program.account_id, test=True),
    ]
    first = (await transport.call("itsm.create", program.credential, body=TICKET, headers=headers)).succeeded(201)
    for other in others:
        made = (await transport.call("itsm.create", other.credential, body=TICKET, headers=headers)).succeeded(201)
        assert made["id"] != first["id"]
    colleague = await world.program(account_id=program.account_id)
    reply = await transport.call("itsm.create", colleague.credential, body=TICKET, headers=headers)
    assert reply.succeeded(201) == first


async def test_a_failed_request_frees_its_key(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "once more"}
    (await transport.call("itsm.create", program.credential, body={**TICKET, "subject": ""}, headers=headers)).failed(
        "validation_error"
    )
    reply = await transport.call("itsm.create", program.credential, body=TICKET, headers=headers)
    reply.succeeded(201)
    assert "idempotent-replayed" not in reply.headers


async def test_many_at_the_same_moment_make_one_ticket(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "race"}
    replies = await asyncio.gather(
        *(transport.call("itsm.create", program.credential, body=TICKET, headers=headers) for _ in range(24))
    )
    assert len({str(reply.succeeded(201)) for reply in replies}) == 1
    assert sum("idempotent-replayed" not in reply.headers for reply in replies) == 1
    assert await total(transport, program) == 1
    assert world.rows("SELECT count(*) FROM itsm_events WHERE account_id = %s", program.account_id) == [(1,)]


async def test_a_key_is_free_again_after_an_hour(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "old"}
    first = (await transport.call("itsm.create", program.credential, body=TICKET, headers=headers)).succeeded(201)
    age = "UPDATE itsm_keys SET expires_at = expires_at - interval '{}' WHERE account_id = %s"
    world.run(age.format("59 minutes"), program.account_id)
    again = await transport.call("itsm.create", program.credential, body=TICKET, headers=headers)
    assert again.succeeded(201) == first
    world.run(age.format("61 minutes"), program.account_id)
    other = await transport.call("itsm.create", program.credential, body={**TICKET, "subject": "New"}, headers=headers)
    assert other.succeeded(201)["id"] != first["id"]


async def test_the_answer_that_is_stored_is_the_row_that_was_written(transport: Transport, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "stored"}
    (await transport.call("itsm.create", program.credential, body=TICKET, headers=headers)).succeeded(201)
    both = "SELECT response, row_to_json(t) FROM itsm_keys NATURAL JOIN itsm_tickets t WHERE account_id = %s"
    [(stored, written)] = world.rows(both, program.account_id)
    assert stored == {name: value for name, value in written.items() if name not in ("metadata_terms", "search_terms")}


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_key_has_1_to_255_printable_characters(transport: Transport, world: World, key: str) -> None:
    program = await world.program()
    reply = await transport.call("itsm.create", program.credential, body=TICKET, headers={"idempotency-key": key})
    reply.failed("validation_error", paths=["idempotency-key"])
    longest = {"idempotency-key": "~" * 255}
    (await transport.call("itsm.create", program.credential, body=TICKET, headers=longest)).succeeded(201)


async def test_a_key_is_the_same_at_both_transports(rest: Rest, rpc: Grpc, world: World) -> None:
    program = await world.program()
    headers = {"idempotency-key": "both"}
    body = {**TICKET, "priority": "low", "metadata": {"n": 12345678901234567890123}}
    first = (await rest.call("itsm.create", program.credential, body=body, headers=headers)).succeeded(201)
    second = await rpc.call("itsm.create", program.credential, body=body, headers=headers)
    assert second.succeeded() == first
    assert second.headers["idempotent-replayed"] == "true"


# Totals


async def test_totals_are_exact_while_everything_changes_at_once(world: World, rpc: Grpc) -> None:
    """Creates, duplicates that are undone, moves between statuses, and merges by two processes at any moment."""
    program = await world.program()
    statuses = ("open", "pending", "resolved", "closed")

    async def life(n: int) -> None:
        headers = {"idempotency-key": f"key {n // 3}"}
        body = {**TICKET, "status": statuses[n // 3 % 4]}
        made = (await rpc.call("itsm.create", program.credential, body=body, headers=headers)).succeeded(201)
        for step in range(3):
            change = {"status": statuses[(n + step) % 4]}
            path = {"ticket_id": made["id"]}
            (await rpc.call("itsm.update", program.credential, path=path, body=change)).succeeded()

    async def merge() -> None:
        for _ in range(30):
            await asyncio.to_thread(world.run, total_queries.MERGE.sql.decode().replace("LIMIT 10000", "LIMIT 7"))

    async def look() -> None:
        for turn in range(60):
            # The sum of statuses, and that of days.
            dated = {"start_date": "2020-01-01T00:00:00Z"} if turn % 2 else {}
            listed = (await rpc.call("itsm.list", program.credential, query={"limit": 100, **dated})).succeeded()
            assert listed["total"] == len(listed["tickets"])

    await asyncio.gather(*(life(n) for n in range(90)), merge(), merge(), look())
    count = "SELECT count(*) FROM itsm_tickets WHERE account_id = %s AND status = %s"
    for status in statuses:
        counted = world.rows(count, program.account_id, status)[0][0]
        assert await total(rpc, program, status=status) == counted
        assert await total(rpc, program, status=status, start_date="2020-01-01T00:00:00Z") == counted
    assert await total(rpc, program) == 30
