"""contracts/helpdesk.md at both transports: the tags of a ticket are kept as they were sent."""

from typing import Any

import pytest
from support.helpdesk import URL, Transport, create, get, update
from support.system import World
from support.transports import METHODS, Grpc, Rest
from tickets.helpdesk.v1 import service_pb2


@pytest.mark.parametrize(
    "tags",
    [[], {}, ["a", "a", ""], {"": ""}, {"a": [1, {"ok": True, "no": None}], "Zoë": "日本 🎫"}, {"a": "\\u0000"}],
    ids=str,
)
async def test_tags_are_strings_or_any_object(transport: Transport, world: World, tags: Any) -> None:
    person = world.person("read", "write")
    made = await create(transport, person, tags=tags)
    assert made["tags"] == tags
    assert (await get(transport, person, made))["tags"] == tags
    assert (await update(transport, person, await create(transport, person), tags=tags)).succeeded()["tags"] == tags


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
    request = service_pb2.GetTicketRequest(id=created.json()["id"])
    kept = (await rpc.send(METHODS["helpdesk.get"], request, person)).succeeded()["tags"]
    assert kept["a"] == 12345678901234567890123


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nope", '{"a": NaN}', '["\\ud800"]'])
async def test_tags_of_a_message_are_strict_json(rpc: Grpc, world: World, text: str) -> None:
    request = service_pb2.CreateTicketRequest(title="x", tags_json=text)
    reply = await rpc.send(METHODS["helpdesk.create"], request, world.person("write"))
    reply.failed("validation_error", paths=["tags_json"])
