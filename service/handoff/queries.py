"""SQL statements of the handoff API, each within the projects that the caller is a member of.

Here are creations, reads of a ticket, and events; list_queries.py has the lists, change_queries.py the writes.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    CTE,
    JSON,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from service import events, numbering, paging
from service.directory import MEMBER, project_members, projects
from service.handoff import rights, tables, views
from service.handoff.keys import KEYS
from service.idempotency import Guard
from service.storage.row_version import row_version
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, parameter

tickets = tables.tickets
roles = tables.roles

# What a ticket's JSON takes from its project and from the caller's membership.
PROJECT_COLUMNS = (
    projects.c.account_id.label("billing_account_id"),
    projects.c.slug.label("project_slug"),
    projects.c.name.label("project_name"),
    projects.c.backend_repo,
    projects.c.frontend_repo,
    projects.c.github_repo,
    project_members.c.role.label("member_role"),
)
# A role's columns that are members of its JSON; its ticket's id goes by another name there.
ROLE_COLUMNS = tuple(name for name in views.Role.__annotations__ if name != "handoff_request_id")

MEMBERS_PROJECTS = project_members.join(projects, projects.c.id == project_members.c.project_id)
IS_CALLER = project_members.c.user_id == bindparam("user_id", type_=Uuid)


def in_project(table: FromClause) -> ColumnElement[bool]:
    """The condition that rows are of the project that is given, for each table of a statement that is about one."""
    return table.c.project_id == bindparam("project_id", type_=Uuid)


IS_PROJECT = in_project(project_members)


def roles_of(ticket: FromClause, *conditions: ColumnElement[bool]) -> Select[Any]:
    """The roles of a ticket, in order, as JSON."""
    of_ticket = roles.c.project_id == ticket.c.project_id, roles.c.ticket_id == ticket.c.id
    return select(_roles_json(roles).label("roles")).where(*of_ticket, *conditions)


def _roles_json(role: FromClause) -> ColumnElement[Any]:
    members = [role.c[name] for name in ROLE_COLUMNS]
    pairs = [part for member in members for part in (literal_column(f"'{member.name}'"), member)]
    one = func.json_build_object(literal_column("'handoff_request_id'"), role.c.ticket_id, *pairs)
    return func.json_agg(aggregate_order_by(one, role.c.position), type_=JSON)


def measured(rows: Select[Any], size: ColumnElement[int], order: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """The rows of a page, with how many bytes there are `before` each of them and how many rows `in_page`."""
    before = func.sum(size).over(order_by=order, rows=(None, -1))
    return rows.add_columns(before.label("before"), func.count().over().label("in_page"))


def fits(page: FromClause) -> ColumnElement[bool]:
    """Whether a page was still short before a row."""
    return func.coalesce(page.c.before, 0) < paging.PAGE_BYTES


def _create(guard: Guard) -> tuple[CTE, CTE]:
    project = (
        select(projects.c.id, projects.c.default_roles, *PROJECT_COLUMNS)
        .select_from(MEMBERS_PROJECTS)
        .where(
            IS_CALLER,
            IS_PROJECT,
            projects.c.id == bindparam("project_id", type_=Uuid),
            project_members.c.role == any_(literal(list(rights.WORKERS), ARRAY(Text))),
            *guard,
        )
        .cte("project")
    )
    counter = numbering.next_number(tables.counters, select(project.c.id))
    given = (
        "source",
        "title",
        "description",
        "request_type",
        "priority",
        "blocking",
        "evidence",
        "suggested_resolution",
        "implementation_notes",
        "actor_role",
        "actor_id",
        "search_terms",
    )
    ticket = (
        insert(tickets)
        .from_select(
            ["project_id", "number", "reported_by_user_id", *given],
            select(
                project.c.id,
                counter.c.number,
                bindparam("user_id", type_=Uuid),
                *(bindparam(name, type_=tickets.c[name].type) for name in given),
            ).select_from(project.join(counter, true())),
        )
        .returning(*tables.SHOWN)
        .cte("ticket")
    )
    wanted = func.coalesce(bindparam("roles", type_=ARRAY(Text)), project.c.default_roles)
    named = func.unnest(wanted).table_valued(column("role", Text), with_ordinality="position")
    named = named.render_derived(name="named")
    role = (
        insert(roles)
        .from_select(
            ["project_id", "ticket_id", "role", "position"],
            select(ticket.c.project_id, ticket.c.id, named.c.role, named.c.position).select_from(
                ticket.join(project, true()).join(named, true())
            ),
        )
        .returning(roles)
        .cte("role")
    )
    extras = [project.c[extra.name] for extra in PROJECT_COLUMNS]
    created = (
        select(ticket, *extras, select(_roles_json(role)).scalar_subquery().label("roles"))
        .select_from(ticket.join(project, true()))
        .cte("created")
    )
    declared = {"actor_role": ticket.c.actor_role, "actor_id": ticket.c.actor_id}
    return created, events.append(tables.events, ticket, "ticket.created", own=declared)


CREATE = KEYS.creation(_create, scope=MEMBER, locks="project_id")


# The caller's role in a project; no row when the caller is not a member of it.
MEMBERSHIP = Statement(
    select(project_members.c.role.label("member_role")).where(IS_CALLER, IS_PROJECT), scope=MEMBER, short=True
)


# What a ticket is found by within its project.
By = Literal["id", "number", "any"]
FOUND_BY: Mapping[By, ColumnElement[bool]] = {
    "id": tickets.c.id == bindparam("id", type_=Uuid),
    "number": tickets.c.number == bindparam("number", type_=BigInteger),
    "any": or_(
        tickets.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
        tickets.c.number == any_(bindparam("numbers", type_=ARRAY(BigInteger))),
    ),
}
# What a bulk change reads of a ticket, and its events report: no texts.
_SHORT = (
    "project_id",
    "id",
    "number",
    "status",
    "stage",
    "resolution_type",
    "resolution_note",
    "resolved_at",
    "created_at",
    "updated_at",
)


@lru_cache(maxsize=3)
def read_tickets(by: By) -> Statement:
    """The tickets of a project found by this; one row without a ticket for none. For a change: `at`, and `row_version`.

    No row at all when the caller is not a member of the project.
    """
    columns = [tickets.c[name] for name in _SHORT] if by == "any" else list(tables.SHOWN)
    of_ticket = roles_of(tickets, in_project(roles)).scalar_subquery().label("roles")
    to_write = events.next_instant(tables.CHANGED_AT).label("at"), row_version(tickets)
    found = and_(tickets.c.project_id == projects.c.id, in_project(tickets), FOUND_BY[by])
    return Statement(
        select(*columns, *PROJECT_COLUMNS, of_ticket, *to_write)
        .select_from(MEMBERS_PROJECTS.outerjoin(tickets, found))
        .where(IS_CALLER, IS_PROJECT),
        scope=MEMBER,
        short=by != "any",
    )


_history = tables.events


@lru_cache(maxsize=2)
def list_events(by: By) -> Statement:
    """A page of a ticket's events after a version; one row without an event, or without a ticket, when it is empty."""
    found = and_(tickets.c.project_id == projects.c.id, in_project(tickets), FOUND_BY[by])
    after = bindparam("after_version", type_=Integer)
    wanted = select(_history).where(
        _history.c.project_id == tickets.c.project_id,
        in_project(_history),
        _history.c.ticket_id == tickets.c.id,
        # Versions have no gaps, so that this is a limit.
        _history.c.version > after,
        _history.c.version <= after + bindparam("limit", type_=Integer),
    )
    page = measured(wanted, func.octet_length(cast(_history.c.changes, Text)), [_history.c.version]).lateral("page")
    return Statement(
        select(page, tickets.c.id.label("found"), projects.c.slug.label("project_slug"))
        .select_from(MEMBERS_PROJECTS.outerjoin(tickets, found).outerjoin(page, true()))
        .where(IS_CALLER, IS_PROJECT, fits(page))
        .order_by(page.c.version),
        scope=MEMBER,
        standby=True,
    )


def _events_after() -> Statement:
    """The events of a project with which of `user_ids` are its `members`.

    One row without an event when there is none; no event when none of them is a member.
    """
    new = events.after_position(_history, _history.c.project_id == parameter(_history.c.project_id))
    users = func.array_agg(project_members.c.user_id, type_=ARRAY(Uuid)).label("members")
    asked = project_members.c.user_id == any_(bindparam("user_ids", type_=ARRAY(Uuid)))
    members = select(users).where(IS_PROJECT, asked)
    now, new_events = members.subquery("now"), new.subquery("new_events")
    return Statement(
        select(new_events, now)
        .select_from(now.outerjoin(new_events, now.c.members.is_not(None)))
        .order_by(new_events.c.transaction_id, new_events.c.id),
        scope=EVERYONE("what is new in a project is read once for all who watch it, and shown to those found members"),
    )


EVENTS_AFTER = _events_after()
