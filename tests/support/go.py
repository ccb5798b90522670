"""Go, where it is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def go(*arguments: str, cwd: Path) -> str:
    """Run it, and return what it prints. Without it the test is skipped, and fails where `CI` is set."""
    if shutil.which("go") is None and "CI" not in os.environ:
        pytest.skip("go is not installed")
    done = subprocess.run(["go", *arguments], cwd=cwd, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
