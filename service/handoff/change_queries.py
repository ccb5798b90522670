"""The statements that change tickets: lock, write with roles and events, and record deployment reports."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    Column,
    ColumnClause,
    FromClause,
    Integer,
    Text,
    Uuid,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events
from service.directory import MEMBER, project_members
from service.handoff import lifecycle, tables
from service.handoff.queries import FOUND_BY, IS_CALLER, IS_PROJECT, ROLE_COLUMNS, By, in_project
from service.storage.row_version import Xid, xmin
from service.storage.statement import Statement

tickets = tables.tickets
roles = tables.roles

_IN_PROJECT = in_project(tickets)
_IS_MEMBER = exists().where(IS_CALLER, IS_PROJECT, project_members.c.project_id == tickets.c.project_id)


@lru_cache(maxsize=3)
def lock_tickets(by: By) -> Statement:
    """Locks the tickets that `read_tickets` reads until the transaction ends; in order, so that there are no deadlocks.

    A statement of its own: one that waited for a lock goes on seeing other tables as they were before.
    """
    return Statement(
        select(tickets.c.id).where(_IN_PROJECT, FOUND_BY[by], _IS_MEMBER).order_by(tickets.c.id).with_for_update(),
        scope=MEMBER,
    )


def _records(name: str, columns: Sequence[Column[Any]], *more: ColumnClause[Any]) -> FromClause:
    """The rows of a parameter that is a JSON array of objects."""
    rows = func.json_to_recordset(bindparam(name, type_=JSON))
    return rows.table_valued(*(column(c.name, c.type) for c in columns), *more).render_derived(
        name=f"given_{name}", with_types=True
    )


# The columns of a ticket that a change may write.
CHANGEABLE = (*lifecycle.EVENT_MEMBERS, "resolved_at", "updated_at")
_WRITTEN = (*CHANGEABLE, "search_terms")


def _write(*, one: bool) -> Statement:
    """The statement that changes tickets and their roles, and appends the events of the changes.

    A ticket that is not as it was read is left out, and so are its roles and its event.
    """
    given = _records(
        "tickets",
        [tickets.c[name] for name in ("id", *_WRITTEN)],
        column("row_version", Text),
        column("changed", ARRAY(Text)),
        column("kind", Text),
        column("changes", JSON),
        column("agent_origin", Text),
    )
    ticket = (
        update(tickets)
        .where(
            *(_IN_PROJECT, tickets.c.id == given.c.id, _IS_MEMBER),
            *([tickets.c.id == bindparam("ticket_id", type_=Uuid)] if one else []),
            xmin(tickets) == cast(given.c.row_version, Xid),
        )
        .values(
            {
                name: case((literal(name, Text) == any_(given.c.changed), given.c[name]), else_=tickets.c[name])
                for name in _WRITTEN
            }
            | events.next_version(tickets)
        )
        .returning(
            tickets.c.project_id,
            tickets.c.id,
            tickets.c.version,
            tickets.c.transaction_id,
            given.c.kind,
            given.c.changes,
            given.c.agent_origin,
        )
        .cte("ticket")
    )
    kept = [roles.c[name] for name in ROLE_COLUMNS]
    changed = _records("roles", kept, column("ticket_id", Uuid), column("position", Integer))
    names = ["project_id", "ticket_id", "position", *ROLE_COLUMNS]
    upserted = upsert(roles).from_select(
        names,
        select(ticket.c.project_id, *(changed.c[name] for name in names[1:])).select_from(
            ticket.join(changed, changed.c.ticket_id == ticket.c.id)
        ),
    )
    upserted = upserted.on_conflict_do_update(
        constraint=roles.primary_key,
        set_={name: upserted.excluded[name] for name in names if name not in ("project_id", "ticket_id", "id")},
    )
    removed = delete(roles).where(
        roles.c.project_id == ticket.c.project_id,
        in_project(roles),
        roles.c.ticket_id == ticket.c.id,
        roles.c.id == any_(bindparam("removed_roles", type_=ARRAY(Uuid))),
    )
    declared = {
        "actor_role": bindparam("actor_role", type_=Text),
        "actor_id": bindparam("actor_id", type_=Text),
        "agent_origin": ticket.c.agent_origin,
    }
    event = events.append(tables.events, ticket, ticket.c.kind, ticket.c.changes, declared)
    others = (upserted.returning(roles.c.id).cte("upserted"), removed.returning(roles.c.id).cte("removed"), event)
    locks = ["ticket_id"] if one else []
    return Statement(select(ticket.c.id).add_cte(*others), scope=MEMBER, short=one, locks=locks)


WRITE, WRITE_ONE = _write(one=False), _write(one=True)

_report = upsert(tables.deployments).from_select(
    ["project_id", "ticket_id", "merge_sha", "outcome", "happened_at"],
    select(
        project_members.c.project_id,
        *(bindparam(c.name, type_=c.type) for c in (tables.deployments.c.ticket_id, tables.deployments.c.merge_sha)),
        bindparam("outcome", type_=Text),
        bindparam("happened_at", type_=tables.deployments.c.happened_at.type),
    ).where(IS_CALLER, IS_PROJECT),
)
# No row when the commit and outcome were reported before.
REPORT = Statement(_report.on_conflict_do_nothing().returning(tables.deployments.c.happened_at), scope=MEMBER)
