"""contracts/handoff.md: a list over REST is as long as it was asked for, however it is read piece by piece."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tickets.handoff.rest.v1 import rest_pb2

from service.access.policy import Caller
from service.handoff.commands import ListProjectTickets
from service.operation import CALL, Call, Operation
from service.transport import rest
from service.transport.dialect import Servicer

PROJECT = "2c1d8a51-3f3c-4f0e-9a52-6d6f3b0d5a11"


def list_of(pages: Sequence[Sequence[int]], seen: list[Any]) -> Operation[ListProjectTickets]:
    """A list whose pages are these, however many items are asked for: cut short for their size."""

    async def run(_dependencies: Any, _call: Call, command: ListProjectTickets) -> Mapping[str, object]:
        query = command.query
        seen.append((query.cursor, query.offset, query.limit))
        at = int(query.cursor or 0)
        return {"tickets": pages[at], "next_cursor": str(at + 1) if at + 1 < len(pages) else None}

    return Operation(ListProjectTickets, dict, run)


async def read(
    operation: Operation[ListProjectTickets], query: Mapping[str, str] | None = None, *, complete: bool = False
) -> Any:
    method = rest.streamed_list(operation, "tickets", complete=complete)
    request = rest_pb2.TicketRestListProjectTicketsRequest(
        project=PROJECT, **{name: [value] for name, value in (query or {}).items()}
    )
    token = CALL.set(Call(("tickets.handoff.v1", "ListProjectTickets"), "r", None, Caller("x", frozenset())))
    try:
        pieces = [body.data async for body in method(Servicer(None), request, None)]
    finally:
        CALL.reset(token)
    return json.loads(b"".join(pieces))


@pytest.mark.parametrize(
    ("pages", "query", "items", "next_cursor"),
    [
        ([[1, 2]], {}, [1, 2], None),
        ([[]], {}, [], None),
        ([[1, 2], [3]], {}, [1, 2, 3], None),
        ([[1], [2], [3], [4]], {"limit": "3"}, [1, 2, 3], "3"),
        ([[1], [2]], {"limit": "1"}, [1], "1"),
        ([[1], [2], [3]], {"cursor": "1"}, [2, 3], None),
        # What was left no longer fits the filters.
        ([[1, 2], []], {}, [1, 2], None),
    ],
)
async def test_a_page_goes_on_until_it_is_as_long_as_asked(
    pages: list[list[int]], query: dict[str, str], items: list[int], next_cursor: str | None
) -> None:
    assert await read(list_of(pages, []), query) == {"tickets": items, "next_cursor": next_cursor}


@pytest.mark.parametrize("pages", [[[1, 2], [3]], [[1], []], [[]]])
async def test_a_complete_list_has_no_cursor(pages: list[list[int]]) -> None:
    found = await read(list_of(pages, []), complete=True)
    assert found == {"tickets": [item for page in pages for item in page]}


async def test_an_offset_is_where_the_first_piece_begins_and_pieces_are_short() -> None:
    seen: list[Any] = []
    await read(list_of([[1], [2]], seen), {"offset": "7", "limit": "2000"})
    assert seen == [(None, 7, 250), ("1", None, 250)]
