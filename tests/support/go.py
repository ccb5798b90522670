"""Go, where it is installed."""

import subprocess
from pathlib import Path

from support.tools import require


def go(*arguments: str, cwd: Path) -> str:
    """Run it, and return what it prints. Without it the test is skipped, and fails where `CI` is set."""
    require("go")
    done = subprocess.run(["go", *arguments], cwd=cwd, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
