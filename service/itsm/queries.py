"""The SQL statements of ITSM tickets, each within one account and mode, but for the merge of totals."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    JSON,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    Subquery,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    collate,
    exists,
    false,
    func,
    insert,
    literal,
    literal_column,
    not_,
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from service import events, nearest
from service.directory import ACCOUNT, KEY_HOLDS, api_keys
from service.idempotency import Guard
from service.itsm import day_queries, tables, total_queries
from service.itsm.commands import NewTicket
from service.itsm.keys import KEYS
from service.providers import tables as providers
from service.storage.built import built
from service.storage.row_version import is_as_read, row_version
from service.storage.scope import EVERYONE
from service.storage.statement import Statement, bound, mine, parameter

tickets = tables.tickets
deliveries, links = providers.deliveries, providers.links
# What a search reads.
TEXTS = ("subject", "description")
# Index terms are only searched by, never read.
SHOWN = tuple(column for column in tickets.c if column.name not in ("metadata_terms", "search_terms"))


MINE = mine(tickets)
ONE = (*MINE, tickets.c.id == bindparam("ticket_id", type_=Uuid))

GET = Statement(select(*SHOWN).where(*ONE), scope=ACCOUNT, short=True)


@lru_cache(maxsize=2)
def ticket_to_change(*, locks: bool) -> Statement:
    """What a change may depend on, of a ticket that may be locked until it is made."""
    columns = [tickets.c[name] for name in ("version", "metadata", *TEXTS)]
    ticket = select(*columns, row_version(tickets)).where(*ONE)
    return Statement(ticket.with_for_update() if locks else ticket, scope=ACCOUNT, short=not locks)


NEW = ("account_id", "live", "id", "metadata_terms", "search_terms", *NewTicket.model_fields)


def _create(guard: Guard) -> tuple[CTE, ...]:
    return new_ticket(NEW, *guard)


def new_ticket(names: Sequence[str], *conditions: ColumnElement[bool]) -> tuple[CTE, ...]:
    """A new ticket with the values given for these columns, its event, and its change of the totals."""
    row = select(*bound(tickets, *names).values()).where(*conditions)
    ticket = insert(tickets).from_select(list(names), row).returning(*SHOWN).cte("ticket")
    one_more = total_queries.change(total_queries.one_change(ticket, ticket.c.status, +1))
    return ticket, events.append(tables.events, ticket, "ticket.created"), one_more


# What a row has where nothing else is given.
_NEW = {
    **dict.fromkeys(("created_at", "updated_at"), func.now()),
    "version": literal_column("1", Integer),
    "transaction_id": events.THIS_TRANSACTION,
}


def known_ticket(names: Sequence[str], *conditions: ColumnElement[bool]) -> Select[Any]:
    """The row that `new_ticket` will write: an answer that is stored before it."""
    values = {**dict.fromkeys((column.name for column in SHOWN), null()), **_NEW, **bound(tickets, *names)}
    return select(*(cast(values[column.name], column.type).label(column.name) for column in SHOWN)).where(*conditions)


CREATE = KEYS.creation(_create, scope=ACCOUNT, locks="account_id", known=known_ticket(NEW))


@built(256)  # as many as there are
def update_ticket(changed: frozenset[str], *, mirrored: bool = False, as_read: bool = False) -> Statement:
    """The statement that changes these members of a ticket and appends the event with the changes.

    Where they all are what they were it writes nothing, and gives the ticket as it is. With `as_read` there is no row
    when the ticket is not as it was read. `mirrored` queues a delivery, if the account's provider has the ticket or
    will have it: see `is_mirrored`.
    """
    columns = changed | {"metadata_terms"} if "metadata" in changed else changed
    if not changed.isdisjoint(TEXTS):
        columns |= {"search_terms"}
    # The lock makes the row read here the row that is changed, so that the event is true.
    same = [is_as_read(tickets)] if as_read else []
    before = select(*SHOWN).where(*ONE, *same).with_for_update().cte("before")
    after = (
        update(tickets)
        .where(*MINE, tickets.c.id == before.c.id, _differs(before, changed))
        .values(
            {name: _new(name) for name in sorted(columns)}
            | {"updated_at": events.next_instant(tickets.c.updated_at)}
            | events.next_version(tickets)
        )
        .returning(*SHOWN)
        .cte("after")
    )
    changed_row = select(
        after,
        before.c.status.label("old_status"),
        events.kind_of_change(before, after).label("kind"),
        events.changes(before, after, sorted(changed)).label("changes"),
    )
    written = changed_row.select_from(after.join(before, after.c.id == before.c.id)).cte("written")
    others = [events.append(tables.events, written, written.c.kind, written.c.changes, of_change(written))]
    if "status" in changed:
        moved = written.c.old_status != written.c.status
        others.append(
            total_queries.change(
                union_all(
                    total_queries.one_change(written, written.c.old_status, -1).where(moved),
                    total_queries.one_change(written, written.c.status, +1).where(moved),
                )
            )
        )
    is_mirrored = exists(select(_mirror(after).c.id)) if mirrored else false()
    unchanged = select(before, false().label("is_mirrored")).where(not_(exists(select(after.c.id))))
    ticket = union_all(select(after, is_mirrored.label("is_mirrored")), unchanged).subquery("ticket")
    return Statement(select(ticket).add_cte(*others), scope=ACCOUNT, short=True, locks=["ticket_id"])


def _new(name: str) -> ColumnElement[Any]:
    return bindparam(f"new_{name}", type_=tickets.c[name].type)


def _differs(before: CTE, changed: frozenset[str]) -> ColumnElement[bool]:
    """Whether one of these members is to be another than before; of JSON, whether its text is."""
    pairs = [(before.c[name], _new(name)) for name in sorted(changed)]
    texts = [(cast(old, Text), cast(new, Text)) if isinstance(old.type, JSON) else (old, new) for old, new in pairs]
    return or_(false(), *(old.is_distinct_from(new) for old, new in texts))


def of_change(written: CTE) -> dict[str, ColumnElement[Any]]:
    """The own columns of an event: which members changed, and the ticket's `updated_at`."""
    names = select(func.json_object_keys(written.c.changes)).correlate(written).scalar_subquery()
    return {"members": func.array(names, type_=ARRAY(Text)), "updated_at": written.c.updated_at}


