"""The four endpoints."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy import RowMapping

from tests.benchmarks.peer import cursors, numbers
from tests.benchmarks.peer.database import Connection
from tests.benchmarks.peer.errors import ApiError, invalid

from . import statements, views
from .schemas import NewTicket, TicketAnswer, TicketChanges, TicketFilter, TicketPage
from .security import AnyCaller, Caller, MemberProject, require_worker

# (A `summary` that there is not is left out.)
router = APIRouter(prefix="/api/projects/{project_id}/tickets")

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_ID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_REF = re.compile(r"HO-([1-9][0-9]{0,17})-([a-z0-9-]+)")
_FINISHED = ("done", "skipped")
# The members of a PATCH that are no columns.
_NOTES = {"work_started_note", "updated_at"}


@router.get("/{ticket_id}", response_model_exclude_unset=True)
async def get_ticket(ticket_id: str, project: MemberProject, connection: Connection) -> TicketAnswer:
    """Read one ticket by its id, its number or its reference."""
    by_id, key = _key(ticket_id, project)
    row = (await connection.execute(statements.BY_ID if by_id else statements.BY_NUMBER, key)).mappings().one_or_none()
    if row is None:
        raise _not_found()
    return _answer(row, await _roles(connection, row), project)


@router.get("", response_model_exclude_unset=True)
async def list_tickets(
    query: Annotated[TicketFilter, Query()], project: MemberProject, connection: Connection
) -> TicketPage:
    """A page of the project's tickets, newest first."""
    filters = query.model_dump(exclude_none=True, exclude={"limit", "cursor"})
    binding = f"handoff {project['id']} {sorted(filters.items())}"
    given = {"project_id": project["id"], **filters, "rows": query.limit + 1}
    if query.cursor is not None:
        created_at, after_id = cursors.decode(binding, query.cursor)
        given |= {"after_created_at": created_at, "after_id": UUID(after_id)}
    statement = statements.page(frozenset(filters), after=query.cursor is not None)
    rows = (await connection.execute(statement, given)).mappings().all()
    page = rows[: query.limit]
    roles: dict[UUID, list[RowMapping]] = {row["id"]: [] for row in page}
    if page:
        of_page = {"project_id": project["id"], "ids": list(roles)}
        for role in (await connection.execute(statements.ROLES, of_page)).mappings():
            roles[role["ticket_id"]].append(role)
    more = len(rows) > query.limit
    next_cursor = cursors.encode(binding, page[-1]["created_at"], str(page[-1]["id"])) if more else None
    tickets = [views.ticket(row, roles[row["id"]], project, listed=True) for row in page]
    return TicketPage.model_construct(tickets=tickets, next_cursor=next_cursor)


@router.post("", status_code=201, response_model_exclude_unset=True)
async def create_ticket(
    body: NewTicket, caller: AnyCaller, project: MemberProject, connection: Connection, request: Request
) -> TicketAnswer:
    """File a ticket with its project's next number."""
    require_worker(project, "You may not create tickets in this project")
    if len(set(body.roles)) < len(body.roles):
        raise invalid("roles", "Roles should be distinct")
    declared = _declared(caller, body)
    is_bot = declared["source"].lower() == "mcp" or "mcp_bot" in (declared["actor_role"].lower(), caller.actor_role)
    if is_bot and not body.roles:
        raise invalid("roles", "A bot must name at least one role")
    ticket = {
        **body.model_dump(exclude={"roles"}),
        **declared,
        "project_id": project["id"],
        "reported_by_user_id": caller.user_id,
        # As late as can be: others wait for the counter until this transaction ends.
        "number": await connection.scalar(numbers.NEXT_OF_PROJECT, {"scope": project["id"]}),
    }
    row = (await connection.execute(statements.CREATE, ticket)).mappings().one()
    names = enumerate(body.roles or project["default_roles"], start=1)
    its = {"project_id": project["id"], "ticket_id": row["id"]}
    roles = [{**its, "role": name, "position": position} for position, name in names]
    made = (await connection.execute(statements.CREATE_ROLES, roles)).mappings().all()
    own = {name: declared[name] for name in ("actor_role", "actor_id")}
    await _append_event(connection, caller, request, row, "ticket.created", {}, own)
    await connection.commit()
    return _answer(row, made, project)


