"""What tests of totals share: two sessions at a database of their own, and an account in it."""

from collections.abc import Iterator
from uuid import UUID

import pytest
from support.totals import Session


@pytest.fixture
def sessions(apart_url: str) -> Iterator[tuple[Session, Session]]:
    both = Session(apart_url), Session(apart_url)
    yield both
    for session in both:
        session.connection.close()


@pytest.fixture
def account_id(sessions: tuple[Session, Session]) -> UUID:
    [row] = sessions[0].connection.execute("INSERT INTO accounts (name) VALUES ('a') RETURNING id").fetchall()
    account_id: UUID = row["id"]
    return account_id
