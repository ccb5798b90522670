"""The queue of deliveries to the accounts' providers: attempted at once for a waiting caller, else in the background.

A creation is recorded before its first attempt. If the process dies during that, another one finds the row, looks for
the ticket at the provider by its id, and goes on from there. One process at a time holds the lease of a delivery. No
transaction is open while a provider is called.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID

import structlog

from service import events, idempotency, jsontext, tracing
from service.counters import BREAKERS_OPEN
from service.errors import TicketError
from service.itsm.commands import NewTicket
from service.itsm.delivery import queries
from service.itsm.delivery.attempt import Attempts
from service.itsm.delivery.deadline import Deadline
from service.itsm.delivery.provider_calls import ProviderCalls
from service.itsm.queries import CREATE
from service.numbering import uuid7
from service.operation import Call
from service.providers.port import MEMBERS
from service.settings import Settings
from service.storage.database import Database
from service.storage.statement import Row
from service.vault import Vault

# How long an attempt may take while a caller waits (contracts/itsm.md, Provider), and in the background.
_CALLER_SECONDS = 5.0
_BACKGROUND_SECONDS = 20.0
# Kept back from the caller's own time, for what follows the attempt.
_RESERVED_SECONDS = 0.5
# How long a provider may still work on a call that was cancelled: no other attempt begins before that.
_LEASE_MARGIN_SECONDS = 5.0
# A background attempt may take far longer than the deliveries of a dead process should wait. So its lease is short, and
# renewed about once a second; if renewals fail, the call is cancelled the margin before the lease ends.
_BACKGROUND_LEASE_SECONDS = 8.0
# Background attempts of the process, and of one account.
_MAX_RUNNING = 128
_MAX_RUNNING_OF_ACCOUNT = 4
# Callers of one account that wait for its provider at once: the rest of the process is for other accounts.
_MAX_WAITING_OF_ACCOUNT = 16
# How often a caller whose key is in use looks for the answer.
_POLL_SECONDS = (0.05, 0.25)
# Members of a ticket that a provider has too.
MIRRORED = frozenset(MEMBERS)

R = TypeVar("R")

_log = structlog.get_logger()


class Deliveries:
    """The deliveries of one process."""

    def __init__(self, settings: Settings, database: Database, vault: Vault) -> None:
        self._database = database
        self._providers = ProviderCalls(database, vault)
        self._breakers = self._providers.breakers
        self._attempts = Attempts(database.without_lock_timeout(), self._providers, settings.delivery_pause_seconds)
        self._waiting = Counter[UUID | None]()
        # Background attempts, each with its account, and attempts that callers wait for.
        self._running: dict[asyncio.Task[None], UUID] = {}
        # What those attempt, by id and lease: until when it may call the provider.
        self._held: dict[tuple[UUID, UUID], Deadline] = {}
        self._for_callers = set[asyncio.Task[Any]]()

    async def close(self) -> None:
        """Cancel what is running, and close all connections.

        Another process goes on when the leases end: sooner, a provider might not know a ticket yet that it is creating.
        """
        running = (*self._running, *self._for_callers)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._providers.close()

    async def create(self, call: Call, command: object, values: Mapping[str, Any]) -> Row:
        """The ticket, created at the provider and here, or only here if the provider cannot be reached in time.

        Under a key that is in use it waits, and answers as the first request did. Raises TicketError
        `provider_rejected`, `idempotency_mismatch` and `unavailable`.
        """
        while True:
            stored = await idempotency.replay(self._database, call, command, CREATE)
            if stored is not None:
                return stored
            ticket = await self._see_through(self._create(call, command, values))
            if ticket is not None:
                return ticket
            if call.idempotency_key is None:
                raise TicketError("unavailable", retry_after=1)
            await asyncio.sleep(random.uniform(*_POLL_SECONDS))  # noqa: S311 - spreads looks, guards nothing

    async def deliver(self, call: Call, delivery_id: UUID) -> None:
        """Attempt a change now, unless an earlier one of its ticket is queued: it waits then, and where it fails."""
        await self._see_through(self._deliver(call, delivery_id))

    async def _see_through(self, attempt: Coroutine[Any, Any, R]) -> R:
        """What an attempt returns. It goes on when its caller leaves, who may be back in a moment with the same key."""
        task = asyncio.create_task(attempt)
        self._for_callers.add(task)
        task.add_done_callback(self._for_callers.discard)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise
        return task.result()

    async def work(self, database: Database) -> None:
        """Start attempts at due deliveries of all accounts; run in the background, in every process.

        It does not wait for them, but renews their leases. An account has a few at once, so that one whose provider
        hangs blocks no other.
        """
        BREAKERS_OPEN.set(len(self._breakers.open_accounts()))
        await self._renew(database)
        # A few at a time, so that an account with many takes no more than its share before it is excluded.
        while rows := min(_MAX_RUNNING_OF_ACCOUNT, _MAX_RUNNING - len(self._running)):
            number_of = Counter(self._running.values())
            at_limit = [account_id for account_id, number in number_of.items() if number >= _MAX_RUNNING_OF_ACCOUNT]
            wanted = {"rows": rows, "excluded_accounts": at_limit + self._breakers.open_accounts()}
            leased_at = _now()
            due = await database.all(queries.LEASE_DUE, {**wanted, **_new_lease(_BACKGROUND_LEASE_SECONDS)})
            for delivery in due:
                task = asyncio.create_task(self._work_through(delivery, leased_at))
                self._running[task] = delivery["account_id"]
                task.add_done_callback(self._running.pop)
            if len(due) < rows:
                return

    async def _renew(self, database: Database) -> None:
        """Renew the leases of the attempts that run in the background."""
        if self._held:
            renewed_at = _now()
            ids, leases = map(list, zip(*self._held, strict=True))
            held = {"ids": ids, "leases": leases, "lease_seconds": _BACKGROUND_LEASE_SECONDS}
            for row in await database.all(queries.RENEW, held):
                deadline = self._held.get((row["id"], row["lease"]))
                if deadline is not None:
                    deadline.extend(_lease_end(renewed_at))

    async def postpone(self, database: Database) -> None:
        """Postpone due deliveries that wait for earlier ones, of all accounts; run in the background, everywhere."""
        while len(await database.all(queries.POSTPONE, {})) == queries.MAX_POSTPONED_ROWS:
            pass

    @contextmanager
    def _deadline_for(self, call: Call) -> Iterator[float]:
        """Until when a caller waits for the provider, by the loop's clock: now, where too many of its account wait."""
        call.place.give_back()
        account_id = call.caller.account_id
        if self._waiting[account_id] >= _MAX_WAITING_OF_ACCOUNT:
            yield _now()
            return
        self._waiting[account_id] += 1
        try:
            yield min(_now() + _CALLER_SECONDS, call.until - _RESERVED_SECONDS)
        finally:
            self._waiting[account_id] -= 1
            if not self._waiting[account_id]:
                del self._waiting[account_id]

    async def _create(self, call: Call, command: object, values: Mapping[str, Any]) -> Row | None:
        """A creation's ticket; None while another request holds its key, and where that answered it."""
        with self._deadline_for(call) as deadline:
            delivery = await self._claim(call, command, values)
            return None if delivery is None else await self._attempts.create(delivery, Deadline(deadline))

    async def _claim(self, call: Call, command: object, values: Mapping[str, Any]) -> Row | None:
        """The creation, recorded and leased; None while another request holds its key."""
        key = {**CREATE.keys.of(call, command), "account_id": call.caller.account_id}
        delivery = await self._database.one(
            queries.BEGIN_DELIVERY,
            {
                **key,
                "delivery_id": uuid7(),
                "ticket_id": values["id"],
                "members": jsontext.text({name: values[name] for name in NewTicket.model_fields}),
                **events.actor_of(call),
                **_lease(_CALLER_SECONDS),
            },
        )
        if delivery is not None:
            return delivery
        holder = await self._database.one(queries.KEY_HOLDER, key)
        if holder is not None and bytes(holder["request_hash"]) != key["request_hash"]:
            raise TicketError("idempotency_mismatch")
        return await self._database.one(queries.TAKE_OVER, {**key, **_lease(_CALLER_SECONDS)})

    async def _deliver(self, call: Call, delivery_id: UUID) -> None:
        with self._deadline_for(call) as deadline, suppress(TicketError):
            if deadline <= _now():
                return
            named = {"account_id": call.caller.account_id, "delivery_id": delivery_id, **_lease(_CALLER_SECONDS)}
            delivery = await self._database.one(queries.LEASE, named)
            if delivery is not None:
                await self._attempts.run(delivery, Deadline(deadline))

    async def _work_through(self, delivery: Row | None, leased_at: float) -> None:
        """Attempt a leased delivery, and then those of its account that are due."""
        while delivery is not None:
            # The caller of a creation whose ticket has no row yet may be waiting.
            seconds = _BACKGROUND_SECONDS if delivery["has_ticket"] else _CALLER_SECONDS
            deadline = Deadline(leased_at + seconds, _lease_end(leased_at))
            held = delivery["id"], delivery["lease"]
            self._held[held] = deadline
            try:
                with tracing.work("delivery", "tickets.request_id", delivery["request_id"]):
                    await self._attempts.run(delivery, deadline)
            finally:
                del self._held[held]
            account_id = delivery["account_id"]
            if self._breakers.is_open(account_id):
                return
            leased_at = _now()
            try:
                named = {"account_id": account_id, **_new_lease(_BACKGROUND_LEASE_SECONDS)}
                delivery = await self._database.one(queries.LEASE_NEXT, named)
            except TicketError:
                return  # the attempt before has ended: it must not be repeated


def _log_failure(attempt: asyncio.Task[Any]) -> None:
    error = None if attempt.cancelled() else attempt.exception()
    if error is not None and not isinstance(error, TicketError):
        _log.error("delivery", outcome="internal", exc_info=error)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _lease_end(leased_at: float) -> float:
    """Until when a provider may be called under a background lease, if it is not renewed."""
    return leased_at + _BACKGROUND_LEASE_SECONDS - _LEASE_MARGIN_SECONDS


def _lease(seconds: float) -> dict[str, Any]:
    """The parameters of a new lease, not renewed, for an attempt of `seconds`."""
    return _new_lease(seconds + _LEASE_MARGIN_SECONDS)


def _new_lease(seconds: float) -> dict[str, Any]:
    return {"lease": uuid7(), "lease_seconds": seconds}
