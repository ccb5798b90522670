"""The OpenAPI document says what the commands take: no more, and no less."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.fuzz import Endpoint, endpoints

from service.access.policy import POLICIES
from service.fields import Section, other_names
from service.openapi import examples

DOCUMENT: Any = json.loads((Path(__file__).parents[3] / "gen" / "openapi.json").read_text())
OPERATIONS: Mapping[str, Any] = {
    operation["operationId"]: operation for item in DOCUMENT["paths"].values() for operation in item.values()
}
ENDPOINTS = [endpoint for endpoint in endpoints() if endpoint.path]
OF_ENDPOINT = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda one: f"{one.api}.{one.name}")


def operation(endpoint: Endpoint) -> Any:
    return OPERATIONS[endpoint.api + endpoint.name]


def resolved(schema: Any) -> Any:
    return DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def body_schema(endpoint: Endpoint) -> Any:
    return resolved(operation(endpoint)["requestBody"]["content"]["application/json"]["schema"])


def parameters(endpoint: Endpoint, where: str) -> Mapping[str, Any]:
    found = [one for one in operation(endpoint)["parameters"] if one["in"] == where]
    return {one["name"]: resolved(one["schema"]) for one in found}


def members(endpoint: Endpoint) -> Iterator[tuple[type[Section], str, Any]]:
    """Each member of the body and the query, with its schema."""
    for name, section in endpoint.sections().items():
        if name in ("body", "query"):
            of_members = body_schema(endpoint)["properties"] if name == "body" else parameters(endpoint, "query")
            yield from (
                (section, member, of_members[member]) for member in section.model_fields if member in of_members
            )


def errors(section: type[Section], given: Any) -> list[Any]:
    try:
        section.model_validate(given)
    except ValidationError as error:
        return [*error.errors()]
    return []


@OF_ENDPOINT
def test_every_call_with_a_credential_may_be_refused_for_it(endpoint: Endpoint) -> None:
    needs_none = POLICIES[f"tickets.{endpoint.api}.v1", endpoint.name].who == "none"
    assert needs_none or {"401", "403"} <= operation(endpoint)["responses"].keys()


@OF_ENDPOINT
def test_what_is_in_a_path_is_always_there(endpoint: Endpoint) -> None:
    assert [name for name, schema in parameters(endpoint, "path").items() if "default" in schema] == []


def alternatives(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for one in part:
            yield from alternatives(one)
    elif isinstance(part, dict):
        yield from part.keys() & {"anyOf", "oneOf"}
        for one in part.values():
            yield from alternatives(one)


@OF_ENDPOINT
def test_alternatives_of_a_parameter_have_a_name_as_oapi_codegen_makes_no_value_of_others(endpoint: Endpoint) -> None:
    assert [*alternatives(operation(endpoint)["parameters"])] == []


@OF_ENDPOINT
def test_items_are_unique_in_the_lists_that_the_service_refuses_with_duplicates(endpoint: Endpoint) -> None:
    for section, member, schema in members(endpoint):
        if schema.get("type") == "array":
            item = resolved(schema["items"]).get("enum", ["1"])[0]
            types = [error["type"] for error in errors(section, {member: [item, item]}) if error["loc"] == (member,)]
            assert schema.get("uniqueItems", False) == (types == ["duplicates"]), member


def test_some_lists_have_unique_items() -> None:
    named = {(one.api, name) for one in ENDPOINTS for _, name, schema in members(one) if schema.get("uniqueItems")}
    assert named == {("handoff", "roles"), ("helpdesk", "applies_to"), ("itsm", "events")}


@OF_ENDPOINT
def test_every_other_name_is_a_deprecated_member(endpoint: Endpoint) -> None:
    for name, section in endpoint.sections().items():
        others = other_names(section)
        of_members = body_schema(endpoint)["properties"] if name == "body" else parameters(endpoint, name)
        assert [other for other in others if not of_members[other].get("deprecated")] == []


@pytest.mark.parametrize(
    ("name", "member", "other"),
    [
        ("handoffCreateTicket", "request_type", "category"),
        ("helpdeskCreateSlaPolicy", "resolution_minutes", "resolution_mins"),
    ],
)
def test_a_required_member_may_have_its_other_name_and_generators_see_no_alternatives(
    name: str, member: str, other: str
) -> None:
    (endpoint,) = (one for one in ENDPOINTS if one.api + one.name == name)
    schema, section = body_schema(endpoint), endpoint.sections()["body"]
    body = dict(examples.bodies()[name])
    value = body.pop(member)
    assert errors(section, {**body, member: value}) == errors(section, {**body, other: value}) == []
    assert errors(section, body) != []
    assert schema["if"] == {"required": [other]}
    assert schema["else"] == {"required": [member]}
    assert member not in schema["required"]
    assert schema["properties"][other]["deprecated"]
    assert not schema.keys() & {"anyOf", "oneOf", "allOf"}


@OF_ENDPOINT
def test_a_date_is_taken_alone_where_words_say_so(endpoint: Endpoint) -> None:
    about = {one["name"]: one.get("description", "") for one in operation(endpoint)["parameters"]}
    for section, member, schema in members(endpoint):
        takes_date = {"type": "string", "format": "date"} in schema.get("anyOf", ())
        assert takes_date == ("A date alone" in about.get(member, "")), member
        assert not takes_date or errors(section, {member: "2026-01-02"}) == []


def test_two_parameters_take_a_date_alone() -> None:
    given = [name for one in ENDPOINTS for name, about in parameters(one, "query").items() if "anyOf" in about]
    assert given.count("start_date") == given.count("end_date") == 1


def test_a_page_is_cut_short_only_where_it_is_one_message() -> None:
    cut = [name for name, one in OPERATIONS.items() if "cut short" in json.dumps(one)]
    assert cut == ["handoffListTicketEvents"]
