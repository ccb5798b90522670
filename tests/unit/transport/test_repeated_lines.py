"""The log while something is away: one line for each cause and minute, with the number of those left out."""

from typing import Any

import pytest
import structlog

from service.transport import logs

AWAY = {"event": "background", "outcome": "unavailable"}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("service.transport.logs.time.monotonic", lambda: now[0])
    return now


def written(processor: Any, **line: Any) -> Any:
    """The line as it is written, or None where it is left out."""
    try:
        return processor(None, "", line)
    except structlog.DropEvent:
        return None


def test_the_same_cause_is_one_line_a_minute(now: list[float]) -> None:
    processor = logs._Repeats()
    assert written(processor, **AWAY, work="a") == {**AWAY, "work": "a"}
    for now[0] in (0.5, 30.0, 59.0):
        assert written(processor, **AWAY, work="a") is None
    now[0] = 60.0
    assert written(processor, **AWAY, work="a") == {**AWAY, "work": "a", "dropped": 3}
    now[0] = 120.0
    assert written(processor, **AWAY, work="a") == {**AWAY, "work": "a"}


@pytest.mark.parametrize("other", [{"work": "b"}, {"error": "e"}, {"event": "watch"}, {"outcome": "deadline_exceeded"}])
@pytest.mark.usefixtures("now")
def test_another_cause_is_another_line(other: dict[str, Any]) -> None:
    processor = logs._Repeats()
    assert written(processor, **AWAY) is not None
    assert written(processor, **{**AWAY, **other}) is not None


@pytest.mark.parametrize("line", [{"event": "serving"}, {"event": "background", "outcome": "internal"}])
@pytest.mark.usefixtures("now")
def test_what_is_not_away_is_always_written(line: dict[str, Any]) -> None:
    processor = logs._Repeats()
    assert [written(processor, **line) for _ in range(3)] == [line] * 3
