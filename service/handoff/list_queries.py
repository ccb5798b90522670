"""The statement of the lists of tickets: filters, search and pages."""

from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from operator import add
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
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
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from service import nearest
from service.directory import MEMBER, project_members, projects
from service.handoff import tables
from service.handoff.commands import Ship
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
from service.storage.built import built
from service.storage.conditions import conditions, filled, slot
from service.storage.statement import Statement, parameter

tickets = tables.tickets
roles = tables.roles
# More rows than any project has.
_MAX_SKIPPED = literal_column("1000000000000", BigInteger)
# What its short members come to.
_REST_OF_A_TICKET = 1024


def _has_role(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(roles.c.project_id == tickets.c.project_id, roles.c.ticket_id == tickets.c.id, *conditions)


_is_role = roles.c.role == bindparam("role", type_=Text)
_is_assigned = roles.c.assignee_user_id == bindparam("assignee", type_=Uuid)
_terms = bindparam("terms", type_=TSQUERY)
_has_terms = tickets.c.search_terms.op("@@")(_terms)

# How far a ticket's work has come; null before it is merged.
_shipped = case(
    (tickets.c.deploy_failed_at.is_not(None), "deploy_failed"),
    (tickets.c.deployed_at.is_not(None), "deployed"),
    (tickets.c.merge_sha.is_not(None), "merged"),
)
# The same for its index: whether it is free of these stamps.
FREE_OF_STAMPS: Mapping[Ship, Mapping[str, Sequence[bool]]] = {
    "merged": {"unfailed": [True], "undeployed": [True]},
    "deployed": {"unfailed": [True], "undeployed": [False]},
    "deploy_failed": {"unfailed": [False], "undeployed": [True, False]},
}
_has_shipped = (
    tickets.c.merge_sha.is_not(None),
    any_(bindparam("unfailed", type_=ARRAY(Boolean))) == tables.IS_UNFAILED,
    any_(bindparam("undeployed", type_=ARRAY(Boolean))) == tables.IS_UNDEPLOYED,
)
# The filters of lists by name; `milestone` has one for each meaning.
FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": tickets.c.status == parameter(tickets.c.status),
    "open": tickets.c.status == literal_column("'open'"),
    "stage": tickets.c.stage == any_(bindparam("stage", type_=ARRAY(Text))),
    "priority": tickets.c.priority == parameter(tickets.c.priority),
    "request_type": tickets.c.request_type == parameter(tickets.c.request_type),
    "role": _has_role(_is_role),
    "assignee": _has_role(_is_assigned),
    "updated_since": bindparam("updated_since", type_=tickets.c.created_at.type) <= tables.CHANGED_AT,
    "ship": any_(bindparam("ship", type_=ARRAY(Text))) == _shipped,
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
# What indexes are asked for beside them.
_OF_INDEXES: Mapping[str, ColumnElement[bool]] = {
    "ship_indexed": and_(*_has_shipped),
    **{
        f"any_{name}": tickets.c[name] == any_(literal([*words], ARRAY(Text)))
        for name, words in [*tables.FACETS.items()][:-1]
    },
}
_OF_MEMBER = tickets.c.project_id == project_members.c.project_id
_OF_MEMBERS = select(tickets.c.id).join(project_members, _OF_MEMBER).where(IS_CALLER)
_CONDITIONS = conditions({**FILTERS, **_OF_INDEXES}, _OF_MEMBERS, MEMBER)
_CONDITIONS_IN_PROJECT = conditions(
    {**_FILTERS_IN_PROJECT, **_OF_INDEXES}, _OF_MEMBERS.where(IS_PROJECT, in_project(tickets)), MEMBER
)


_LAST_NUMBER = (
    select(tickets.c.number)
    .join(project_members, tickets.c.project_id == project_members.c.project_id)
    .where(IS_CALLER, IS_PROJECT, in_project(tickets))
    .order_by(tickets.c.number.desc())
    .limit(literal_column("1"))
    .correlate(None)
    .scalar_subquery()
)

_LIMIT = bindparam("limit", type_=Integer)
_SKIPPED = bindparam("offset", type_=BigInteger)
_POSITION = tuple_(bindparam("after_created_at", type_=tickets.c.created_at.type), bindparam("after_id", type_=Uuid))

# The filters that have an index in the order of the lists: the first that is given is used. A stage implies `open`.
_ORDERED = ("milestone", "open")


def _indexed(filters: frozenset[str]) -> frozenset[str]:
    """The conditions that say the same in the words of indexes that are in another order than the list."""
    if {"terms", "words"} <= filters:
        # Of several words the statement asks itself.
        return _indexed(filters - {"terms", "words"})
    last = max((place for place, name in enumerate(tables.FACETS) if name in filters), default=0)
    # PostgreSQL needs a condition on each column of an index before the filtered one: one that any value meets.
    leading = {f"any_{name}" for name in [*tables.FACETS][:last] if name not in filters}
    return filters | leading | ({"ship_indexed"} if "ship" in filters else set())


def _newest_first(created_at: ColumnElement[Any], id_: ColumnElement[Any]) -> Sequence[ColumnElement[Any]]:
    return created_at.desc(), id_.desc()


@lru_cache(maxsize=64)
def _list_tickets(
    *, in_one: bool, of_project: bool, is_filtered: bool, has_words: bool, after: bool, offset: bool
) -> Statement:
    """The lists of some projects or of one, with slots for filters."""
    newest = _newest(in_one=in_one, is_filtered=is_filtered, has_words=has_words, after=after, offset=offset)
    keys = (
        select(newest.c.id, newest.c.created_at, projects.c.id.label("of_project"), *PROJECT_COLUMNS)
        .select_from(MEMBERS_PROJECTS.join(newest, true(), isouter=of_project))
        .where(IS_CALLER, *([IS_PROJECT] if in_one else []))
        .order_by(newest.c.created_at.desc(), newest.c.id.desc())
        .limit(_LIMIT)
        .subquery("keys")
    )
    page = _page(keys, in_one=in_one)
    found = select(page).where(fits(page)).order_by(page.c.created_at.desc(), page.c.id.desc())
    return Statement(found, prepared=False, scope=MEMBER, standby=True)


@built(256)
def list_tickets(
    filters: frozenset[str], *, after: bool, of_project: bool, offset: bool = False, short: bool = False
) -> Statement:
    """A page of the caller's tickets, newest first; `after` a position (`created_at`, `id`), or from the top.

    A `short` page has few rows. With `offset`, for the list of one project alone, that many of the newest are skipped.

    Each project gives its own newest rows from an index, so that a page costs the same at any depth. `of_project`: of
    one project, with one row without a ticket when the page is empty, and no row when the caller is not a member.
    """
    in_one = of_project or "project_id" in filters
    filters -= {"project_id"}
    # The newest rows of all projects come from no single index.
    ordered = frozenset({*[name for name in _ORDERED if name in filters][:1]} if in_one else filters)
    others = filters - ordered
    has_words = {"terms", "words"} <= others
    template = _list_tickets(
        in_one=in_one,
        of_project=of_project,
        is_filtered=bool(others),
        has_words=has_words,
        after=after,
        offset=offset,
    )
    of = _CONDITIONS_IN_PROJECT if in_one else _CONDITIONS
    names = {"ordered": ordered, "wanted": others, "indexed": _indexed(others)}
    slots = {name: [of[filter_] for filter_ in sorted(given - {"words"})] for name, given in names.items()}
    # With filters the plan depends on their values.
    is_short = short and of_project and not filters and not offset
    return filled(template, slots, prepared=not filters, short=is_short)


def _newest(*, in_one: bool, is_filtered: bool, has_words: bool, after: bool, offset: bool) -> FromClause:
    """The keys of a page of each project alone; of many projects most rows are dropped again."""
    wanted = select(tickets.c.created_at, tickets.c.id).where(slot("ordered"))
    if in_one:
        wanted = wanted.where(in_project(tickets))
    if is_filtered:
        wanted = wanted.join(project_members, _OF_MEMBER).where(IS_CALLER, IS_PROJECT)
    else:
        wanted = wanted.where(_OF_MEMBER)
    if after:
        wanted = wanted.where(tuple_(tickets.c.created_at, tickets.c.id) < _POSITION)
    if is_filtered:
        words = nearest.has_words(tickets.c.search_terms, _terms, wanted, _newest_first) if has_words else ()
        found = nearest.nearest_keys(
            wanted,
            _newest_first,
            wanted=[slot("wanted")],
            indexed=[slot("indexed"), *words],
            rows=_LIMIT + func.least(_SKIPPED, _MAX_SKIPPED, type_=BigInteger) if offset else _LIMIT,
            numbered=nearest.Numbered(tickets.c.number, _LAST_NUMBER) if in_one else None,
        )
        wanted = select(found)
    first = wanted.order_by(*_newest_first(*wanted.selected_columns)).limit(_LIMIT)
    first = first.offset(_SKIPPED) if offset else first
    return first.subquery("newest") if is_filtered else first.lateral("newest")


def _page(keys: FromClause, *, in_one: bool) -> FromClause:
    """The whole tickets of some keys, each with the size of those up to it."""
    extras = [keys.c[extra.name] for extra in PROJECT_COLUMNS]
    is_same = and_(
        tickets.c.project_id == keys.c.of_project,
        tickets.c.id == keys.c.id,
        *([in_project(tickets)] if in_one else []),
    )
    # Joined: a scalar subquery would be run once more for each time that its value is used.
    parts = roles_of(tickets, *([in_project(roles)] if in_one else [])).lateral("parts")
    joined = keys.outerjoin(tickets, is_same).join(parts, true())
    whole = select(*tables.SHOWN, *extras, parts.c.roles).select_from(joined).subquery("whole")
    return measured(select(whole), _size(whole), (whole.c.created_at.desc(), whole.c.id.desc())).subquery("page")


def _size(ticket: FromClause) -> ColumnElement[int]:
    """About how many bytes a ticket is in an answer."""
    texts = [ticket.c[name] for name in ("evidence", "implementation_notes", "resolution_note", "roles")]
    # A suggestion goes by two names.
    texts += [ticket.c.description, ticket.c.suggested_resolution, ticket.c.suggested_resolution]
    lengths = (func.coalesce(func.octet_length(cast(text, Text)), 0) for text in texts)
    return reduce(add, lengths, literal_column(str(_REST_OF_A_TICKET), Integer))