@router.patch("/{ticket_id}", response_model_exclude_unset=True)
async def update_ticket(
    ticket_id: str,
    body: TicketChanges,
    caller: AnyCaller,
    project: MemberProject,
    connection: Connection,
    request: Request,
) -> TicketAnswer:
    """Change some members of a ticket, if it is as the caller has read it."""
    by_id, key = _key(ticket_id, project)
    locked = await connection.execute(statements.LOCK_BY_ID if by_id else statements.LOCK_BY_NUMBER, key)
    before = locked.mappings().one_or_none()
    if before is None:
        raise _not_found()
    require_worker(project, "You may not change tickets in this project")
    given = body.model_dump(exclude_unset=True)
    is_author = before["reported_by_user_id"] == caller.user_id
    if given.keys() - {"stage", "resolution_note", *_NOTES} and not (is_author or views.may_triage(project)):
        raise ApiError(403, "forbidden", "Only the ticket's author, triagers and owners may change this")
    if "updated_at" in given and given["updated_at"] != before["updated_at"]:
        raise ApiError(409, "stale", "The ticket has changed since it was read")
    roles = await _roles(connection, before)
    values = {name: value for name, value in given.items() if name not in _NOTES}
    values |= _moved(before, roles, given)
    changes = {name: {"from": before[name], "to": new} for name, new in values.items() if before[name] != new}
    if not changes:
        return _answer(before, roles, project)
    if given.get("work_started_note") is not None and values.get("stage") == "in_progress" != before["stage"]:
        changes["work_started_note"] = {"from": None, "to": given["work_started_note"]}
    values = {name: values[name] for name in values if name in changes} | {"updated_at": before["stamp"]}
    its = {"its_project_id": project["id"], "its_id": before["id"]}
    row = (await connection.execute(statements.change(frozenset(values)), {**its, **values})).mappings().one()
    changes.pop("resolved_at", None)
    own = {"actor_role": caller.actor_role, "actor_id": None}
    await _append_event(connection, caller, request, row, _kind_of_change(before, row), changes, own)
    await connection.commit()
    return _answer(row, roles, project)


def _moved(before: RowMapping, roles: Sequence[RowMapping], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a move to another stage sets beside it."""
    stage = given.get("stage", before["stage"])
    if stage == before["stage"]:
        return {}
    if stage == "in_progress" and given.get("work_started_note") is None:
        raise invalid("work_started_note", "Moving to in_progress requires a work_started_note")
    if stage == "live":
        unfinished = [role["role"] for role in roles if role["status"] not in _FINISHED]
        if unfinished:
            words = f"Roles that are neither done nor skipped: {', '.join(unfinished)}"
            raise ApiError(409, "roles_incomplete", words)
        return {"status": "closed", "resolved_at": before["stamp"], "resolution_type": "completed"}
    if before["stage"] == "live":
        note = given.get("resolution_note")
        return {"status": "open", "resolved_at": None, "resolution_type": None, "resolution_note": note}
    return {}


def _declared(caller: Caller, body: NewTicket) -> dict[str, str]:
    """What the caller declares, or else their token does."""
    role = body.actor_role or caller.actor_role or "user"
    source = body.source or ("mcp" if caller.actor_role == "mcp_bot" else "portal")
    return {"actor_role": role, "actor_id": body.actor_id or str(caller.user_id), "source": source}


async def _roles(connection: Connection, ticket: RowMapping) -> Sequence[RowMapping]:
    its = {"project_id": ticket["project_id"], "id": ticket["id"]}
    return (await connection.execute(statements.ROLES_OF_ONE, its)).mappings().all()


def _key(ticket_id: str, project: RowMapping) -> tuple[bool, dict[str, Any]]:
    """Whether a ticket is named by its id, and the parameters that find it."""
    if _ID.fullmatch(ticket_id):
        return True, {"project_id": project["id"], "id": UUID(ticket_id)}
    reference = _REF.fullmatch(ticket_id)
    if reference is not None and reference[2] == project["slug"]:
        return False, {"project_id": project["id"], "number": int(reference[1])}
    if not _NUMBER.fullmatch(ticket_id):
        raise _not_found()
    return False, {"project_id": project["id"], "number": int(ticket_id)}


def _not_found() -> ApiError:
    return ApiError(404, "not_found", "Ticket not found")


def _answer(row: RowMapping, roles: Sequence[RowMapping], project: RowMapping) -> TicketAnswer:
    return TicketAnswer.model_construct(ticket=views.ticket(row, roles, project))


def _kind_of_change(before: RowMapping, after: RowMapping) -> str:
    if before["status"] == after["status"]:
        return "ticket.updated"
    return "ticket.closed" if after["status"] == "closed" else "ticket.reopened"


async def _append_event(
    connection: Connection,
    caller: Caller,
    request: Request,
    row: RowMapping,
    kind: str,
    changes: dict[str, Any],
    declared: Mapping[str, str | None],
) -> None:
    event = {
        "project_id": row["project_id"],
        "ticket_id": row["id"],
        "version": row["version"],
        "type": kind,
        "changes": changes,
        "actor": str(caller.user_id),
        "request_id": request.state.request_id,
        **declared,
    }
    await connection.execute(statements.APPEND_EVENT, event)
