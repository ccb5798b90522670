"""contracts/helpdesk.md, optimistic locking: which conditions an ETag meets (RFC 9110, 13.1.1)."""

import pytest

from service.errors import TicketError
from service.helpdesk.preconditions import matches, require_match

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
        # Weak tags never match.
        (('W/"3"',), False),
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
    # Two of five versions are internal comments: nobody counts these.
    ticket = {"version": 5, "internal_changes": 2}
    require_match(ticket, None, ETAG)
    with pytest.raises(TicketError) as failure:
        require_match(ticket, None, '"2"')
    assert failure.value.reason == "stale"
