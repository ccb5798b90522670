"""One attempt at a leased delivery: the ticket is created or updated at the provider, and the outcome is recorded.

An outcome counts only while the lease is held: each statement that records one names it.
"""

import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import structlog

from service import events, jsontext
from service.counters import DELIVERY_ATTEMPTS
from service.errors import TicketError
from service.itsm import index_terms
from service.itsm.delivery import queries
from service.itsm.delivery.deadline import Deadline
from service.itsm.delivery.provider_calls import Failure, ProviderCalls, find_existing
from service.itsm.queries import CREATE, GET
from service.numbering import uuid7
from service.providers.port import MEMBERS, ExternalTicket, NewExternalTicket, Provider, UnavailableError
from service.storage.database import Database
from service.storage.statement import Row

# Pauses double up to this; the last attempt comes two to three days after the first.
MAX_PAUSE_SECONDS = 3600.0
MAX_ATTEMPTS = 80

# The members of a ticket that name the one at the provider; all None where there is none.
ExternalReference: TypeAlias = dict[str, str | None]
_REFERENCE = ("external_provider", "external_ticket_id", "external_ticket_url")
_NO_REFERENCE: ExternalReference = dict.fromkeys(_REFERENCE)

_log = structlog.get_logger()

R = TypeVar("R")


class Attempts:
    """The attempts of one process. Every `deadline` is before the lease ends."""

    def __init__(self, database: Database, providers: ProviderCalls, first_pause: float) -> None:
        """`first_pause` is that before the second attempt, in seconds."""
        self._database = database
        self._providers = providers
        self._first_pause = first_pause

    async def run(self, delivery: Row, deadline: Deadline) -> None:
        """Attempt a delivery, and record its outcome. An interrupted one is leased again when its lease ends."""
        try:
            if delivery["kind"] == "create":
                await self.create(delivery, deadline)
            else:
                await self._update(delivery, deadline)
        except TicketError as error:
            _log.info("delivery", delivery=str(delivery["id"]), outcome=error.reason)
        except Exception:
            # As broad as what may fail in an attempt: one delivery must not end the work on all others.
            _log.exception("delivery", delivery=str(delivery["id"]), outcome="internal")
            with suppress(TicketError):
                await self._fail(delivery, Failure("internal", in_doubt=True))

    async def create(self, delivery: Row, deadline: Deadline) -> Row | None:
        """The ticket, created at the provider and here, or only here where the attempt failed.

        None if it had its row before, the lease was lost, or the key has been answered. Raises TicketError
        `provider_rejected`: nothing is stored then.
        """
        if await self._is_answered(delivery):
            await self._drop(delivery)
            return None
        members = _members_of(delivery)
        if delivery["is_requeued"] and delivery["has_ticket"]:
            members = await self._current(delivery, members)
        new = NewExternalTicket(str(delivery["ticket_id"]), *(members[name] for name in MEMBERS))

        async def request(provider: Provider, name: str) -> ExternalReference:
            found = await find_existing(provider, new) if delivery["in_doubt"] else None
            return _reference_to(name, found or await provider.create(new))

        outcome = _counted(delivery, await self._providers.call(delivery, request, deadline))
        if delivery["has_ticket"]:
            await self._record_created(delivery, outcome)
            return None
        return await self._store(delivery, members, outcome or _NO_REFERENCE)

    async def _update(self, delivery: Row, deadline: Deadline) -> None:
        """Change the ticket at the provider."""
        ticket = await self._database.one(GET, _ticket_of(delivery))
        if ticket is None or ticket["external_ticket_id"] is None:
            await self._drop(delivery)
            return
        members = _members_of(delivery)
        if delivery["is_requeued"]:
            members = {name: ticket[name] for name in members}

        async def request(provider: Provider, _: str) -> None:
            await provider.update(ticket["external_ticket_id"], members)

        outcome = _counted(delivery, await self._providers.call(delivery, request, deadline, changes=ticket))
        if isinstance(outcome, Failure):
            await self._fail(delivery, outcome)
        else:
            await self._drop(delivery)

    async def _is_answered(self, delivery: Row) -> bool:
        """Whether its key was answered before the delivery was leased, or without the provider after an unlink."""
        if delivery["has_ticket"] or delivery["idempotency_key"] is None:
            return False
        return await self._database.one(CREATE.replay, {**delivery, "live": True}) is not None

    async def _current(self, delivery: Row, members: Mapping[str, Any]) -> dict[str, Any]:
        """These members as the ticket has them now."""
        ticket = await self._database.one(GET, _ticket_of(delivery))
        return dict(members) if ticket is None else {name: ticket[name] for name in members}

    async def _store(
        self, delivery: Row, members: Mapping[str, Any], outcome: ExternalReference | Failure
    ) -> Row | None:
        """Create the ticket's row, as `create` says."""
        if not isinstance(outcome, Failure):
            statements, known = queries.CREATE_DELIVERED, outcome
        elif not outcome.permanent:
            statements = queries.CREATE_QUEUED
            known = _NO_REFERENCE | failure_row(outcome, delivery["attempts"], self._first_pause)
        elif await self._drop(delivery):
            raise TicketError("provider_rejected", outcome.message)
        else:
            return None
        row = {**_new_row(delivery, members), **known}
        if delivery["idempotency_key"] is None:
            return await self._database.one(statements.plain, row)
        created = await self._database.all(statements.keyed, row)
        if not created:
            # The lease was lost, or another process answered the key meanwhile, one to which the account is not linked.
            await self._drop(delivery)
        return created[0] if created else None

    async def _record_created(self, delivery: Row, outcome: ExternalReference | Failure | None) -> None:
        """Give the ticket's row its external reference."""
        if isinstance(outcome, Failure):
            await self._fail(delivery, outcome)
        elif outcome is None:
            await self._drop(delivery)
        else:
            actor = {"actor": events.SYSTEM, "request_id": delivery["request_id"]}
            row = {**_lease_of(delivery), **_ticket_of(delivery), **outcome, **actor, "sync_id": uuid7()}
            await self._database.one(queries.DELIVERED, row)

    async def _drop(self, delivery: Row) -> bool:
        """End the delivery; False if the lease was lost."""
        return await self._database.one(queries.DROP_DELIVERY, _lease_of(delivery)) is not None

    async def _fail(self, delivery: Row, failure: Failure) -> None:
        row = failure_row(failure, delivery["attempts"], self._first_pause)
        await self._database.one(queries.FAIL_DELIVERY, {**_lease_of(delivery), **row})


