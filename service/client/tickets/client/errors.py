"""What calls raise: one exception class for each kind of failure that callers handle differently."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from tickets.errors.v1 import error_pb2


class Issue(NamedTuple):
    """One problem with one member of a request; `path` is dotted, such as `title` or `roles.1`."""

    path: str
    message: str


class TicketsError(Exception):
    """A call failed.

    `reason` is stable (`tickets.errors.v1.Error` lists them all; the status in lower case for a failure that names
    none), `message` is for people. `retry_after` is in seconds; `request_id` finds the call in the service's log.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        status: grpc.StatusCode,
        issues: tuple[Issue, ...] = (),
        retry_after: float | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.status = status
        self.issues = issues
        self.retry_after = retry_after
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception is copied and pickled as a call with its `args`, which lack what is keyword-only here.
        return _blank, (type(self), self.args), vars(self)

    def __str__(self) -> str:
        issues = [f"{path}: {message}" for path, message in self.issues]
        # The message of a validation error begins with the first issue.
        further = issues[1:] if issues and self.message.startswith(issues[0]) else issues
        return "; ".join([f"{self.reason}: {self.message}", *further])


def _blank(kind: type[TicketsError], args: tuple[str, ...]) -> TicketsError:
    return kind.__new__(kind, *args)


class UnauthenticatedError(TicketsError):
    """There are no credentials, or they are not or no longer valid."""


class PermissionDeniedError(TicketsError):
    """The caller may not do this, or the credential lacks a scope."""


class NotFoundError(TicketsError):
    """There is no such thing, or it is not the caller's."""


class ValidationError(TicketsError):
    """The request is not valid: see `issues`."""


class ConflictError(TicketsError):
    """What is there forbids it: the ticket's state, or an idempotency key used with another request."""


class StaleError(ConflictError):
    """The ticket has changed since it was read."""


class CursorExpiredError(TicketsError):
    """Events after a watch's cursor were deleted by their age: list what there is, and watch without a cursor."""


class RateLimitedError(TicketsError):
    """The caller is too fast: retry in `retry_after` seconds."""


class UnavailableError(TicketsError):
    """The service cannot be reached, is shutting down, or is overloaded. A write may have happened all the same."""


class DeadlineExceededError(TicketsError):
    """The call took too long. A write may have happened all the same."""


# Keyed by reason, and by status (in lower case) for failures of gRPC itself and reasons of later versions.
_KINDS: Mapping[str, type[TicketsError]] = {
    "unauthenticated": UnauthenticatedError,
    "permission_denied": PermissionDeniedError,
    "not_found": NotFoundError,
    "invalid_argument": ValidationError,
    "aborted": ConflictError,
    "already_exists": ConflictError,
    "roles_incomplete": ConflictError,
    "stale": StaleError,
    "out_of_range": CursorExpiredError,
    "rate_limited": RateLimitedError,
    "unavailable": UnavailableError,
    "deadline_exceeded": DeadlineExceededError,
}


def closed() -> TicketsError:
    """The exception for a call of a client that was closed before, or during the call."""
    return TicketsError("cancelled", "The client or its channel is closed", status=grpc.StatusCode.CANCELLED)


# What a stream is said to have ended with where it broke: a proxy resets it when the process behind has died.
_BREAKS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)


def failure(error: grpc.RpcError, *, is_watch: bool = False) -> TicketsError:
    """The exception for a call that ended with an error status, of either kind of channel.

    A watch that broke on the way is `unavailable`. The service's own failures with such a status have details.
    """
    call: Any = error
    status: grpc.StatusCode = call.code()
    # gRPC's pairs are no tuples.
    trailing: dict[str, Any] = {name: value for name, value in call.trailing_metadata() or ()}  # noqa: C416
    detail, retry_after = _details(trailing.get("grpc-status-details-bin", b""))
    if is_watch and status in _BREAKS and not detail.code:
        status = grpc.StatusCode.UNAVAILABLE
    word = status.name.lower()
    reason = detail.code or word
    made = _KINDS.get(reason, _KINDS.get(word, TicketsError))(
        reason,
        detail.message or call.details() or word,
        status=status,
        issues=tuple(Issue(issue.path, issue.message) for issue in detail.issues),
        retry_after=retry_after,
        request_id=trailing.get("x-request-id"),
    )
    made.__cause__ = error
    return made


def _details(raw: bytes) -> tuple[error_pb2.Error, float | None]:
    """The service's own error (empty when there is none), and the seconds to wait."""
    error, retry = error_pb2.Error(), error_details_pb2.RetryInfo()
    try:
        for packed in status_pb2.Status.FromString(raw).details:
            for detail in (error, retry):
                _unpack(packed, detail)
    except DecodeError:
        pass  # not in the service's form, such as a proxy's; the status is enough
    if retry.HasField("retry_delay"):
        return error, retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return error, float(error.retry_after) if error.HasField("retry_after") else None


def _unpack(packed: Any, detail: Message) -> None:
    if packed.Is(detail.DESCRIPTOR):
        packed.Unpack(detail)
