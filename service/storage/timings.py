"""How long statements take, by a name that people find in the code.

Names cost nothing while statements run: the place where a statement is built is recorded, and resolved to a name when
the metrics are read.
"""

import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple


class Timing:
    """How often a statement, or any that one function builds, was answered, and how long that took in all."""

    __slots__ = ("function", "module", "number", "seconds", "statement")

    def __init__(self, module: str, function: str, statement: object | None) -> None:
        """`statement` is given where its module holds it."""
        self.module, self.function, self.statement = module, function, statement
        self.number, self.seconds = 0, 0.0

    def add(self, seconds: float) -> None:
        """Count one answer."""
        self.number += 1
        self.seconds += seconds


class Total(NamedTuple):
    """What is known of the statements of one name."""

    name: str
    number: int
    seconds: float


_timings: dict[object, Timing] = {}


def timing_of(statement: object, builder: FrameType | None) -> Timing:
    """Where to count a statement that is built in this frame: by itself, if it is built as its module is imported.

    Otherwise with all that the same function builds: there may be any number of those, and they come and go.
    """
    nearest = frame = builder
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if frame.f_code.co_name == "<module>" and module.startswith("service."):
            function = "" if nearest is None or nearest is frame else _function(nearest)
            return _timings.setdefault(id(statement), Timing(module, function, statement))
        frame = frame.f_back
    module = "" if nearest is None else str(nearest.f_globals.get("__name__", ""))
    function = "" if nearest is None else _function(nearest)
    return _timings.setdefault((module, function), Timing(module, function, None))


def _function(frame: FrameType) -> str:
    return frame.f_code.co_qualname.removesuffix(".__init__").rpartition(".")[2]


def totals() -> Iterator[Total]:
    """What has been counted, by name; nothing of statements that never ran."""
    names: dict[str, Mapping[int, str]] = {}
    found: dict[str, list[float]] = {}
    for timing in list(_timings.values()):
        if not timing.number:
            continue
        name = timing.function.strip("_")
        if timing.statement is not None:
            if timing.module not in names:
                names[timing.module] = _names_in(vars(sys.modules[timing.module]))
            name = names[timing.module].get(id(timing.statement), name)
        total = found.setdefault(f"{timing.module.removeprefix('service.')}.{name}", [0, 0.0])
        total[0] += timing.number
        total[1] += timing.seconds
    return (Total(name, int(number), seconds) for name, (number, seconds) in found.items())


def _names_in(variables: Mapping[str, Any]) -> dict[int, str]:
    """The names of what a module holds, and of what that holds: its members, as those of a creation."""
    found: dict[int, str] = {}
    for name, value in list(variables.items()):
        found.setdefault(id(value), name.strip("_"))
        for member in _members(value):
            found.setdefault(id(getattr(value, member)), f"{name}.{member}".strip("_"))
    return found


def _members(value: object) -> Iterator[str]:
    if isinstance(value, tuple):
        yield from getattr(value, "_fields", ())
    elif type(value).__module__.startswith("service.") and not isinstance(value, type):
        yield from getattr(value, "__dict__", ())
