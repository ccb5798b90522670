"""The `tickets` command."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
import uvloop
from sqlalchemy.exc import SQLAlchemyError

from service import jsontext, logs
from service.admin import operations as admin
from service.development import AnyOperation, DevelopmentKey, encryption_key, run_as_operator
from service.errors import TicketError
from service.operation import View
from service.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
operators = typer.Typer(no_args_is_help=True, help="What operators do. Each command prints one JSON object.")
app.add_typer(operators, name="admin")

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where `tickets up` keeps its data.")]
_DATA_DIR = Path(".tickets")


@app.command()
def up(
    data_dir: DataDir = _DATA_DIR,
    http_port: Annotated[int, typer.Option(help="REST, and gRPC through the gateway.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="gRPC straight to the service.")] = 50051,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the service.")] = 1,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Make no demo data.")] = False,
) -> None:
    """Run everything on this machine: PostgreSQL (or TICKETS_DATABASE_URL), the service, Envoy."""
    from service.up import Plan, up  # noqa: PLC0415 - the extra `local` may be absent everywhere else

    _run(up(Plan(data_dir, http_port, grpc_port, workers, not no_demo)))


@app.command()
def serve() -> None:
    """Run one process of the service, configured by TICKETS_* alone."""
    from service.server import serve  # noqa: PLC0415 - the other commands need no gRPC

    settings = Settings()
    logs.configure(settings.log_level)
    uvloop.run(serve(settings))


@app.command()
def migrate(data_dir: DataDir = _DATA_DIR) -> None:
    """Bring the database to the newest schema."""
    from service import migrations  # noqa: PLC0415 - seven megabytes that no other command needs

    async def upgrade() -> str:
        return migrations.upgrade(_settings(data_dir).database_url)

    _print({"revision": _run(upgrade())})


@app.command()
def token(
    sub: Annotated[str, typer.Option(help="Who: the claim `sub`.")],
    tenant: Annotated[str | None, typer.Option(help="The claim `tenant_id`.")] = None,
    scope: Annotated[str | None, typer.Option(help="The claim `scope`, space separated.")] = None,
    app_id: Annotated[str | None, typer.Option(help="The claim `app_id`.")] = None,
    actor_role: Annotated[str | None, typer.Option(help="The claim `actor_role`.")] = None,
    ttl: Annotated[int, typer.Option(help="Seconds until it expires.")] = 3600,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Sign a token with the development key that `tickets up` made."""
    try:
        signed = DevelopmentKey(data_dir).token(
            sub, seconds=ttl, tenant_id=tenant, scope=scope, app_id=app_id, actor_role=actor_role
        )
    except FileNotFoundError:
        _fail(f"no development key in {data_dir}: run `tickets up` first")
    _print({"token": signed})


@operators.command()
def create_account(name: Annotated[str, typer.Option()] = "Account", data_dir: DataDir = _DATA_DIR) -> None:
    """Create a customer account."""
    _operate(data_dir, admin.create_account, name=name)


