"""What is asked of a provider, and what is made of how that ends."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog

from service.itsm.delivery.breaker import Breaker
from service.providers.port import (
    ExternalTicket,
    LinkBrokenError,
    NewExternalTicket,
    Provider,
    RejectedError,
    UnavailableError,
)

# Who did not answer for that long counts as one who fails.
_SLOW_SECONDS = 4.0
_FIRST_STATUS = "open"

T = TypeVar("T")

_log = structlog.get_logger()


@dataclass(frozen=True)
class Failure:
    """Why a delivery did not end; `in_doubt` where nobody knows whether it was done."""

    why: str
    in_doubt: bool
    retry_after: float | None = None
    for_good: bool = False


async def find_existing(provider: Provider, new: NewExternalTicket) -> ExternalTicket | None:
    """The ticket that somebody may have made before, who may not have come to bring it to its status."""
    found = await _find(provider, new.key)
    if found is not None and new.status != _FIRST_STATUS:
        with suppress(RejectedError):  # its status there is another, but it was made
            await provider.update(found.id, {"status": new.status})
    return found


async def _find(provider: Provider, key: str) -> ExternalTicket | None:
    """The ticket that the provider may have. A search that it rejects says nothing of that."""
    try:
        return await provider.find(key)
    except RejectedError as error:
        raise UnavailableError(str(error), done=None) from error


async def call_provider(asked: Awaitable[T], breaker: Breaker, until: float, *, in_doubt: bool) -> T | Failure:
    """What a provider answers, or why it does not; its breaker is told."""
    begun = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(until):
            answer = await asked
    except UnavailableError as error:
        breaker.ended(well=False)
        return Failure(str(error), in_doubt or error.done is None, error.retry_after)
    except (TimeoutError, asyncio.CancelledError) as error:
        # Who has little time, or leaves soon, says nothing of the provider.
        if asyncio.get_running_loop().time() - begun >= _SLOW_SECONDS:
            breaker.ended(well=False)
        if isinstance(error, asyncio.CancelledError):
            raise
        return Failure("no answer in time", in_doubt=True)
    except LinkBrokenError as error:
        breaker.ended(well=True)
        return Failure(str(error), in_doubt)
    except RejectedError as error:
        breaker.ended(well=True)
        return Failure(str(error), in_doubt, for_good=True)
    except Exception:
        # An adapter that breaks on an answer, or an address that httpx breaks on: the ticket is not the reason.
        _log.exception("provider", outcome="internal")
        breaker.ended(well=False)
        return Failure("internal", in_doubt=True)
    breaker.ended(well=True)
    return answer
