"""Tools of other languages, which not everybody has."""

import os
import shutil

import pytest


def require(tool: str) -> None:
    """Skip the test where a tool is not installed; in CI go on, and so fail, for there it must be."""
    if shutil.which(tool) is None and "CI" not in os.environ:
        pytest.skip(f"{tool} is not installed")
