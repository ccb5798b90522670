"""contracts/helpdesk.md at both transports: the tags of a ticket are kept as they were sent."""

from typing import Any

import pytest
from support.helpdesk import URL, Transport, create, get, update
from support.helpdesk_lists import letters, listed
from support.methods import METHODS
from support.system import World
from support.transports import Grpc, Rest
from tickets.helpdesk.v1 import ticket_service_pb2


@pytest.mark.parametrize(
    "tags",
    [
        *([], {}, ["a", "a", ""], {"": ""}, {"a": [1, {"ok": True, "no": None}], "Zoë": "日本 🎫"}, {"a": "\\u0000"}),
        *("", "vpn", 17, -0.5, True, False, ["a", 1, None, {"b": []}, [["c"]]]),
    ],
    ids=repr,
)
async def test_tags_are_any_json_value(transport: Transport, world: World, tags: Any) -> None:
    person = world.person("read", "write")
    made = await create(transport, person, tags=tags)
    assert made["tags"] == tags
    assert (await get(transport, person, made))["tags"] == tags
    assert (await update(transport, person, await create(transport, person), tags=tags)).succeeded()["tags"] == tags


TAGS: list[tuple[Any, str, bool]] = [
    ("vpn", "vpn", True),
    ("vpn and more", "vpn", False),
    (["a", "vpn"], "vpn", True),
    ([["vpn"], {"vpn": "vpn"}], "vpn", False),
    ({"vpn": 1}, "vpn", True),
    ({"kind": "vpn"}, "vpn", True),
    ({"kind": ["vpn"]}, "vpn", False),
    ({"kind": {"vpn": "vpn"}}, "vpn", False),
    (17, "17", False),
    ([17, True, None], "17", False),
    (True, "true", False),
    ({"n": 17}, "17", False),
]


async def test_a_tag_finds_a_string_one_of_an_array_a_key_and_a_string_of_an_object(
    transport: Transport, world: World
) -> None:
    for tags, tag, found in TAGS:
        person = world.person("read", "write")
        await create(transport, person, title="x", tags=tags)
        assert (tags, await letters(transport, person, tag=tag)) == (tags, "x" if found else "")
    # They follow changes.
    [made] = await listed(transport, person)
    (await update(transport, person, made, tags="lan")).succeeded()
    assert await letters(transport, person, tag="lan") == "x"
    assert await letters(transport, person, tag="n") == ""


async def test_tags_have_at_most_16_kib(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    # Each in quotes.
    for tags in ("x" * 16_382, ["é" * 8_190]):
        assert (await create(transport, person, tags=tags))["tags"] == tags
    too_long: list[Any] = ["x" * 16_383, ["é" * 8_191], {"a" * 16_000: ["b" * 500]}]
    for tags in too_long:
        reply = await transport.call("helpdesk.create", person, body={"title": "x", "tags": tags})
        reply.failed("validation_error", paths=["tags"])
        assert reply.issues()[0]["message"] == "JSON should be at most 16384 bytes"


async def test_null_clears_the_tags(transport: Transport, world: World) -> None:
    person = world.person("read", "write")
    made = await create(transport, person, tags=["vpn"])
    assert (await update(transport, person, made, tags=None)).succeeded()["tags"] == []
    assert await letters(transport, person, tag="vpn") == ""


async def test_numbers_in_tags_keep_every_digit(rest: Rest, rpc: Grpc, world: World) -> None:
    person = world.person("read", "write")
    text = '{"a":12345678901234567890123,"b":0.10,"c":3.14159265358979323846,"d":1E+400,"e":-0.0,"f":9007199254740993}'
    content = b'{"title":"x","tags":%b}' % text.encode()
    created = await rest.client.post(URL, content=content, headers=person)
    assert created.status_code == 201
    one = f"{URL}/{created.json()['id']}"
    answers = [
        created,
        await rest.client.get(one, headers=person),
        await rest.client.get(URL, headers=person),
        await rest.client.patch(one, content=content, headers=person),
        await rest.client.post(f"{one}/close", headers=person),
    ]
    assert [f'"tags":{text}' in answer.text for answer in answers] == [True] * 5
    request = ticket_service_pb2.GetTicketRequest(id=created.json()["id"])
    kept = (await rpc.send(METHODS["helpdesk.get"], request, person)).succeeded()["tags"]
    assert kept["a"] == 12345678901234567890123


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nope", '{"a": NaN}', '["\\ud800"]'])
async def test_tags_of_a_message_are_strict_json(rpc: Grpc, world: World, text: str) -> None:
    request = ticket_service_pb2.CreateTicketRequest(title="x", tags_json=text)
    reply = await rpc.send(METHODS["helpdesk.create"], request, world.person("write"))
    reply.failed("validation_error", "tags_json: Input should be the text of a JSON value", paths=["tags_json"])


async def test_null_in_a_message_is_a_member_that_is_not_set(rpc: Grpc, world: World) -> None:
    request = ticket_service_pb2.CreateTicketRequest(title="x", tags_json=" null")
    reply = await rpc.send(METHODS["helpdesk.create"], request, world.person("write"))
    message = "tags_json: Input should be the text of a JSON value that is not null"
    reply.failed("validation_error", message, paths=["tags_json"])
