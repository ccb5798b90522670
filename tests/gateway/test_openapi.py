"""The OpenAPI document and the gateway say the same: requests made of its schemas, answers held against them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.fuzz import Party, new_party
from support.system import World
from support.transports import Grpc

from service.openapi import examples

DOCUMENT: Any = json.loads((Path(__file__).parents[2] / "gen" / "openapi.json").read_text())
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
ROUTES = {
    operation["operationId"]: (verb, path)
    for path, item in DOCUMENT["paths"].items()
    for verb, operation in item.items()
}
# A watch goes on; its lines are the answers of other tests.
ANSWERED = [name for name in ROUTES if "Watch" not in name]


def exact(document: Any) -> Any:
    """The document whose answers have no members but those that it names: new ones may come, so it allows more."""
    bodies = [item.get("requestBody", {}) for paths in document["paths"].values() for item in paths.values()]
    requests = json.dumps(bodies)
    for name, schema in document["components"]["schemas"].items():
        if "properties" in schema and f'/{name}"' not in requests:
            schema["additionalProperties"] = False
    return document


SCHEMA = schemathesis.openapi.from_dict(exact(DOCUMENT))


@pytest.fixture(scope="module")
async def party(world: World, channel: Any) -> Party:
    return await new_party(world, Grpc(channel))


def credential(party: Party, name: str) -> Mapping[str, str]:
    """That of who may do everything in an operation's API."""
    (api,) = (api for api in party.credentials if name.startswith(api))
    return party.credentials[api][0]


def names(party: Party, path: str) -> Mapping[str, str]:
    """Values for the variables of a path: of something that is there."""
    if "{" not in path:
        return {}
    collection = path[: path.rindex("{") - 1].replace("{project_id}", "{project}")
    variables = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
    return dict(zip(variables, party.names[collection][0], strict=True))


def is_http(case: Case[Any]) -> bool:
    """Whether its headers can be sent: what is no HTTP has no path either, and so no API's shape."""
    return all(isinstance(value, str) and value.isascii() and value.isprintable() for value in case.headers.values())


@pytest.mark.parametrize("number", [pytest.param(2, id="few"), pytest.param(500, id="many", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ANSWERED)
def test_answers_are_as_the_document_says(name: str, number: int, party: Party, gateway_url: str) -> None:
    verb, path = ROUTES[name]
    operation = SCHEMA[path][verb]
    known = names(party, path)
    asked = 0

    @settings(
        max_examples=number,
        database=None,
        derandomize=number < 100,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    )
    def ask(case: Case[Any]) -> None:
        nonlocal asked
        assume(is_http(case))
        asked += 1
        if asked % 4:
            case.path_parameters = {**case.path_parameters, **known}
        case.call_and_validate(base_url=gateway_url, headers=dict(credential(party, name)), checks=CHECKS)

    ask()


@pytest.fixture(scope="module")
async def quiet_party(world: World, channel: Any) -> Party:
    """Another one, whose things nobody else changes."""
    return await new_party(world, Grpc(channel))


@pytest.mark.parametrize("name", examples.bodies())
async def test_its_examples_are_accepted(name: str, quiet_party: Party, client: httpx2.AsyncClient) -> None:
    verb, path = ROUTES[name]
    url = path.format(**names(quiet_party, path))
    answer = await client.request(verb, url, headers=credential(quiet_party, name), json=examples.bodies()[name])
    assert answer.status_code in (200, 201), answer.text


@pytest.fixture(scope="module")
async def plain_party(world: World, channel: Any) -> Party:
    """Another one, for what is created with documented defaults."""
    return await new_party(world, Grpc(channel))


def defaults_of(name: str) -> Mapping[str, Any]:
    """The documented defaults of an operation's body."""
    verb, path = ROUTES[name]
    reference = DOCUMENT["paths"][path][verb]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    members = DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]]["properties"]
    return {member: schema["default"] for member, schema in members.items() if "default" in schema}


@pytest.mark.parametrize("name", [name for name in examples.bodies() if defaults_of(name)])
async def test_documented_defaults_are_accepted_when_they_are_sent(
    name: str, plain_party: Party, client: httpx2.AsyncClient
) -> None:
    verb, path = ROUTES[name]
    url = path.format(**names(plain_party, path))
    body = {**defaults_of(name), **examples.bodies()[name]}
    answer = await client.request(verb, url, headers=credential(plain_party, name), json=body)
    assert answer.status_code in (200, 201), answer.text


def query_defaults_of(name: str) -> Mapping[str, str]:
    """The documented defaults of an operation's query."""
    verb, path = ROUTES[name]
    found = {one["name"]: one["schema"]["default"] for one in operation_parameters(verb, path)}
    return {parameter: json.dumps(value).strip('"') for parameter, value in found.items()}


def operation_parameters(verb: str, path: str) -> list[Any]:
    parameters = DOCUMENT["paths"][path][verb]["parameters"]
    return [one for one in parameters if one["in"] == "query" and "default" in one["schema"]]


@pytest.mark.parametrize("name", [name for name in ANSWERED if query_defaults_of(name)])
async def test_without_a_parameter_the_answer_is_that_with_its_documented_default(
    name: str, quiet_party: Party, client: httpx2.AsyncClient
) -> None:
    verb, path = ROUTES[name]
    url = path.format(**names(quiet_party, path))
    who = credential(quiet_party, name)
    without, given = [
        await client.request(verb, url, headers=who, params=query) for query in ({}, query_defaults_of(name))
    ]
    assert (without.status_code, given.status_code) == (200, 200)
    assert without.json() == given.json()