@operators.command()
def create_api_key(
    account: Annotated[str, typer.Option(help="The account's id.")],
    scopes: Annotated[str, typer.Option(help="Comma separated, such as `tickets:read,tickets:write`.")],
    test: Annotated[bool, typer.Option("--test", help="A test key: separate data.")] = False,
    expires: Annotated[str | None, typer.Option(help="RFC 3339; never when absent.")] = None,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Create an API key. It is shown this once."""
    _operate(data_dir, admin.create_api_key, account_id=account, scopes=_split(scopes), test=test, expires_at=expires)


@operators.command()
def revoke_api_key(
    key_id: Annotated[str, typer.Option("--id", help="The key's id.")], data_dir: DataDir = _DATA_DIR
) -> None:
    """Revoke an API key for good."""
    _operate(data_dir, admin.revoke_api_key, api_key_id=key_id)


@operators.command()
def create_project(
    name: Annotated[str, typer.Option()],
    slug: Annotated[str, typer.Option(help="Lower-case letters, digits, hyphens; unique.")],
    account: Annotated[str | None, typer.Option(help="The account's id; a new account when absent.")] = None,
    backend_repo: Annotated[str | None, typer.Option()] = None,
    frontend_repo: Annotated[str | None, typer.Option()] = None,
    github_repo: Annotated[str | None, typer.Option(help="owner/name.")] = None,
    default_roles: Annotated[str, typer.Option(help="Comma separated.")] = "backend",
    data_dir: DataDir = _DATA_DIR,
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
    backend_repo: Annotated[str | None, typer.Option(help="Empty: it has none.")] = None,
    frontend_repo: Annotated[str | None, typer.Option(help="Empty: it has none.")] = None,
    github_repo: Annotated[str | None, typer.Option(help="owner/name; empty: it has none.")] = None,
    default_roles: Annotated[str | None, typer.Option(help="Comma separated.")] = None,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Change a project's settings: those that are given."""
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
    role: Annotated[str, typer.Option(help="viewer, member, triager or owner.")],
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Make a user a member of a project, or change the member's role."""
    _operate(data_dir, admin.add_member, project_id=project, user_id=user, role=role)


@operators.command()
def remove_member(
    project: Annotated[str, typer.Option(help="The project's id.")],
    user: Annotated[str, typer.Option(help="The user's UUID.")],
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """End a user's membership of a project."""
    _operate(data_dir, admin.remove_member, project_id=project, user_id=user)


@operators.command()
def link_provider(
    account: Annotated[str, typer.Option(help="The account's id.")],
    provider: Annotated[str, typer.Option(help="freshservice, zendesk, servicenow or jira.")],
    url: Annotated[str, typer.Option(help="Such as https://example.freshservice.com.")],
    options: Annotated[str, typer.Option(help="JSON: what the vendor needs to know beside.")] = "{}",
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Link an account to its external ITSM provider. The credential is read from standard input."""
    try:
        given = jsontext.parse(options.encode())
    except ValueError:
        _fail("--options is no JSON")
    credential = sys.stdin.readline().strip()
    _operate(
        data_dir,
        admin.link_provider,
        account_id=account,
        provider=provider,
        url=url,
        credential=credential,
        options=given,
    )


@operators.command()
def unlink_provider(
    account: Annotated[str, typer.Option(help="The account's id.")], data_dir: DataDir = _DATA_DIR
) -> None:
    """End an account's link to its provider."""
    _operate(data_dir, admin.unlink_provider, account_id=account)


@operators.command()
def deliveries(
    account: Annotated[str | None, typer.Option(help="Those of one account.")] = None,
    state: Annotated[str | None, typer.Option(help="queued or dead.")] = None,
    requeue: Annotated[str | None, typer.Option(help="The id of one that shall be tried again now.")] = None,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the page before.")] = None,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """List what is on its way to providers, or have one of them tried again."""
    if requeue is not None:
        _operate(data_dir, admin.requeue_delivery, delivery_id=requeue)
        return
    given = {"account_id": account, "state": state, "cursor": cursor}
    _operate(data_dir, admin.list_deliveries, limit=100, **{name: word for name, word in given.items() if word})


@operators.command()
def create_tenant(
    name: Annotated[str, typer.Option()] = "Tenant",
    tenant_id: Annotated[str | None, typer.Option("--id", help="`ten_` and a ULID when absent.")] = None,
    data_dir: DataDir = _DATA_DIR,
) -> None:
    """Create a helpdesk tenant."""
    _operate(data_dir, admin.create_tenant, name=name, id=tenant_id)


def main() -> None:
    """Run the command."""
    app()


def _operate(data_dir: Path, operation: AnyOperation, **body: Any) -> None:
    # What the pool would say of every attempt to connect, the command says once.
    logs.configure("error")
    view = _run(run_as_operator(_settings(data_dir), operation, body))
    # {"account": {…}} prints as the account; what stands beside it (a new key) goes with it.
    resource: Any = next(iter(view.values()), {})
    if isinstance(resource, list):
        _print(view)
        return
    _print({**resource, **{name: value for name, value in view.items() if value is not resource}})


def _settings(data_dir: Path) -> Settings:
    """The environment's settings; the database and the key of `tickets up` when the environment names none."""
    settings, url = Settings(pool_size=1), data_dir / "database-url"
    given: dict[str, Any] = {}
    if "database_url" not in settings.model_fields_set and url.exists():
        given["database_url"] = url.read_text()
        if "encryption_keys" not in settings.model_fields_set:
            given["encryption_keys"] = encryption_key(data_dir)
    return Settings(pool_size=1, **given)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except TicketError as error:
        words = "; ".join(f"{issue.path}: {issue.message}" for issue in error.issues)
        _fail(words or error.message)
    except psycopg.errors.UndefinedTable:
        _fail("the database has no tables yet: run `tickets migrate` first")
    except (psycopg.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        _fail(f"the database refused: {str(cause).splitlines()[0]}")
    except (OSError, RuntimeError) as error:
        _fail(str(error))


def _split(words: str) -> list[str]:
    return [word.strip() for word in words.split(",") if word.strip()]


def _print(value: View) -> None:
    sys.stdout.write(jsontext.dump(value).decode() + "\n")


def _fail(words: str) -> NoReturn:
    sys.stderr.write(words + "\n")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
