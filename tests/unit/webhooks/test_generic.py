"""The engine serves any dialect: it imports none, and names none of their tables and columns."""

import re
import subprocess
import sys
from pathlib import Path

ENGINE = Path(__file__).parents[3] / "service" / "webhooks"
FILES = sorted(ENGINE.glob("*.py"))
DIALECTS = ("admin", "handoff", "helpdesk", "itsm")


def test_webhooks_know_no_dialect() -> None:
    """Neither its own imports nor theirs lead to a dialect."""
    imports = "".join(f"import service.webhooks.{path.stem}\n" for path in FILES if path.stem != "__init__")
    code = f"import sys\n{imports}print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "service.webhooks.sender" in modules
    assert [name for name in modules if name.startswith(tuple(f"service.{dialect}" for dialect in DIALECTS))] == []


def test_webhooks_name_no_dialect_and_no_scope() -> None:
    words = re.compile(rf"\b({'|'.join(DIALECTS)})|\b(account_id|live|tenant_id|project_id)\b")
    assert [path.name for path in FILES if words.search(path.read_text())] == []
