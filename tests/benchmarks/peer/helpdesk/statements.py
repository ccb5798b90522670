"""Every statement, built once; SQLAlchemy keeps what it compiled, asyncpg what it prepared."""

from functools import lru_cache

from sqlalchemy import (
    ColumnElement,
    Select,
    Update,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)

from .tables import active_policies, events, pauses, policies, tickets

_MINE = (tickets.c.tenant_id == bindparam("tenant_id"), tickets.c.is_deleted.is_(False))
BY_ID = select(tickets).where(*_MINE, tickets.c.id == bindparam("id"))
BY_NUMBER = select(tickets).where(*_MINE, tickets.c.number == bindparam("number"))
# Locked until the transaction ends, and the instant of a change in it.
_STAMP = func.greatest(func.now(), tickets.c.updated_at + literal_column("interval '1 microsecond'")).label("stamp")
LOCK_BY_ID, LOCK_BY_NUMBER = (one.add_columns(_STAMP).with_for_update() for one in (BY_ID, BY_NUMBER))
CREATE = insert(tickets).returning(tickets)
APPEND_EVENT = insert(events)
END_PAUSE = insert(pauses)
NOW = select(func.now())
# The active policy for a priority and a type.
FIND_POLICY = (
    select(policies.c.id, policies.c.resolution_minutes)
    .join(
        active_policies,
        and_(active_policies.c.tenant_id == policies.c.tenant_id, active_policies.c.policy_id == policies.c.id),
    )
    .where(
        active_policies.c.tenant_id == bindparam("tenant_id"),
        active_policies.c.priority == bindparam("priority"),
        active_policies.c.type == bindparam("type"),
    )
)


@lru_cache(maxsize=64)
def change(names: frozenset[str]) -> Update:
    """Change these columns of a ticket."""
    return (
        update(tickets)
        .where(tickets.c.tenant_id == bindparam("its_tenant_id"), tickets.c.id == bindparam("its_id"))
        .values({name: bindparam(name) for name in names} | {"version": tickets.c.version + 1})
        .returning(tickets)
    )


@lru_cache(maxsize=16)
def page(filters: frozenset[str], *, after: bool) -> Select[*tuple[object, ...]]:
    """A page of the tickets that match, newest first; `after` a position, or from the top."""
    conditions: list[ColumnElement[bool]] = [tickets.c[name] == bindparam(name) for name in sorted(filters)]
    if after:
        position = tuple_(bindparam("after_created_at"), bindparam("after_id"))
        conditions.append(tuple_(tickets.c.created_at, tickets.c.id) < position)
    newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
    return select(tickets).where(*_MINE, *conditions).order_by(*newest_first).limit(bindparam("rows"))
