"""contracts/README.md: which conditions a resource meets (RFC 9110, 13.1.1)."""

import pytest

from service.errors import TicketError
from service.preconditions import matches, require_match

ETAG = '"3"'


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ((), True),
        ((None, None), True),
        ((ETAG,), True),
        (("*",), True),
        ((" * ",), True),
        (('"x",  "3" ,"y"',), True),
        ((ETAG, None, "*"), True),
        (('"4"',), False),
        (("",), False),
        (("3",), False),
        # Compared weakly.
        (('W/"3"',), True),
        (('"x", W/"3"',), True),
        (('W/"4"',), False),
        (('w/"3"',), False),
        (('"x","y"',), False),
        # Every condition must be met.
        ((ETAG, '"4"'), False),
        (('"4"', "*"), False),
    ],
    ids=str,
)
def test_conditions(conditions: tuple[str | None, ...], expected: bool) -> None:
    assert matches(ETAG, conditions) == expected


def test_a_condition_that_is_not_met_is_stale() -> None:
    ticket = {"version": 3}
    require_match(ticket, None, ETAG)
    with pytest.raises(TicketError) as failure:
        require_match(ticket, None, '"2"')
    assert failure.value.reason == "stale"
