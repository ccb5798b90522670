"""The statement of the lists of tickets: filters, search and pages."""

from collections.abc import Mapping
from functools import lru_cache, reduce
from operator import add

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    FromClause,
    Integer,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from service.directory import MEMBER, project_members, projects
from service.handoff import tables
from service.handoff.queries import (
    IS_CALLER,
    IS_PROJECT,
    MEMBERS_PROJECTS,
    PROJECT_COLUMNS,
    fits,
    in_project,
    measured,
    roles_of,
)
from service.storage.statement import Statement, parameter

tickets = tables.tickets
roles = tables.roles
# What its short members come to.
_REST_OF_A_TICKET = 1024


def _has_role(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(roles.c.project_id == tickets.c.project_id, roles.c.ticket_id == tickets.c.id, *conditions)


_is_role = roles.c.role == bindparam("role", type_=Text)
_is_assigned = roles.c.assignee_user_id == bindparam("assignee", type_=Uuid)
_has_terms = tickets.c.search_terms.op("@@")(bindparam("terms", type_=TSQUERY))

# How far a ticket's work has come; null before it is merged.
_shipped = case(
    (tickets.c.deploy_failed_at.is_not(None), "deploy_failed"),
    (tickets.c.deployed_at.is_not(None), "deployed"),
    (tickets.c.merge_sha.is_not(None), "merged"),
)
# The filters of lists by name; `milestone` has one for each meaning.
FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": tickets.c.status == parameter(tickets.c.status),
    "stage": tickets.c.stage == any_(bindparam("stage", type_=ARRAY(Text))),
    "priority": tickets.c.priority == parameter(tickets.c.priority),
    "request_type": tickets.c.request_type == parameter(tickets.c.request_type),
    "role": _has_role(_is_role),
    "assignee": _has_role(_is_assigned),
    "updated_since": bindparam("updated_since", type_=tickets.c.created_at.type) <= tables.CHANGED_AT,
    "ship": _shipped == any_(bindparam("ship", type_=ARRAY(Text))),
    "milestone": tickets.c.milestone_id == bindparam("milestone", type_=Uuid),
    "no_milestone": tickets.c.milestone_id.is_(None),
    "terms": _has_terms,
    "terms_or_number": or_(tickets.c.number == bindparam("number", type_=BigInteger), _has_terms),
}
# The same of one project.
_FILTERS_IN_PROJECT: Mapping[str, ColumnElement[bool]] = {
    **FILTERS,
    "role": _has_role(_is_role, in_project(roles)),
    "assignee": _has_role(_is_assigned, in_project(roles)),
}


@lru_cache(maxsize=256)
def list_tickets(
    filters: frozenset[str], *, after: bool, of_project: bool, offset: bool = False, short: bool = False
) -> Statement:
    """A page of the caller's tickets, newest first; `after` a position (`created_at`, `id`), or from the top.

    A `short` one has few rows.

    With `offset`, which is of one project's list alone, so many of the newest are left out.

    Each project gives its own newest rows from an index, so that a page costs the same at any depth. `of_project`: of
    one project, with one row without a ticket when the page is empty, and no row when the caller is not a member.
    """
    newest_first = (tickets.c.created_at.desc(), tickets.c.id.desc())
    limit = bindparam("limit", type_=Integer)
    in_one = of_project or "project_id" in filters
    conditions = [(_FILTERS_IN_PROJECT if in_one else FILTERS)[name] for name in sorted(filters - {"project_id"})]
    if in_one:
        conditions.append(in_project(tickets))
    # Keys alone: of many projects most rows are dropped again.
    wanted = select(tickets.c.id, tickets.c.created_at).where(
        tickets.c.project_id == project_members.c.project_id, *conditions
    )
    if after:
        position = tuple_(
            bindparam("after_created_at", type_=tickets.c.created_at.type), bindparam("after_id", type_=Uuid)
        )
        wanted = wanted.where(tuple_(tickets.c.created_at, tickets.c.id) < position)
    if offset:
        wanted = wanted.offset(bindparam("offset", type_=BigInteger))
    newest = wanted.order_by(*newest_first).limit(limit).lateral("newest")
    keys = (
        select(newest.c.id, newest.c.created_at, projects.c.id.label("of_project"), *PROJECT_COLUMNS)
        .select_from(MEMBERS_PROJECTS.join(newest, true(), isouter=of_project))
        .where(IS_CALLER, *([IS_PROJECT] if in_one else []))
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
        .limit(limit)
        .subquery("keys")
    )
    extras = [keys.c[extra.name] for extra in PROJECT_COLUMNS]
    is_same = and_(
        tickets.c.project_id == keys.c.of_project,
        tickets.c.id == keys.c.id,
        *([in_project(tickets)] if in_one else []),
    )
    parts = roles_of(tickets, *([in_project(roles)] if in_one else [])).label("roles")
    whole = select(*tables.SHOWN, *extras, parts).select_from(keys.outerjoin(tickets, is_same)).subquery("whole")
    page = measured(select(whole), _size(whole), (whole.c.created_at.desc(), whole.c.id.desc())).subquery("page")
    # With filters the plan depends on their values.
    return Statement(
        select(page).where(fits(page)).order_by(page.c.created_at.desc(), page.c.id.desc()),
        prepared=not filters,
        short=short and of_project and not filters and not offset,
        scope=MEMBER,
        standby=True,
    )


def _size(ticket: FromClause) -> ColumnElement[int]:
    """About how many bytes a ticket is in an answer."""
    texts = [ticket.c[name] for name in ("evidence", "implementation_notes", "resolution_note", "roles")]
    # A suggestion goes by two names.
    texts += [ticket.c.description, ticket.c.suggested_resolution, ticket.c.suggested_resolution]
    lengths = (func.coalesce(func.octet_length(cast(text, Text)), 0) for text in texts)
    return reduce(add, lengths, literal_column(str(_REST_OF_A_TICKET), Integer))
