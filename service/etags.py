"""ETags in conditions: of a write (`If-Match`) and of a read (`If-None-Match`), RFC 9110, 13.1."""

import re

from service.errors import TicketError

# What is between the quotes says which version it is; commas may stand there too.
_TAG = re.compile(r'"[^"]*"')
_WEAK = re.compile(r'W/(?=")')


def of_version(version: int) -> str:
    """The ETag of what counts its changes."""
    return f'"{version}"'


def matches(etag: str, condition: str) -> bool:
    """Whether a condition names an ETag: `*`, or one ETag or several with commas between.

    Compared weakly: a proxy that compresses makes `W/"3"` of `"3"`, and the caller has read the same version.
    """
    return condition.strip() == "*" or etag.removeprefix("W/") in _TAG.findall(condition)


def without_weakness(condition: str) -> str:
    """The condition that means the same and says `W/` of no ETag."""
    return _WEAK.sub("", condition)


def require_match(etag: str, *conditions: str | None) -> None:
    """Raise TicketError `stale` unless a resource with this ETag meets every condition; None is no condition."""
    if not all(condition is None or matches(etag, condition) for condition in conditions):
        raise TicketError("stale")
