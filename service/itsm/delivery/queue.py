"""Tickets on their way to an account's provider: asked at once where somebody waits, in the background where not.

A creation is written down before the provider is asked. If its process dies in between, another finds the row, looks
for the ticket at the provider by its id, and goes on from there. A delivery is in the hands of one process for the time
of its lease; how it ended counts only while the lease is ours. No transaction is open while a provider is asked.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

import httpx
import structlog

from service import events, idempotency, jsontext
from service.errors import TicketError
from service.itsm import metadata
from service.itsm.commands import NewTicket
from service.itsm.delivery import queries
from service.itsm.delivery.breaker import Breaker
from service.itsm.delivery.provider_calls import Failure, call_provider, find_existing
from service.itsm.queries import CREATE, GET
from service.numbering import uuid7
from service.operation import Call
from service.providers import provider
from service.providers.port import (
    MEMBERS,
    Link,
    NewExternalTicket,
    Provider,
    UnavailableError,
)
from service.providers.tables import KEY_INDEX
from service.settings import Settings
from service.storage.database import ConstraintViolationError, Database
from service.storage.statement import Row
from service.vault import SealedError, Vault

# While somebody waits (contracts/itsm.md, Provider), and while nobody does.
_WAIT_SECONDS = 5.0
_PATIENT_SECONDS = 20.0
# Of the caller's own time, for what comes behind the provider's answer.
_KEPT_BACK_SECONDS = 0.5
# Beyond those times, until whoever is at a delivery is taken for dead.
_LEASE_MARGIN_SECONDS = 5.0
_MOST_IN_HAND = 128
_MOST_OF_ACCOUNT = 4
# Callers of an account who wait for its provider at once: the rest of the process is for other accounts.
_MOST_WAITING = 16
# Pauses double from the setting up to this; the last attempt comes two to three days after the first.
_LONGEST_PAUSE = 3600.0
_MOST_ATTEMPTS = 80
_LOOK_SECONDS = (0.05, 0.25)
# Members of a ticket that a provider is told of.
MIRRORED = frozenset(MEMBERS)

T = TypeVar("T")
# The members of a ticket that say where the provider has it.
_Whereabouts: TypeAlias = dict[str, str | None]

_log = structlog.get_logger()


class Deliveries:
    """The deliveries of one process."""

    def __init__(self, settings: Settings, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._first_pause = settings.delivery_pause_seconds
        self._client = httpx.AsyncClient(
            # One for all accounts: what one provider sets is for no other's call.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=_PATIENT_SECONDS,
            follow_redirects=False,
            trust_env=False,
            # Those that hang are nobody else's connections.
            limits=httpx.Limits(max_connections=None),
        )
        # By account and address: a provider that an account is linked to anew has done nothing yet.
        self._breakers: dict[tuple[UUID, str], Breaker] = {}
        self._waiting = Counter[UUID | None]()
        # What the background has taken up, with its account, and what callers wait for.
        self._in_hand: dict[asyncio.Task[None], UUID] = {}
        self._for_callers = set[asyncio.Task[None]]()

    async def close(self) -> None:
        """Leave what is in hand to others, and give back the connections.

        They find it when its lease ends: sooner, a provider that is at it still would not know the ticket yet.
        """
        under_way = (*self._in_hand, *self._for_callers)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await self._client.aclose()

    async def create(self, call: Call, scope: str, values: Mapping[str, Any]) -> Row:
        """The ticket, created here and at the provider, or here alone if that cannot be reached in time.

        Under a key that is in use it waits and answers as the first one. Raises TicketError `provider_rejected`,
        `idempotency_mismatch` and `unavailable`.
        """
        while True:
            stored = await idempotency.replay(self._database, call, scope, CREATE)
            if stored is not None:
                return stored
            with self._waiting_for(call) as until:
                delivery = await self._claim(call, scope, values)
                if delivery is not None:
                    ticket = await self._create(delivery, until)
                    if ticket is not None:
                        return ticket
                    if call.idempotency_key is None:
                        raise TicketError("unavailable", retry_after=1)
            await asyncio.sleep(random.uniform(*_LOOK_SECONDS))  # noqa: S311 - spreads looks, guards nothing

    async def deliver(self, call: Call, delivery_id: UUID) -> None:
        """Tell the provider of a change now if it is next; it stays queued if it is not, or if that does not work.

        A caller who goes away breaks nothing off.
        """
        with self._waiting_for(call) as until:
            if until > _now():
                task = asyncio.create_task(self._deliver(call, delivery_id, until))
                self._for_callers.add(task)
                task.add_done_callback(self._for_callers.discard)
                await asyncio.wait([task])

    @contextmanager
    def _waiting_for(self, call: Call) -> Iterator[float]:
        """Until when the account's provider may be asked for a caller, by the loop's clock: now, if too many wait."""
        account_id = call.caller.account_id
        if self._waiting[account_id] >= _MOST_WAITING:
            yield _now()
            return
        self._waiting[account_id] += 1
        try:
            yield min(_now() + _WAIT_SECONDS, call.until - _KEPT_BACK_SECONDS)
        finally:
            self._waiting[account_id] -= 1
            if not self._waiting[account_id]:
                del self._waiting[account_id]

    async def _deliver(self, call: Call, delivery_id: UUID, until: float) -> None:
        named = {"account_id": call.caller.account_id, "delivery_id": delivery_id, **_lease(_WAIT_SECONDS)}
        with suppress(TicketError):
            delivery = await self._database.one(queries.LEASE, named)
            if delivery is not None:
                await self._work(delivery, until)

    async def work(self, database: Database) -> None:
        """Take up whatever is due, of all accounts; run in the background, in every process.

        It waits for none of it, and no account has more in hand than some: who hangs holds up nobody else.
        """
        # Few at a time, so that an account with many cannot fill all hands before it counts as busy.
        while rows := min(_MOST_OF_ACCOUNT, _MOST_IN_HAND - len(self._in_hand)):
            in_hand = Counter(self._in_hand.values())
            busy = [account_id for account_id, number in in_hand.items() if number >= _MOST_OF_ACCOUNT]
            left_alone = [account_id for (account_id, _), breaker in self._breakers.items() if breaker.is_open]
            wanted = {"rows": rows, "busy": busy + left_alone}
            begun = _now()
            due = await database.all(queries.LEASE_DUE, {**wanted, **_lease(_PATIENT_SECONDS)})
            for delivery in due:
                task = asyncio.create_task(self._work_off(delivery, begun))
                self._in_hand[task] = delivery["account_id"]
                task.add_done_callback(self._in_hand.pop)
            if len(due) < rows:
                return

    async def postpone(self, database: Database) -> None:
        """Put off what waits for others, of all accounts; run in the background, in every process."""
        await database.all(queries.POSTPONE, {})

    async def _work_off(self, delivery: Row | None, begun: float) -> None:
        """Go on with a delivery that is ours, and then with whatever of its account is due."""
        while delivery is not None:
            # For a creation that is not kept yet somebody may wait.
            await self._work(delivery, begun + (_PATIENT_SECONDS if delivery["is_kept"] else _WAIT_SECONDS))
            account_id = delivery["account_id"]
            if any(breaker.is_open for (of, _), breaker in self._breakers.items() if of == account_id):
                return
            begun = _now()
            try:
                named = {"account_id": account_id, **_lease(_PATIENT_SECONDS)}
                delivery = await self._database.one(queries.LEASE_NEXT, named)
            except TicketError:
                return  # the one in hand has ended: it must not be done again

    async def _claim(self, call: Call, scope: str, values: Mapping[str, Any]) -> Row | None:
        """The creation, written down and ours; None while somebody else is at it."""
        key = idempotency.key_of(call, scope)
        try:
            return await self._database.one(
                queries.BEGIN_DELIVERY,
                {
                    **key,
                    "account_id": call.caller.account_id,
                    "delivery_id": uuid7(),
                    "ticket_id": values["id"],
                    "members": jsontext.text(_members(values)),
                    **events.actor_of(call),
                    **_lease(_WAIT_SECONDS),
                },
            )
        except ConstraintViolationError as violation:
            if violation.name != KEY_INDEX.name:
                raise
        holder = await self._database.one(queries.KEY_HOLDER, key)
        if holder is not None and bytes(holder["request_hash"]) != key["request_hash"]:
            raise TicketError("idempotency_mismatch")
        return await self._database.one(queries.TAKE_OVER, {**key, **_lease(_WAIT_SECONDS)})

    async def _work(self, delivery: Row, until: float) -> None:
        """Go on with a delivery that is ours. What breaks off is found when its lease ends."""
        try:
            if delivery["kind"] == "create":
                await self._create(delivery, until)
            else:
                await self._update(delivery, until)
        except TicketError as error:
            _log.info("delivery", delivery=str(delivery["id"]), outcome=error.reason)
        except Exception:
            # As broad as the work it repeats: one delivery must not end all that are under way.
            _log.exception("delivery", delivery=str(delivery["id"]), outcome="internal")
            with suppress(TicketError):
                await self._fail(delivery, Failure("internal", in_doubt=True))

    async def _create(self, delivery: Row, until: float) -> Row | None:
        """The ticket, here and there or here alone; None if somebody else has taken it over, or answered its key.

        The provider is asked until an instant of the loop's clock, which is before the lease ends. Raises TicketError
        `provider_rejected` where nothing is kept.
        """
        if await self._is_answered(delivery):
            await self._database.one(queries.DROP_DELIVERY, _ours(delivery))
            return None
        members = _members_of(delivery)
        if delivery["is_requeued"] and delivery["is_kept"]:
            members = await self._by_now(delivery, members)
        new = NewExternalTicket(str(delivery["ticket_id"]), *(members[name] for name in MEMBERS))

        async def ask(provider: Provider, name: str) -> _Whereabouts:
            found = await find_existing(provider, new) if delivery["in_doubt"] else None
            return _external(name, *(found or await provider.create(new)))

        outcome = await self._ask(delivery, ask, until)
        if delivery["is_kept"]:
            await self._created_later(delivery, outcome)
            return None
        return await self._keep(delivery, members, outcome or _NOT_THERE)

    async def _keep(self, delivery: Row, members: Mapping[str, Any], outcome: _Whereabouts | Failure) -> Row | None:
        """Write the ticket down, as `_create` says."""
        if isinstance(outcome, Failure):
            if outcome.for_good:
                if await self._database.one(queries.DROP_DELIVERY, _ours(delivery)) is None:
                    return None
                raise TicketError("provider_rejected", outcome.why)
            statements, known = queries.CREATE_QUEUED, _NOT_THERE | self._failure_row(delivery, outcome)
        else:
            statements, known = queries.CREATE_DELIVERED, outcome
        metadata_text = jsontext.text(members["metadata"])
        ticket = {
            **members,
            **known,
            **_ours(delivery),
            **{name: delivery[name] for name in ("idempotency_scope", "idempotency_key", "request_hash")},
            **{name: delivery[name] for name in ("actor", "request_id")},
            "id": delivery["ticket_id"],
            "live": True,
            "metadata": metadata_text,
            "metadata_terms": metadata.index_terms(delivery["account_id"], True, metadata_text),
        }
        is_keyed = delivery["idempotency_key"] is not None
        try:
            return await self._database.one(statements.keyed if is_keyed else statements.plain, ticket)
        except ConstraintViolationError:
            # Its key was answered meanwhile, by a process to which the account has no provider.
            await self._database.one(queries.DROP_DELIVERY, _ours(delivery))
            return None

    async def _by_now(self, delivery: Row, members: Mapping[str, Any]) -> dict[str, Any]:
        """What the ticket of a delivery has by now of these members."""
        ticket = await self._database.one(GET, _ticket_of(delivery))
        return dict(members) if ticket is None else {name: ticket[name] for name in members}

    async def _is_answered(self, delivery: Row) -> bool:
        """Whether its key was answered between a look and the claim, or without the provider that is unlinked."""
        if delivery["is_kept"] or delivery["idempotency_key"] is None:
            return False
        return await self._database.one(CREATE.replay, delivery) is not None

    async def _created_later(self, delivery: Row, outcome: _Whereabouts | Failure | None) -> None:
        """Say where the provider has a ticket that is here."""
        if isinstance(outcome, Failure):
            await self._fail(delivery, outcome)
        elif outcome is None:
            await self._database.one(queries.DROP_DELIVERY, _ours(delivery))
        else:
            told = {"actor": events.SYSTEM, "request_id": delivery["request_id"]}
            named = {**_ours(delivery), **_ticket_of(delivery), "sync_id": uuid7()}
            await self._database.one(queries.DELIVERED, {**named, **outcome, **told})

    async def _update(self, delivery: Row, until: float) -> None:
        """Tell the provider of a change."""
        ticket = await self._database.one(GET, _ticket_of(delivery))
        if ticket is None or ticket["external_ticket_id"] is None:
            await self._database.one(queries.DROP_DELIVERY, _ours(delivery))
            return
        members = _members_of(delivery)
        if delivery["is_requeued"]:
            members = {name: ticket[name] for name in members}

        async def ask(provider: Provider, _: str) -> None:
            await provider.update(ticket["external_ticket_id"], members)

        outcome = await self._ask(delivery, ask, until, of=ticket)
        if isinstance(outcome, Failure):
            await self._fail(delivery, outcome)
        else:
            await self._database.one(queries.DROP_DELIVERY, _ours(delivery))

    async def _ask(
        self, delivery: Row, ask: Callable[[Provider, str], Awaitable[T]], until: float, of: Row | None = None
    ) -> T | Failure | None:
        """What the account's provider answers until an instant; None when there is none any more.

        `of` is the ticket that it has to have: at another address the same id is somebody else's.
        """
        account_id, in_doubt = delivery["account_id"], delivery["in_doubt"]
        row = await self._database.one(queries.LINK, {"account_id": account_id})
        is_doubtful = in_doubt and delivery["kind"] == "create"
        if is_doubtful and delivery["asked_url"] not in (None, row and row["url"]):
            why = "the account has another provider by now, or none, and the one before may have the ticket"
            return Failure(why, in_doubt, for_good=delivery["is_kept"])
        if row is None:
            return None
        if of is not None and not _has(row, of):
            return Failure("the account has another provider by now", in_doubt, for_good=True)
        try:
            link = self._link(row)
        except SealedError:
            return Failure("the credential cannot be decrypted", in_doubt)
        if _now() >= until:
            return Failure("no time was left to ask it", in_doubt)
        breaker = self._breakers.setdefault((account_id, link.url), Breaker())
        if not breaker.allows():
            return Failure("the provider failed too often just now", in_doubt)

        async def asked() -> T:
            return await ask(provider(self._client, link), link.provider)

        return await call_provider(asked(), breaker, until, in_doubt=in_doubt)

    def _link(self, row: Row) -> Link:
        options = jsontext.parse(row["options"].text.encode())
        return Link(row["provider"], row["url"], self._vault.open(bytes(row["credential"])), options)

    async def _fail(self, delivery: Row, failure: Failure) -> None:
        await self._database.one(queries.FAIL_DELIVERY, {**_ours(delivery), **self._failure_row(delivery, failure)})

    def _failure_row(self, delivery: Row, failure: Failure) -> dict[str, Any]:
        """What is written down of a failure: when it is tried again, or that it is not."""
        pause = min(self._first_pause * 2.0 ** min(delivery["attempts"] - 1, 30), _LONGEST_PAUSE)
        if not failure.in_doubt:  # a provider's search needs its time to know a ticket
            pause *= random.uniform(0.5, 1)  # noqa: S311 - spreads attempts, guards nothing
        is_over = failure.for_good or delivery["attempts"] >= _MOST_ATTEMPTS
        return {
            "state": "dead" if is_over else "queued",
            "pause": max(pause, min(failure.retry_after or 0, _LONGEST_PAUSE)),
            "in_doubt": failure.in_doubt,
            "last_error": failure.why.replace("\0", ""),
        }


def _now() -> float:
    return asyncio.get_running_loop().time()


def _lease(seconds: float) -> dict[str, Any]:
    return {"lease": uuid7(), "lease_seconds": seconds + _LEASE_MARGIN_SECONDS}


def _ours(delivery: Row) -> dict[str, Any]:
    return {name: delivery[name] for name in ("account_id", "lease")} | {"delivery_id": delivery["id"]}


def _members_of(delivery: Row) -> dict[str, Any]:
    # A ticket's metadata is some levels further down here.
    members: dict[str, Any] = jsontext.parse(delivery["members"].text.encode(), 2 * jsontext.MAX_DEPTH)
    return members


def _ticket_of(delivery: Row) -> dict[str, Any]:
    return {"account_id": delivery["account_id"], "live": True, "ticket_id": delivery["ticket_id"]}


def _has(link: Row, ticket: Row) -> bool:
    is_there = str(ticket["external_ticket_url"]).startswith(link["url"].rstrip("/") + "/")
    return bool(link["provider"] == ticket["external_provider"] and is_there)


def _external(provider: str | None, id_: str | None, url: str | None) -> _Whereabouts:
    if id_ is not None and not id_.isprintable():
        raise UnavailableError("it named the ticket by what is no id", done=None)
    return {"external_provider": provider, "external_ticket_id": id_, "external_ticket_url": url}


_NOT_THERE = _external(None, None, None)


def _members(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in NewTicket.model_fields}
