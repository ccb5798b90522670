"""Claims that one process on a machine holds at a time: a data folder, a port, the creation of a user.

The kernel releases a claim when its process ends, however it ends.
"""

import fcntl
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# TMPDIR is not used: it may differ between two processes.
_SHARED_FOLDER = Path("/tmp")  # noqa: S108 - the file is checked once it is open


@contextmanager
def claim_folder(folder: Path, lock_file: Path) -> Iterator[None]:
    """Hold a data folder by a lock on this file. Raises RuntimeError when another process holds it."""
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{folder} is in use by another process") from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claim_machine(name: str) -> Iterator[None]:
    """Wait until no other process of this user on this machine is in a block of the same name, then run the block."""
    path = _SHARED_FOLDER / f"tickets-{os.geteuid()}-{name}.lock"
    # Another user may have made a file or a link of this name first.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode) or opened.st_uid != os.geteuid():
            raise RuntimeError(f"{path} is not a file of ours: remove it")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claim_port(host: str, port: int) -> Iterator[None]:
    """Hold a TCP port against every other `tickets up`, and check that nothing listens on it. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            if sys.platform == "linux":
                # Processes of one user that listen with SO_REUSEPORT share a port without an error. A name in the
                # abstract namespace can be bound once, and is as local to a container as the port.
                claim.bind(f"\0tickets-up-port-{port}")
            require_free_port(host, port)
        except OSError as error:
            raise OSError(f"port {port} is in use") from error
        yield


def require_free_port(host: str, port: int) -> None:
    """Raise OSError when something listens on a port, or when it cannot be bound at all."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
