"""The kinds of rows whose age a setting may bound: the instant that counts, and what is deleted with them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Table

from service.directory import api_keys
from service.handoff import tables as handoff
from service.helpdesk import tables as helpdesk
from service.itsm import tables as itsm
from service.itsm.webhooks import SOURCE
from service.providers.tables import deliveries
from service.retention import event_queries, walk
from service.retention.messages import HeldMessages
from service.settings import Settings
from service.storage.statement import Statement

_HELD: Final = HeldMessages(SOURCE)


class Walked:
    """Rows that are found by walking through their table."""

    def __init__(
        self,
        table: Table,
        instant: ColumnElement[datetime],
        *conditions: ColumnElement[bool],
        delete: Statement | None = None,
        missed: Statement | None = None,
        needs_settled: bool = False,
    ) -> None:
        """`delete` deletes more than the rows; `missed` runs after it, and says which webhooks have missed some."""
        self.table, self.instant = table, instant
        settled = (walk.is_settled(table),) if needs_settled else ()
        self.blocks = walk.number_of_blocks(table)
        self.count = walk.count(table, instant, *conditions, *settled)
        self.delete = delete or walk.plain(table, instant, *conditions, *settled)
        self.missed = missed
        self.needs_settled = needs_settled


class Kind(NamedTuple):
    """One kind of rows."""

    name: str
    # The setting that says for how many days it is kept; 0 for ever.
    setting: str
    rows: Walked | HeldMessages

    def days(self, settings: Settings) -> int:
        """For how many days it is kept; 0 for ever."""
        days: int = getattr(settings, self.setting)
        return days


def _events(table: Table, missed: Statement | None = None) -> Walked:
    delete = event_queries.delete_events(table)
    return Walked(table, table.c.created_at, delete=delete, missed=missed, needs_settled=True)


def _dead_changes() -> Walked:
    # A creation that is dead is how a ticket is known not to be at its provider.
    is_dead = (deliveries.c.state == "dead", deliveries.c.kind == "update")
    return Walked(deliveries, deliveries.c.created_at, *is_dead)


def _deleted_tickets() -> Walked:
    tickets = helpdesk.tickets
    return Walked(
        tickets,
        tickets.c.deleted_at,
        tickets.c.is_deleted,
        delete=event_queries.delete_tickets(),
        needs_settled=True,
    )


KINDS: Final[Sequence[Kind]] = (
    Kind(
        "itsm_events",
        "keep_itsm_events_days",
        _events(itsm.events, event_queries.move_webhooks(itsm.events, itsm.WEBHOOKS)),
    ),
    Kind("helpdesk_events", "keep_helpdesk_events_days", _events(helpdesk.events)),
    Kind("handoff_events", "keep_handoff_events_days", _events(handoff.events)),
    Kind("webhook_messages", "keep_webhook_messages_days", _HELD),
    Kind(
        "webhook_attempts",
        "keep_webhook_messages_days",
        Walked(itsm.WEBHOOKS.attempts, itsm.WEBHOOKS.attempts.c.attempted_at),
    ),
    Kind("dead_deliveries", "keep_dead_deliveries_days", _dead_changes()),
    Kind("deleted_tickets", "keep_deleted_tickets_days", _deleted_tickets()),
    Kind("deployments", "keep_deployments_days", Walked(handoff.deployments, handoff.deployments.c.created_at)),
    Kind("revoked_keys", "keep_revoked_keys_days", Walked(api_keys, api_keys.c.revoked_at)),
)
