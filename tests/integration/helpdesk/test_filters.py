"""contracts/helpdesk.md at both transports: filters, search and sorts of the list, and their bounds."""

from collections.abc import Mapping
from typing import Any

import grpc
import pytest
from support.helpdesk import URL, Transport, create, new_tenant_id
from support.helpdesk_calls import ALL
from support.helpdesk_lists import letters, listed, page
from support.system import Credential, World
from support.transports import Grpc, Rest

# Each differs from the others in something; g has only a title, and f is deleted.
TICKETS: Mapping[str, Mapping[str, Any]] = {
    "a": {
        "title": "a Login loops",
        "description": "Since nine.",
        "priority": "low",
        "category": "Network",
        "assigned_to_id": "per_a",
        "team_id": "grp_1",
        "submitted_by_id": "per_x",
        "tags": ["vpn", "two words", "it's \\ :* & 'é'"],
        "due_at": "2020-01-04T00:00:00Z",
    },
    "b": {
        "title": "b Zoë's printer",
        "description": "Since nine, too.",
        "type": "service_request",
        "status": "in_progress",
        "category": "network",
        "assigned_to_id": "per_b",
        "team_id": "grp_2",
        "submitted_by_id": "per_y",
        "tags": {"vpn": {"floor": 1}, "site": "Bern"},
        "due_at": "2020-01-03T00:00:00Z",
    },
    "c": {
        "title": "c foo-bar broke in v1.2.3",
        "type": "change",
        "status": "pending",
        "priority": "high",
        "category": "R & D's",
        "team_id": "grp_1",
        "submitted_by_id": "per_y",
        "tags": ["VPN", "x" * 255],
        "due_at": "2100-01-01T00:00:00Z",
    },
    "d": {
        "title": "d",
        "type": "problem",
        "status": "resolved",
        "priority": "urgent",
        "submitted_by_id": "none",
        "tags": {"Bern": "site"},
        "due_at": "2020-01-02T00:00:00Z",
    },
    "e": {
        "title": "e Café 東京都",
        "description": "C++ on srv-db01.internal reads /etc/nginx/nginx.conf",
        "status": "closed",
        "assigned_to_id": "per_a",
        "due_at": "2020-01-01T00:00:00Z",
    },
    "f": {"title": "f Login", "assigned_to_id": "per_a", "tags": ["vpn"], "due_at": "2020-01-01T00:00:00Z"},
    "g": {"title": "g"},
}


@pytest.fixture(scope="module")
async def reader(world: World, channel: grpc.aio.Channel) -> Credential:
    """A reader of the tickets a to g, which were created a day apart and changed in the opposite order."""
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    for day, members in enumerate(TICKETS.values(), 1):
        made = await create(Grpc(channel), person, **members)
        world.run(
            "UPDATE helpdesk_tickets SET created_at = timestamptz '2026-01-01Z' + %s * interval '1 day',"
            " updated_at = timestamptz '2026-02-01Z' - %s * interval '1 day' WHERE id = %s",
            *(day, day, made["id"]),
        )
    sixth = {"id": "TKT-0006"}
    deleted = (await Grpc(channel).call("helpdesk.delete", person, path=sixth)).succeeded()
    assert deleted["title"] == "f Login"
    # Another tenant has tickets with the same members.
    stranger = world.person(*ALL)
    for members in TICKETS.values():
        await create(Grpc(channel), stranger, **members)
    return world.person("read_all", tenant_id=tenant_id)


# Filters

FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "abcdeg"),
    ({"status": "open"}, "ag"),
    ({"status": "in_progress"}, "b"),
    ({"status": "pending"}, "c"),
    ({"status": "resolved"}, "d"),
    ({"status": "closed"}, "e"),
    ({"status": "open,pending"}, "acg"),
    ({"status": "open,in_progress,pending,resolved,closed"}, "abcdeg"),
    ({"status": "open,open"}, "ag"),
    ({"type": "incident"}, "aeg"),
    ({"type": "service_request"}, "b"),
    ({"type": "change,problem"}, "cd"),
    ({"priority": "low"}, "a"),
    ({"priority": "medium"}, "beg"),
    ({"priority": "urgent,high"}, "cd"),
    ({"category": "Network"}, "a"),
    ({"category": "network"}, "b"),
    ({"category": "Network,network"}, "ab"),
    ({"category": "R & D's"}, "c"),
    ({"category": "Net"}, ""),
    ({"assigned_to_id": "per_a"}, "ae"),
    ({"assigned_to_id": "per_a,per_b"}, "abe"),
    ({"assigned_to_id": "none"}, "cdg"),
    ({"assigned_to_id": "none,per_b"}, "bcdg"),
    ({"assigned_to_id": "per_b,none,per_z"}, "bcdg"),
    ({"assigned_to_id": "per_z"}, ""),
    ({"team_id": "grp_1"}, "ac"),
    ({"team_id": "grp_2,grp_3"}, "b"),
    # `none` is special for assignees only.
    ({"team_id": "none"}, ""),
    ({"submitted_by_id": "per_x"}, "a"),
    ({"submitted_by_id": "per_x,per_y"}, "abc"),
    ({"submitted_by_id": "none"}, "d"),
    ({"tag": "vpn"}, "ab"),
    ({"tag": "VPN"}, "c"),
    ({"tag": "two words"}, "a"),
    ({"tag": "two"}, ""),
    ({"tag": "vp"}, ""),
    ({"tag": "it's \\ :* & 'é'"}, "a"),
    ({"tag": "x" * 255}, "c"),
    ({"tag": "x" * 254}, ""),
    # A name of the object, not a value.
    ({"tag": "Bern"}, "bd"),
    ({"tag": "site"}, "bd"),
    ({"tag": "floor"}, ""),
    # A comma is part of a tag.
    ({"tag": "vpn,VPN"}, ""),
    # Words of texts are not tags, and tags are not words of texts.
    ({"tag": "login"}, ""),
    ({"q": "vpn"}, ""),
    ({"tag": "' | '#vpn"}, ""),
    ({"q": "login"}, "a"),
    ({"q": "LOG"}, "a"),
    ({"q": "ogin"}, ""),
    ({"q": "since nine"}, "ab"),
    ({"q": "  nine   login "}, "a"),
    ({"q": "nine+login"}, "a"),
    ({"q": "nine printer"}, "b"),
    ({"q": "Zoë's"}, "b"),
    ({"q": "v1.2.3"}, "c"),
    ({"q": "2.3"}, "c"),
    ({"q": "3.2"}, ""),
    ({"q": "foo-bar"}, "c"),
    # Words as a reader sees them; the rest of the kind is in tests/unit/shared/test_search.py.
    ({"q": "db01"}, "e"),
    ({"q": "srv-db01.internal"}, "e"),
    ({"q": "nginx.conf"}, "e"),
    ({"q": "C++"}, "e"),
    ({"q": "C#"}, ""),
    ({"q": "東京"}, "e"),
    ({"q": "東都"}, ""),
    ({"q": "cafe\u0301"}, "e"),
    ({"q": "0002"}, "b"),
    ({"q": "TKT-0002"}, "b"),
    ({"q": "TKT-0002 printer"}, "b"),
    ({"q": "TKT-0002 login"}, ""),
    ({"q": "tkt-0003"}, "c"),
    ({"q": "TKT-0006"}, ""),
    ({"q": "TKT-0099"}, ""),
    ({"q": "TKT-2"}, ""),
    ({"q": "it's \\ & | ! ( ) : * <->"}, ""),
    ({"q": "' OR true --"}, ""),
    ({"q": "login | nine"}, "a"),
    ({"q": "!nine"}, "ab"),
    ({"q": "!!!"}, ""),
    ({"q": "x" * 200}, ""),
    ({"created_after": "2026-01-04T00:00:00Z"}, "cdeg"),
    ({"created_after": "2026-01-04T00:00:00.000001Z"}, "deg"),
    ({"created_before": "2026-01-04T00:00:00Z"}, "ab"),
    ({"created_before": "2026-01-04T01:00:00+01:00"}, "ab"),
    ({"created_after": "2026-01-03T00:00:00Z", "created_before": "2026-01-05T00:00:00Z"}, "bc"),
    ({"created_after": "2026-01-05T00:00:00Z", "created_before": "2026-01-03T00:00:00Z"}, ""),
    ({"updated_since": "2026-01-30T00:00:00Z"}, "ab"),
    ({"updated_since": "2026-01-30T00:00:00.000001Z"}, "a"),
    ({"updated_since": "0001-01-01T00:00:00Z"}, "abcdeg"),
    ({"created_after": "9999-12-31T23:59:59Z"}, ""),
    ({"overdue": "true"}, "ab"),
    ({"overdue": "false"}, "abcdeg"),
    ({"include_deleted": "true"}, "abcdefg"),
    ({"include_deleted": "false"}, "abcdeg"),
    ({"include_deleted": "true", "overdue": "true", "q": "login", "tag": "vpn"}, "af"),
    ({"include_deleted": "true", "q": "TKT-0006"}, "f"),
    ({"status": "open,pending", "team_id": "grp_1", "submitted_by_id": "per_y"}, "c"),
    ({"status": "open", "type": "change"}, ""),
    (
        {
            "status": "open",
            "type": "incident",
            "priority": "low",
            "category": "Network",
            "assigned_to_id": "per_a",
            "team_id": "grp_1",
            "submitted_by_id": "per_x",
            "tag": "vpn",
            "q": "login",
            "created_after": "2026-01-01T00:00:00Z",
            "created_before": "2026-02-01T00:00:00Z",
            "updated_since": "2026-01-01T00:00:00Z",
            "overdue": "true",
        },
        "a",
    ),
]


