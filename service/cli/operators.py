"""tickets admin: the operations of operators."""

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from service import jsontext
from service.admin import gets, lists, suspensions
from service.admin import operations as admin
from service.admin.direct import run_as_operator
from service.cli.console import DATA_DIR, WRONG_SETTING, DataDir, fail, print_json, run, settings_of
from service.directory import MemberRole
from service.itsm import tables as itsm_tables  # noqa: F401 - so that its webhooks are known
from service.operation import Operation
from service.providers.port import ProviderName
from service.providers.tables import DeliveryKind, DeliveryState
from service.transport import logs

Account = Annotated[str | None, typer.Option(help="Of this account alone.")]
Cursor = Annotated[str | None, typer.Option(help="next_cursor of the previous page.")]
Id = Annotated[str, typer.Option("--id", help="Its id.")]
AnAccount = Annotated[str | None, typer.Option(help="An account's id: all of its API keys.")]
AnApiKey = Annotated[str | None, typer.Option(help="An API key's id.")]
ATenant = Annotated[str | None, typer.Option(help="A helpdesk tenant's id: all tokens with it.")]

operators = typer.Typer(no_args_is_help=True, help="Operations of operators. Each command prints one JSON object.")


@operators.command()
def create_account(name: Annotated[str, typer.Option()] = "Account", data_dir: DataDir = DATA_DIR) -> None:
    """Create a customer account."""
    _operate(data_dir, admin.create_account, name=name)


