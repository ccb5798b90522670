"""What the engine knows of a dialect: where its events, tickets and webhooks are, and how a ticket is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Table, Text, bindparam

from service.operation import View
from service.storage.scope import Scope
from service.storage.statement import Row
from service.webhooks.tables import WebhookTables, scope_columns

WEBHOOK_ID: ColumnElement[str] = bindparam("webhook_id", type_=Text)


def undo_columns(ticket: Row, before: Mapping[str, Any]) -> Row:
    """The ticket before a change whose members are columns of its row."""
    return {**ticket, **before}


@dataclass(frozen=True, eq=False)
class Source:
    """The events that a dialect's webhooks are sent; the dialect makes it once."""

    # Made by `events.event_table`. The columns that it is keyed by first are the scope of all these tables.
    events: Table
    # A table or a subquery with the scope's columns and `id`.
    tickets: FromClause
    # The columns of a ticket's row that `show` and `undo` need, and `id`.
    ticket_columns: Sequence[str]
    tables: WebhookTables
    # What a webhook can subscribe to; a dialect may know names that no event of its own has.
    event_types: Sequence[str]
    # How many webhooks one scope may have.
    max_webhooks: int
    # The view of a ticket, given its row as of an event and the event's: `ticket_id`, `version`, `type`, `occurred_at`
    # and `event_columns`.
    show: Callable[[Row, Row], View]
    # Columns that only this dialect's events have, and `show` needs.
    event_columns: Sequence[str] = ()
    # The row of a ticket before a change, given the one after it and what `changes` says was before (JSON).
    undo: Callable[[Row, Mapping[str, Any]], Row] = undo_columns
    # Maps a type to another that its events have too: a webhook that subscribes to both gets two messages.
    also: Mapping[str, str] = field(default_factory=dict)
    # The header of a signature of the body alone, where receivers expect one beside those of the specification.
    body_signature: str | None = None

    def types_of(self, event_type: str) -> tuple[str, ...]:
        """The types of the messages that an event is, in their order."""
        also = self.also.get(event_type)
        return (event_type,) if also is None else (event_type, also)

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """The names of the scope's columns."""
        return tuple(column.name for column in scope_columns(self.events))

    @cached_property
    def statement_scope(self) -> Scope:
        """What binds the statements of one scope."""
        return Scope(*self.scope)

    @property
    def owner(self) -> str:
        """The scope's first column: sending is fair between its values, and what is narrower shares their limits."""
        return self.scope[0]

    @cached_property
    def webhook_key(self) -> tuple[str, ...]:
        """The columns of messages and attempts that say of which webhook they are."""
        return (*self.scope, "webhook_id")

    def in_scope(self, table: FromClause, **values: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
        """The conditions of rows of the scope given as parameters, and with these values in other columns."""
        parameters = {name: bindparam(name, type_=table.c[name].type) for name in self.scope}
        return tuple(table.c[name] == value for name, value in (parameters | values).items())

    def of_webhook(self, table: FromClause, **values: ColumnElement[Any]) -> tuple[ColumnElement[bool], ...]:
        """The conditions of messages or attempts of one webhook."""
        return self.in_scope(table, webhook_id=WEBHOOK_ID, **values)

    @property
    def one_webhook(self) -> tuple[ColumnElement[bool], ...]:
        """The conditions of one webhook."""
        return self.in_scope(self.tables.webhooks, id=WEBHOOK_ID)

    def its_messages(self) -> tuple[ColumnElement[bool], ...]:
        """The conditions of a webhook's messages, in a statement that reads both."""
        webhooks, messages = self.tables.webhooks, self.tables.messages
        return (*(messages.c[name] == webhooks.c[name] for name in self.scope), messages.c.webhook_id == webhooks.c.id)
