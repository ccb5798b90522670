"""The start of the `tickets` script, before it imports `service`.

The wheel has this file as the top-level module `tickets_launcher`, a name that no other package has: with PYTHONPATH
set, `service` may be another package.
"""

import os
import sys
from pathlib import Path

# What a caller's folder may hold under the names of this package and of the one with generated messages.
_SHARED_NAMES = ("service", "service.py", "tickets", "tickets.py")


def main() -> None:
    """Run the `tickets` command; without PYTHONPATH, in this process' place, when a folder on it has our names."""
    folders = os.environ["PYTHONPATH"].split(os.pathsep) if os.environ.get("PYTHONPATH") else []
    if any(Path(folder, name).exists() for folder in folders for name in _SHARED_NAMES):
        del os.environ["PYTHONPATH"]
        os.execv(sys.executable, [sys.executable, "-P", "-m", "service", *sys.argv[1:]])  # noqa: S606 - no shell
    from service.__main__ import main as run_command  # noqa: PLC0415 - only now it is known which `service` this is

    run_command()
