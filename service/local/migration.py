"""`make migration m="What changes"`: writes the next revision, by a fresh embedded database that has all others."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from service import migrations
from service.local.postgres import EmbeddedPostgres


def main() -> None:
    """Write it; Alembic prints where."""
    message = " ".join(sys.argv[1:]).strip()
    if not message:
        raise SystemExit('Say what changes: make migration m="What changes"')
    # It does not matter here what a crash of the machine would lose.
    settings = {"fsync": "off"}
    with TemporaryDirectory() as directory, EmbeddedPostgres(Path(directory) / "postgres", settings=settings) as server:
        migrations.upgrade(server.url)
        migrations.revise(server.url, message)


if __name__ == "__main__":
    main()
