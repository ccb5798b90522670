"""What the vendors' HTTP APIs have in common: sending requests, how they fail, and reading the answers."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import httpx2

from service import jsontext, tracing
from service.outbound import seconds_of
from service.providers.port import LinkBrokenError, RejectedError, UnavailableError

T = TypeVar("T")
# Maps each member of ours to its name at the vendor, and to what converts our value to the vendor's.
Members = Mapping[str, tuple[str, Callable[[Any], object]]]

# Request timeout, conflict, locked, too early: worth a retry.
_TRANSIENT = (408, 409, 423, 425)
# How much of a provider's message callers and operators read.
_MAX_MESSAGE_LENGTH = 500
# How long an answer may be; a ticket with a long description comes back whole.
_MAX_BYTES = 8 * 1024 * 1024
# How many pieces it may come in: each takes some of the process's time, however small it is, and many come in one read.
_MAX_PIECES = 8 * 1024
# After this many pieces other work has its turn.
_PIECES_AT_ONCE = 64
# Shorter parts of a credential are no secrets, such as the X that Freshservice has for a password.
_MIN_SECRET_LENGTH = 8


class Answer(NamedTuple):
    """A provider's answer: a status below 500, and the value of its JSON body.

    Transient statuses and refused credentials are raised instead, but for a 403 that an adapter takes for a rejection.
    """

    status: int
    body: Any

    @property
    def is_success(self) -> bool:
        """Whether the request was carried out."""
        return self.status < 300

    @property
    def members(self) -> Mapping[str, Any]:
        """The members of its body; none where the body is not an object."""
        return self.body if isinstance(self.body, dict) else {}


class Http:
    """A vendor's HTTP API at one address, with one credential: `user:password`, for Basic."""

    def __init__(self, client: httpx2.AsyncClient, url: str, credential: str) -> None:
        self._client = client
        self._url = url.rstrip("/")
        basic = b64encode(credential.encode()).decode()
        self._headers = {"accept": "application/json", "authorization": f"Basic {basic}"}
        parts = [part for part in credential.split(":") if len(part) >= _MIN_SECRET_LENGTH]
        self._secrets = [secret.encode() for secret in (basic, credential, *parts)]

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
        """Send a request. Raises LinkBrokenError and UnavailableError.

        A 403 is a missing permission, unless `is_rejection` recognizes it as a rejection of this request.
        """
        content = None if body is None else jsontext.dump(body)
        sent = self._headers | ({} if body is None else {"content-type": "application/json"}) | dict(headers or {})
        # A read changes nothing, however it fails.
        may_write = method != "GET"
        try:
            with tracing.request(method, self._url, "provider") as trace:
                sent |= {} if trace is None else trace.headers
                request = self._client.build_request(
                    method, self._url + path, params=params, content=content, headers=sent
                )
                response, text = await self._exchange(request, in_doubt=may_write)
                if trace is not None:
                    trace.answered(response.status_code)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol) as error:
            raise UnavailableError(_short(f"no connection: {error}").rstrip(": "), in_doubt=False) from error
        except httpx2.HTTPError as error:
            raise UnavailableError(_why(error), in_doubt=may_write) from error
        if response.is_error:
            text = self._without_secrets(text)
        return _answer(response, text, is_rejection, in_doubt=may_write)

    async def _exchange(self, request: httpx2.Request, *, in_doubt: bool) -> tuple[httpx2.Response, bytes]:
        """The answer to a request, and its body. Raises UnavailableError for one that is too large."""
        response = await self._client.send(request, stream=True)
        try:
            text, pieces = bytearray(), 0
            async for piece in response.aiter_bytes():
                text += piece
                pieces += 1
                if len(text) > _MAX_BYTES or pieces > _MAX_PIECES:
                    raise UnavailableError("the provider's answer is too large", in_doubt=in_doubt)
                if pieces % _PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)
        finally:
            await response.aclose()
        return response, bytes(text)

    def _without_secrets(self, text: bytes) -> bytes:
        """An error's text without the credential, which some providers quote in it."""
        for secret in self._secrets:
            text = text.replace(secret, b"***")
        return text


def check(answer: Answer, message_of: Callable[[Answer], str], *, of_ticket: bool = False) -> None:
    """Raise for an answer that is not a success, with the vendor's message.

    A 404 means that the address is wrong, unless the request was `of_ticket`: then the ticket is gone.
    """
    if answer.status == 404 and not of_ticket:
        raise LinkBrokenError("the provider answered 404: its address is wrong")
    if not answer.is_success:
        raise rejected(message_of(answer))


def rejected(message: object) -> RejectedError:
    """A rejection with the provider's message."""
    return RejectedError(_short(message))


def member(value: Any, name: str, kind: type[T], *, in_doubt: bool) -> T:
    """A member that an answer must have, not empty. Raises UnavailableError without it."""
    given = value.get(name) if isinstance(value, dict) else None
    # JSON's true is not a number.
    if not isinstance(given, kind) or given == "" or (kind is int and isinstance(given, bool)):
        raise UnavailableError(f"the provider's answer has no {name}", in_doubt=in_doubt)
    return given


def found(body: Any, name: str) -> list[dict[str, Any]]:
    """The objects that a search found."""
    return [one for one in member(body, name, list, in_doubt=False) if isinstance(one, dict)]


def translated(values: Mapping[str, Any], members: Members) -> dict[str, object]:
    """Those of our members that the vendor has, by its names and with its values."""
    return {theirs: convert(values[ours]) for ours, (theirs, convert) in members.items() if ours in values}


def one_line(text: str) -> str:
    """A text for a vendor that allows no line breaks."""
    return " ".join(text.split())


def _answer(
    response: httpx2.Response, text: bytes, is_rejection: Callable[[Answer], bool], *, in_doubt: bool
) -> Answer:
    is_json, body = _json(text)
    answer = Answer(response.status_code, body)
    status = answer.status
    answered = f"the provider answered {status}"
    if status == 401 or (status == 403 and not is_rejection(answer)):
        raise LinkBrokenError(f"{answered}: {_short(text[:_MAX_MESSAGE_LENGTH].decode(errors='replace'))}")
    retry_after = seconds_of(response.headers.get("retry-after"))
    if status == 429:
        raise UnavailableError(answered, in_doubt=False, retry_after=retry_after)
    if status >= 500 or status in _TRANSIENT:
        raise UnavailableError(answered, in_doubt=in_doubt, retry_after=retry_after)
    if 300 <= status < 400:
        raise LinkBrokenError(f"{answered}: its address is wrong")
    if not is_json:
        # It is a page for people, from a proxy in between or from a provider that is down.
        raise UnavailableError(f"{answered}, but not with JSON", in_doubt=in_doubt)
    return answer


def _why(error: httpx2.HTTPError) -> str:
    """Why there is no usable answer, for operators."""
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx2.DecodingError):
        return "the provider's answer cannot be decompressed"
    return "no complete HTTP answer came"


def _json(text: bytes) -> tuple[bool, Any]:
    """Whether a body is JSON, as an empty one is, and its value."""
    try:
        return True, jsontext.parse(text) if text else None
    except ValueError:
        return False, None


def _short(message: object) -> str:
    return one_line(str(message)).replace("\0", "")[:_MAX_MESSAGE_LENGTH] or "The provider gave no reason"
