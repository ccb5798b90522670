"""Statements of builders that are awaited, for who is in no loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec

from service.storage.statement import Statement

P = ParamSpec("P")


def at_once(build: Callable[P, Coroutine[Any, Any, Statement]]) -> Callable[P, Statement]:
    """The same builder, without its `await`."""
    return lambda *args, **kwargs: asyncio.run(build(*args, **kwargs))
