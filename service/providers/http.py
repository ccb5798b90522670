"""What vendors' HTTP APIs have in common: how they are asked, how that fails, and how their answers are read."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import httpx

from service import jsontext
from service.providers.port import LinkBrokenError, RejectedError, UnavailableError

T = TypeVar("T")
# For each member of ours: its name at a vendor, and what makes its value there of ours.
Members = Mapping[str, tuple[str, Callable[[Any], object]]]

# It took too long, something else is at it, it is locked, it is too early: not for good.
_LATER = (408, 409, 423, 425)
# Of a provider's message that callers and operators read.
_MESSAGE_LENGTH = 500
# Of an answer; a ticket with a long description comes back whole.
_MAX_BYTES = 8 * 1024 * 1024


class Answer(NamedTuple):
    """What a provider said: a status below 500, and the JSON of its body.

    It is none that says to come later or that we may not, but a 403 that an adapter takes for a rejection is here.
    """

    status: int
    body: Any

    @property
    def is_success(self) -> bool:
        """Whether it did what it was asked for."""
        return self.status < 300

    @property
    def members(self) -> Mapping[str, Any]:
        """The members of its body; none where that is no object."""
        return self.body if isinstance(self.body, dict) else {}


class Http:
    """A vendor's HTTP API at one address, with one credential: `user:password`, for Basic."""

    def __init__(self, client: httpx.AsyncClient, url: str, credential: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        basic = b64encode(credential.encode()).decode()
        self._headers = {"accept": "application/json", "authorization": f"Basic {basic}"}

    def link_to(self, path: str) -> str:
        """The address of a page for people."""
        return self._url + path

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        is_rejection: Callable[[Answer], bool] = lambda _: False,
    ) -> Answer:
        """Ask. Raises LinkBrokenError and UnavailableError.

        A 403 says that we may not, unless `is_rejection` tells by its words that it is of what was asked for.
        """
        content = None if body is None else jsontext.dump(body)
        sent = self._headers | ({} if body is None else {"content-type": "application/json"}) | dict(headers or {})
        # What only looks has done nothing, however it ends.
        done: Literal[False] | None = False if method == "GET" else None
        try:
            async with self._client.stream(
                method, self._url + path, params=params, content=content, headers=sent
            ) as response:
                text = b""
                async for piece in response.aiter_bytes():
                    text += piece
                    if len(text) > _MAX_BYTES:
                        raise UnavailableError("its answer is too large", done=done)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise UnavailableError(type(error).__name__, done=False) from error
        except httpx.HTTPError as error:
            raise UnavailableError(type(error).__name__, done=done) from error
        return _answer(response, text, done, is_rejection)


def check(answer: Answer, words: Callable[[Answer], str], *, of_ticket: bool = False) -> None:
    """Raise for an answer that is no success, in the vendor's words. A 404 is of the address, unless of a ticket."""
    if answer.status == 404 and not of_ticket:
        raise LinkBrokenError("it answered 404: its address is another")
    if not answer.is_success:
        raise rejected(words(answer))


def rejected(words: object) -> RejectedError:
    """A rejection in the provider's words."""
    return RejectedError(_short(words))


def member(value: Any, name: str, kind: type[T], *, done: Literal[False] | None) -> T:
    """A member that an answer must have; an empty text is none."""
    there = value.get(name) if isinstance(value, dict) else None
    # Of what is no number JSON's true is none either.
    if not isinstance(there, kind) or there == "" or (kind is int and isinstance(there, bool)):
        raise UnavailableError(f"its answer has no {name}", done=done)
    return there


def found(body: Any, name: str) -> list[dict[str, Any]]:
    """The objects that a search found."""
    return [one for one in member(body, name, list, done=False) if isinstance(one, dict)]


def translated(values: Mapping[str, Any], members: Members) -> dict[str, object]:
    """Those of our members that a vendor has, by its names."""
    return {theirs: convert(values[ours]) for ours, (theirs, convert) in members.items() if ours in values}


def one_line(text: str) -> str:
    """A text for a vendor that allows no line breaks."""
    return " ".join(text.split())


def _answer(
    response: httpx.Response, text: bytes, done: Literal[False] | None, is_rejection: Callable[[Answer], bool]
) -> Answer:
    is_json, body = _json(text)
    answer = Answer(response.status_code, body)
    status = answer.status
    if status == 401 or (status == 403 and not is_rejection(answer)):
        raise LinkBrokenError(f"it answered {status}: {_short(text[:_MESSAGE_LENGTH].decode(errors='replace'))}")
    retry_after = _seconds(response.headers.get("retry-after"))
    if status == 429:
        raise UnavailableError("it answered 429", done=False, retry_after=retry_after)
    if status >= 500 or status in _LATER:
        raise UnavailableError(f"it answered {status}", done=done, retry_after=retry_after)
    if 300 <= status < 400:
        raise LinkBrokenError(f"it answered {status}: its address is another")
    if not is_json:
        # A page for people, of something in between or of a provider that is down.
        raise UnavailableError(f"it answered {status} and no JSON", done=done)
    return answer


def _json(text: bytes) -> tuple[bool, Any]:
    """Whether a body is JSON, as an empty one is, and its value."""
    try:
        return True, jsontext.parse(text) if text else None
    except ValueError:
        return False, None


def _short(words: object) -> str:
    return one_line(str(words)).replace("\0", "")[:_MESSAGE_LENGTH] or "The provider gave no reason"


def _seconds(header: str | None) -> float | None:
    # A date is allowed too; nobody sends one here.
    return float(header) if header is not None and header.strip().isdecimal() else None
