"""Every statement, built once; SQLAlchemy keeps what it compiled, asyncpg what it prepared."""

from functools import lru_cache

from sqlalchemy import (
    ColumnElement,
    Select,
    Update,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    tuple_,
    update,
)

from .tables import events, project_members, projects, roles, tickets

# The project with the caller's part in it; no row for who is no member.
MEMBERSHIP = (
    select(projects, project_members.c.role.label("member_role"))
    .join(project_members, project_members.c.project_id == projects.c.id)
    .where(projects.c.id == bindparam("project_id"), project_members.c.user_id == bindparam("user_id"))
)
_MINE = tickets.c.project_id == bindparam("project_id")
BY_ID = select(tickets).where(_MINE, tickets.c.id == bindparam("id"))
BY_NUMBER = select(tickets).where(_MINE, tickets.c.number == bindparam("number"))
# Locked until the transaction ends, and the instant of a change in it.
_CHANGED_AT = func.coalesce(tickets.c.updated_at, tickets.c.created_at)
_STAMP = func.greatest(func.now(), _CHANGED_AT + literal_column("interval '1 microsecond'")).label("stamp")
LOCK_BY_ID, LOCK_BY_NUMBER = (one.add_columns(_STAMP).with_for_update() for one in (BY_ID, BY_NUMBER))
ROLES = (
    select(roles)
    .where(roles.c.project_id == bindparam("project_id"), roles.c.ticket_id.in_(bindparam("ids", expanding=True)))
    .order_by(roles.c.ticket_id, roles.c.position)
)
ROLES_OF_ONE = (
    select(roles)
    .where(roles.c.project_id == bindparam("project_id"), roles.c.ticket_id == bindparam("id"))
    .order_by(roles.c.position)
)
CREATE = insert(tickets).returning(tickets)
CREATE_ROLES = insert(roles).returning(roles, sort_by_parameter_order=True)
APPEND_EVENT = insert(events)


@lru_cache(maxsize=64)
def change(names: frozenset[str]) -> Update:
    """Change these columns of a ticket."""
    return (
        update(tickets)
        .where(tickets.c.project_id == bindparam("its_project_id"), tickets.c.id == bindparam("its_id"))
        .values({name: bindparam(name) for name in names} | {"version": tickets.c.version + 1})
        .returning(tickets)
    )


@lru_cache(maxsize=16)
def page(filters: frozenset[str], *, after: bool) -> Select[*tuple[object, ...]]:
    """A page of the project's tickets that match, newest first; `after` a position, or from the top."""
    conditions: list[ColumnElement[bool]] = [tickets.c[name] == bindparam(name) for name in sorted(filters)]
    if after:
        position = tuple_(bindparam("after_created_at"), bindparam("after_id"))
        conditions.append(tuple_(tickets.c.created_at, tickets.c.id) < position)
    newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
    return select(tickets).where(_MINE, *conditions).order_by(*newest_first).limit(bindparam("rows"))