@operators.command()
def create_api_key(
    account: Annotated[str, typer.Option(help="The account's id.")],
    scopes: Annotated[str, typer.Option(help="Comma-separated, such as `tickets:read,tickets:write`.")],
    test: Annotated[bool, typer.Option("--test", help="A test key, with separate data.")] = False,
    expires: Annotated[str | None, typer.Option(help="RFC 3339; the key never expires when absent.")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Create an API key. It is shown only once."""
    _operate(data_dir, admin.create_api_key, account_id=account, scopes=_split(scopes), test=test, expires_at=expires)


@operators.command()
def revoke_api_key(
    key_id: Annotated[str, typer.Option("--id", help="The key's id.")], data_dir: DataDir = DATA_DIR
) -> None:
    """Revoke an API key for good."""
    _operate(data_dir, admin.revoke_api_key, api_key_id=key_id)


@operators.command()
def create_project(
    name: Annotated[str, typer.Option()],
    slug: Annotated[str, typer.Option(help="Lower-case letters, digits and hyphens; unique.")],
    account: Annotated[str | None, typer.Option(help="The account's id; a new account when absent.")] = None,
    backend_repo: Annotated[str | None, typer.Option()] = None,
    frontend_repo: Annotated[str | None, typer.Option()] = None,
    github_repo: Annotated[str | None, typer.Option(help="owner/name.")] = None,
    default_roles: Annotated[str, typer.Option(help="Comma-separated.")] = "backend",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Create a project for handoff tickets."""
    _operate(
        data_dir,
        admin.create_project,
        name=name,
        slug=slug,
        account_id=account,
        backend_repo=backend_repo,
        frontend_repo=frontend_repo,
        github_repo=github_repo,
        default_roles=_split(default_roles),
    )


@operators.command()
def update_project(
    project: Annotated[str, typer.Option(help="The project's id.")],
    name: Annotated[str | None, typer.Option()] = None,
    backend_repo: Annotated[str | None, typer.Option(help="Empty clears it.")] = None,
    frontend_repo: Annotated[str | None, typer.Option(help="Empty clears it.")] = None,
    github_repo: Annotated[str | None, typer.Option(help="owner/name; empty clears it.")] = None,
    default_roles: Annotated[str | None, typer.Option(help="Comma-separated.")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Change the given settings of a project."""
    repos = {"backend_repo": backend_repo, "frontend_repo": frontend_repo, "github_repo": github_repo}
    given: dict[str, Any] = {option: repo or None for option, repo in repos.items() if repo is not None}
    if name is not None:
        given["name"] = name
    if default_roles is not None:
        given["default_roles"] = _split(default_roles)
    _operate(data_dir, admin.update_project, project_id=project, **given)


@operators.command()
def add_member(
    project: Annotated[str, typer.Option(help="The project's id.")],
    user: Annotated[str, typer.Option(help="The user's UUID.")],
    role: Annotated[MemberRole, typer.Option()],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Make a user a member of a project, or change the member's role."""
    _operate(data_dir, admin.add_member, project_id=project, user_id=user, role=role)


@operators.command()
def remove_member(
    project: Annotated[str, typer.Option(help="The project's id.")],
    user: Annotated[str, typer.Option(help="The user's UUID.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """End a user's membership of a project."""
    _operate(data_dir, admin.remove_member, project_id=project, user_id=user)


@operators.command()
def link_provider(
    account: Annotated[str, typer.Option(help="The account's id.")],
    provider: Annotated[ProviderName, typer.Option()],
    url: Annotated[str, typer.Option(help="Such as https://example.freshservice.com.")],
    options: Annotated[str, typer.Option(help="A JSON object with the vendor's own options.")] = "{}",
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Link an account to its external ITSM provider. The credential is read from standard input."""
    try:
        given = jsontext.parse(options.encode())
    except ValueError:
        fail("--options is not valid JSON")
    secret = credential()
    _operate(
        data_dir,
        admin.link_provider,
        account_id=account,
        provider=provider,
        url=url,
        credential=secret,
        options=given,
    )


@operators.command()
def unlink_provider(
    account: Annotated[str, typer.Option(help="The account's id.")], data_dir: DataDir = DATA_DIR
) -> None:
    """End an account's link to its provider."""
    _operate(data_dir, admin.unlink_provider, account_id=account)


@operators.command()
def deliveries(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    state: Annotated[DeliveryState | None, typer.Option()] = None,
    kind: Annotated[DeliveryKind | None, typer.Option()] = None,
    since: Annotated[str | None, typer.Option(help="Queued then or later; RFC 3339.")] = None,
    requeue: Annotated[str | None, typer.Option(help="The id of a delivery to retry now.")] = None,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the previous page.")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """List the deliveries to providers, or have one of them retried."""
    if requeue is not None:
        _operate(data_dir, admin.requeue_delivery, delivery_id=requeue)
        return
    filters = {"account_id": account, "state": state, "kind": kind, "since": since}
    _list(data_dir, lists.list_deliveries, **filters, cursor=cursor)


@operators.command()
def create_tenant(
    name: Annotated[str, typer.Option()] = "Tenant",
    tenant_id: Annotated[str | None, typer.Option("--id", help="`ten_` and a ULID when absent.")] = None,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Create a helpdesk tenant."""
    _operate(data_dir, admin.create_tenant, name=name, id=tenant_id)


@operators.command()
def accounts(cursor: Cursor = None, data_dir: DataDir = DATA_DIR) -> None:
    """List the customer accounts."""
    _list(data_dir, lists.list_accounts, cursor=cursor)


@operators.command()
def api_keys(account: Account = None, cursor: Cursor = None, data_dir: DataDir = DATA_DIR) -> None:
    """List API keys without their secrets, revoked and expired ones too."""
    _list(data_dir, lists.list_api_keys, account_id=account, cursor=cursor)


@operators.command()
def projects(account: Account = None, cursor: Cursor = None, data_dir: DataDir = DATA_DIR) -> None:
    """List projects with their settings."""
    _list(data_dir, lists.list_projects, account_id=account, cursor=cursor)


@operators.command()
def members(
    project: Annotated[str, typer.Option(help="The project's id.")], cursor: Cursor = None, data_dir: DataDir = DATA_DIR
) -> None:
    """List the members of a project."""
    _list(data_dir, lists.list_members, project_id=project, cursor=cursor)


@operators.command()
def tenants(cursor: Cursor = None, data_dir: DataDir = DATA_DIR) -> None:
    """List the helpdesk tenants that were recorded."""
    _list(data_dir, lists.list_tenants, cursor=cursor)


@operators.command()
def links(account: Account = None, cursor: Cursor = None, data_dir: DataDir = DATA_DIR) -> None:
    """List the links of accounts to their providers, without credentials."""
    _list(data_dir, lists.list_links, account_id=account, cursor=cursor)


@operators.command()
def failing_webhooks(account: Account = None, cursor: Cursor = None, data_dir: DataDir = DATA_DIR) -> None:
    """List the webhooks that fail, each with its last error."""
    _list(data_dir, lists.list_failing_webhooks, account_id=account, cursor=cursor)


@operators.command()
def account(account_id: Id, data_dir: DataDir = DATA_DIR) -> None:
    """Show a customer account."""
    _operate(data_dir, gets.get_account, account_id=account_id)


@operators.command()
def api_key(key_id: Id, data_dir: DataDir = DATA_DIR) -> None:
    """Show an API key without its secret: its scopes, when it was last used, when it expires."""
    _operate(data_dir, gets.get_api_key, api_key_id=key_id)


@operators.command()
def project(project_id: Id, data_dir: DataDir = DATA_DIR) -> None:
    """Show a project with its settings."""
    _operate(data_dir, gets.get_project, project_id=project_id)


@operators.command()
def member(
    project: Annotated[str, typer.Option(help="The project's id.")],
    user: Annotated[str, typer.Option(help="The user's UUID.")],
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Show a user's membership of a project."""
    _operate(data_dir, gets.get_member, project_id=project, user_id=user)


@operators.command()
def tenant(tenant_id: Id, data_dir: DataDir = DATA_DIR) -> None:
    """Show a helpdesk tenant that was recorded."""
    _operate(data_dir, gets.get_tenant, tenant_id=tenant_id)


@operators.command()
def link(account: Annotated[str, typer.Option(help="The account's id.")], data_dir: DataDir = DATA_DIR) -> None:
    """Show an account's link to its provider, without the credential."""
    _operate(data_dir, gets.get_link, account_id=account)


@operators.command()
def delivery(delivery_id: Id, data_dir: DataDir = DATA_DIR) -> None:
    """Show a delivery to a provider."""
    _operate(data_dir, gets.get_delivery, delivery_id=delivery_id)


@operators.command()
def suspend(
    account: AnAccount = None, api_key: AnApiKey = None, tenant: ATenant = None, data_dir: DataDir = DATA_DIR
) -> None:
    """Refuse the calls of an account, an API key or a tenant, within five seconds; their watches end."""
    whom = {"account_id": account, "api_key_id": api_key, "tenant_id": tenant}
    _one_of(data_dir, whom, suspensions.suspend_account, suspensions.suspend_api_key, suspensions.suspend_tenant)


@operators.command()
def resume(
    account: AnAccount = None, api_key: AnApiKey = None, tenant: ATenant = None, data_dir: DataDir = DATA_DIR
) -> None:
    """End the suspension of an account, an API key or a tenant, within five seconds."""
    whom = {"account_id": account, "api_key_id": api_key, "tenant_id": tenant}
    _one_of(data_dir, whom, suspensions.resume_account, suspensions.resume_api_key, suspensions.resume_tenant)


def credential() -> str:
    """The line that was piped in, or is typed where nobody sees it."""
    return (getpass("Credential: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()


def _one_of(data_dir: Path, whom: dict[str, str | None], *operations: Operation[Any]) -> None:
    given = [(name, text, operation) for (name, text), operation in zip(whom.items(), operations, strict=True) if text]
    if len(given) != 1:
        fail("name one of --account, --api-key and --tenant", WRONG_SETTING)
    [(name, text, operation)] = given
    _operate(data_dir, operation, **{name: text})


def _list(data_dir: Path, operation: Operation[Any], **query: str | None) -> None:
    _operate(data_dir, operation, limit=100, **{name: text for name, text in query.items() if text is not None})


def _operate(data_dir: Path, operation: Operation[Any], **body: Any) -> None:
    # The command reports a failure to connect once; the pool would warn at each attempt.
    logs.configure("error")
    view = run(run_as_operator(settings_of(data_dir), operation, body))
    # {"account": {…}} prints as the account, with the members beside it (a new key) added.
    resource: Any = next(iter(view.values()), {})
    if isinstance(resource, list):
        print_json(view)
        return
    print_json({**resource, **{name: value for name, value in view.items() if value is not resource}})


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
