"""contracts/README.md: in a creation null is the same as a missing key, for every optional member."""

from collections.abc import Iterator
from random import Random
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from support.fuzz import Endpoint, endpoints
from support.fuzz_values import valid

from service.fields import Creation, Section, other_names

# A restore's body is a condition alone, in which null says nothing anyway.
CREATIONS = [
    endpoint
    for endpoint in endpoints()
    if endpoint.verb == "POST" and "body" in endpoint.command.sections() and endpoint.name != "RestoreTicket"
]


def members(*, required: bool) -> list[Any]:
    """Each member of a creation's body, by every name, with the endpoint."""
    return [
        pytest.param(endpoint, name, id=f"{endpoint.api}.{endpoint.name}.{name}")
        for endpoint in CREATIONS
        for body in (endpoint.sections()["body"],)
        for name in (*body.model_fields, *other_names(body))
        if (name in body.model_fields and body.model_fields[name].is_required()) == required
    ]


def smallest(endpoint: Endpoint) -> dict[str, Any]:
    """A body with nothing but what is required."""
    body = endpoint.sections()["body"]
    given = valid(Random(0), body, {"ticket_ids": []}, [0]) | {"ticket_ids": ["1"]}  # noqa: S311 - it must be the same again
    return {name: given[name] for name, field in body.model_fields.items() if field.is_required()}


def test_every_post_with_a_body_is_a_creation() -> None:
    assert [endpoint for endpoint in CREATIONS if not issubclass(endpoint.sections()["body"], Creation)] == []
    assert len([endpoint for endpoint in CREATIONS if endpoint.name.startswith("Create")]) >= 6


def test_objects_in_a_creation_are_creations() -> None:
    inner = [
        model
        for endpoint in CREATIONS
        for field in endpoint.sections()["body"].model_fields.values()
        for model in _models(field.annotation)
    ]
    assert [model for model in inner if not issubclass(model, Creation)] == []


def _models(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


@pytest.mark.parametrize(("endpoint", "name"), members(required=False))
def test_null_is_the_same_as_a_missing_key(endpoint: Endpoint, name: str) -> None:
    body, given = endpoint.sections()["body"], smallest(endpoint)
    without, null = body.model_validate(given), body.model_validate({**given, name: None})
    assert (null, null.model_fields_set) == (without, without.model_fields_set)


@pytest.mark.parametrize(("endpoint", "name"), members(required=True))
def test_null_for_a_required_member_is_refused_in_the_words_for_its_type(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        endpoint.sections()["body"].model_validate({**smallest(endpoint), name: None})
    [error] = caught.value.errors()
    assert (error["loc"], error["input"]) == ((name,), None)
    assert error["type"] != "missing"


def test_an_unknown_member_and_the_caller_s_own_json_keep_their_nulls() -> None:
    [endpoint] = [one for one in CREATIONS if (one.api, one.name) == ("handoff", "CreateTicket")]
    given = {**smallest(endpoint), "evidence": {"steps": None}, "priority": None, "unknown": None}
    seen: dict[str, Any] = Creation.__dict__["_without_nulls"].__get__(None, endpoint.sections()["body"])(given)
    assert seen == {name: value for name, value in given.items() if name != "priority"}
