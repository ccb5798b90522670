"""The use cases of a ticket's comments: write, edit and list them."""

import re
from typing import Any

from pydantic import TypeAdapter
from ulid import ULID

from service import events, idempotency, paging
from service.access.policy import Caller
from service.errors import TicketError, invalid
from service.fields import Instant
from service.helpdesk import comment_queries, lookup, rights, views
from service.helpdesk.commands import CreateComment, ListComments, UpdateComment
from service.helpdesk.keys import KEYS
from service.operation import Call, autocommit, operation
from service.storage.database import Connection
from service.storage.statement import Row

# What the list is ordered by: when a comment was written, and its id.
_BY_TIME: TypeAdapter[tuple[Any, Any]] = TypeAdapter(tuple[Instant, str])
_ID = re.compile(r"cmt_[0-9A-HJKMNP-TV-Z]{26}")


@idempotency.write(CreateComment, KEYS)
async def create_comment(connection: Connection, call: Call, command: CreateComment) -> views.Comment:
    """Comment on a ticket; an agent's first public comment is the first response."""
    body, caller = command.body, call.caller
    rights.require_write_comment(caller, internal=body.internal)
    ticket = await lookup.ticket_to_change(connection, call, command.path.id)
    parameters = {
        "tenant_id": ticket["tenant_id"],
        "id": ticket["id"],
        "comment_id": f"cmt_{ULID()}",
        "is_response": _is_response(caller, ticket, internal=body.internal),
        **vars(body),
        **events.actor_of(call),
    }
    comment = await connection.one(comment_queries.CREATE_COMMENT, parameters, commit=True)
    return views.comment(lookup.found(comment))


@idempotency.write(UpdateComment, KEYS)
async def update_comment(connection: Connection, call: Call, command: UpdateComment) -> views.Comment:
    """Edit a comment of one's own."""
    comment_id, ticket = command.path.comment_id, await lookup.ticket_to_write(connection, call, command.path.id)
    parameters = {"tenant_id": ticket["tenant_id"], "id": ticket["id"], "comment_id": comment_id}
    comment = await connection.one(comment_queries.GET_COMMENT, parameters) if _ID.fullmatch(comment_id) else None
    if comment is None or not rights.may_see_comment(call.caller, comment):
        raise TicketError("not_found", "Comment not found")
    rights.require_edit_comment(call.caller, comment)
    body = command.body
    if "internal" in body.model_fields_set and body.internal != comment["internal"]:
        raise invalid("body", "internal", "A comment stays internal, or public, as it was written", value=body.internal)
    if comment["body"] != body.body:
        change = {"body": body.body, "old_body": comment["body"], **events.actor_of(call)}
        changed = await connection.one(comment_queries.UPDATE_COMMENT, {**parameters, **change}, commit=True)
        comment = lookup.found(changed)
    return views.comment(comment)


@operation(ListComments, transaction=autocommit)
async def list_comments(connection: Connection, call: Call, command: ListComments) -> views.CommentPage:
    """A page of a ticket's comments, oldest first; agents see the internal ones too."""
    query, sees_internal = command.query, rights.may_see_internal(call.caller)
    key = lookup.ticket_key(call, command.path.id)
    binding = paging.binding_of("helpdesk comments", sees_internal, key)
    after = {}
    if query.cursor is not None:
        after["after_created_at"], after["after_id"] = paging.decode(query.cursor, binding, _BY_TIME)
    statement = comment_queries.list_comments(frozenset(key), internal=sees_internal, after=query.cursor is not None)
    rows = await connection.all(statement, {**key, **after, "rows": query.limit + 1})
    page, next_cursor = paging.cut(lookup.found_rows(rows), query.limit, binding, "created_at", "id")
    return {"comments": [views.comment(row) for row in page], "next_cursor": next_cursor}


def _is_response(caller: Caller, ticket: Row, *, internal: bool) -> bool:
    """Whether a comment answers the submitter: a public one by an agent who did not submit the ticket."""
    return rights.is_agent(caller) and not internal and ticket["submitted_by_id"] != caller.subject
