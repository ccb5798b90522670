"""contracts/README.md: a query parameter that takes several values, with commas or given once for each."""

from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter

from service.fields import Command, Section, comma_list

COMMAS: list[tuple[str | list[str], list[str]]] = [
    ("a", ["a"]),
    ("a,b", ["a", "b"]),
    ("a, b ,c", ["a", "b", "c"]),
    (r"a\,b", ["a,b"]),
    (r"a\, b,c", ["a, b", "c"]),
    # Only before a comma is a backslash anything else.
    (r"a\b,\\", [r"a\b", r"\\"]),
    ("a,,b", ["a", "", "b"]),
    ("", [""]),
    # One value keeps its blanks, and each that is given by itself keeps its commas.
    (" a ", [" a "]),
    (["a, b", r"c\,d"], ["a, b", r"c\,d"]),
]


@pytest.mark.parametrize(("given", "values"), COMMAS, ids=repr)
def test_commas_separate_values(given: str | list[str], values: list[str]) -> None:
    adapter: TypeAdapter[list[str]] = TypeAdapter(Annotated[list[str], comma_list])
    assert adapter.validate_python(given) == values


class Query(Section):
    one: str | None = None
    some: Annotated[list[str], comma_list, Field(max_length=5)] | None = None
    more: Annotated[list[str], comma_list] = Field(default_factory=list)


class Ask(Command):
    query: Query


def test_a_command_knows_which_parameters_take_several() -> None:
    assert Ask.lists() == {"some", "more"}
    assert Command.lists() == frozenset()
