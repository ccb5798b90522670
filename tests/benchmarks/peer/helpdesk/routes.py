"""The four endpoints."""

import re
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import RowMapping
from ulid import ULID

from tests.benchmarks.peer import cursors, numbers
from tests.benchmarks.peer.database import Connection
from tests.benchmarks.peer.errors import ApiError

from . import statements
from .schemas import NewTicket, Ticket, TicketChanges, TicketFilter, TicketPage
from .security import Agent, Caller, Reader

# (An `app_id` that there is not is left out.)
router = APIRouter(prefix="/api/v1/helpdesk/tickets")

_ID = re.compile(r"tkt_[0-9A-HJKMNP-TV-Z]{26}")
_NUMBER = re.compile(r"TKT-([0-9]{4,18})")
_ETAG = re.compile(r'"[^"]*"')
_PAUSED = ("pending", "resolved", "closed")
_RESOLVED = ("resolved", "closed")
_COLUMNS = tuple(name for name in Ticket.model_fields if name not in ("app_id", "number", "schema_version"))


@router.get("/{ticket_id}", response_model_exclude_unset=True)
async def get_ticket(ticket_id: str, caller: Reader, connection: Connection, response: Response) -> Ticket:
    """Read one ticket."""
    by_id, key = _key(ticket_id, caller)
    found = await connection.execute(statements.BY_ID if by_id else statements.BY_NUMBER, key)
    return _answer(found.mappings().one_or_none(), response)


@router.get("", response_model_exclude_unset=True)
async def list_tickets(query: Annotated[TicketFilter, Query()], caller: Reader, connection: Connection) -> TicketPage:
    """A page of the tenant's tickets, newest first."""
    filters = query.model_dump(exclude_none=True, exclude={"limit", "cursor"})
    binding = f"helpdesk {caller.tenant_id} {sorted(filters.items())}"
    given = {"tenant_id": caller.tenant_id, **filters, "rows": query.limit + 1}
    if query.cursor is not None:
        given["after_created_at"], given["after_id"] = cursors.decode(binding, query.cursor)
    statement = statements.page(frozenset(filters), after=query.cursor is not None)
    rows = (await connection.execute(statement, given)).mappings().all()
    page = rows[: query.limit]
    more = len(rows) > query.limit
    next_cursor = cursors.encode(binding, page[-1]["created_at"], page[-1]["id"]) if more else None
    return TicketPage.model_construct(tickets=[_ticket(row) for row in page], next_cursor=next_cursor)


@router.post("", status_code=201, response_model_exclude_unset=True)
async def create_ticket(
    body: NewTicket, caller: Agent, connection: Connection, request: Request, response: Response
) -> Ticket:
    """Raise a ticket with its tenant's next number."""
    stamps = {
        "tenant_id": caller.tenant_id,
        "id": f"tkt_{ULID()}",
        "submitted_by_id": body.submitted_by_id or caller.subject,
        "created_by": caller.subject,
        "updated_by": caller.subject,
    }
    ticket = {**body.model_dump(), **stamps}
    policy_key = {name: ticket[name] for name in ("tenant_id", "priority", "type")}
    policy = (await connection.execute(statements.FIND_POLICY, policy_key)).one_or_none()
    now = await connection.scalar(statements.NOW) if policy is not None or body.status in _PAUSED else None
    if policy is not None and now is not None:
        ticket |= {"sla_policy": policy.id, "due_at": now + timedelta(minutes=policy.resolution_minutes)}
    ticket["paused_at"] = now if body.status in _PAUSED else None
    ticket["resolved_at"] = now if body.status in _RESOLVED else None
    # As late as can be: others wait for the counter until this transaction ends.
    ticket["number"] = await connection.scalar(numbers.NEXT_OF_TENANT, {"scope": caller.tenant_id})
    row = (await connection.execute(statements.CREATE, ticket)).mappings().one()
    await _append_event(connection, caller, request, row, "ticket.created", {})
    await connection.commit()
    return _answer(row, response)


