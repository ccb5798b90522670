"""Calls to the accounts' providers: over one HTTP client, each within a deadline and under its account's breaker."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TypeVar

import httpx2
import structlog

from service import jsontext
from service.itsm.delivery import queries
from service.itsm.delivery.breaker import SLOW_SECONDS, Admission, Breakers
from service.itsm.delivery.deadline import Deadline
from service.outbound import trusted_authorities
from service.providers import adapter
from service.providers.port import (
    ExternalTicket,
    Link,
    LinkBrokenError,
    NewExternalTicket,
    Provider,
    ProviderName,
    RejectedError,
    UnavailableError,
)
from service.storage.database import Database
from service.storage.statement import Row
from service.vault import SealedError, Vault

# The longest that a provider may take for one request; deadlines are usually sooner.
_REQUEST_SECONDS = 20.0
# The status of a ticket that is created without one.
_FIRST_STATUS = "open"

_ANOTHER_PROVIDER = "the account is linked to another provider now"
_MAY_BE_ELSEWHERE = "the account is linked to another provider now, or to none, and the one before may have the ticket"

T = TypeVar("T")

_log = structlog.get_logger()


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed: `in_doubt` if the provider may have carried it out, `permanent` if no retry helps."""

    message: str
    in_doubt: bool
    retry_after: float | None = None
    permanent: bool = False


class ProviderCalls:
    """The calls of one process."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self.breakers = Breakers()
        self._client = httpx2.AsyncClient(
            # Shared by all accounts: no cookie of one provider may go out with another's call.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=_REQUEST_SECONDS,
            follow_redirects=False,
            trust_env=False,
            verify=trusted_authorities(),
            # Connections that hang take none from other accounts.
            limits=httpx2.Limits(max_connections=None),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def call(
        self,
        delivery: Row,
        request: Callable[[Provider, ProviderName], Awaitable[T]],
        deadline: Deadline,
        *,
        changes: Row | None = None,
    ) -> T | Failure | None:
        """What `request` returns of the account's provider before a deadline; None where the account has none.

        `changes` is the ticket that the request changes: the provider must be the one that has it, because at another
        address the same id is another ticket.
        """
        in_doubt = delivery["in_doubt"]
        row = await self._database.one(queries.LINK, {"account_id": delivery["account_id"]})
        if in_doubt and delivery["kind"] == "create" and delivery["attempted_url"] not in (None, row and row["url"]):
            return Failure(_MAY_BE_ELSEWHERE, in_doubt, permanent=delivery["has_ticket"])
        if row is None:
            return None
        if changes is not None and not _has(row, changes):
            return Failure(_ANOTHER_PROVIDER, in_doubt, permanent=True)
        try:
            link = self._open_link(row)
        except SealedError:
            return Failure("the credential cannot be decrypted", in_doubt)
        now = asyncio.get_running_loop().time()
        if deadline.at <= now:
            return Failure("no time was left to call the provider", in_doubt)
        admission = self.breakers.admit(delivery["account_id"], link.url, deadline.last - now)
        if admission is None:
            return Failure("the provider has failed too often, and is not called for now", in_doubt)

        async def requested() -> T:
            # The adapter is made under the breaker too: it may fail on the link's options.
            return await request(adapter(self._client, link), link.provider)

        return await call_provider(requested(), self.breakers, admission, deadline, in_doubt=in_doubt)

    def _open_link(self, row: Row) -> Link:
        """The link of a row, with its credential decrypted. Raises SealedError."""
        options = jsontext.parse(row["options"].text.encode())
        return Link(row["provider"], row["url"], self._vault.open(bytes(row["credential"])), options)


async def call_provider(
    request: Awaitable[T], breakers: Breakers, admission: Admission, deadline: Deadline, *, in_doubt: bool
) -> T | Failure:
    """What a request to a provider returns before a deadline, or why it failed; the breaker is informed.

    `in_doubt`: an earlier attempt may have been carried out.
    """
    started = asyncio.get_running_loop().time()
    try:
        async with deadline.limit():
            answer = await request
    except UnavailableError as error:
        breakers.failed(admission)
        return Failure(str(error), in_doubt or error.in_doubt, error.retry_after)
    except (TimeoutError, asyncio.CancelledError) as error:
        # A call that had little time, or was cancelled soon, does not show whether the provider works.
        is_slow = asyncio.get_running_loop().time() - started >= SLOW_SECONDS
        (breakers.failed if is_slow else breakers.undecided)(admission)
        if isinstance(error, asyncio.CancelledError):
            raise
        return Failure("no answer in time", in_doubt=True)
    except LinkBrokenError as error:
        breakers.succeeded(admission)
        return Failure(str(error), in_doubt)
    except RejectedError as error:
        breakers.succeeded(admission)
        return Failure(str(error), in_doubt, permanent=True)
    except Exception:
        # A mistake in an adapter, or an address that the HTTP client fails on: not the ticket's fault.
        _log.exception("provider", outcome="internal")
        breakers.failed(admission)
        return Failure("internal", in_doubt=True)
    breakers.succeeded(admission)
    return answer


async def find_existing(provider: Provider, new: NewExternalTicket) -> ExternalTicket | None:
    """The ticket of an earlier attempt, if any, moved to its status: that attempt may have ended before."""
    found = await _find(provider, new.key)
    if found is not None and new.status != _FIRST_STATUS:
        with suppress(RejectedError):  # it exists, with another status
            await provider.update(found.id, {"status": new.status})
    return found


async def _find(provider: Provider, key: str) -> ExternalTicket | None:
    """The ticket that the provider may have. A rejected search does not show that it has none."""
    try:
        return await provider.find(key)
    except RejectedError as error:
        raise UnavailableError(str(error), in_doubt=True) from error


def _has(link: Row, ticket: Row) -> bool:
    """Whether the linked provider is the one that has a ticket."""
    is_there = str(ticket["external_ticket_url"]).startswith(link["url"].rstrip("/") + "/")
    return bool(link["provider"] == ticket["external_provider"] and is_there)
