"""The use cases of operators. The `tickets admin` command runs the same ones."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from ulid import ULID

from service import jsontext, paging
from service.access.api_keys import hash_api_key, new_api_key
from service.admin import queries
from service.admin.commands import (
    AddMember,
    CreateAccount,
    CreateApiKey,
    CreateProject,
    CreateTenant,
    LinkProvider,
    ListDeliveries,
    RemoveMember,
    RequeueDelivery,
    RevokeApiKey,
    UnlinkProvider,
    UpdateProject,
)
from service.errors import Issue, TicketError, invalid, validation_error
from service.operation import Call, Dependencies, View, operation, own_transactions
from service.providers import OPTIONS
from service.storage.database import Connection
from service.storage.statement import Row


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


@own_transactions(LinkProvider)
async def link_provider(dependencies: Dependencies, _call: Call, command: LinkProvider) -> View:
    """Link an account to its external provider. The credential is kept encrypted and in no view."""
    body = command.body
    if not (body.url.startswith("https:") or dependencies.settings.allow_private_targets):
        raise invalid("body", "url", "Input should be an https address")
    try:
        OPTIONS[body.provider].model_validate(jsontext.parse(body.options.text.encode()))
    except ValidationError as error:
        issues = [_option(issue) for issue in validation_error(error).issues]
        raise TicketError("validation_error", issues=issues) from error
    sealed = dependencies.vault.seal(body.credential)
    link = await dependencies.database.one(queries.LINK_PROVIDER, {**vars(body), "credential": sealed})
    return {"link": None if link is None else {name: link[name] for name in _TOLD_OF_LINK}}


@operation(UnlinkProvider, one_statement=True)
async def unlink_provider(connection: Connection, _call: Call, command: UnlinkProvider) -> View:
    """End an account's link; ending it twice is ending it once."""
    await connection.one(queries.UNLINK_PROVIDER, vars(command.body))
    return {}


@operation(ListDeliveries, one_statement=True)
async def list_deliveries(connection: Connection, _call: Call, command: ListDeliveries) -> View:
    """A page of what is on its way to providers, the oldest first."""
    query = command.query
    given = {name: value for name in ("account_id", "state") if (value := getattr(query, name)) is not None}
    binding = jsontext.dump(["deliveries", given]).decode()
    after = {}
    if query.cursor is not None:
        (after["after_id"],) = paging.decode(query.cursor, binding, _BY_ID)
    statement = queries.list_deliveries(frozenset(given), after=bool(after))
    rows = await connection.all(statement, {**given, **after, "rows": query.limit + 1})
    page, next_cursor = paging.cut(rows, query.limit, binding, "id")
    return {"deliveries": [_delivery(row) for row in page], "next_cursor": next_cursor}


@operation(RequeueDelivery, one_statement=True)
async def requeue_delivery(connection: Connection, _call: Call, command: RequeueDelivery) -> View:
    """Have a delivery tried again at once."""
    delivery = await connection.one(queries.REQUEUE_DELIVERY, vars(command.body))
    if delivery is None:
        raise TicketError("not_found", "Delivery not found")
    return {"delivery": _delivery(delivery)}


_BY_ID: TypeAdapter[tuple[UUID]] = TypeAdapter(tuple[UUID])
# Of a link not its credential, of a key not its hash.
_TOLD_OF_LINK = ("account_id", "provider", "url", "options", "created_at", "updated_at")
_TOLD_OF_API_KEY = ("id", "account_id", "live", "scopes", "expires_at", "revoked_at", "created_at")
_TOLD_OF_DELIVERY = (
    "id",
    "account_id",
    "ticket_id",
    "version",
    "kind",
    "state",
    "attempts",
    "next_attempt_at",
    "last_error",
    "created_at",
)


def _delivery(row: Row) -> View:
    return {name: row[name] for name in _TOLD_OF_DELIVERY}


def _option(issue: Issue) -> Issue:
    return replace(issue, loc=("body", "options", *issue.loc))


def _api_key(row: Row | None) -> View:
    if row is None:
        raise TicketError("not_found", "API key not found")
    return {name: row[name] for name in _TOLD_OF_API_KEY}
