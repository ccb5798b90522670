"""What the calls of all three APIs are made of.

Each is written once, as a function that gives a coroutine or an asynchronous generator, and blocks or not as its client
does.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import aclosing
from functools import wraps
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload
from uuid import uuid4

from service.client.link import Link, Request, W
from service.client.messages import Method, read, write
from service.client.wire import Asynchronous, Blocking

P = ParamSpec("P")
T = TypeVar("T")
# What a call is written as; `one` and `many` make of it what the client gives.
Answer: TypeAlias = Coroutine[Any, Any, T]
Answers: TypeAlias = AsyncGenerator[T, None]

PAGE_SIZE = 100


class Api(Generic[W]):
    """The calls of one service."""

    METHODS: ClassVar[Mapping[str, Method]]

    def __init__(self, link: Link[W]) -> None:
        self._link = link

    def _ask(
        self,
        kind: type[T],
        method: str,
        members: Mapping[str, object],
        timeout: float | None,
        *,
        changes: Mapping[str, object] | None = None,
        key: str | None = None,
        of: str = "ticket",
    ) -> Answer[T]:
        """The ticket (or what else it is `of`) that the answer has, or else the answer itself.

        `changes` are those of an update.
        """
        asked = self.METHODS[method]
        return self._answer(kind, Request(asked, write(asked.request, members, changes), timeout, key), of)

    async def _answer(self, kind: type[T], request: Request, of: str) -> T:
        answer = await self._link.answer(request)
        return read(kind, getattr(answer, of, answer))

    def _list(
        self,
        kind: type[T],
        method: str,
        members: Mapping[str, object],
        page_size: int,
        timeout: float | None,
        *,
        of: str = "tickets",
    ) -> Answers[T]:
        """The items of a list, page after page; `of` is what a page calls them."""
        asked = self.METHODS[method]
        return self._items(kind, Request(asked, write(asked.request, {**members, "limit": page_size}), timeout), of)

    async def _items(self, kind: type[T], request: Request, of: str) -> Answers[T]:
        async for page in self._link.pages(request):
            for item in getattr(page, of):
                yield read(kind, item)

    async def _watch(self, kind: type[T], members: Mapping[str, object], patience: float) -> Answers[T]:
        """What a watch tells."""
        asked = self.METHODS["WatchTickets"]
        request = Request(asked, write(asked.request, members))
        async with aclosing(self._link.watch(request, patience)) as messages:
            async for message in messages:
                yield read(kind, message)


def fresh(idempotency_key: str | None) -> str:
    """The key of one write: the caller's, or a new one."""
    return str(uuid4()) if idempotency_key is None else idempotency_key


class one(Generic[P, T]):  # noqa: N801 - a decorator
    """A call with one answer: `T` of a blocking client, a coroutine that returns it of an asynchronous one."""

    def __init__(self, run: Callable[Concatenate[Any, P], Answer[T]]) -> None:
        self._run = run
        self.__doc__ = run.__doc__

    @overload
    def __get__(self, api: Api[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, api: Api[Asynchronous], owner: type) -> Callable[P, Answer[T]]: ...
    def __get__(self, api: Any, owner: type) -> Any:
        return self if api is None else _bound(self._run, api, "one")


class many(Generic[P, T]):  # noqa: N801 - a decorator
    """A call with many answers, told as they are asked for: with `for` by a blocking client, else with `async for`."""

    def __init__(self, run: Callable[Concatenate[Any, P], Answers[T]]) -> None:
        self._run = run
        self.__doc__ = run.__doc__

    @overload
    def __get__(self, api: Api[Blocking], owner: type) -> Callable[P, Generator[T, None, None]]: ...
    @overload
    def __get__(self, api: Api[Asynchronous], owner: type) -> Callable[P, Answers[T]]: ...
    def __get__(self, api: Any, owner: type) -> Any:
        return self if api is None else _bound(self._run, api, "each")


def _bound(run: Callable[..., Any], api: Api[Any], form: str) -> Callable[..., Any]:
    given = getattr(api._link.wire, form)

    @wraps(run)
    def call(*args: Any, **kwargs: Any) -> Any:
        return given(run(api, *args, **kwargs))

    return call
