"""What a failure is over gRPC: a message, and `google.rpc` details beside it, of a size that every client takes."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tickets.errors.v1 import error_pb2

from service.errors import REASONS, Issue, TicketError

DOMAIN = "tickets"

# How many issues an error lists, and how long their texts may be: they travel in trailing metadata.
_MAX_ISSUES = 20
_MAX_PATH_BYTES = 150
_MAX_TEXT_BYTES = 350
_MAX_MESSAGE_BYTES = 800
# Clients take 8 KiB of metadata: Java's fail a call that gets more as INTERNAL, and its connection with it; those over
# gRPC's C library refuse some. The rest is for other trailers, and for what a gateway adds.
_MAX_BYTES = 7000
# What each issue is repeated in (BadRequest, Error's issues and field_errors), and the tags and lengths around it.
_COPIES = 3
_FRAME_BYTES = 30
# What a status without issues takes beside its message.
_STATUS_BYTES = 300
# As a header spells it: three bytes in four characters; a byte that is not printable ASCII in three.
_PRINTABLE = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("%"))


def message_of(error: TicketError) -> str:
    """The failure's message, cut short where it is very long."""
    return _cut(error.message, _MAX_MESSAGE_BYTES)


def details_of(error: TicketError) -> bytes:
    """The failure's status with details, serialized."""
    message = message_of(error)
    return _status(error, message) if error.issues else _plain_status(error.reason, message, error.retry_after)


# Most are refusals, the same again and again, and many of them at once.
@lru_cache(maxsize=256)
def _plain_status(reason: str, message: str, retry_after: int | None) -> bytes:
    """The details of a failure that is not about members of the request."""
    return _status(TicketError(reason, message, retry_after=retry_after), message)


def _status(error: TicketError, message: str) -> bytes:
    status = status_pb2.Status(code=REASONS[error.reason].status.value[0], message=message)
    for detail in _details(error, message, _fitting(error.issues, message)):
        status.details.add().Pack(detail)
    details: bytes = status.SerializeToString()
    return details


def _fitting(issues: Sequence[Issue], message: str) -> Sequence[tuple[str, str]]:
    """Path and text of the first issues, as many as there is room for."""
    sent = message.encode()
    left = (_MAX_BYTES - len(quote_from_bytes(sent, _PRINTABLE))) * 3 // 4 - 2 * len(sent) - _STATUS_BYTES
    fitting = []
    for issue in issues[:_MAX_ISSUES]:
        path, text = _cut(issue.path, _MAX_PATH_BYTES), _cut(issue.message, _MAX_TEXT_BYTES)
        left -= _COPIES * (len(path.encode()) + len(text.encode())) + _FRAME_BYTES
        if left < 0:
            break
        fitting.append((path, text))
    return fitting


def _cut(text: str, size: int) -> str:
    # No text of so few characters is longer.
    return text if len(text) * 4 <= size else text.encode()[:size].decode(errors="ignore")


def _details(error: TicketError, message: str, issues: Sequence[tuple[str, str]]) -> Iterable[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    if issues:
        violation = error_details_pb2.BadRequest.FieldViolation
        yield error_details_pb2.BadRequest(
            field_violations=[violation(field=path, description=text) for path, text in issues]
        )
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(error.retry_after)
        yield retry
    yield error_pb2.Error(
        message=message,
        code=error.reason,
        field_errors=dict(reversed(issues)),  # for each path the first
        issues=[error_pb2.Issue(path=path, message=text) for path, text in issues],
        retry_after=error.retry_after,
        reconnect=error.reconnect or None,
    )
