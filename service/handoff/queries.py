"""Every SQL statement of the handoff API, each within the projects that the caller is a member of."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    FromClause,
    Integer,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    column,
    func,
    insert,
    literal,
    literal_column,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from service import events, idempotency, numbering
from service.directory import project_members, projects
from service.handoff import tables
from service.statement import Statement

tickets = tables.tickets
roles = tables.roles

MAY_CREATE = ["member", "triager", "owner"]

# What a ticket's JSON takes from its project and from the caller's membership.
_FROM_PROJECT = (
    projects.c.account_id.label("billing_account_id"),
    projects.c.slug.label("project_slug"),
    projects.c.name.label("project_name"),
    projects.c.backend_repo,
    projects.c.frontend_repo,
    project_members.c.role.label("member_role"),
)
_MEMBERSHIP = project_members.join(projects, projects.c.id == project_members.c.project_id)
_IS_CALLER = project_members.c.user_id == bindparam("user_id", type_=Uuid)


ROLE_COLUMNS = (
    "id",
    "role",
    "status",
    "assignee_user_id",
    "assignee_note",
    "blocking_reason",
    "work_started_note",
    "agent_origin",
    "started_at",
    "completed_at",
    "created_at",
    "updated_at",
)


def _roles_json(role: FromClause) -> ColumnElement[Any]:
    """The ticket's roles, in order, as JSON."""
    members = [role.c[name] for name in ROLE_COLUMNS]
    pairs = [part for member in members for part in (literal_column(f"'{member.name}'"), member)]
    one = func.json_build_object(literal_column("'handoff_request_id'"), role.c.ticket_id, *pairs)
    return func.json_agg(aggregate_order_by(one, role.c.position), type_=JSON)


def _create() -> idempotency.Creation:
    project = (
        select(projects.c.id, projects.c.default_roles, *_FROM_PROJECT)
        .select_from(_MEMBERSHIP)
        .where(
            _IS_CALLER,
            projects.c.id == bindparam("project_id", type_=Uuid),
            project_members.c.role == any_(literal(MAY_CREATE, ARRAY(Text))),
        )
        .cte("project")
    )
    scope = select((literal("handoff:", Text) + cast(project.c.id, Text)).label("scope"))
    counter = numbering.next_number(scope.subquery("counted"))
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
        .returning(tickets)
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
    extras = [project.c[extra.name] for extra in _FROM_PROJECT]
    created = (
        select(ticket, *extras, select(_roles_json(role)).scalar_subquery().label("roles"))
        .select_from(ticket.join(project, true()))
        .cte("created")
    )
    return idempotency.creation(created, events.append(tables.events, ticket, "ticket.created"))


CREATE = _create()


@lru_cache(maxsize=2)
def list_tickets(*, after: bool) -> Statement:
    """A page of the caller's tickets, newest first; `after` a position (`created_at`, `id`) or from the top.

    Each project gives its own newest rows from an index, so that a page costs the same at any depth.
    """
    newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
    limit = bindparam("limit", type_=Integer)
    of_project = select(tickets).where(tickets.c.project_id == project_members.c.project_id)
    if after:
        position = tuple_(
            bindparam("after_created_at", type_=tickets.c.created_at.type), bindparam("after_id", type_=Uuid)
        )
        of_project = of_project.where(tuple_(tickets.c.created_at, tickets.c.id) < position)
    newest = of_project.order_by(*newest_first).limit(limit).lateral("newest")
    page = (
        select(newest, *_FROM_PROJECT)
        .select_from(_MEMBERSHIP.join(newest, true()))
        .where(_IS_CALLER)
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
        .limit(limit)
        .subquery("page")
    )
    its_roles = (
        select(_roles_json(roles))
        .where(roles.c.project_id == page.c.project_id, roles.c.ticket_id == page.c.id)
        .scalar_subquery()
    )
    return Statement(select(page, its_roles.label("roles")).order_by(page.c.created_at.desc(), page.c.id.desc()))
