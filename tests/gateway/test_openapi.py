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
