"""contracts/helpdesk.md at both doors: filters, search and sorts of the list, and the indexes that serve them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

import grpc
import psycopg
import pytest
from desk import URL, Door, create
from harness import Grpc, Reply, Rest, rest_reply
from system import Credential, World

from service.fields import tsquery
from service.helpdesk import operations, queries
from service.helpdesk.commands import TicketQuery

SORTS = ("-created_at", "created_at", "-updated_at", "due_at", "-priority")
RANKS = ("low", "medium", "high", "urgent")

# Each different from the others in something. Of g nothing is said, and f is deleted.
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
        "title": "e",
        "status": "closed",
        "assigned_to_id": "per_a",
        "due_at": "2020-01-01T00:00:00Z",
    },
    "f": {"title": "f Login", "assigned_to_id": "per_a", "tags": ["vpn"], "due_at": "2020-01-01T00:00:00Z"},
    "g": {"title": "g"},
}
LIVE = "abcdeg"


async def page(door: Door, person: Credential, **query: Any) -> Reply:
    if isinstance(door, Grpc):
        return await door.call("helpdesk.list", person, query=query)
    # As RFC 3986 has it: a space is no plus.
    encoded = urlencode(query, quote_via=quote)
    return rest_reply("helpdesk", await door.client.get(f"{URL}?{encoded}", headers=dict(person)))


async def listed(door: Door, person: Credential, **query: Any) -> list[Any]:
    tickets: list[Any] = (await page(door, person, **query)).succeeded()["tickets"]
    return tickets


async def letters(door: Door, person: Credential, **query: Any) -> str:
    """The first letters of the titles, as they are listed."""
    return "".join(ticket["title"][0] for ticket in await listed(door, person, **query))


async def cursor_of(door: Door, person: Credential, **query: Any) -> str:
    cursor = (await page(door, person, **query, limit=1)).succeeded()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


@pytest.fixture(scope="module")
async def reader(world: World, channel: grpc.aio.Channel) -> Credential:
    """Someone who reads the tickets a to g: created a day after each other, and changed in the opposite order."""
    tenant_id = f"ten_{uuid4().hex}"
    person = world.person("read", "write", "agent", tenant_id=tenant_id)
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
    # What is of no concern to the reader is like it in everything.
    stranger = world.person("write")
    for members in TICKETS.values():
        await create(Grpc(channel), stranger, **members)
    return world.person("read", tenant_id=tenant_id)


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
    # A word of the assignees alone.
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
    # A name of the object, and not what it has.
    ({"tag": "Bern"}, "d"),
    ({"tag": "site"}, "b"),
    ({"tag": "floor"}, ""),
    # A comma is a part of it.
    ({"tag": "vpn,VPN"}, ""),
    # What is in a text is no tag, and what is a tag is in no text.
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
    ({"q": "foo-bar"}, "c"),
    ({"q": "TKT-0002"}, "b"),
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


def typed(door: Door, query: Mapping[str, Any]) -> dict[str, Any]:
    """A query as the door takes it: a flag is no text in a typed message."""
    flags = {"true": True, "false": False} if door.name == "grpc" else {}
    return {name: flags.get(value, value) for name, value in query.items()}


@pytest.mark.parametrize(("query", "expected"), FILTERS, ids=str)
async def test_filters_leave_what_they_say(
    door: Door, reader: Credential, query: dict[str, Any], expected: str
) -> None:
    assert await letters(door, reader, **typed(door, query)) == expected[::-1]


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
async def test_sorts(door: Door, reader: Credential, sort: str, expected: str) -> None:
    assert await letters(door, reader, sort=sort) == expected
    some = await letters(door, reader, sort=sort, assigned_to_id="none,per_a")
    assert some == expected.replace("b", "")


async def test_of_deleted_tickets_everything_is_told(door: Door, reader: Credential) -> None:
    [ticket] = await listed(door, reader, include_deleted=True, q="TKT-0006")
    assert (ticket["is_deleted"], ticket["deleted_by"]) == (True, "per_1")
    assert ticket["deleted_at"]


async def test_a_category_with_a_comma_can_be_named_in_a_message(rpc: Grpc, world: World) -> None:
    person = world.person("read", "write")
    for category in ("a,b", "a", "b"):
        await create(rpc, person, title=category, category=category)
    assert [ticket["category"] for ticket in await listed(rpc, person, category=["a,b"])] == ["a,b"]


async def test_a_variable_given_twice_counts_as_given_last(rest: Rest, reader: Credential) -> None:
    url = f"{URL}?status=open&status=pending&sort=created_at&sort=-created_at"
    answer = await rest.client.get(url, headers=dict(reader))
    assert [ticket["title"][0] for ticket in answer.json()["tickets"]] == ["c"]


async def test_what_is_found_follows_what_is_changed(door: Door, world: World) -> None:
    person = world.person("read", "write")
    made = await create(door, person, title="a Login", tags=["vpn"])
    other = await create(door, person, title="b", description="Nothing")

    async def change(ticket: Any, **changes: Any) -> Any:
        return (await door.call("helpdesk.update", person, path={"id": ticket["id"]}, body=changes)).succeeded()

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
            assert (query, await letters(door, person, **query)) == (query, found)
    assert await letters(door, person, updated_since=changed["updated_at"]) == "b"
    # Said as nothing at all, it has no tags.
    await change(made, tags=[])
    assert await letters(door, person, tag="lan") == ""


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
async def test_queries_out_of_bounds_are_refused(
    door: Door, reader: Credential, query: dict[str, Any], path: str
) -> None:
    (await page(door, reader, **query)).failed("validation_error", paths=[path])


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
async def test_words_that_mean_nothing_are_refused(rest: Rest, reader: Credential, query: Any, path: str) -> None:
    (await page(rest, reader, **query)).failed("validation_error", paths=[path])


@pytest.mark.parametrize("name", ["category", "assigned_to_id", "team_id", "submitted_by_id", "tag", "q"])
async def test_nul_is_refused(rpc: Grpc, reader: Credential, name: str) -> None:
    issues = (await page(rpc, reader, **{name: "a\0b"})).failed("validation_error")["issues"]
    assert issues[0]["path"].split(".")[0] == name


async def test_fifty_of_each_and_the_longest_are_taken(door: Door, reader: Credential) -> None:
    fifty = ",".join(f"{n:064d}" for n in range(50))
    for name in ("assigned_to_id", "team_id", "submitted_by_id"):
        assert await letters(door, reader, **{name: fifty}) == ""
    assert await letters(door, reader, status=",".join(["open"] * 50)) == "ga"
    assert await letters(door, reader, q="x" * 200, tag="é" * 255, category="é" * 255) == ""


# Pages


@pytest.fixture(scope="module")
def crowd(world: World) -> str:
    """A tenant of 40 tickets, half of them of an application; many are alike in all that lists are sorted by."""
    tenant_id = f"ten_{uuid4().hex}"
    world.run(
        "INSERT INTO helpdesk_tickets (tenant_id, id, app_id, number, title, type, status, priority, submitted_by_id,"
        " tags, tag_words, source, source_type, created_by, updated_by, created_at, updated_at, due_at, is_deleted)"
        " SELECT %s, 'tkt_' || lpad((n * 17 %% 40)::text, 26, '0'), CASE WHEN n %% 2 = 0 THEN 'app_1' END, n,"
        " 'Word ' || n, 'incident', CASE WHEN n %% 3 = 0 THEN 'pending' ELSE 'open' END,"
        " (ARRAY['low', 'medium', 'high', 'urgent'])[1 + n / 4 %% 4], 'per_1', '[\"vpn\"]', '{#vpn}', 'edm', 'api',"
        " 'per_1', 'per_1', timestamptz '2026-01-01Z' + n / 9 * interval '1 microsecond',"
        " timestamptz '2026-01-02Z' - n / 7 * interval '1 s',"
        " CASE WHEN n %% 5 < 3 THEN timestamptz '2026-01-03Z' + n %% 2 * interval '1 microsecond' END, n %% 10 = 9"
        " FROM generate_series(1, 40) n",
        tenant_id,
    )
    return tenant_id


def place(ticket: Any, sort: str) -> tuple[Any, str]:
    """What a ticket is sorted by; the id among equals."""
    name = sort.removeprefix("-")
    if name == "priority":
        return RANKS.index(ticket[name]), ticket["id"]
    # Microseconds are written only where there are some, and those without come last.
    stamp = ticket[name]
    return (f"{stamp.removesuffix('Z'):.<27}" if stamp else "~"), ticket["id"]


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ({}, 36),
        ({"include_deleted": True}, 40),
        ({"status": "open"}, 25),
        ({"status": "open,pending", "q": "word", "tag": "vpn"}, 36),
        ({"assigned_to_id": "none"}, 36),
    ],
    ids=str,
)
@pytest.mark.parametrize("sort", SORTS)
async def test_pages_in_every_order_have_each_ticket_once(
    door: Door, world: World, crowd: str, sort: str, query: dict[str, Any], size: int
) -> None:
    for app in ({}, {"app_id": "app_1"}):
        person = world.person("read", tenant_id=crowd, **app)
        whole = await listed(door, person, **query, sort=sort, limit=100)
        assert len({ticket["id"] for ticket in whole}) == len(whole)
        if not app:
            assert len(whole) == size
        else:
            assert {ticket["app_id"] for ticket in whole} == {"app_1"}
        assert whole == sorted(whole, key=lambda ticket: place(ticket, sort), reverse=sort.startswith("-"))
        # One by one, each tie is at the end of a page once.
        limit = 7 if query else 1
        walked: list[Any] = []
        cursor: dict[str, Any] = {}
        while cursor.get("cursor", "") is not None:
            answer = (await page(door, person, **query, sort=sort, limit=limit, **cursor)).succeeded()
            walked += answer["tickets"]
            cursor = {"cursor": answer["next_cursor"]}
            assert len(answer["tickets"]) == limit or cursor["cursor"] is None
        assert walked == whole


async def test_a_ticket_moves_only_in_the_orders_that_its_change_touches(door: Door, world: World) -> None:
    person = world.person("read", "write")
    made = [await create(door, person, title=letter) for letter in "abcd"]
    cursors = {sort: await cursor_of(door, person, sort=sort) for sort in SORTS}
    path = {"id": made[1]["id"]}
    (await door.call("helpdesk.update", person, path=path, body={"title": "B"})).succeeded()
    onward = {sort: await letters(door, person, sort=sort, cursor=cursor) for sort, cursor in cursors.items()}
    assert onward == {
        "-created_at": "cBa",
        "created_at": "Bcd",
        "-updated_at": "ca",
        "due_at": "Bcd",
        "-priority": "cBa",
    }


async def test_tickets_without_a_due_instant_come_behind_every_one_that_has_one(door: Door, world: World) -> None:
    person = world.person("read", "write")
    for title, due in (("a", None), ("b", "9999-12-30T23:59:59Z"), ("c", "9999-12-31T23:59:59Z"), ("d", None)):
        await create(door, person, title=title, **({"due_at": due} if due else {}))
    assert await letters(door, person, sort="due_at") == "bcad"


# Cursors


OTHERS: list[dict[str, Any]] = [
    {},
    *({"sort": sort} for sort in SORTS[1:]),
    {"status": "open"},
    {"status": "open,pending"},
    {"type": "incident"},
    {"priority": "medium"},
    {"category": "x"},
    {"assigned_to_id": "none"},
    {"assigned_to_id": "per_7"},
    {"assigned_to_id": "none,per_7"},
    {"team_id": "x"},
    {"submitted_by_id": "per_1"},
    {"tag": "x"},
    {"tag": "y"},
    {"q": "x"},
    {"q": "y"},
    {"q": "TKT-0001"},
    {"created_after": "2026-01-01T00:00:00Z"},
    {"created_before": "2100-01-01T00:00:00Z"},
    {"updated_since": "2026-01-01T00:00:00Z"},
    {"updated_since": "2026-01-01T00:00:01Z"},
    {"overdue": True},
    {"include_deleted": True},
]


@pytest.mark.parametrize(
    "query",
    [{}, {"sort": "due_at"}, {"assigned_to_id": "none"}, {"q": "x"}, {"include_deleted": True}],
    ids=str,
)
async def test_a_cursor_is_good_for_its_filters_and_its_sort(door: Door, world: World, query: dict[str, Any]) -> None:
    person = world.person("read", "write")
    for title in ("a x", "b x", "c x"):
        await create(door, person, title=title, tags=["x"])
    cursor = await cursor_of(door, person, **query)
    for other in OTHERS:
        reply = await page(door, person, **other, cursor=cursor)
        if other == query:
            assert len(reply.succeeded()["tickets"]) == 2
        else:
            reply.failed("validation_error", paths=["cursor"])
    # How much is wanted may change, and what is said in vain.
    assert len(await listed(door, person, **query, cursor=cursor, limit=1)) == 1


@pytest.mark.parametrize(
    "query", [{"sort": "due_at"}, {"sort": "-priority"}, {"status": "open"}, {"tag": "x"}], ids=str
)
async def test_a_cursor_is_good_for_its_tenant_and_application(door: Door, world: World, query: Any) -> None:
    tenant_id = f"ten_{uuid4().hex}"
    readers = [
        world.person("read", "write", tenant_id=tenant_id),
        world.person("read", "write", tenant_id=tenant_id, app_id="app_1"),
        world.person("read", "write", tenant_id=tenant_id, app_id="app_2"),
        world.person("read", "write"),
        world.person("read", "write", app_id="app_1"),
    ]
    for person in readers:
        for _ in range(2):
            await create(door, person, tags=["x"])
    cursors = [await cursor_of(door, person, **query) for person in readers]
    for number, person in enumerate(readers):
        for owner, cursor in enumerate(cursors):
            reply = await page(door, person, **query, cursor=cursor)
            if owner == number:
                assert reply.succeeded()["tickets"]
            else:
                reply.failed("validation_error", paths=["cursor"])


async def test_cursors_of_the_helpdesks_other_lists_are_refused(door: Door, world: World) -> None:
    person = world.person("read", "write")
    made = await create(door, person)
    await create(door, person)
    path = {"id": made["id"]}
    for _ in range(2):
        (await door.call("helpdesk.comment", person, path=path, body={"body": "x"})).succeeded(201)
    cursors = {"helpdesk.list": await cursor_of(door, person)}
    for operation in ("helpdesk.comments", "helpdesk.events"):
        answer = (await door.call(operation, person, path=path, query={"limit": 1})).succeeded()
        cursors[operation] = answer["next_cursor"]
    for operation in cursors:
        for owner, cursor in cursors.items():
            on_one = None if operation == "helpdesk.list" else path
            reply = await door.call(operation, person, path=on_one, query={"cursor": cursor})
            if owner == operation:
                reply.succeeded()
            else:
                reply.failed("validation_error", paths=["cursor"])


# Plans

ROWS = 100_000
# The most pages of the database that a page of 20 tickets may read: about one for each row, and the index.
MOST_READ = 250
KEYS = {
    "-created_at": "created_at",
    "created_at": "created_at",
    "-updated_at": "updated_at",
    "due_at": "coalesce(due_at, '9999-12-31T23:59:59.999999Z')",
    "-priority": "array_position(ARRAY['low', 'medium', 'high', 'urgent'], priority)",
}
# Each as common as its name says.
COMMON: dict[str, dict[str, Any]] = {
    "a common status": {"status": "open"},
    "a rare status": {"status": "pending"},
    "some statuses": {"status": "pending,resolved"},
    "an assignee": {"assigned_to_id": "per_17"},
    "nobody": {"assigned_to_id": "none"},
    "nobody or someone": {"assigned_to_id": "none,per_17"},
    "a team": {"team_id": "grp_3"},
    "a submitter": {"submitted_by_id": "per_117"},
    "a rare tag": {"tag": "rare117"},
    "a tag of half": {"tag": "half1"},
    "a rare word": {"q": "word117"},
    "a word of all": {"q": "title"},
    "a word of none": {"q": "nothing"},
    "a number": {"q": "TKT-50000"},
}


@pytest.fixture(scope="module")
def large(world: World) -> Iterator[psycopg.Connection[Any]]:
    """The tenant `large` of 100,000 tickets, of four applications and of persons, among a thousand with one each."""
    with psycopg.connect(world.database_url, cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute("SET LOCAL gin_pending_list_limit = '512MB'")
        connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
        connection.execute(
            "INSERT INTO helpdesk_tickets (tenant_id, id, app_id, number, title, type, status, priority, category,"
            " submitted_by_id, assigned_to_id, team_id, tags, tag_words, source, source_type, created_by, updated_by,"
            " created_at, updated_at, due_at)"
            " SELECT CASE WHEN n <= %s THEN 'large' ELSE 'small' || n END, 'tkt_' || lpad(n::text, 26, '0'),"
            " 'app_' || nullif(n %% 5, 0), n, 'Title word' || n %% 1000, 'incident', CASE WHEN n %% 99 = 1 THEN"
            " 'pending' WHEN n %% 13 = 3 THEN 'resolved' WHEN n %% 2 = 0 THEN 'open' ELSE 'closed' END,"
            " (ARRAY['low', 'medium', 'high', 'urgent'])[1 + n %% 4], 'c' || n %% 20, 'per_' || n %% 1000,"
            " CASE WHEN n %% 19 > 0 THEN 'per_' || n %% 101 END, 'grp_' || n %% 11, '[]',"
            " ARRAY['#rare' || n %% 1000, '#half' || n %% 2], 'edm', 'api', 'per_1', 'per_1',"
            " timestamptz '2026-01-01Z' + n * interval '1 s', timestamptz '2026-02-01Z' + n * 7919 %% %s * interval"
            " '1 s', CASE WHEN n %% 3 > 0 THEN timestamptz '2026-03-01Z' + n * 7907 %% %s * interval '1 s' END"
            " FROM generate_series(1, %s) n",
            (ROWS, ROWS, ROWS, ROWS + 1000),
        )
        connection.execute("SELECT gin_clean_pending_list('helpdesk_tickets_words_idx')")
        connection.execute("ANALYZE helpdesk_tickets")
        yield connection
        # Nobody else ever sees them.
        connection.rollback()


def plan(
    connection: psycopg.Connection[Any],
    scope: Mapping[str, Any],
    query: Mapping[str, Any],
    place: tuple[Any, str] | None = None,
    mode: str = "force_custom_plan",
) -> str:
    """The plan of a list's statement as it runs: behind a place, or from the first ticket on."""
    wanted = TicketQuery.model_validate(query)
    filters = operations._filters(wanted)
    statement = queries.list_tickets(
        frozenset(scope), frozenset(filters), wanted.sort, onward=place is not None, with_deleted=False
    )
    given = {**scope, **filters, "rows": 21, "words": tsquery(wanted.q or "")}
    if place is not None:
        given["behind_key"], given["behind_id"] = place
    values = [given[name] if name in given else statement._constants[name] for name in statement.names]
    connection.execute(b"SET plan_cache_mode = " + mode.encode())
    connection.execute(b"PREPARE list AS " + statement.sql)
    try:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE list({', '.join(['%s'] * len(values))})"
        return "\n".join(line for (line,) in connection.execute(explain, values))
    finally:
        connection.execute("DEALLOCATE list")


