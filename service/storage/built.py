"""Statements that are built when a call needs them: of a list there is one for each set of filters.

SQLAlchemy may take tens of milliseconds for one, so a thread builds it, and the loop answers other calls meanwhile.
"""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial, update_wrapper
from typing import Generic, ParamSpec, cast

from service.storage.statement import Statement

P = ParamSpec("P")

# How long the thread may keep the interpreter while the loop waits for it; Python's own 5 ms would be felt.
_SWITCH_SECONDS = 0.0002
# One thread, so that callers who need many share what one thread gets of the interpreter.
_thread = ThreadPoolExecutor(1, "statements", partial(sys.setswitchinterval, _SWITCH_SECONDS))


class _Building:
    """A statement, once it is built: to ask a future takes two locks."""

    __slots__ = ("future", "statement")

    def __init__(self, future: Future[Statement]) -> None:
        self.future = future
        self.statement: Statement | None = None
        future.add_done_callback(self._keep)

    def _keep(self, future: Future[Statement]) -> None:
        self.statement = None if future.exception() else future.result()


class Built(Generic[P]):
    """What a function builds, by its arguments; those that were used last are kept."""

    def __init__(self, build: Callable[P, Statement], most: int) -> None:
        self.__wrapped__ = build
        begin = lru_cache(most)(self._submit)
        self.forget = begin.cache_clear
        # (The cache's own type has no names for parameters.)
        self._begin = cast(Callable[P, _Building], begin)
        update_wrapper(self, build)

    def _submit(self, *args: P.args, **kwargs: P.kwargs) -> _Building:
        return _Building(_thread.submit(self.__wrapped__, *args, **kwargs))

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Statement:
        """The statement, which is built if there is none yet. Raises UnscopedError."""
        building = self._begin(*args, **kwargs)
        if building.statement is not None:
            return building.statement
        # Others may wait for it too, so a caller who leaves does not cancel it.
        return await asyncio.shield(asyncio.wrap_future(building.future))


def built(most: int) -> Callable[[Callable[P, Statement]], Built[P]]:
    """Have a function's statements built by a thread, and keep so many of them."""
    return lambda build: Built(build, most)
