"""tickets purge: what is older than it is kept, counted or deleted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from service.admin.direct import opened
from service.cli.console import print_json, run, settings_of, warn
from service.retention.purge import Purge, Purged
from service.settings import Settings
from service.transport import logs


def run_purge(data_dir: Path, *, dry_run: bool) -> None:
    """Print what was deleted of each kind that has a setting, or would be."""
    logs.configure("error")
    settings = settings_of(data_dir)
    found = run(_purge(settings, dry_run=dry_run))
    if not found:
        warn("nothing is deleted for its age: no TICKETS_KEEP_… is set")
    print_json({"dry_run": dry_run, "kinds": [_shown(one, dry_run=dry_run) for one in found]})


async def _purge(settings: Settings, *, dry_run: bool) -> Sequence[Purged]:
    purge = Purge(settings)
    async with opened(settings) as database:
        return await (purge.count(database) if dry_run else purge.delete(database.without_lock_timeout()))


def _shown(one: Purged, *, dry_run: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": one.kind, "keep_days": one.keep_days, "rows": one.rows}
    return {**shown, "oldest": one.oldest} if dry_run else shown