def typed(transport: Transport, query: Mapping[str, Any]) -> dict[str, Any]:
    """A query as the transport takes it: a typed message has a bool where a URL has text."""
    flags = {"true": True, "false": False} if transport.name == "grpc" else {}
    return {name: flags.get(value, value) for name, value in query.items()}


@pytest.mark.parametrize(("query", "expected"), FILTERS, ids=str)
async def test_each_filter_lists_the_tickets_that_match(
    transport: Transport, reader: Credential, query: dict[str, Any], expected: str
) -> None:
    assert await letters(transport, reader, **typed(transport, query)) == expected[::-1]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("-created_at", "gedcba"),
        ("created_at", "abcdeg"),
        ("-updated_at", "abcdeg"),
        ("due_at", "edbacg"),
        ("-priority", "dcgeba"),
    ],
)
async def test_sorts(transport: Transport, reader: Credential, sort: str, expected: str) -> None:
    assert await letters(transport, reader, sort=sort) == expected
    some = await letters(transport, reader, sort=sort, assigned_to_id="none,per_a")
    assert some == expected.replace("b", "")


async def test_a_listed_deleted_ticket_has_its_deletion_stamps(transport: Transport, reader: Credential) -> None:
    [ticket] = await listed(transport, reader, include_deleted=True, q="TKT-0006")
    assert (ticket["is_deleted"], ticket["deleted_by"]) == (True, "per_1")
    assert ticket["deleted_at"]


async def test_a_typed_message_can_name_a_category_with_a_comma(rpc: Grpc, world: World) -> None:
    person = world.person("read", "write")
    for category in ("a,b", "a", "b"):
        await create(rpc, person, title=category, category=category)
    assert [ticket["category"] for ticket in await listed(rpc, person, category=["a,b"])] == ["a,b"]


async def test_a_repeated_variable_is_any_of_where_there_are_several_and_else_the_last_counts(
    rest: Rest, reader: Credential
) -> None:
    url = f"{URL}?status=open&status=pending&sort=created_at&sort=-created_at"
    answer = await rest.client.get(url, headers=dict(reader))
    assert [ticket["title"][0] for ticket in answer.json()["tickets"]] == ["g", "c", "a"]