def blocks(plan: str) -> int:
    """How many pages of the database were read, in memory or not."""
    read = re.search(r"Buffers: shared((?: (?:hit|read|dirtied|written)=\d+)+)", plan)
    assert read is not None, plan
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", read[1]))


def deep(connection: psycopg.Connection[Any], scope: Mapping[str, Any], sort: str) -> tuple[Any, str]:
    """The place in the middle of a list."""
    direction = "DESC" if sort.startswith("-") else "ASC"
    where = " AND ".join(f"{name} = %s" for name in scope)
    [found] = connection.execute(
        f"SELECT {KEYS[sort]}, id FROM helpdesk_tickets WHERE {where}"
        f" ORDER BY {KEYS[sort]} {direction}, id {direction} OFFSET %s LIMIT 1",
        (*scope.values(), ROWS // 10),
    ).fetchall()
    return found[0], found[1]


SCOPES = [{"tenant_id": "large"}, {"tenant_id": "large", "app_id": "app_1"}]
IDS = ["tenant", "application"]


@pytest.mark.parametrize("scope", SCOPES, ids=IDS)
@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_every_order_is_an_indexs_at_any_depth(
    large: psycopg.Connection[Any], scope: dict[str, Any], sort: str, mode: str
) -> None:
    # Without filters a statement is prepared: after a few times it has one plan for every tenant.
    for place in (None, deep(large, scope, sort)):
        found = plan(large, scope, {"sort": sort}, place, mode)
        assert "Seq Scan on helpdesk_tickets" not in found
        assert "Sort Key" not in found, found
        assert blocks(found) <= MOST_READ, found


@pytest.mark.parametrize("scope", SCOPES, ids=IDS)
@pytest.mark.parametrize("query", COMMON.values(), ids=COMMON)
def test_every_common_filter_is_served_by_an_index(
    large: psycopg.Connection[Any], scope: dict[str, Any], query: dict[str, Any]
) -> None:
    for place in (None, deep(large, scope, "-created_at")):
        found = plan(large, scope, query, place)
        assert "Seq Scan on helpdesk_tickets" not in found, found
        assert blocks(found) <= MOST_READ, found