def _mirror(after: CTE) -> CTE:
    """A delivery of the change, if the account's provider has the ticket or will have it."""
    is_linked = exists().where(links.c.account_id == after.c.account_id)
    is_queued = exists().where(
        *mine(deliveries),
        deliveries.c.ticket_id == after.c.id,
        deliveries.c.kind == "create",
        deliveries.c.state == "queued",
    )
    names = ["id", "account_id", "ticket_id", "version", "kind", "members", "has_ticket", "actor", "request_id"]
    row = select(
        bindparam("delivery_id", type_=Uuid),
        after.c.account_id,
        after.c.id,
        after.c.version,
        literal("update", Text),
        bindparam("members", type_=JSON),
        true(),
        bindparam("actor", type_=Text),
        bindparam("request_id", type_=Text),
        # Queued without a link: the account may be linked again before the creation is attempted.
    ).where(or_(is_queued, and_(is_linked, after.c.external_ticket_id.is_not(None))))
    return insert(deliveries).from_select(names, row).returning(deliveries.c.id).cte("delivery")


def _lower(name: str) -> ColumnElement[str]:
    return func.lower(collate(bindparam(name, type_=Text), "C"))


# More than an account has.
_MAX_OFFSET = literal_column("1000000000000", BigInteger)
# The filters with an index each.
_INDEXED = frozenset({"status", "priority", "requester_email"})
# Those whose totals are kept; and those whose indexes have no order, in which some terms are common and others rare.
_SUMMED = frozenset({"status", "start_date", "end_date"})
_UNORDERED = frozenset({"metadata_terms", "search_terms"})
_LIMIT, _OFFSET = bindparam("limit", type_=Integer), bindparam("offset", type_=BigInteger)
_TERMS = bindparam("search_terms", type_=TSQUERY)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "status": tickets.c.status == bindparam("status", type_=Text),
    "priority": tickets.c.priority == bindparam("priority", type_=Text),
    "requester_email": _lower("requester_email") == tables.REQUESTER,
    "start_date": tickets.c.created_at >= bindparam("start_date", type_=tickets.c.created_at.type),
    "end_date": tickets.c.created_at <= bindparam("end_date", type_=tickets.c.created_at.type),
    "metadata_terms": tickets.c.metadata_terms.op("@>")(bindparam("metadata_terms", type_=ARRAY(Uuid))),
    "search_terms": tickets.c.search_terms.op("@@")(_TERMS),
}


