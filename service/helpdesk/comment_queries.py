"""Every SQL statement of the comments of helpdesk tickets."""

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    CTE,
    Boolean,
    ColumnElement,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    not_,
    null,
    select,
    text,
    true,
    tuple_,
    update,
)

from service import events
from service.helpdesk import queries, tables
from service.storage.statement import Statement, mine, parameter

tickets = tables.tickets
comments = tables.comments
_COMMENT = (
    *mine(comments),
    comments.c.ticket_id == parameter(tickets.c.id),
    comments.c.id == bindparam("comment_id", type_=Text),
)
GET_COMMENT = Statement(select(comments).where(*_COMMENT), scope=queries.DECIDED)


def _write(written: CTE, kind: str, before: ColumnElement[Any], after: ColumnElement[Any], **more: Any) -> Statement:
    """The statement that writes a comment of a ticket that was read before, stamps the ticket, and appends the event.

    `more` are further columns of the ticket to set. An internal comment stamps nothing that is shown of the ticket.
    """
    is_internal = select(written.c.internal).scalar_subquery()
    stamps = {**queries.write_stamps(), **more}
    for name in ("updated_at", "updated_by"):
        stamps[name] = case((is_internal, tickets.c[name]), else_=stamps[name])
    stamps["internal_changes"] = tickets.c.internal_changes + cast(is_internal, Integer)
    ticket = update(tickets).where(*queries.READ_TICKET).values(stamps).returning(*tables.SHOWN).cte("ticket")
    change = select(
        ticket,
        func.json_build_object(
            text("'comment'"), func.json_build_object(text("'from'"), before, text("'to'"), after)
        ).label("changes"),
        written.c.internal,
    )
    stamped = change.select_from(ticket.join(written, ticket.c.id == written.c.ticket_id)).cte("stamped")
    event = queries.append_event(stamped, kind, stamped.c.changes, internal=stamped.c.internal)
    return Statement(select(written).add_cte(event), scope=queries.DECIDED)


def _create_comment() -> Statement:
    given = {name: bindparam(name, type_=comments.c[name].type) for name in ("body", "internal")}
    written = (
        insert(comments)
        .values(
            {
                "tenant_id": parameter(tickets.c.tenant_id),
                "ticket_id": parameter(tickets.c.id),
                "id": bindparam("comment_id", type_=Text),
                "author_id": bindparam("actor", type_=Text),
                **given,
            }
        )
        .returning(comments)
        .cte("written")
    )
    is_response = bindparam("is_response", type_=Boolean)
    return _write(
        written,
        "ticket.commented",
        null(),
        func.json_build_object(text("'id'"), written.c.id, text("'internal'"), written.c.internal),
        first_response_at=case(
            (and_(is_response, tickets.c.first_response_at.is_(None)), func.now()), else_=tickets.c.first_response_at
        ),
    )


def _update_comment() -> Statement:
    old = bindparam("old_body", type_=Text)
    written = (
        update(comments)
        .where(*_COMMENT)
        .values(body=bindparam("body", type_=Text), updated_at=events.next_instant(comments.c.created_at))
        .returning(comments)
        .cte("written")
    )
    return _write(
        written,
        "ticket.comment_edited",
        func.json_build_object(text("'id'"), written.c.id, text("'body'"), old),
        func.json_build_object(text("'id'"), written.c.id, text("'body'"), written.c.body),
    )


CREATE_COMMENT, UPDATE_COMMENT = _create_comment(), _update_comment()


@lru_cache(maxsize=16)
def list_comments(by: frozenset[str], *, internal: bool, after: bool) -> Statement:
    """`rows` comments of a ticket, oldest first: one empty row for a ticket without any, no row without the ticket.

    `internal`: with the internal ones.
    """
    page = select(comments).where(*mine(comments), comments.c.ticket_id == tickets.c.id)
    if not internal:
        page = page.where(not_(comments.c.internal))
    if after:
        last = tuple_(
            bindparam("after_created_at", type_=comments.c.created_at.type), bindparam("after_id", type_=Text)
        )
        page = page.where(tuple_(comments.c.created_at, comments.c.id) > last)
    page_ = page.order_by(comments.c.created_at, comments.c.id).limit(bindparam("rows", type_=Integer)).lateral("page")
    return Statement(
        select(page_)
        .select_from(tickets.outerjoin(page_, true()))
        .where(*queries.found_by(by))
        .order_by(page_.c.created_at, page_.c.id),
        scope=queries.scope_of(by),
        standby=True,
    )
