"""Where unix sockets lie."""

import os
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PATH_MAX: Final = 103  # bytes, on macOS; Linux takes 107
# Other characters have a meaning in libpq's URLs, in gRPC's addresses and in lists of either.
_PLAIN: Final = re.compile(r"[\w./-]+", re.ASCII)


@contextmanager
def socket_folder(folder: Path, longest_name: str, owner: pwd.struct_passwd | None = None) -> Iterator[Path]:
    """The folder for sockets with names up to the longest: the given one, or a temporary one if its path does not do.

    Its path may be too long for a socket, or have odd characters. The temporary folder is private to `owner`, or to the
    user of this process, and is removed at the end; a killed process leaves it in /tmp.
    """
    if len(os.fsencode(folder / longest_name)) <= _PATH_MAX and _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    path = Path(tempfile.mkdtemp(prefix="tickets-", dir="/tmp"))  # the shortest there is; mode 700
    try:
        if owner is not None:
            os.chown(path, owner.pw_uid, owner.pw_gid)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