def _newest_first(created_at: ColumnElement[Any], id_: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    return created_at.desc(), id_.desc()


def _nearest(filters: frozenset[str]) -> tuple[Select[Any], tuple[ColumnElement[bool], ...]]:
    """What an index has newest first, and the other filters in the words of theirs."""
    one = [name for name in ("requester_email", "priority", "status") if name in filters][:1]
    ordered = [*one, *sorted(filters & {"start_date", "end_date"})]
    base = select(tickets.c.created_at, tickets.c.id).where(*MINE, *(_FILTERS[name] for name in ordered))
    others = filters - {"words", *ordered}
    if "words" not in filters:
        return base, tuple(_FILTERS[name] for name in sorted(others))
    words = nearest.has_words(tickets.c.search_terms, _TERMS, base, _newest_first)
    return base, (*(_FILTERS[name] for name in sorted(others - {"search_terms"})), *words)


@built(768)  # as many as there are
def list_tickets(filters: frozenset[str], *, skips: bool, far: bool = False, short: bool = False) -> Statement:
    """A page, newest first, each row with the exact `total`; one row without a ticket when the page is empty.

    Beside `filters` of callers there is `words`, of a search for several. One that `skips` none has offset 0, one that
    goes `far` skips many. A `short` one has few rows.
    """
    wanted = (*MINE, *(_FILTERS[name] for name in sorted(filters - {"words"})))
    base, indexed = _nearest(filters)
    has_terms = not filters.isdisjoint(_UNORDERED)
    if has_terms:
        rows = _LIMIT + func.least(_OFFSET, _MAX_OFFSET, type_=BigInteger) if skips else _LIMIT
        conditions = {"wanted": wanted[len(MINE) :], "indexed": indexed}
        keys, total = nearest.counted_keys(base, _newest_first, **conditions, rows=rows)
    else:
        total = _total(filters, base.with_only_columns(func.count().label("total")).where(*indexed))
    counted = total.cte("counted") if skips else total.subquery("counted")
    if has_terms:
        page = _page(select(*SHOWN).join(keys, keys.c.id == tickets.c.id).where(*MINE), _OFFSET).subquery("page")
    else:
        # Nothing is read to skip all there is.
        wanted += (select(counted.c.total).scalar_subquery() > _OFFSET,) if skips else ()
        page = _far_page(filters, wanted) if far else _page(select(*SHOWN).where(*wanted), _OFFSET).subquery("page")
    return Statement(
        select(counted.c.total, page)
        .select_from(counted.outerjoin(page, true()))
        .order_by(page.c.created_at.desc(), page.c.id.desc()),
        scope=ACCOUNT,
        # Which index serves best depends on the values.
        prepared=not has_terms and len(filters & _INDEXED) < 2,
        short=short and not skips and filters <= {"status"},
        standby=True,
    )


def _page(rows: Select[Any], offset: ColumnElement[int]) -> Select[Any]:
    return rows.order_by(*_newest_first(tickets.c.created_at, tickets.c.id)).limit(_LIMIT).offset(offset)


def _total(filters: frozenset[str], counted: Select[Any]) -> Select[Any]:
    """What of a list is known, or counted."""
    if filters <= {"status"}:
        return total_queries.total(filters)
    return day_queries.total(filters, counted) if filters <= _SUMMED else counted


def _far_page(filters: frozenset[str], wanted: tuple[ColumnElement[bool], ...]) -> Subquery:
    """A page behind many tickets: those of newer days are not read where totals say how many they are.

    The rest are skipped in an index alone, and only the page's own are looked up, one by one.
    """
    offset: ColumnElement[int] = _OFFSET
    if filters <= _SUMMED:
        start = day_queries.start_of_page(filters).cte("start")
        before = func.coalesce(select(start.c.before).scalar_subquery(), literal_column("'infinity'"))
        wanted += (tickets.c.created_at < before,)
        offset = offset - func.coalesce(select(start.c.skipped).scalar_subquery(), literal_column("0"))
    ids = _page(select(tickets.c.id).where(*wanted), offset).subquery("ids")
    ticket = select(*SHOWN).where(*MINE, tickets.c.id == ids.c.id).limit(literal_column("1")).lateral("ticket")
    return select(ticket).select_from(ids.join(ticket, true())).subquery("page")


_history = tables.events


def _list_events() -> Statement:
    """`rows` events of a ticket after a version; one row without an event when there is none, none without it."""
    page = (
        select(_history)
        .where(
            *mine(_history),
            _history.c.ticket_id == tickets.c.id,
            _history.c.version > bindparam("after_version", type_=Integer),
        )
        .order_by(_history.c.version)
        .limit(bindparam("rows", type_=Integer))
        .lateral("page")
    )
    return Statement(
        select(page).select_from(tickets.outerjoin(page, true())).where(*ONE).order_by(page.c.version),
        scope=ACCOUNT,
        standby=True,
    )


LIST_EVENTS = _list_events()

_new_events = events.after_position(_history, and_(*mine(_history))).subquery("new_events")
_valid_keys = (
    select(
        func.array_agg(api_keys.c.id, type_=ARRAY(Uuid)).label("valid_keys"),
    )
    .where(
        api_keys.c.account_id == parameter(api_keys.c.account_id),
        api_keys.c.id == any_(bindparam("key_ids", type_=ARRAY(Uuid))),
        KEY_HOLDS,
    )
    .subquery("valid_keys")
)
# Events after a position, each with those of `key_ids` that are `valid_keys`; one row without
# an event when there is none, and no event when no key is valid.
EVENTS_AFTER = Statement(
    select(_new_events, _valid_keys)
    .select_from(_valid_keys.outerjoin(_new_events, _valid_keys.c.valid_keys.is_not(None)))
    .order_by(_new_events.c.transaction_id, _new_events.c.id),
    scope=EVERYONE("what is new in an account is read once for all keys that watch it, and shown to those found valid"),
)
