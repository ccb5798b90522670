"""The use cases of operators. The `tickets admin` command runs the same ones."""

from datetime import UTC, datetime

from ulid import ULID

from service.admin import queries
from service.admin.commands import (
    AddMember,
    CreateAccount,
    CreateApiKey,
    CreateProject,
    CreateTenant,
    RemoveMember,
    RevokeApiKey,
    UpdateProject,
)
from service.auth import hash_api_key, new_api_key
from service.database import Connection
from service.errors import TicketError, invalid
from service.operation import Call, View, operation
from service.statement import Row


@operation(CreateAccount, one_statement=True)
async def create_account(connection: Connection, _call: Call, command: CreateAccount) -> View:
    """Create a customer account."""
    return {"account": await connection.one(queries.CREATE_ACCOUNT, vars(command.body))}


@operation(CreateApiKey, one_statement=True)
async def create_api_key(connection: Connection, _call: Call, command: CreateApiKey) -> View:
    """Create an API key. The key is in this view and nowhere else."""
    if command.body.expires_at is not None and command.body.expires_at <= datetime.now(UTC):
        raise invalid("body", "expires_at", "Input should be in the future")
    live = not command.body.test
    key = new_api_key(live)
    values = {**vars(command.body), "live": live, "key_hash": hash_api_key(key)}
    return {"api_key": _api_key(await connection.one(queries.CREATE_API_KEY, values)), "key": key}


@operation(RevokeApiKey, one_statement=True)
async def revoke_api_key(connection: Connection, _call: Call, command: RevokeApiKey) -> View:
    """Revoke an API key; revoking twice is revoking once."""
    return {"api_key": _api_key(await connection.one(queries.REVOKE_API_KEY, vars(command.body)))}


@operation(CreateProject, one_statement=True)
async def create_project(connection: Connection, _call: Call, command: CreateProject) -> View:
    """Create a project, and an account of its name when none is given."""
    statement = queries.CREATE_PROJECT if command.body.account_id else queries.CREATE_PROJECT_WITH_ACCOUNT
    return {"project": await connection.one(statement, vars(command.body))}


@operation(UpdateProject, one_statement=True)
async def update_project(connection: Connection, _call: Call, command: UpdateProject) -> View:
    """Change a project's settings."""
    statement = queries.update_project(frozenset(command.body.model_fields_set))
    project = await connection.one(statement, {**vars(command.path), **vars(command.body)})
    if project is None:
        raise TicketError("not_found", "Project not found")
    return {"project": project}


@operation(RemoveMember, one_statement=True)
async def remove_member(connection: Connection, _call: Call, command: RemoveMember) -> View:
    """End a user's membership of a project; ending it twice is ending it once."""
    await connection.one(queries.REMOVE_MEMBER, vars(command.body))
    return {}


@operation(AddMember, one_statement=True)
async def add_member(connection: Connection, _call: Call, command: AddMember) -> View:
    """Make a user a member of a project, or change the member's role."""
    return {"member": await connection.one(queries.ADD_MEMBER, vars(command.body))}


@operation(CreateTenant, one_statement=True)
async def create_tenant(connection: Connection, _call: Call, command: CreateTenant) -> View:
    """Create a helpdesk tenant."""
    values = {"name": command.body.name, "id": command.body.id or f"ten_{ULID()}"}
    return {"tenant": await connection.one(queries.CREATE_TENANT, values)}


def _api_key(row: Row | None) -> View:
    if row is None:
        raise TicketError("not_found", "API key not found")
    return {name: value for name, value in row.items() if name != "key_hash"}