@router.patch("/{ticket_id}", response_model_exclude_unset=True)
async def update_ticket(
    ticket_id: str,
    body: TicketChanges,
    caller: Agent,
    connection: Connection,
    request: Request,
    response: Response,
    if_match: Annotated[str | None, Header()] = None,
) -> Ticket:
    """Change some members of a ticket, if it is as the caller has read it."""
    by_id, key = _key(ticket_id, caller)
    locked = await connection.execute(statements.LOCK_BY_ID if by_id else statements.LOCK_BY_NUMBER, key)
    before = locked.mappings().one_or_none()
    if before is None:
        raise _not_found()
    if if_match is not None and if_match != "*" and _etag(before) not in _ETAG.findall(if_match):
        raise ApiError(412, "stale", "The ticket has changed since it was read")
    given = body.model_dump(exclude_unset=True)
    values = {**given, **_stamps(before, given.get("status", before["status"])), "updated_by": caller.subject}
    its = {"its_tenant_id": before["tenant_id"], "its_id": before["id"]}
    row = (await connection.execute(statements.change(frozenset(values)), {**its, **values})).mappings().one()
    if before["paused_at"] is not None and row["paused_at"] is None:
        pause = {"started_at": before["paused_at"], "ended_at": row["updated_at"]}
        await connection.execute(
            statements.END_PAUSE, {"tenant_id": before["tenant_id"], "ticket_id": before["id"], **pause}
        )
    changes = {name: {"from": before[name], "to": row[name]} for name in sorted(given) if before[name] != row[name]}
    await _append_event(connection, caller, request, row, _kind_of_change(before, row), changes)
    await connection.commit()
    return _answer(row, response)


def _stamps(before: RowMapping, status: str) -> dict[str, Any]:
    """What a change stamps; `status` is the one after it."""
    stamp = before["stamp"]
    resolved_at = before["resolved_at"]
    if status != before["status"]:
        if status not in _RESOLVED:
            resolved_at = None
        elif before["status"] not in _RESOLVED:
            resolved_at = stamp
    paused_at = (before["paused_at"] or stamp) if status in _PAUSED else None
    return {"updated_at": stamp, "resolved_at": resolved_at, "paused_at": paused_at}


def _key(ticket_id: str, caller: Caller) -> tuple[bool, dict[str, Any]]:
    """Whether a ticket is named by its id, and the parameters that find it."""
    if _ID.fullmatch(ticket_id):
        return True, {"tenant_id": caller.tenant_id, "id": ticket_id}
    number = _NUMBER.fullmatch(ticket_id)
    if number is None:
        raise _not_found()
    return False, {"tenant_id": caller.tenant_id, "number": int(number[1])}


def _not_found() -> ApiError:
    return ApiError(404, "not_found", "Ticket not found")


def _etag(row: RowMapping) -> str:
    return f'"{row["version"]}"'


def _answer(row: RowMapping | None, response: Response) -> Ticket:
    if row is None:
        raise _not_found()
    response.headers["etag"] = _etag(row)
    return _ticket(row)


def _ticket(row: RowMapping) -> Ticket:
    ticket: dict[str, Any] = {name: row[name] for name in _COLUMNS}
    if row["app_id"] is not None:
        ticket["app_id"] = row["app_id"]
    return Ticket.model_construct(**ticket, number=f"TKT-{row['number']:04d}", schema_version=1)


def _kind_of_change(before: RowMapping, after: RowMapping) -> str:
    was, is_now = before["status"] == "closed", after["status"] == "closed"
    if was == is_now:
        return "ticket.updated"
    return "ticket.closed" if is_now else "ticket.reopened"


async def _append_event(
    connection: Connection, caller: Caller, request: Request, row: RowMapping, kind: str, changes: dict[str, Any]
) -> None:
    event = {
        "tenant_id": row["tenant_id"],
        "ticket_id": row["id"],
        "version": row["version"],
        "type": kind,
        "changes": changes,
        "actor": caller.subject,
        "request_id": request.state.request_id,
    }
    await connection.execute(statements.APPEND_EVENT, event)
