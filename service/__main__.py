"""The `tickets` command."""

import gc
import os
import sys
from importlib.metadata import version
from typing import Annotated

import structlog
import typer
import uvloop

from service.cli.console import (
    DATA_DIR,
    WRONG_SETTING,
    DataDir,
    fail,
    load_settings,
    of_the_system,
    one_line_failures,
    print_json,
    run,
    settings_of,
    warn,
)
from service.cli.gateway import print_gateway
from service.cli.machine import show_doctor, show_env, show_logs, show_status
from service.cli.operators import operators
from service.cli.retention import run_purge
from service.local.demo import DevelopmentKey
from service.settings import SettingError, missing_jwks, unknown_settings
from service.transport import logs

# Ten years, as a test's clock may want.
_MAX_TTL_SECONDS = 10 * 366 * 24 * 60 * 60

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(operators, name="admin")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"tickets {version('tickets-service')}")
        raise typer.Exit


@app.callback()
def before(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run the service of the three ticket APIs, and what belongs to it."""
    if context.invoked_subcommand != "serve":  # whose lines are JSON, and go to standard error
        if sys.stdout is None:
            fail("standard output is closed")
        for line in unknown_settings():
            warn(line)


@app.command()
def up(
    data_dir: DataDir = DATA_DIR,
    http_port: Annotated[int, typer.Option(min=1, max=65535, help="REST, and gRPC through the gateway.")] = 8080,
    grpc_port: Annotated[int, typer.Option(min=1, max=65535, help="gRPC straight to the service.")] = 50051,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes of the service.")] = 1,
    no_demo: Annotated[bool, typer.Option("--no-demo", help="Make no demo data.")] = False,
    pin: Annotated[bool, typer.Option("--pin", help="Keep each process of the service on a core of its own.")] = False,
) -> None:
    """Run everything on this machine: PostgreSQL (or TICKETS_DATABASE_URL), the service, Envoy."""
    from service.local.up import UpOptions, up  # noqa: PLC0415 - the extra `local` may be absent everywhere else

    settings = load_settings()  # what is wrong in the environment is reported before anything starts
    if http_port == grpc_port:
        raise typer.BadParameter(f"{grpc_port} is the HTTP port", param_hint="'--grpc-port'")
    run(up(UpOptions(data_dir, http_port, grpc_port, workers, not no_demo, pin, settings)))


@app.command()
def serve() -> None:
    """Run one process of the service, configured by TICKETS_* alone."""
    gc.disable()  # what is imported stays; a look for garbage in it takes a tenth of the start
    from service.server import serve  # noqa: PLC0415 - the other commands need no gRPC

    gc.enable()
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    for line in (*unknown_settings(), *missing_jwks(settings)):
        structlog.get_logger().warning("settings", reason=line)
    try:
        uvloop.run(serve(settings))
    except SettingError as error:
        fail(str(error), WRONG_SETTING)


@app.command()
def migrate(data_dir: DataDir = DATA_DIR) -> None:
    """Bring the database to the newest schema."""
    from service import migrations  # noqa: PLC0415 - seven megabytes that no other command needs
    from service.storage.pooler import require_sessions  # noqa: PLC0415 - as above

    async def upgrade() -> str:
        url = settings_of(data_dir).database_url
        await require_sessions(url)
        return migrations.upgrade(url)

    print_json({"revision": run(upgrade())})


@app.command()
def purge(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted, and delete nothing.")
    ] = False,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Delete what is older than the settings TICKETS_KEEP_… say, now."""
    run_purge(data_dir, dry_run=dry_run)


def _some_text(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter("it is empty")
    return text


@app.command()
def token(
    sub: Annotated[str, typer.Option(callback=_some_text, help="The user: the claim `sub`.")],
    tenant: Annotated[str | None, typer.Option(help="The claim `tenant_id`.")] = None,
    scope: Annotated[str | None, typer.Option(help="The claim `scope`, space separated.")] = None,
    app_id: Annotated[str | None, typer.Option(help="The claim `app_id`.")] = None,
    actor_role: Annotated[str | None, typer.Option(help="The claim `actor_role`.")] = None,
    ttl: Annotated[int, typer.Option(min=1, max=_MAX_TTL_SECONDS, help="Seconds until it expires.")] = 3600,
    data_dir: DataDir = DATA_DIR,
) -> None:
    """Sign a token with the development key that `tickets up` made."""
    with one_line_failures():
        try:
            signed = DevelopmentKey(data_dir).token(
                sub, seconds=ttl, tenant_id=tenant, scope=scope, app_id=app_id, actor_role=actor_role
            )
        except FileNotFoundError:
            fail(f"no development key in {data_dir}: run `tickets up` first")
    print_json({"token": signed})


for name, command in (
    ("gateway", print_gateway),
    ("status", show_status),
    ("doctor", show_doctor),
    ("logs", show_logs),
    ("env", show_env),
):
    app.command(name)(command)


def main() -> None:
    """Run the command."""
    try:
        try:
            app(prog_name="tickets")
        finally:
            if sys.stdout is not None:  # None: closed by the caller
                sys.stdout.flush()
    except OSError as error:
        # What could not be written is not tried once more at the end, where Python would complain in its own way.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever reads has enough
            raise SystemExit(1) from None
        fail(of_the_system(error))


if __name__ == "__main__":
    main()
