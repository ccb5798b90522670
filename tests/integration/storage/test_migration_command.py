"""`make migration`: the next revision is what the declared tables have and the schema has not."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from support.provider_lab import own_database

from service import migrations

VERSIONS = Path(migrations.__file__).parent / "versions"


def test_the_next_revision_is_numbered_and_makes_the_schema_what_the_tables_are(
    database_url: str, tmp_path: Path
) -> None:
    versions = tmp_path / "versions"
    shutil.copytree(VERSIONS, versions, ignore=shutil.ignore_patterns("__pycache__"))
    newest = max(path.name[:4] for path in versions.glob("*.py"))
    with own_database(database_url) as url:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE itsm_tickets DROP COLUMN external_ticket_url")
            connection.execute("DROP TABLE handoff_counters")
        path = migrations.revise(url, "Where it is", versions)
    assert path == versions / f"{int(newest) + 1:04}_where_it_is.py"
    text = path.read_text()
    assert f"down_revision = '{newest}'" in text
    upgrade, downgrade = text.split("def downgrade")
    assert re.findall(r"op\.(\w{2,})\('(\w+)'", upgrade) == [
        ("create_table", "handoff_counters"),
        ("add_column", "itsm_tickets"),
    ]
    assert re.findall(r"op\.(\w+)\('(\w+)', '(\w+)'", downgrade) == [
        ("drop_column", "itsm_tickets", "external_ticket_url")
    ]
    # It says of a table what the schema has of it.
    compile(text, path, "exec")
    assert "info=" not in text


def test_it_knows_the_tables_of_all_modules() -> None:
    """A table that it does not know is one that it would drop."""
    env = (Path(migrations.__file__).parent / "env.py").read_text()
    service = Path(migrations.__file__).parents[1]
    modules = {path for path in service.rglob("*.py") if re.search(r"^\w+ = (\w+_)?[Tt]able\(", path.read_text(), re.M)}
    names = {".".join(path.relative_to(service.parent).with_suffix("").parts) for path in modules}
    assert "service.providers.tables" in names
    assert names <= set(re.findall(r"^(?:import|from) ([\w.]+)", env, re.M))


@pytest.mark.parametrize("words", [[], [" "]])
def test_it_needs_to_know_what_changes(words: list[str]) -> None:
    command = [sys.executable, "-m", "service.local.migration", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, 'Say what changes: make migration m="What changes"\n')
