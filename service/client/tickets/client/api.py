"""What the methods of all three APIs are made of.

Each method is written once, as a function that returns a coroutine or an asynchronous generator; `unary` and `stream`
make it block or not, as its client does.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import aclosing
from functools import wraps
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload
from uuid import uuid4

from tickets.client.messages import Method, read, write
from tickets.client.session import Request, Session, TransportT
from tickets.client.transport import Asynchronous, Blocking

P = ParamSpec("P")
T = TypeVar("T")
# What methods return as they are written, before `unary` and `stream` adapt them to the client.
Unary: TypeAlias = Coroutine[Any, Any, T]
Stream: TypeAlias = AsyncGenerator[T, None]
# A sequence, or one word, which stands for a sequence of it.
Words: TypeAlias = T | Sequence[T]
# A filter: what is wanted, or any of several.
AnyOf: TypeAlias = Words[T] | None

PAGE_SIZE = 100


class Api(Generic[TransportT]):
    """The methods of one service."""

    METHODS: ClassVar[Mapping[str, Method]]

    def __init__(self, session: Session[TransportT]) -> None:
        self._session = session

    def _call(
        self,
        kind: type[T],
        method: str,
        members: Mapping[str, object],
        timeout: float | None,
        *,
        changes: Mapping[str, object] | None = None,
        key: str | None = None,
        field: str = "ticket",
    ) -> Unary[T]:
        """Call a method; returns what the response has in `field`, or the whole response when it has no such field.

        `changes` are those of an update. `key` is the idempotency key of a write, a new one when it is None.
        """
        return self._result(kind, self._request(method, members, timeout, changes, key), field)

    async def _result(self, kind: type[T], request: Request, field: str) -> T:
        response = await self._session.call(request)
        return read(kind, getattr(response, field, response))

    def _list(
        self,
        kind: type[T],
        method: str,
        members: Mapping[str, object],
        page_size: int,
        timeout: float | None,
        *,
        field: str = "tickets",
    ) -> Stream[T]:
        """The items of a list, page after page; each page has them in `field`."""
        if "limit" in members:
            # It would be taken for a page's, and a caller that wants ten would get all of them.
            raise TypeError("a list has a page_size and no limit: it goes on as long as it is iterated")
        return self._items(kind, self._request(method, {**members, "limit": page_size}, timeout), field)

    async def _items(self, kind: type[T], request: Request, field: str) -> Stream[T]:
        async for page in self._session.pages(request):
            for item in getattr(page, field):
                yield read(kind, item)

    async def _watch(self, kind: type[T], members: Mapping[str, object], resume_timeout: float) -> Stream[T]:
        """The responses of a watch."""
        async with aclosing(self._session.watch(self._request("WatchTickets", members), resume_timeout)) as responses:
            async for response in responses:
                yield read(kind, response)

    def _request(
        self,
        name: str,
        members: Mapping[str, object],
        timeout: float | None = None,
        changes: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> Request:
        method = self.METHODS[name]
        if key is None and not method.is_read:
            # The same for all attempts, so that the write is safe to retry.
            key = str(uuid4())
        return Request(method, write(method.request, members, changes), timeout, key)


class unary(Generic[P, T]):  # noqa: N801 - a decorator
    """A method with one result: it returns `T` with a blocking client, a coroutine of it with an asynchronous one."""

    def __init__(self, run: Callable[Concatenate[Any, P], Unary[T]]) -> None:
        self._run = run
        self.__doc__ = run.__doc__

    @overload
    def __get__(self, api: Api[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, api: Api[Asynchronous], owner: type) -> Callable[P, Unary[T]]: ...
    def __get__(self, api: Any, owner: type) -> Any:
        return self if api is None else _bind(self._run, api, "run")


class stream(Generic[P, T]):  # noqa: N801 - a decorator
    """A method with a stream of results: for `for` with a blocking client, for `async for` with an asynchronous one."""

    def __init__(self, run: Callable[Concatenate[Any, P], Stream[T]]) -> None:
        self._run = run
        self.__doc__ = run.__doc__

    @overload
    def __get__(self, api: Api[Blocking], owner: type) -> Callable[P, Generator[T, None, None]]: ...
    @overload
    def __get__(self, api: Api[Asynchronous], owner: type) -> Callable[P, Stream[T]]: ...
    def __get__(self, api: Any, owner: type) -> Any:
        return self if api is None else _bind(self._run, api, "iterate")


def _bind(run: Callable[..., Any], api: Api[Any], adapter: str) -> Callable[..., Any]:
    adapt = getattr(api._session.transport, adapter)

    @wraps(run)
    def call(*args: Any, **kwargs: Any) -> Any:
        return adapt(run(api, *args, **kwargs))

    return call
