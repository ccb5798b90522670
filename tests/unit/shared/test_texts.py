"""contracts/errors.md: NUL characters in text are a validation error, in every command; and text has a bound."""

from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import pytest
from pydantic import ValidationError
from support.fuzz import endpoints

from service.fields import Section
from service.openapi.requests import Generator

Place = Callable[[str], Any]

# Longer than all that is bounded.
LONG = "x" * 300_000
# Paths that name nothing: any text is not found, not invalid.
NAMES = {"handoff.ticket_id", "helpdesk.id", "helpdesk.comment_id"}
# Documented without an upper bound; and an unknown event is documented as another failure, however long its name is.
ENDLESS = {"itsm.description", "itsm.events"}


def places(schema: Any, inner: Mapping[str, Any]) -> Iterator[Place]:
    """What puts a text into a value of this schema, for each place where there may be one."""
    if "$ref" in schema:
        schema = inner[schema["$ref"].rpartition("/")[2]]
    for kind in schema.get("anyOf", ()):
        yield from places(kind, inner)
    if schema.get("type") == "array":
        yield from (lambda text, item=item: [item(text)] for item in places(schema["items"], inner))
    elif schema.get("type") == "object":
        yield from (
            lambda text, name=name, member=member: {name: member(text)}
            for name, of_member in schema.get("properties", {}).items()
            for member in places(of_member, inner)
        )
        if others := schema.get("additionalProperties"):
            members = [str] if others is True else list(places(others, inner))
            yield from (lambda text, member=member: {"x": member(text)} for member in members)
            yield lambda text: {text: "x"}
    elif "anyOf" not in schema and schema.get("type", "string") == "string":
        yield str


def texts(allowed: Container[str]) -> list[Any]:
    """Each place for text in each member of each section of every command, but for what is allowed."""
    found: dict[tuple[type[Section], str], Any] = {}
    for endpoint in endpoints():
        for name, section in endpoint.sections().items():
            schema = section.model_json_schema(schema_generator=Generator)
            for member, of_member in schema["properties"].items():
                if f"{endpoint.api}.{member}" not in (allowed if name == "body" else NAMES):
                    found[section, member] = (endpoint.api, list(places(of_member, schema.get("$defs", {}))))
    return [
        pytest.param(section, member, place, id=f"{api}.{section.__name__}.{member}.{number}")
        for (section, member), (api, ones) in found.items()
        for number, place in enumerate(ones)
    ]


def refused(section: type[Section], member: str, value: Any) -> bool:
    """Whether this member is at fault, whatever else is missing."""
    try:
        section.model_validate({member: value})
    except ValidationError as error:
        return any(one["loc"][0] == member for one in error.errors())
    return False


def test_there_is_text_in_every_api() -> None:
    assert {one.id.partition(".")[0] for one in texts(())} == {"handoff", "helpdesk", "itsm", "admin"}
    assert len(texts(())) > 100


@pytest.mark.parametrize(("section", "member", "place"), texts(()))
def test_a_nul_character_is_refused(section: type[Section], member: str, place: Place) -> None:
    assert refused(section, member, place("a\0b"))


@pytest.mark.parametrize(("section", "member", "place"), texts(ENDLESS))
def test_text_has_a_bound(section: type[Section], member: str, place: Place) -> None:
    assert refused(section, member, place(LONG))
