"""What the subcommands share: where data is kept, settings, output, and failures as one line."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from service import jsontext
from service.errors import TicketError
from service.local.demo import AUDIENCE, DATABASE_URL_FILE, ISSUER, DevelopmentKey, encryption_key, kept_text
from service.operation import View
from service.settings import SettingError, Settings

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where `tickets up` keeps its data.")]
DATA_DIR = Path(".tickets")
# The exit code for a setting that cannot be used, the same as for an option.
WRONG_SETTING = 2
_MAX_REASON_LENGTH = 500


def load_settings(**given: Any) -> Settings:
    """The environment's settings under those that are given. Wrong ones end the process with one line, and code 2."""
    try:
        return Settings(**given)
    except ValidationError as error:
        prefix = Settings.model_config["env_prefix"]
        fail(
            "; ".join(f"{prefix}{issue['loc'][0]}".upper() + f": {issue['msg']}" for issue in error.errors()),
            WRONG_SETTING,
        )


def settings_of(data_dir: Path) -> Settings:
    """The settings of a command: the database and the key of `tickets up` when the environment names none."""
    settings, url_file = load_settings(pool_size=1), data_dir / DATABASE_URL_FILE
    if "database_url" in settings.model_fields_set or not url_file.exists():
        return settings
    with one_line_failures():
        given = {"database_url": kept_text(url_file)}
        if "encryption_keys" not in settings.model_fields_set:
            given["encryption_keys"] = encryption_key(data_dir)
    if "jwks" not in settings.model_fields_set:
        given |= {"jwks": str(DevelopmentKey(data_dir).jwks), "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    return load_settings(pool_size=1, **given)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of work. An expected failure ends the process with one line."""
    with one_line_failures():
        return asyncio.run(work)


@contextmanager
def one_line_failures() -> Iterator[None]:
    """End the process with one line at an expected failure in the block."""
    try:
        yield
    except SettingError as error:
        fail(str(error), WRONG_SETTING)
    except TicketError as error:
        fail("; ".join(f"{issue.path}: {issue.message}" for issue in error.issues) or error.message)
    except (psycopg.Error, SQLAlchemyError) as error:
        fail(f"the database refused: {reason_of(error)}{_hint(error)}")
    except OSError as error:
        fail(of_the_system(error))
    except RuntimeError as error:
        fail(str(error))


def _hint(error: Exception) -> str:
    # In another folder than that of `tickets up`, the error would name a socket that the user has never heard of.
    if not isinstance(error, psycopg.OperationalError) or "TICKETS_DATABASE_URL" in os.environ:
        return ""
    return " (TICKETS_DATABASE_URL is not set, so that a `tickets up` must run on --data-dir)"


def of_the_system(error: OSError) -> str:
    """What the system refused, without its number."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else error.strerror or str(error)


def print_json(value: View) -> None:
    """Write one JSON object to standard output."""
    sys.stdout.write(jsontext.dump(value).decode() + "\n")


def reason_of(error: Exception) -> str:
    """Why PostgreSQL refused, in its own words, as one line; what quotes a row is left out."""
    cause = getattr(error, "orig", None) or error
    # Where the URL names several servers, each has its reason in a line of its own.
    lines = str(cause).splitlines() if isinstance(cause, psycopg.OperationalError) else str(cause).splitlines()[:1]
    return " ".join(" ".join(lines).split())[:_MAX_REASON_LENGTH]


def warn(message: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(message + "\n")


def fail(message: str, code: int = 1) -> NoReturn:
    """Write one line to standard error and exit."""
    warn(message)
    raise SystemExit(code)
