"""The list's filter by metadata at both transports: what it finds, and what it refuses."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from support.system import Program, World
from support.transports import Grpc, Reply, Rest, rest_reply

from service.admin import operations as admin
from service.itsm import index_terms
from service.jsontext import JsonText
from service.local.processes import free_port

Transport = Rest | Grpc

URL = "/api/v1/tickets"
TICKET = {"subject": "VPN is down", "description": "Since nine."}


async def create(transport: Transport, program: Program, subject: str, members: Any) -> Any:
    body = {**TICKET, "subject": subject, "metadata": members}
    return (await transport.call("itsm.create", program.credential, body=body)).succeeded(201)


async def page(transport: Transport, program: Program, members: Mapping[str, str], **query: Any) -> Reply:
    return await transport.call("itsm.list", program.credential, query={"metadata": members, **query})


async def found(transport: Transport, program: Program, **members: str) -> list[str]:
    """The subjects of the tickets that have these members, oldest first; their total is exact."""
    answer = (await page(transport, program, members, limit=100)).succeeded()
    assert answer["total"] == len(answer["tickets"])
    return [ticket["subject"] for ticket in reversed(answer["tickets"])]


# By subject.
KEPT = {
    "network": {"category": "Network", "floor": 3},
    "text": {"category": "Network", "floor": "3"},
    "point": {"category": "network", "floor": 3.0},
    "odd": {"category": "Netzwerk & Ähnliches=100%", "a.b": "c", "VIP": True, "": "x", "big": 10**30, "e": "1e3"},
    "deep": {"category": {"name": "Network"}, "tags": ["Network"], "floor": None, "VIP": False},
    "long": {"note": "x" * 10_000},
    "none": {},
}
FOUND: dict[str, tuple[dict[str, str], list[str]]] = {
    "a text": ({"category": "Network"}, ["network", "text"]),
    "a text of its own case": ({"category": "network"}, ["point"]),
    "no part of a text": ({"category": "Net"}, []),
    "a number or its text": ({"floor": "3"}, ["network", "text"]),
    "a number as it was sent": ({"floor": "3.0"}, ["point"]),
    "a boolean": ({"VIP": "true"}, ["odd"]),
    "both": ({"category": "Network", "floor": "3"}, ["network", "text"]),
    "only one of both": ({"category": "Network", "floor": "4"}, []),
    "any characters": ({"category": "Netzwerk & Ähnliches=100%"}, ["odd"]),
    "a name with a dot": ({"a.b": "c"}, ["odd"]),
    "a name and value that could be read otherwise": ({"a.b=": "c"}, []),
    "an exact number": ({"big": str(10**30)}, ["odd"]),
    "no null": ({"floor": "null"}, []),
    "no members of members": ({"category": '{"name":"Network"}'}, []),
    "no items": ({"tags": "Network"}, []),
    "a long text": ({"note": "x" * 10_000}, ["long"]),
    "no such name": ({"nothing": ""}, []),
}


@pytest.fixture(scope="module")
async def keeper(world: World, client: httpx2.AsyncClient) -> Program:
    """A program whose account has the tickets KEPT; its test tickets and another account have the same metadata."""
    program = await world.program()
    test = await world.program(account_id=program.account_id, test=True)
    for subject, members in KEPT.items():
        await create(Rest(client), program, subject, members)
    for other in (test, await world.program()):
        await create(Rest(client), other, "a stranger's", KEPT["network"])
    return program


@pytest.mark.parametrize(("members", "subjects"), FOUND.values(), ids=FOUND)
async def test_tickets_are_found_by_members_of_their_metadata(
    transport: Transport, keeper: Program, members: dict[str, str], subjects: list[str]
) -> None:
    assert await found(transport, keeper, **members) == subjects


async def test_it_combines_with_other_filters_and_pages(transport: Transport, world: World) -> None:
    program = await world.program()
    made = [await create(transport, program, str(number), {"floor": number % 2}) for number in range(6)]
    closed = {"ticket_id": made[0]["id"]}
    (await transport.call("itsm.update", program.credential, path=closed, body={"status": "closed"})).succeeded()
    for query, subjects, total in (
        ({}, ["4", "2", "0"], 3),
        ({"limit": 2}, ["4", "2"], 3),
        ({"limit": 2, "offset": 2}, ["0"], 3),
        ({"offset": 3}, [], 3),
        ({"status": "open"}, ["4", "2"], 2),
        ({"start_date": "2999-01-01T00:00:00Z"} if transport.name == "rest" else {"status": "pending"}, [], 0),
    ):
        answer = (await page(transport, program, {"floor": "0"}, **query)).succeeded()
        assert ([ticket["subject"] for ticket in answer["tickets"]], answer["total"]) == (subjects, total)


async def test_a_ticket_is_found_by_its_current_metadata(transport: Transport, world: World) -> None:
    program = await world.program()
    made = await create(transport, program, "A", {"floor": 1})
    path = {"ticket_id": made["id"]}
    for body, floors in (
        ({"metadata": {"floor": 2}}, ["2"]),
        ({"status": "closed"}, ["2"]),
        ({"metadata": {}}, []),
        ({"metadata": {"floor": 1}}, ["1"]),
    ):
        (await transport.call("itsm.update", program.credential, path=path, body=body)).succeeded()
        assert [floor for floor in ("1", "2") if await found(transport, program, floor=floor)] == floors


async def test_a_ticket_of_a_provider_is_found_too(transport: Transport, world: World) -> None:
    program = await world.program()
    # Nothing listens there.
    link = {"provider": "freshservice", "url": f"http://127.0.0.1:{free_port()}", "credential": "x"}
    options = {"default_email": "a@example.com"}
    await world.operate(admin.link_provider, account_id=program.account_id, **link, options=options)
    await create(transport, program, "A", {"floor": 3})
    assert await found(transport, program, floor="3") == ["A"]


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "no name": ({"": "x"}, "metadata."),
    "too long a name": ({"x" * 256: "x"}, f"metadata.{'x' * 100}"),
    "too many": ({f"m{number}": "x" for number in range(11)}, "metadata"),
}


@pytest.mark.parametrize(("members", "path"), REFUSED.values(), ids=REFUSED)
async def test_a_filter_beyond_its_bounds_is_refused(
    transport: Transport, world: World, members: dict[str, str], path: str
) -> None:
    program = await world.program()
    body = (await page(transport, program, members)).failed("validation_error", paths=[path])
    if transport.name == "rest":
        [issue] = body["detail"]
        assert issue["loc"] == ["query", path]
        assert set(issue) == {"type", "loc", "msg", "input", "ctx"}
    widest = {"x" * 255: "x", **{f"m{number}": "" for number in range(9)}}
    assert (await page(transport, program, widest)).succeeded()["total"] == 0


async def test_no_nul_is_in_a_filter(rpc: Grpc, client: httpx2.AsyncClient, world: World) -> None:
    program = await world.program()
    for members in ({"a\0": "x"}, {"a": "\0"}):
        [issue] = (await page(rpc, program, members)).failed("validation_error")["issues"]
        assert issue["path"].startswith("metadata.a")
    # The gateway refuses it in any query.
    for query in ("metadata.a%00=x", "metadata.a=%00"):
        reply = rest_reply("itsm", await client.get(f"{URL}?{query}", headers=dict(program.credential)))
        assert (reply.status, set(reply.body)) == (400, {"detail"})


QUERIES = {
    "metadata.category=Network": ["network", "text"],
    "metadata%2Ecategory=%4Eetwork": ["network", "text"],
    "metadata.category=Netzwerk+%26+%C3%84hnliches%3D100%25": ["odd"],
    # Of several values the last one counts.
    "metadata.category=nothing&metadata.category=Network": ["network", "text"],
    "metadata.floor=3;x": [],
    "metadata.=": None,
    "&&metadata.VIP=true&": ["odd"],
    # No filter. (What is none and looks like one is refused: tests/gateway/test_stray_input.py.)
    "Metadata.category=Network": list(KEPT),
}


@pytest.mark.parametrize(("query", "subjects"), QUERIES.items(), ids=QUERIES)
async def test_it_is_read_from_the_original_query(
    client: httpx2.AsyncClient, keeper: Program, query: str, subjects: list[str] | None
) -> None:
    reply = rest_reply("itsm", await client.get(f"{URL}?{query}", headers=dict(keeper.credential)))
    if subjects is None:
        reply.failed("validation_error", paths=["metadata."])
    else:
        assert [ticket["subject"] for ticket in reversed(reply.succeeded()["tickets"])] == subjects


async def test_a_callers_header_does_not_replace_the_query(client: httpx2.AsyncClient, keeper: Program) -> None:
    headers = {**keeper.credential, "x-envoy-original-path": f"{URL}?metadata.category=Network"}
    for query, subjects in (("", list(KEPT)), ("?metadata.VIP=true", ["odd"])):
        answer = (await client.get(URL + query, headers=headers)).json()
        assert [ticket["subject"] for ticket in reversed(answer["tickets"])] == subjects


def test_the_migration_makes_the_same_terms(world: World, keeper: Program) -> None:
    sql = "SELECT subject, metadata_terms FROM itsm_tickets WHERE account_id = %s ORDER BY created_at"
    before = world.rows(sql, keeper.account_id)
    assert [subject for subject, terms in before if terms is None] == ["none"]
    world.run("UPDATE itsm_tickets SET metadata_terms = NULL WHERE account_id = %s", keeper.account_id)
    statement = import_module("service.migrations.versions.0007_itsm_metadata").WORDS
    statement = statement.replace("metadata_words", "metadata_terms")  # since 0010
    world.run(f"{statement} AND account_id = '{keeper.account_id}'")
    assert world.rows(sql, keeper.account_id) == before


def test_large_metadata_has_a_limited_number_of_terms() -> None:
    members = ",".join(f'"m{number}":{number}' for number in range(20_000))
    assert (index_terms.metadata_terms(uuid4(), True, JsonText(f"{{{members}}}")) or "").count(",") == 999
