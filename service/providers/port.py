"""What the service asks of an external ITSM provider, and how that can end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import httpx

from service import jsontext

ProviderName = Literal["freshservice", "zendesk", "servicenow", "jira"]

# Of a provider's message that callers and operators read.
_MESSAGE_LENGTH = 500
# Of an answer; a ticket with a long description comes back whole.
_MAX_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class Link:
    """An account's provider: where it is, who we are there, and what its vendor needs to know beside.

    The `options` of each vendor stand in its own file.
    """

    provider: ProviderName
    url: str
    credential: str = field(repr=False)
    options: Mapping[str, Any]


class NewExternal(NamedTuple):
    """A ticket that the provider shall have; `key` is ours, the same for ever, and finds it again."""

    key: str
    subject: str
    description: str
    status: str
    priority: str | None
    requester_email: str | None


class External(NamedTuple):
    """A ticket that the provider has: its id there, and where people see it."""

    id: str
    url: str


class RejectedError(Exception):
    """The provider has looked at it and will not do it; its words are for the caller. Asking again does not help."""


class UnlinkedError(Exception):
    """The provider does not know us, or does not let us: for the operator to mend. Never raised after a write."""


class UnavailableError(Exception):
    """No answer that counts: asking again may help. `done` is None where nobody knows whether it was done."""

    def __init__(self, why: str, *, done: Literal[False] | None, retry_after: float | None = None) -> None:
        """`retry_after` is in seconds, where the provider said so."""
        super().__init__(why)
        self.done = done
        self.retry_after = retry_after


class Provider(Protocol):
    """One vendor's API. Every method raises RejectedError, UnlinkedError and UnavailableError, and nothing else."""

    async def create(self, ticket: NewExternal) -> External:
        """Make the ticket."""

    async def find(self, key: str) -> External | None:
        """The ticket that was made for a key, if any."""

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members: any of those of NewExternal but the key, by those names; None clears."""


class Answer(NamedTuple):
    """What a provider said: a status below 500 that is neither 401, 403 nor 429, and the JSON of its body."""

    status: int
    body: Any

    @property
    def is_success(self) -> bool:
        """Whether it did what it was asked for."""
        return self.status < 300


class Http:
    """A vendor's HTTP API: what its answers and failures have in common."""

    def __init__(self, client: httpx.AsyncClient, link: Link, headers: Mapping[str, str]) -> None:
        self._client = client
        self._url = link.url.rstrip("/")
        self._headers = {"accept": "application/json", **headers}

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
    ) -> Answer:
        """Ask. Raises UnlinkedError and UnavailableError."""
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
        return self._answer(response, text, done=done)

    def _answer(self, response: httpx.Response, text: bytes, *, done: Literal[False] | None) -> Answer:
        status = response.status_code
        if status in (401, 403):
            raise UnlinkedError(f"it answered {status}: {rejected(text[:_MESSAGE_LENGTH].decode(errors='replace'))}")
        retry_after = _seconds(response.headers.get("retry-after"))
        if status == 429:
            raise UnavailableError("it answered 429", done=False, retry_after=retry_after)
        if status >= 500:
            raise UnavailableError(f"it answered {status}", done=done, retry_after=retry_after)
        if 300 <= status < 400:
            raise UnlinkedError(f"it answered {status}: its address is another")
        try:
            return Answer(status, jsontext.parse(text) if text else None)
        except ValueError:
            # A page for people, of something in between or of a provider that is down.
            raise UnavailableError(f"it answered {status} and no JSON", done=done) from None


def rejected(words: object) -> RejectedError:
    """A rejection in the provider's words."""
    text = " ".join(str(words).split()).replace("\0", "")
    return RejectedError(text[:_MESSAGE_LENGTH] or "The provider gave no reason")


def _seconds(header: str | None) -> float | None:
    # A date is allowed too; nobody sends one here.
    return float(header) if header is not None and header.strip().isdecimal() else None
