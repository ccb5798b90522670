"""The SQL statements that read the events of helpdesk tickets: the history of one, and watches."""

from collections.abc import Container, Iterator
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Integer, and_, bindparam, not_, select, true

from service import events
from service.helpdesk import tables
from service.helpdesk.queries import OWN, found_by, scope_of, tickets
from service.storage.scope import Scope
from service.storage.statement import Statement, mine, parameter

_history = tables.events


@lru_cache(maxsize=16)
def list_events(by: frozenset[str], *, internal: bool) -> Statement:
    """`rows` events of a ticket after a version: one empty row for a ticket without any, no row without the ticket.

    Not `internal`: without those about internal comments, and each with the version that is left when these do not
    count.
    """
    version = version_of(_history, internal=internal)
    after = bindparam("after_version", type_=Integer)
    page = (
        select(*_history_with(version))
        .where(
            *mine(_history),
            _history.c.ticket_id == tickets.c.id,
            # (For the index: it is no less than the one that is shown.)
            _history.c.version > after,
            *(() if internal else (not_(_history.c.internal), version > after)),
        )
        .order_by(_history.c.version)
        .limit(bindparam("rows", type_=Integer))
        .lateral("page")
    )
    ticket = found_by(by, with_deleted=True)
    return Statement(
        select(page).select_from(tickets.outerjoin(page, true())).where(*ticket).order_by(page.c.version),
        scope=scope_of(by),
        standby=True,
    )


def version_of(row: FromClause, *, internal: bool) -> ColumnElement[int]:
    """The version of a ticket or an event for who sees what is `internal`, and for who does not."""
    return row.c.version if internal else row.c.version - row.c.internal_changes


def _history_with(version: ColumnElement[int]) -> Iterator[ColumnElement[Any]]:
    return (version.label("version") if column.name == "version" else column for column in _history.c)


# The position of a tenant's event `skipped` events after another: where a narrow watch stops scanning for now.
NEXT_STOP = Statement(
    events.after_position(_history, and_(*mine(_history)))
    .with_only_columns(_history.c.transaction_id, _history.c.id)
    .offset(bindparam("skipped", type_=Integer)),
    scope=Scope("tenant_id", whole="nothing of the event is shown"),
)


@lru_cache(maxsize=8)
def events_after(by: frozenset[str], *, internal: bool) -> Statement:
    """Events after a position; of an application or a person up to another position.

    A person's own are those of tickets that are theirs now.
    """
    of_ticket = (tickets.c.tenant_id == _history.c.tenant_id, tickets.c.id == _history.c.ticket_id)
    # Asked of each new event. (As a join it would begin with all of the person's tickets.)
    own = select(tickets.c.id).where(*mine(tickets), *of_ticket, OWN).scalar_subquery()
    visible = and_(
        *mine(_history),
        *((_history.c.app_id == parameter(_history.c.app_id),) if "app_id" in by else ()),
        *((_history.c.ticket_id == own,) if "person_id" in by else ()),
        *(() if internal else (not_(_history.c.internal),)),
    )
    shown = _history_with(version_of(_history, internal=internal))
    return Statement(
        events.after_position(_history, visible, until=is_narrow(by)).with_only_columns(*shown),
        scope=scope_of(by),
    )


def is_narrow(by: Container[str]) -> bool:
    """Whether a scope has fewer tickets than the tenant."""
    return "app_id" in by or "person_id" in by