async def test_filters_follow_changes(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    made = await create(transport, person, title="a Login", tags=["vpn"])
    other = await create(transport, person, title="b", description="Nothing")

    async def change(ticket: Any, **changes: Any) -> Any:
        return (await transport.call("helpdesk.update", person, path={"id": ticket["id"]}, body=changes)).succeeded()

    await change(made, title="a Printer", tags={"lan": 1}, status="pending", assigned_to_id="per_7")
    changed = await change(other, description="Login and all")
    expected = {
        "b": [{"q": "login"}, {"status": "open"}, {"assigned_to_id": "none"}],
        "a": [{"q": "print"}, {"tag": "lan"}, {"status": "pending"}, {"assigned_to_id": "per_7"}],
        "": [{"tag": "vpn"}, {"q": "nothing"}],
        "ba": [{"updated_since": made["created_at"]}, {"sort": "-updated_at"}],
    }
    for found, some in expected.items():
        for query in some:
            assert (query, await letters(transport, person, **query)) == (query, found)
    assert await letters(transport, person, updated_since=changed["updated_at"]) == "b"
    # An empty list clears the tags.
    await change(made, tags=[])
    assert await letters(transport, person, tag="lan") == ""


# Bounds


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"status": "done"}, "status.0"),
        ({"status": "open,done"}, "status.1"),
        ({"status": "open,"}, "status.1"),
        ({"type": "bug"}, "type.0"),
        ({"priority": "critical"}, "priority.0"),
        ({"category": "x" * 256}, "category.0"),
        ({"category": "a,,b"}, "category.1"),
        ({"assigned_to_id": ""}, "assigned_to_id.0"),
        ({"assigned_to_id": "x" * 65}, "assigned_to_id.0"),
        ({"team_id": "a," + "x" * 65}, "team_id.1"),
        ({"submitted_by_id": ""}, "submitted_by_id.0"),
        *(
            ({name: ",".join(map(str, range(51)))}, name)
            for name in ("category", "assigned_to_id", "team_id", "submitted_by_id")
        ),
        ({"status": ",".join(["open"] * 51)}, "status"),
        ({"tag": ""}, "tag"),
        ({"tag": "x" * 256}, "tag"),
        ({"q": ""}, "q"),
        ({"q": "   "}, "q"),
        ({"q": "x" * 201}, "q"),
        ({"sort": ""}, "sort"),
        ({"sort": "priority"}, "sort"),
        ({"sort": "-due_at"}, "sort"),
        ({"sort": "-created_at,due_at"}, "sort"),
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"cursor": "x"}, "cursor"),
    ],
    ids=str,
)
async def test_queries_out_of_bounds_are_rejected(
    transport: Transport, reader: Credential, query: dict[str, Any], path: str
) -> None:
    (await page(transport, reader, **query)).failed("validation_error", paths=[path])


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"status": ""}, "status.0"),
        ({"status": "OPEN"}, "status.0"),
        ({"created_after": "yesterday"}, "created_after"),
        ({"created_before": "20260101"}, "created_before"),
        ({"updated_since": ""}, "updated_since"),
        ({"overdue": "maybe"}, "overdue"),
        ({"overdue": ""}, "overdue"),
        ({"include_deleted": "2"}, "include_deleted"),
    ],
    ids=str,
)
async def test_invalid_query_values_are_rejected(rest: Rest, reader: Credential, query: Any, path: str) -> None:
    (await page(rest, reader, **query)).failed("validation_error", paths=[path])


@pytest.mark.parametrize("name", ["category", "assigned_to_id", "team_id", "submitted_by_id", "tag", "q"])
async def test_nul_is_rejected(rpc: Grpc, reader: Credential, name: str) -> None:
    issues = (await page(rpc, reader, **{name: "a\0b"})).failed("validation_error")["issues"]
    assert issues[0]["path"].split(".")[0] == name


async def test_fifty_values_and_the_longest_texts_are_accepted(transport: Transport, reader: Credential) -> None:
    fifty = ",".join(f"{n:064d}" for n in range(50))
    for name in ("assigned_to_id", "team_id", "submitted_by_id"):
        assert await letters(transport, reader, **{name: fifty}) == ""
    assert await letters(transport, reader, status=",".join(["open"] * 50)) == "ga"
    assert await letters(transport, reader, q="x" * 200, tag="é" * 255, category="é" * 255) == ""
