"""ETags in conditions, which are compared weakly: RFC 9110, 13.1, and what clients speak (contracts/README.md)."""

import pytest

from service.errors import TicketError
from service.etags import matches, require_match

ETAG = '"3"'


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (ETAG, True),
        ("*", True),
        (" * ", True),
        ('"x",  "3" ,"y"', True),
        ('"x,y","3"', True),
        # What a proxy that compresses makes of it.
        ('W/"3"', True),
        ('W/"x", W/"3"', True),
        ('"4"', False),
        ('W/"4"', False),
        ("", False),
        ("3", False),
        ('"x","y"', False),
        ('"x,3,y"', False),
        ('"*"', False),
        ('"33"', False),
    ],
)
def test_conditions(condition: str, expected: bool) -> None:
    assert matches(ETAG, condition) == expected
    assert matches(f"W/{ETAG}", condition) == expected


@pytest.mark.parametrize("conditions", [(), (None, None), (ETAG,), (ETAG, None, "*")])
def test_a_write_counts_when_every_condition_is_met(conditions: tuple[str | None, ...]) -> None:
    require_match(ETAG, *conditions)


@pytest.mark.parametrize("conditions", [('"2"',), (None, '"2"'), (ETAG, '"4"'), ('"4"', "*")])
def test_a_condition_that_is_not_met_is_stale(conditions: tuple[str | None, ...]) -> None:
    with pytest.raises(TicketError) as failure:
        require_match(ETAG, *conditions)
    assert failure.value.reason == "stale"
