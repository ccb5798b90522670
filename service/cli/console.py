"""What the subcommands share: where data is kept, settings, output, and failures as one line."""

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from sqlalchemy.exc import SQLAlchemyError

from service import jsontext
from service.errors import TicketError
from service.local.demo import encryption_key
from service.operation import View
from service.settings import Settings

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where `tickets up` keeps its data.")]


DATA_DIR = Path(".tickets")


def settings_of(data_dir: Path) -> Settings:
    """The environment's settings; the database and the key of `tickets up` when the environment names none."""
    settings, url = Settings(pool_size=1), data_dir / "database-url"
    given: dict[str, Any] = {}
    if "database_url" not in settings.model_fields_set and url.exists():
        given["database_url"] = url.read_text()
        if "encryption_keys" not in settings.model_fields_set:
            given["encryption_keys"] = encryption_key(data_dir)
    return Settings(pool_size=1, **given)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """What work returns; a failure of a known kind ends the process with one line."""
    try:
        return asyncio.run(work)
    except TicketError as error:
        words = "; ".join(f"{issue.path}: {issue.message}" for issue in error.issues)
        fail(words or error.message)
    except psycopg.errors.UndefinedTable:
        fail("the database has no tables yet: run `tickets migrate` first")
    except (psycopg.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", None) or error
        fail(f"the database refused: {str(cause).splitlines()[0]}")
    except (OSError, RuntimeError) as error:
        fail(str(error))


def print_json(value: View) -> None:
    """Write one JSON object to standard output."""
    sys.stdout.write(jsontext.dump(value).decode() + "\n")


def fail(words: str) -> NoReturn:
    """Write one line to standard error and exit with code 1."""
    sys.stderr.write(words + "\n")
    raise SystemExit(1)
