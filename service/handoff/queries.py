"""Every SQL statement of the handoff API, each within the projects that the caller is a member of."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    ColumnClause,
    ColumnElement,
    FromClause,
    Integer,
    Numeric,
    ScalarSelect,
    Select,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import TSQUERY, aggregate_order_by
from sqlalchemy.dialects.postgresql import insert as upsert

from service import events, idempotency, numbering, paging
from service.directory import MEMBER, project_members, projects
from service.handoff import lifecycle as life
from service.handoff import tables
from service.storage.statement import Statement, parameter

tickets = tables.tickets
roles = tables.roles

# Whoever may do more than read.
WORKERS = ["member", "triager", "owner"]

# What a ticket's JSON takes from its project and from the caller's membership.
_FROM_PROJECT = (
    projects.c.account_id.label("billing_account_id"),
    projects.c.slug.label("project_slug"),
    projects.c.name.label("project_name"),
    projects.c.backend_repo,
    projects.c.frontend_repo,
    projects.c.github_repo,
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
            project_members.c.role == any_(literal(WORKERS, ARRAY(Text))),
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
    declared = {"actor_role": ticket.c.actor_role, "actor_id": ticket.c.actor_id}
    return idempotency.creation(
        created, events.append(tables.events, ticket, "ticket.created", own=declared), scope=MEMBER
    )


CREATE = _create()


_PROJECT = project_members.c.project_id == bindparam("project_id", type_=Uuid)


def _has_role(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(roles.c.project_id == tickets.c.project_id, roles.c.ticket_id == tickets.c.id, condition)


_terms = func.to_tsquery(tables.SEARCH, bindparam("terms", type_=Text), type_=TSQUERY)
_in_project = cast(
    literal_column("'''' || ' '") + cast(bindparam("project_id", type_=Uuid), Text) + literal_column("''''"), TSQUERY
)
# What holds no words is in no ticket.
_has_terms = and_(func.numnode(_terms) > 0, tables.INDEX_TERMS.op("@@")(_terms.op("&&")(_in_project)))

# The filters of lists by name; `ship` and `milestone` have one for each meaning.
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": tickets.c.status == parameter(tickets.c.status),
    "stage": tickets.c.stage == any_(bindparam("stage", type_=ARRAY(Text))),
    "priority": tickets.c.priority == parameter(tickets.c.priority),
    "request_type": tickets.c.request_type == parameter(tickets.c.request_type),
    "role": _has_role(roles.c.role == bindparam("role", type_=Text)),
    "assignee": _has_role(roles.c.assignee_user_id == bindparam("assignee", type_=Uuid)),
    "updated_since": bindparam("updated_since", type_=tickets.c.created_at.type) <= tables.CHANGED_AT,
    "merged": and_(
        tickets.c.merge_sha.is_not(None), tickets.c.deployed_at.is_(None), tickets.c.deploy_failed_at.is_(None)
    ),
    "deployed": and_(tickets.c.deployed_at.is_not(None), tickets.c.deploy_failed_at.is_(None)),
    "deploy_failed": tickets.c.deploy_failed_at.is_not(None),
    "milestone": tickets.c.milestone_id == bindparam("milestone", type_=Uuid),
    "no_milestone": tickets.c.milestone_id.is_(None),
    "terms": _has_terms,
    "terms_or_number": or_(tickets.c.number == bindparam("number", type_=BigInteger), _has_terms),
}


@lru_cache(maxsize=256)
def list_tickets(filters: frozenset[str], *, after: bool, of_project: bool) -> Statement:
    """A page of the caller's tickets, newest first; `after` a position (`created_at`, `id`) or from the top.

    Each project gives its own newest rows from an index, so that a page costs the same at any depth. `of_project`: of
    one project, and one row without a ticket when the page is empty; none for whom it does not exist.
    """
    newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
    limit = bindparam("limit", type_=Integer)
    conditions = [_FILTERS[name] for name in sorted(filters - {"project_id"})]
    # Keys alone: of many projects most rows are dropped again.
    wanted = select(tickets.c.id, tickets.c.created_at).where(
        tickets.c.project_id == project_members.c.project_id, *conditions
    )
    if after:
        position = tuple_(
            bindparam("after_created_at", type_=tickets.c.created_at.type), bindparam("after_id", type_=Uuid)
        )
        wanted = wanted.where(tuple_(tickets.c.created_at, tickets.c.id) < position)
    newest = wanted.order_by(*newest_first).limit(limit).lateral("newest")
    keys = (
        select(newest.c.id, newest.c.created_at, projects.c.id.label("of_project"), *_FROM_PROJECT)
        .select_from(_MEMBERSHIP.join(newest, true(), isouter=of_project))
        .where(_IS_CALLER, *([_PROJECT] if of_project or "project_id" in filters else []))
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
        .limit(limit)
        .subquery("keys")
    )
    extras = [keys.c[extra.name] for extra in _FROM_PROJECT]
    is_same = and_(tickets.c.project_id == keys.c.of_project, tickets.c.id == keys.c.id)
    evidence = func.coalesce(func.octet_length(cast(tickets.c.evidence, Text)), 0)
    size = func.octet_length(tickets.c.description) + evidence
    whole = select(tickets, *extras).select_from(keys.outerjoin(tickets, is_same))
    page = _measured(whole, size, newest_first).subquery("page")
    rows = select(page, _its_roles(page).label("roles")).where(_fits(page))
    # With filters the plan depends on what is asked for.
    return Statement(rows.order_by(page.c.created_at.desc(), page.c.id.desc()), scope=MEMBER, prepared=not filters)


def _measured(rows: Select[Any], size: ColumnElement[int], order: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """The rows of a page, with how many bytes there are `before` each of them and how many rows `in_page`."""
    so_far = func.sum(size).over(order_by=order)
    return rows.add_columns((so_far - size).label("before"), func.count().over().label("in_page"))


def _fits(page: FromClause) -> ColumnElement[bool]:
    """Whether a page was still short before a row."""
    return func.coalesce(page.c.before, 0) < paging.PAGE_BYTES


def _its_roles(ticket: FromClause) -> ScalarSelect[Any]:
    return (
        select(_roles_json(roles))
        .where(roles.c.project_id == ticket.c.project_id, roles.c.ticket_id == ticket.c.id)
        .scalar_subquery()
    )


# What the caller is in a project; nothing for whom it does not exist.
MEMBERSHIP = Statement(select(project_members.c.role.label("member_role")).where(_IS_CALLER, _PROJECT), scope=MEMBER)


# By what a ticket is found within its project.
By = Literal["id", "number", "any"]
_BY: Mapping[By, ColumnElement[bool]] = {
    "id": tickets.c.id == bindparam("id", type_=Uuid),
    "number": tickets.c.number == bindparam("number", type_=BigInteger),
    "any": or_(
        tickets.c.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
        tickets.c.number == any_(bindparam("numbers", type_=ARRAY(BigInteger))),
    ),
}
# What a bulk change reads and tells of a ticket: no text.
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
    """The project's tickets found so, and the instant of a change `at`; one row without a ticket when there is none.

    No row at all for a caller for whom the project does not exist.
    """
    columns = [tickets.c[name] for name in _SHORT] if by == "any" else list(tickets.c)
    its_roles = _its_roles(tickets)
    at = events.next_instant(tables.CHANGED_AT)
    found = tickets.c.project_id == projects.c.id
    return Statement(
        select(*columns, *_FROM_PROJECT, its_roles.label("roles"), at.label("at"))
        .select_from(_MEMBERSHIP.outerjoin(tickets, and_(found, _BY[by])))
        .where(_IS_CALLER, _PROJECT),
        scope=MEMBER,
    )


@lru_cache(maxsize=3)
def lock_tickets(by: By) -> Statement:
    """The same tickets, which nobody else changes before the transaction ends; in order, so that no two wait crosswise.

    A statement of its own: one that waited for a lock goes on seeing other tables as they were before.
    """
    is_member = exists().where(_IS_CALLER, project_members.c.project_id == tickets.c.project_id)
    return Statement(
        select(tickets.c.id)
        .where(tickets.c.project_id == bindparam("project_id", type_=Uuid), _BY[by], is_member)
        .order_by(tickets.c.id)
        .with_for_update(),
        scope=MEMBER,
    )


def _records(name: str, columns: Sequence[Column[Any]], *more: ColumnClause[Any]) -> FromClause:
    """The rows of a parameter that is a JSON array of objects."""
    rows = func.json_to_recordset(bindparam(name, type_=JSON))
    return rows.table_valued(*(column(c.name, c.type) for c in columns), *more).render_derived(
        name=f"given_{name}", with_types=True
    )


CHANGEABLE = (*life.TOLD, "resolved_at", "updated_at")


def _write() -> Statement:
    given = _records(
        "tickets",
        [tickets.c[name] for name in ("id", *CHANGEABLE)],
        column("changed", ARRAY(Text)),
        column("kind", Text),
        column("changes", JSON),
        column("agent_origin", Text),
    )
    in_project = bindparam("project_id", type_=Uuid)
    is_member = exists().where(_IS_CALLER, project_members.c.project_id == tickets.c.project_id)
    ticket = (
        update(tickets)
        .where(tickets.c.project_id == in_project, tickets.c.id == given.c.id, is_member)
        .values(
            {
                name: case((literal(name, Text) == any_(given.c.changed), given.c[name]), else_=tickets.c[name])
                for name in CHANGEABLE
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
    return Statement(select(ticket.c.id).add_cte(*others), scope=MEMBER)


# Changes locked tickets, their roles, and appends the events that tell it.
WRITE = _write()

_report = upsert(tables.deployments).from_select(
    ["project_id", "ticket_id", "merge_sha", "outcome", "happened_at"],
    select(
        project_members.c.project_id,
        *(bindparam(c.name, type_=c.type) for c in (tables.deployments.c.ticket_id, tables.deployments.c.merge_sha)),
        bindparam("outcome", type_=Text),
        bindparam("happened_at", type_=tables.deployments.c.happened_at.type),
    ).where(_IS_CALLER, _PROJECT),
)
# Nothing when it was reported before.
REPORT = Statement(_report.on_conflict_do_nothing().returning(tables.deployments.c.happened_at), scope=MEMBER)

_history = tables.events


@lru_cache(maxsize=2)
def list_events(by: By) -> Statement:
    """A page of a ticket's events after a version; one row without an event, or without a ticket, when it is empty."""
    found = and_(tickets.c.project_id == projects.c.id, _BY[by])
    after = bindparam("after_version", type_=Integer)
    wanted = select(_history).where(
        _history.c.project_id == tickets.c.project_id,
        _history.c.ticket_id == tickets.c.id,
        # Without gaps, so that this is a limit.
        _history.c.version > after,
        _history.c.version <= after + bindparam("limit", type_=Integer),
    )
    page = _measured(wanted, func.octet_length(cast(_history.c.changes, Text)), [_history.c.version]).lateral("page")
    return Statement(
        select(page, tickets.c.id.label("found"), projects.c.slug.label("project_slug"))
        .select_from(_MEMBERSHIP.outerjoin(tickets, found).outerjoin(page, true()))
        .where(_IS_CALLER, _PROJECT, _fits(page))
        .order_by(page.c.version),
        scope=MEMBER,
    )


_new_events = events.after_position(_history, _history.c.project_id == project_members.c.project_id).lateral(
    "new_events"
)
# Each with the `horizon`; one row without an event when there is none; none for whom the
# project does not exist.
EVENTS_AFTER = Statement(
    select(_new_events, cast(cast(events.HORIZON, Text), Numeric).label("horizon"))
    .select_from(project_members.outerjoin(_new_events, true()))
    .where(_IS_CALLER, _PROJECT)
    .order_by(_new_events.c.transaction_id, _new_events.c.id),
    scope=MEMBER,
)
