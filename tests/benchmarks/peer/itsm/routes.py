"""The four endpoints."""

import hashlib
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from sqlalchemy import RowMapping

from tests.benchmarks.peer.database import Connection

from . import statements
from .schemas import NewTicket, Ticket, TicketChanges, TicketFilter, TicketPage
from .security import Caller, Reader, Writer

router = APIRouter(prefix="/api/v1/tickets")

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


@router.get("/{ticket_id}")
async def get_ticket(ticket_id: UUID, caller: Reader, connection: Connection) -> Ticket:
    """Read one ticket."""
    found = await connection.execute(statements.GET, {**caller.scope, "ticket_id": ticket_id})
    return _ticket(found.mappings().one_or_none())


@router.get("")
async def list_tickets(query: Annotated[TicketFilter, Query()], caller: Reader, connection: Connection) -> TicketPage:
    """A page of the account's tickets, newest first, and how many match."""
    given = query.model_dump(exclude_none=True)
    count, page = statements.page(frozenset(given) - {"limit", "offset"})
    total = await connection.scalar(count, {**caller.scope, **given})
    rows = await connection.execute(page, {**caller.scope, **given})
    tickets = [Ticket.model_construct(**row) for row in rows.mappings()]
    return TicketPage.model_construct(tickets=tickets, total=total or 0, limit=query.limit, offset=query.offset)


@router.post("", status_code=201)
async def create_ticket(
    body: NewTicket,
    caller: Writer,
    connection: Connection,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Ticket:
    """Create a ticket, once for each idempotency key."""
    key = {"its_account_id": caller.account_id, "its_live": caller.live, "its_key": idempotency_key}
    if idempotency_key is not None:
        digest = hashlib.sha256(orjson.dumps(body.model_dump(exclude_unset=True), option=orjson.OPT_SORT_KEYS)).digest()
        claim = {**caller.scope, "key": idempotency_key, "request_hash": digest, "response": None}
        if (await connection.execute(statements.CLAIM_KEY, claim)).first() is None:
            return await _earlier_answer(connection, key, digest, response)
    row = (await connection.execute(statements.CREATE, {**caller.scope, **body.model_dump()})).mappings().one()
    await _append_event(connection, caller, request, row, "ticket.created", {})
    ticket = _ticket(row)
    if idempotency_key is not None:
        await connection.execute(statements.KEEP_ANSWER, {**key, "response": ticket.model_dump(mode="json")})
    await connection.commit()
    return ticket


@router.patch("/{ticket_id}")
async def update_ticket(
    ticket_id: UUID, body: TicketChanges, caller: Writer, connection: Connection, request: Request
) -> Ticket:
    """Change some members of a ticket; any status may follow any other."""
    locked = await connection.execute(statements.LOCK, {**caller.scope, "ticket_id": ticket_id})
    before = locked.mappings().one_or_none()
    if before is None:
        raise HTTPException(404, "Ticket not found")
    given = body.model_dump(exclude_unset=True)
    its = {"its_account_id": caller.account_id, "its_live": caller.live, "its_id": ticket_id}
    changed = await connection.execute(statements.change(frozenset(given)), {**its, **given})
    row = changed.mappings().one()
    changes = {name: {"from": before[name], "to": row[name]} for name in sorted(given) if before[name] != row[name]}
    await _append_event(connection, caller, request, row, _kind_of_change(before, row), changes)
    await connection.commit()
    return _ticket(row)


def _ticket(row: RowMapping | None) -> Ticket:
    if row is None:
        raise HTTPException(404, "Ticket not found")
    return Ticket.model_construct(**row)


def _kind_of_change(before: RowMapping, after: RowMapping) -> str:
    was, is_now = before["status"] == "closed", after["status"] == "closed"
    if was == is_now:
        return "ticket.updated"
    return "ticket.closed" if is_now else "ticket.reopened"


async def _append_event(
    connection: Connection, caller: Caller, request: Request, row: RowMapping, kind: str, changes: dict[str, Any]
) -> None:
    event = {
        **caller.scope,
        "ticket_id": row["id"],
        "version": row["version"],
        "type": kind,
        "changes": changes,
        "actor": caller.key_id,
        "request_id": request.state.request_id,
    }
    await connection.execute(statements.APPEND_EVENT, event)


async def _earlier_answer(
    connection: Connection, key: dict[str, str | None], digest: bytes, response: Response
) -> Ticket:
    stored = (await connection.execute(statements.FIND_ANSWER, key)).one()
    if stored.request_hash != digest:
        raise HTTPException(409, "Idempotency key reused with a different payload")
    response.headers["Idempotent-Replayed"] = "true"
    return Ticket.model_validate(stored.response)
