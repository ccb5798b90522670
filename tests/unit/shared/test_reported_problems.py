"""contracts/errors.md: how many problems of a request are reported, and how much of what was sent they repeat."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from service.errors import MAX_ISSUES, Issue, TicketError, validation_error
from service.transport import rest


class Numbers(BaseModel):
    numbers: list[int]


def test_of_any_number_of_problems_a_hundred_are_reported_and_all_are_counted() -> None:
    with pytest.raises(ValidationError) as invalid:
        Numbers.model_validate({"numbers": ["x"] * 150})
    failure = validation_error(invalid.value)
    assert len(failure.issues) == MAX_ISSUES == 100
    assert failure.message.endswith(" (and 149 more)")


@pytest.mark.parametrize(
    ("given", "shown"),
    [("x" * 2000, "x" * 1000), ({"a": "x" * 2000}, None), ({"a": 1}, {"a": 1}), (12, 12), (None, None)],
)
def test_an_error_repeats_no_more_than_a_thousand_characters_of_an_input(given: Any, shown: Any) -> None:
    issue = Issue(("body", "metadata"), "Input is wrong", "value_error", given)
    body: Any = rest.detail_body(TicketError("validation_error", issues=[issue]))
    assert body["detail"][0]["input"] == shown
