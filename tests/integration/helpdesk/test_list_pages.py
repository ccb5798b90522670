"""contracts/helpdesk.md at both transports: pages of the list in every order, and which cursors are valid."""

from typing import Any

import pytest
from support.helpdesk import Transport, create, new_tenant_id
from support.helpdesk_lists import SORTS, cursor_of, letters, listed, page
from support.system import World

from service.helpdesk import index_terms

RANKS = ("low", "medium", "high", "urgent")


# Pages


@pytest.fixture(scope="module")
def crowd(world: World) -> str:
    """A tenant with 40 tickets, half of them of an application; many are equal in every sort key."""
    tenant_id = new_tenant_id()
    world.run(
        "INSERT INTO helpdesk_tickets (tenant_id, id, app_id, number, title, type, status, priority, submitted_by_id,"
        " tags, tag_terms, search_terms, source, source_type, created_by, updated_by, created_at, updated_at, due_at,"
        " is_deleted)"
        " SELECT %s, 'tkt_' || lpad((n * 17 %% 40)::text, 26, '0'), CASE WHEN n %% 2 = 0 THEN 'app_1' END, n,"
        " 'Word ' || n, 'incident', CASE WHEN n %% 3 = 0 THEN 'pending' ELSE 'open' END,"
        " (ARRAY['low', 'medium', 'high', 'urgent'])[1 + n / 4 %% 4], 'per_1', '[\"vpn\"]', '{#vpn}', %s::tsvector,"
        " 'edm', 'api', 'per_1', 'per_1', timestamptz '2026-01-01Z' + n / 9 * interval '1 microsecond',"
        " timestamptz '2026-01-02Z' - n / 7 * interval '1 s',"
        " CASE WHEN n %% 5 < 3 THEN timestamptz '2026-01-03Z' + n %% 2 * interval '1 microsecond' END, n %% 10 = 9"
        " FROM generate_series(1, 40) n",
        tenant_id,
        index_terms.search_terms({"tenant_id": tenant_id, "title": "Word", "description": None}),
    )
    return tenant_id


def sort_key(ticket: Any, sort: str) -> tuple[Any, str]:
    """What a ticket is sorted by; the id among equals."""
    name = sort.removeprefix("-")
    if name == "priority":
        return RANKS.index(ticket[name]), ticket["id"]
    # Microseconds are written only where there are some; tickets without a stamp come last.
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
    transport: Transport, world: World, crowd: str, sort: str, query: dict[str, Any], size: int
) -> None:
    for app in ({}, {"app_id": "app_1"}):
        person = world.person("read", tenant_id=crowd, **app)
        whole = await listed(transport, person, **query, sort=sort, limit=100)
        assert len({ticket["id"] for ticket in whole}) == len(whole)
        if not app:
            assert len(whole) == size
        else:
            assert {ticket["app_id"] for ticket in whole} == {"app_1"}
        assert whole == sorted(whole, key=lambda ticket: sort_key(ticket, sort), reverse=sort.startswith("-"))
        # With one ticket a page, each tie is at the end of a page once.
        limit = 7 if query else 1
        walked: list[Any] = []
        cursor: dict[str, Any] = {}
        while cursor.get("cursor", "") is not None:
            answer = (await page(transport, person, **query, sort=sort, limit=limit, **cursor)).succeeded()
            walked += answer["tickets"]
            cursor = {"cursor": answer["next_cursor"]}
            assert len(answer["tickets"]) == limit or cursor["cursor"] is None
        assert walked == whole


async def test_a_ticket_moves_only_in_the_orders_that_its_change_touches(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    made = [await create(transport, person, title=letter) for letter in "abcd"]
    cursors = {sort: await cursor_of(transport, person, sort=sort) for sort in SORTS}
    path = {"id": made[1]["id"]}
    (await transport.call("helpdesk.update", person, path=path, body={"title": "B"})).succeeded()
    after = {sort: await letters(transport, person, sort=sort, cursor=cursor) for sort, cursor in cursors.items()}
    assert after == {
        "-created_at": "cBa",
        "created_at": "Bcd",
        "-updated_at": "ca",
        "due_at": "Bcd",
        "-priority": "cBa",
    }


async def test_tickets_without_a_due_instant_come_after_all_others(transport: Transport, world: World) -> None:
    person = world.person("read", "write", "agent")
    for title, due in (("a", None), ("b", "9999-12-30T23:59:59Z"), ("c", "9999-12-31T23:59:59Z"), ("d", None)):
        await create(transport, person, title=title, **({"due_at": due} if due else {}))
    assert await letters(transport, person, sort="due_at") == "bcad"


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
async def test_a_cursor_is_valid_only_for_its_filters_and_its_sort(
    transport: Transport, world: World, query: dict[str, Any]
) -> None:
    person = world.person("read", "write")
    for title in ("a x", "b x", "c x"):
        await create(transport, person, title=title, tags=["x"])
    cursor = await cursor_of(transport, person, **query)
    for other in OTHERS:
        reply = await page(transport, person, **other, cursor=cursor)
        if other == query:
            assert len(reply.succeeded()["tickets"]) == 2
        else:
            reply.failed("validation_error", paths=["cursor"])
    # The limit may change.
    assert len(await listed(transport, person, **query, cursor=cursor, limit=1)) == 1


@pytest.mark.parametrize(
    "query", [{"sort": "due_at"}, {"sort": "-priority"}, {"status": "open"}, {"tag": "x"}], ids=str
)
async def test_a_cursor_is_valid_only_for_its_tenant_and_application(
    transport: Transport, world: World, query: Any
) -> None:
    tenant_id = new_tenant_id()
    readers = [
        world.person("read", "write", tenant_id=tenant_id),
        world.person("read", "write", tenant_id=tenant_id, app_id="app_1"),
        world.person("read", "write", tenant_id=tenant_id, app_id="app_2"),
        world.person("read", "write"),
        world.person("read", "write", app_id="app_1"),
    ]
    for person in readers:
        for _ in range(2):
            await create(transport, person, tags=["x"])
    cursors = [await cursor_of(transport, person, **query) for person in readers]
    for number, person in enumerate(readers):
        for owner, cursor in enumerate(cursors):
            reply = await page(transport, person, **query, cursor=cursor)
            if owner == number:
                assert reply.succeeded()["tickets"]
            else:
                reply.failed("validation_error", paths=["cursor"])


async def test_cursors_of_other_helpdesk_lists_are_rejected(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    made = await create(transport, person)
    await create(transport, person)
    path = {"id": made["id"]}
    for _ in range(2):
        (await transport.call("helpdesk.comment", person, path=path, body={"body": "x"})).succeeded(201)
    cursors = {"helpdesk.list": await cursor_of(transport, person)}
    for operation in ("helpdesk.comments", "helpdesk.events"):
        answer = (await transport.call(operation, person, path=path, query={"limit": 1})).succeeded()
        cursors[operation] = answer["next_cursor"]
    for operation in cursors:
        for owner, cursor in cursors.items():
            on_one = None if operation == "helpdesk.list" else path
            reply = await transport.call(operation, person, path=on_one, query={"cursor": cursor})
            if owner == operation:
                reply.succeeded()
            else:
                reply.failed("validation_error", paths=["cursor"])
