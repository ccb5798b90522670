"""Totals by date, and far pages, are exact: as sums of days, whatever is at work, and as counts where days are lost."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args
from uuid import UUID

import pytest
from support.totals import Session

from service.itsm.commands import Status

STATUSES = get_args(Status)
FIRST = datetime(2026, 2, 27, tzinfo=UTC)
DAY, TICK = timedelta(days=1), timedelta(microseconds=1)


def instants(chance: random.Random) -> datetime:
    """An instant of one of five days, often at the edge of one, in some time zone."""
    midnight = FIRST + chance.randrange(6) * DAY
    noon = midnight + DAY / 2
    some = midnight + chance.random() * DAY
    instant = chance.choice([midnight, midnight - TICK, midnight + TICK, noon, noon + TICK, some, some])
    return instant.astimezone(timezone(timedelta(hours=chance.randrange(-12, 13))))


def filters(chance: random.Random) -> dict[str, Any]:
    given = {
        "status": chance.choice(STATUSES),
        "start_date": instants(chance).astimezone(UTC),
        "end_date": instants(chance).astimezone(UTC),
    }
    return {name: value for name, value in given.items() if chance.random() < 0.7}


def check(session: Session, account_id: UUID, chance: random.Random, times: int = 1) -> None:
    """Lists say what is there."""
    for _ in range(times):
        given = filters(chance)
        found = session.counted(account_id, **given)
        limit, offset = chance.randrange(1, 5), chance.choice([0, chance.randrange(0, len(found) + 2)])
        page = session.page(account_id, limit, offset, **given)
        assert page == (len(found), found[offset : offset + limit]), (given, limit, offset)


@pytest.mark.parametrize("seed", range(3))
def test_totals_and_pages_are_exact_after_any_writes_and_merges(
    sessions: tuple[Session, Session], account_id: UUID, seed: int
) -> None:
    chance, (session, other) = random.Random(seed), sessions  # noqa: S311 - no secret
    made: list[UUID] = []
    for _ in range(60):
        act = chance.random()
        if act < 0.5 or not made:
            made.append(session.create_then(account_id, instants(chance), chance.choice(STATUSES)))
        elif act < 0.8:
            session.set_status(account_id, chance.choice(made), chance.choice(STATUSES))
        elif act < 0.9:
            session.merge()
        else:
            # Whatever is at work is not there yet.
            with other.connection.transaction():
                made.append(other.create_then(account_id, instants(chance), "open"))
                other.set_status(account_id, chance.choice(made), "closed")
                session.merge()
                check(session, account_id, chance)
        check(session, account_id, chance)
    assert session.has_true_days(account_id)
    check(session, account_id, chance, 60)


def writes_without_days(session: Session) -> None:
    session.forget_days()
    session.merge()


def restores(session: Session) -> None:
    session.merge()
    session.connection.execute("CREATE TEMPORARY TABLE kept AS SELECT * FROM itsm_totals")
    session.connection.execute("DELETE FROM itsm_totals")
    session.connection.execute("INSERT INTO itsm_totals SELECT * FROM kept")
    session.connection.execute("DELETE FROM itsm_day_totals")


LOSSES: dict[str, Callable[[Session], None]] = {
    "changes without a day": Session.forget_days,
    "changes without a day, merged": writes_without_days,
    "changes merged without their days": Session.merge_as_before,
    "the days, in a restore": restores,
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_lost_days_are_noticed_and_counted_anew(
    sessions: tuple[Session, Session], account_id: UUID, lose: Callable[[Session], None]
) -> None:
    chance, (session, other) = random.Random(7), sessions  # noqa: S311 - no secret
    made = [session.create_then(account_id, instants(chance), "open") for _ in range(9)]
    session.merge()
    # In sum these are no change at all.
    for ticket_id, status in zip(made[:4], STATUSES, strict=True):
        session.set_status(account_id, ticket_id, status)
        session.set_status(account_id, made[4], "open" if status != "open" else "closed")
    assert session.has_true_days(account_id)
    lose(session)
    assert not session.has_true_days(account_id)
    check(session, account_id, chance, 10)
    # What is merged after that makes it no better.
    for status in STATUSES:
        session.create_then(account_id, instants(chance), status)
    session.merge()
    assert not session.has_true_days(account_id)
    check(session, account_id, chance, 10)
    with other.connection.transaction():
        # What is at work, what is not merged, and what is merged between the steps.
        other.set_status(account_id, made[0], "closed")
        session.create_then(account_id, instants(chance), "open")
        session.recount(steps=1)
        session.create_then(account_id, instants(chance), "pending")
        session.merge()
        assert not session.has_true_days(account_id)
        check(session, account_id, chance, 10)
        session.recount()
        assert session.has_true_days(account_id)
        check(session, account_id, chance, 20)
    session.merge()
    assert session.has_true_days(account_id)
    check(session, account_id, chance, 20)


def test_a_day_that_is_lost_again_while_days_are_counted_is_counted_again(
    sessions: tuple[Session, Session], account_id: UUID
) -> None:
    chance, (session, _) = random.Random(8), sessions  # noqa: S311 - no secret
    for _ in range(9):
        session.create_then(account_id, instants(chance), "open")
    session.merge_as_before()
    session.recount(steps=2)
    session.create_then(account_id, instants(chance), "open")
    session.merge_as_before()
    assert not session.has_true_days(account_id)
    session.recount()
    assert session.has_true_days(account_id)
    check(session, account_id, chance, 30)
