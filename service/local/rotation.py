"""Logs of `tickets up` that do not fill the disk: one file beside each, which holds what was there before."""

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 16 * 1024 * 1024
_LOOK_SECONDS: Final = 10.0


def rotate(log: Path, max_bytes: int = MAX_BYTES) -> bool:
    """Empty a log that has grown too long, whose lines until now are then in `<log>.1`; whether it did.

    Writers go on, as they append. A line that is written in that moment may be lost.
    """
    with suppress(OSError):  # no log yet, or no room: the log is worth less than what it is about
        if log.stat().st_size > max_bytes:
            shutil.copy(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)
            return True
    return False


async def keep_short(logs: Sequence[Path]) -> None:
    """Rotate logs again and again."""
    while True:
        for log in logs:
            await asyncio.to_thread(rotate, log)
        await asyncio.sleep(_LOOK_SECONDS)
