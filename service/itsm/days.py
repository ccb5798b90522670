"""How a range of instants is counted: whole days, which are totals, and what is left at its two ends."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

_DAY = timedelta(days=1)
_TICK = timedelta(microseconds=1)
# No ticket is created so late.
_END_OF_TIME = datetime(9999, 12, 30, tzinfo=UTC)


class End(NamedTuple):
    """One end of a range, by the nearest midnight.

    Whole days before `day` come from totals. The tickets created from `since` until `until` are counted, and added
    (`sign` +1) or subtracted (-1).
    """

    day: date
    since: datetime
    until: datetime
    sign: int

    def parameters(self, name: str) -> dict[str, Any]:
        """As a statement has them."""
        return {f"{name}_{field}": value for field, value in self._asdict().items()}


def _end(instant: datetime) -> End:
    midnight = _midnight(instant)
    if instant - midnight <= _DAY / 2:
        return End(midnight.date(), midnight, instant, +1)
    return End((midnight + _DAY).date(), instant, midnight + _DAY, -1)


def _midnight(instant: datetime) -> datetime:
    return datetime.combine(instant.date(), time.min, UTC)


def ends(first: datetime | None, last: datetime | None) -> dict[str, Any]:
    """The parameters of a range from its first instant to its last, in UTC; of one that is open, those of one end."""
    start = None if first is None else min(first, _END_OF_TIME)
    end = None if last is None else min(last, _END_OF_TIME) + _TICK
    if start is not None and end is not None and end - start <= _DAY:
        # As well counted at once. (It may end before it begins.)
        whole = End(_midnight(start).date(), start, end, +1)
        return whole._replace(until=start).parameters("start") | whole.parameters("end")
    named = {"start": start, "end": end}
    return {
        name: value
        for end_name, instant in named.items()
        if instant is not None
        for name, value in _end(instant).parameters(end_name).items()
    }