def _counted(delivery: Row, outcome: R) -> R:
    """Count the outcome of an attempt, and return it."""
    if isinstance(outcome, Failure):
        name = "dead" if _is_over(outcome, delivery["attempts"]) else "failed"
    else:
        name = "succeeded" if outcome is not None or delivery["kind"] == "update" else "not_linked"
    DELIVERY_ATTEMPTS.labels(name).inc()
    return outcome


def _is_over(failure: Failure, attempts: int) -> bool:
    return failure.permanent or attempts >= MAX_ATTEMPTS


def failure_row(failure: Failure, attempts: int, first_pause: float) -> dict[str, Any]:
    """What is recorded of a failure after this many attempts: the pause before the next one, or that there is none."""
    pause = min(first_pause * 2.0 ** min(attempts - 1, 30), MAX_PAUSE_SECONDS)
    if not failure.in_doubt:  # a provider's search takes its time to know a ticket: no pause before one is shortened
        pause *= random.uniform(0.5, 1)  # noqa: S311 - spreads attempts, guards nothing
    return {
        "state": "dead" if _is_over(failure, attempts) else "queued",
        "pause": max(pause, min(failure.retry_after or 0, MAX_PAUSE_SECONDS)),
        "in_doubt": failure.in_doubt,
        "last_error": failure.message.replace("\0", ""),
    }


def _new_row(delivery: Row, members: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that create a delivery's ticket, but for its external reference."""
    metadata_text = jsontext.text(members["metadata"])
    return {
        **members,
        **_lease_of(delivery),
        **{name: delivery[name] for name in ("idempotency_key", "request_hash")},
        **{name: delivery[name] for name in ("actor", "request_id")},
        "id": delivery["ticket_id"],
        "live": True,
        "metadata": metadata_text,
        "metadata_terms": index_terms.metadata_terms(delivery["account_id"], True, metadata_text),
        "search_terms": index_terms.search_terms({**members, "account_id": delivery["account_id"], "live": True}),
    }


def _lease_of(delivery: Row) -> dict[str, Any]:
    """The parameters that name a delivery and the lease on it."""
    return {name: delivery[name] for name in ("account_id", "lease")} | {"delivery_id": delivery["id"]}


def _ticket_of(delivery: Row) -> dict[str, Any]:
    return {"account_id": delivery["account_id"], "live": True, "ticket_id": delivery["ticket_id"]}


def _members_of(delivery: Row) -> dict[str, Any]:
    # A ticket's metadata is nested some levels deeper here.
    members: dict[str, Any] = jsontext.parse(delivery["members"].text.encode(), 2 * jsontext.MAX_DEPTH)
    return members


def _reference_to(provider: str, ticket: ExternalTicket) -> ExternalReference:
    if not ticket.id.isprintable():
        raise UnavailableError("the provider's id of the ticket has unprintable characters", in_doubt=True)
    return dict(zip(_REFERENCE, (provider, *ticket), strict=True))
