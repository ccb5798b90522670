"""Rate limits: a token bucket for each caller and kind of call, one across all processes of a host.

The buckets lie in a file that every process maps. A bucket's group is locked for the microsecond that it is read and
written; the kernel drops the lock of a process that dies. Buckets of idle callers are reused for busy ones.

A process takes up to a hundredth of a burst in advance, so that most calls of a busy caller lock nothing.
"""

import fcntl
import hashlib
import math
import mmap
import os
import stat
import struct
import time
from functools import lru_cache
from pathlib import Path
from typing import Literal

from service.access.policy import Caller
from service.counters import SHED
from service.errors import TicketError
from service.operation import Answer
from service.settings import SettingError, Settings

# The caller (a hash), tokens left, when they were counted (the host's monotonic clock, in seconds).
_BUCKET = struct.Struct("<Qdd")
_GROUP_BUCKETS = 8
_GROUP_BYTES = _BUCKET.size * _GROUP_BUCKETS
_GROUPS = 8192
_BATCHES_IN_BURST = 100
_MAX_CALLERS_WITH_TOKENS = 10_000
_SHED = SHED.labels("rate")


class RateLimits:
    """The buckets of one host."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingError for a file that it cannot have, or that another user could change."""
        self._policies = {
            "read": _Policy("read", settings.rate_limit_reads),
            "write": _Policy("write", settings.rate_limit_writes),
        }
        path = Path(settings.rate_limit_file) if settings.rate_limit_file else _default_file()
        try:
            self._file = _open(path)
        except OSError as error:
            raise SettingError(f"TICKETS_RATE_LIMIT_FILE: {error}") from None
        os.ftruncate(self._file, _GROUPS * _GROUP_BYTES)
        self._buckets = mmap.mmap(self._file, _GROUPS * _GROUP_BYTES)
        # Tokens that were taken from the bucket and not used yet, by tag.
        self._held: dict[int, _Batch] = {}

    def take(self, kind: Literal["read", "write"], caller: Caller, answer: Answer) -> None:
        """Take one token from the caller's bucket, and note in the answer what is left.

        Raises TicketError `rate_limited` when it is empty.
        """
        tag = _tag(kind, caller.tenant_id, caller.app_id, caller.subject)
        batch = self._held.get(tag)
        if batch is None or not batch.held:
            batch = self._take_batch(kind, tag)
        policy = self._policies[kind]
        if not batch.held:
            wait = max(1, math.ceil((1 - batch.left) / policy.rate))
            answer.rate_limit = policy.headers(0, wait)
            _SHED.inc()
            raise TicketError("rate_limited", retry_after=wait)
        batch.held -= 1
        # As of the last look at the bucket: nobody is promised a token that another process may have taken.
        left = batch.held + int(batch.left)
        answer.rate_limit = policy.headers(left, math.ceil((policy.burst - left) / policy.rate))

    def _take_batch(self, kind: Literal["read", "write"], tag: int) -> "_Batch":
        policy = self._policies[kind]
        start = tag % _GROUPS * _GROUP_BYTES
        fcntl.lockf(self._file, fcntl.LOCK_EX, _GROUP_BYTES, start)
        try:
            now = time.monotonic()
            at, tokens = self._find(tag, start, policy, now)
            taken = min(int(tokens), max(1, int(policy.burst) // _BATCHES_IN_BURST))
            _BUCKET.pack_into(self._buckets, at, tag, tokens - taken, now)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _GROUP_BYTES, start)
        if len(self._held) >= _MAX_CALLERS_WITH_TOKENS:
            self._held.clear()
        batch = _Batch(taken, tokens - taken)
        if taken:
            self._held[tag] = batch
        return batch

    def close(self) -> None:
        """Unmap the buckets; they stay for the other processes."""
        self._buckets.close()
        os.close(self._file)

    def _find(self, tag: int, start: int, policy: "_Policy", now: float) -> tuple[int, float]:
        """Where the caller's bucket is and what it holds now; a new caller takes over the longest idle bucket."""
        oldest, oldest_counted = start, math.inf
        for at in range(start, start + _GROUP_BYTES, _BUCKET.size):
            owner, tokens, counted = _BUCKET.unpack_from(self._buckets, at)
            if counted > now:
                owner, counted = 0, 0.0  # from before the host was restarted
            if owner == tag:
                return at, min(policy.burst, tokens + (now - counted) * policy.rate)
            if counted < oldest_counted:
                oldest, oldest_counted = at, counted
        return oldest, policy.burst


@lru_cache(maxsize=10_000)
def _tag(*who: str | None) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, who)).encode(), digest_size=8).digest()) or 1


def _default_file() -> Path:
    """The file in a directory of the user's own: nothing that another user could have made first."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or os.environ.get("XDG_RUNTIME_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(runtime or cache) / "tickets" / "rate-limits"


def _open(path: Path) -> int:
    """The file, made if it is missing. Raises OSError, also where another user could change its buckets."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _require_own(directory, path.parent)
        file = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        _require_own(file, path)
    except OSError:
        os.close(file)
        raise
    return file


def _require_own(opened: int, path: Path) -> None:
    status = os.fstat(opened)
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{path} belongs to another user, or others can write to it")


class _Policy:
    """The rate and the burst of one kind of call, and how callers are told (draft-ietf-httpapi-ratelimit-headers)."""

    def __init__(self, kind: str, setting: str) -> None:
        sustained, _, burst = setting.partition("/")
        self.rate, self.burst = float(sustained), float(burst)
        self._kind = kind
        # So many within the time in which an empty bucket becomes full.
        self._words = f'"{kind}";q={burst};w={math.ceil(self.burst / self.rate)}'

    def headers(self, left: int, seconds: int) -> dict[str, str]:
        """The policy; the calls that are left, and the seconds until all of them are again."""
        return {"ratelimit-policy": self._words, "ratelimit": f'"{self._kind}";r={left};t={seconds}'}


class _Batch:
    """Tokens that were taken from a bucket and not used yet, and what was left in it then."""

    __slots__ = ("held", "left")

    def __init__(self, held: int, left: float) -> None:
        self.held = held
        self.left = left
