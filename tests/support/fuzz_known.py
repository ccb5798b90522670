"""Shapes of requests with known faults, left out until each is mended. Take one out together with where it is asked."""

from collections.abc import Callable, Mapping, Sequence

from support.fuzz import Endpoint

_PREFIX = 5

Headers = Sequence[tuple[bytes, bytes]]


def keep_keys_apart(endpoint: Endpoint, headers: dict[str, str]) -> None:
    """A key of a helpdesk change that is then used for a creation is a 500: the stored answer is no row of a ticket."""
    if endpoint.api == "helpdesk" and "idempotency-key" in headers:
        headers["idempotency-key"] = f"{endpoint.name}-{headers['idempotency-key']}"[:255]


def _is_native(headers: Headers) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"application/grpc") for name, value in headers)


# HTTP at the gateway, by its target and headers.
HTTP: Mapping[str, Callable[[bytes, Headers], bool]] = {
    "two hosts: a 404 or a 500": lambda _, headers: sum(name.lower() == b"host" for name, _ in headers) > 1,
    "a user in an absolute target: a 403 whose code is that of a 400": lambda target, _: b"@" in target,
    "gRPC and an escaped slash in the path: a 500": lambda target, headers: (
        _is_native(headers) and b"%2" in target.lower()
    ),
}


def _ends_early(data: bytes) -> bool:
    return len(data) < _PREFIX or int.from_bytes(data[1:_PREFIX]) > len(data) - _PREFIX


# gRPC at both doors, by its data.
CALLS: Mapping[str, Callable[[bytes], bool]] = {
    "a stream that ends before its message does: never answered": _ends_early,
    "a message that is compressed, or whose flag is neither 0 nor 1: never answered": lambda data: data[:1] != b"\0",
}
