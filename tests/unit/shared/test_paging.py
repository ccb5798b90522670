"""Cursors: good for the list that made them, and nothing else is one."""

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import TypeAdapter

from service import paging
from service.errors import TicketError
from service.fields import Instant, Uuid

KEYS: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, Uuid])
ROWS = [{"created_at": datetime(2026, 1, n, 12, 30, 1, 5, tzinfo=UTC), "id": uuid4()} for n in (3, 2, 1)]


def cursor(binding: str = "list") -> str:
    _, made = paging.cut(ROWS, 2, binding, "created_at", "id")
    assert made is not None
    return made


def test_a_page_ends_where_the_next_begins() -> None:
    page, made = paging.cut(ROWS, 2, "list", "created_at", "id")
    assert page == ROWS[:2]
    assert made is not None
    assert paging.decode(made, "list", KEYS) == (ROWS[1]["created_at"], ROWS[1]["id"])


@pytest.mark.parametrize("limit", [3, 4])
def test_the_last_page_has_no_cursor(limit: int) -> None:
    assert paging.cut(ROWS, limit, "list", "created_at", "id") == (ROWS, None)


def refused(text: str, binding: str = "list") -> bool:
    try:
        paging.decode(text, binding, KEYS)
    except TicketError as error:
        return [(issue.path, issue.input) for issue in error.issues] == [("cursor", text)]
    return False


def test_every_changed_character_is_noticed() -> None:
    good = cursor()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    changed = {good[:at] + letter + good[at + 1 :] for at in range(len(good)) for letter in letters} - {good}
    assert all(refused(text) for text in changed)


@pytest.mark.parametrize("text", ["", "A", "=", "é", "\0", "cursor", "A" * 10_000, "____"])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    assert refused(text)


def test_more_or_less_than_the_cursor_is_refused() -> None:
    good = cursor()
    assert all(refused(text) for text in (good + "=", good + "A", good[:-1], " " + good, good + "\n"))


def test_a_cursor_of_another_list_is_refused() -> None:
    assert refused(cursor("another list"))


@pytest.mark.parametrize("place", [b"", b"null", b"[]", b"{}", b'["x","y"]', b"[1,2]", b'["2026-01-01T00:00:00Z",1,2]'])
def test_a_forged_place_is_refused_too(place: bytes) -> None:
    forged = base64.urlsafe_b64encode(paging._check(place, "list") + place).decode().rstrip("=")
    assert refused(forged)


def test_ids_come_back_as_ids() -> None:
    assert isinstance(paging.decode(cursor(), "list", KEYS)[1], UUID)
