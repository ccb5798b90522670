"""Shapes of requests with known faults, left out until each is mended. Take one out together with where it is asked."""

from collections.abc import Callable, Mapping, Sequence

_PREFIX = 5

Headers = Sequence[tuple[bytes, bytes]]


# HTTP at the gateway, by its target and headers: none.
HTTP: Mapping[str, Callable[[bytes, Headers], bool]] = {}


def _ends_early(data: bytes) -> bool:
    return len(data) < _PREFIX or int.from_bytes(data[1:_PREFIX]) > len(data) - _PREFIX


# gRPC at both doors, by its data.
CALLS: Mapping[str, Callable[[bytes], bool]] = {
    "a stream that ends before its message does: never answered": _ends_early,
    "a message that is compressed, or whose flag is neither 0 nor 1: never answered": lambda data: data[:1] != b"\0",
}
