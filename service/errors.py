"""What can go wrong: every reason with its gRPC status, its HTTP statuses and its public message, in one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grpc import StatusCode
from pydantic import ValidationError

# How many characters of a name that the caller chose an error repeats.
ECHO_LENGTH = 100
# How many problems of one request are reported.
MAX_ISSUES = 100
# How many characters of a problem go into the message, which callers log as one line.
_MAX_ISSUE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Reason:
    """How a reason is reported: gRPC status, HTTP status in the handoff and helpdesk APIs, and in ITSM."""

    status: StatusCode
    http: int
    itsm_http: int
    message: str
    # Where the handoff API has another one than `http`.
    handoff_http: int | None = None


# The table of contracts/errors.md. `message` is what a caller reads when the failure has none of its own.
REASONS: Mapping[str, Reason] = {
    "unauthenticated": Reason(StatusCode.UNAUTHENTICATED, 401, 401, "Missing authentication credentials"),
    "token_expired": Reason(StatusCode.UNAUTHENTICATED, 401, 401, "The token has expired"),
    "invalid_token": Reason(StatusCode.UNAUTHENTICATED, 401, 401, "The token is not valid"),
    "forbidden": Reason(StatusCode.PERMISSION_DENIED, 403, 403, "You are not allowed to do this"),
    "missing_scope": Reason(StatusCode.PERMISSION_DENIED, 403, 403, "A required scope is missing"),
    "suspended": Reason(StatusCode.PERMISSION_DENIED, 403, 403, "The account is suspended"),
    "not_found": Reason(StatusCode.NOT_FOUND, 404, 404, "Not found"),
    "validation_error": Reason(StatusCode.INVALID_ARGUMENT, 400, 422, "The request is not valid"),
    # In the ITSM API a bad member is 422, but these two are documented as 400.
    "unknown_event": Reason(StatusCode.INVALID_ARGUMENT, 400, 400, "Invalid event type"),
    "url_refused": Reason(StatusCode.INVALID_ARGUMENT, 400, 400, "The address is refused"),
    "provider_rejected": Reason(StatusCode.FAILED_PRECONDITION, 400, 400, "The provider rejected the ticket"),
    "reconnect_required": Reason(StatusCode.UNAUTHENTICATED, 401, 401, "GitHub no longer accepts the project's link"),
    "invalid_transition": Reason(StatusCode.ABORTED, 409, 409, "The ticket's state does not allow this"),
    "idempotency_mismatch": Reason(
        StatusCode.ALREADY_EXISTS, 409, 409, "Idempotency key reused with a different payload"
    ),
    "already_exists": Reason(StatusCode.ALREADY_EXISTS, 409, 409, "It already exists"),
    "roles_incomplete": Reason(
        StatusCode.FAILED_PRECONDITION, 409, 409, "A ticket can be closed once every role is done or skipped"
    ),
    # 412 is for a condition in a header; in the handoff API it stands in the body.
    "stale": Reason(StatusCode.ABORTED, 412, 412, "The ticket has changed since it was read", handoff_http=409),
    "cursor_expired": Reason(
        StatusCode.OUT_OF_RANGE,
        410,
        410,
        "Events after this cursor were deleted: list what there is, and watch again without a cursor",
    ),
    "payload_too_large": Reason(StatusCode.INVALID_ARGUMENT, 413, 413, "The request is too large"),
    # Sent by the gateway alone.
    "unsupported_media_type": Reason(StatusCode.INVALID_ARGUMENT, 415, 415, "The body must not be compressed"),
    "rate_limited": Reason(StatusCode.RESOURCE_EXHAUSTED, 429, 429, "Too many requests"),
    "unavailable": Reason(StatusCode.UNAVAILABLE, 503, 503, "The service is currently unavailable"),
    "deadline_exceeded": Reason(StatusCode.DEADLINE_EXCEEDED, 504, 504, "The request took too long"),
    "internal": Reason(StatusCode.INTERNAL, 500, 500, "Internal error"),
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One problem with one member of a request, as pydantic names it.

    `loc` is the path to the member, its first step the section of the request: `body`, `path`, `query` or `header`.
    """

    loc: tuple[str | int, ...]
    message: str
    type: str
    input: Any = None
    context: Mapping[str, Any] | None = None

    @property
    def path(self) -> str:
        """The path within its section, dotted: `roles.1`. The section's name when all of it is meant."""
        return ".".join(str(step) for step in self.loc[1:] or self.loc)


@dataclass(eq=False)
class TicketError(Exception):
    """A failure that is reported to the caller. `reason` is a key of REASONS; `retry_after` is in seconds."""

    reason: str
    message: str = ""
    issues: Sequence[Issue] = field(default=())
    retry_after: int | None = None
    # False only where nothing of the request was begun, so that a gateway may retry it elsewhere.
    begun: bool = True
    # True where the caller gets no earlier answer under the same idempotency key either.
    is_final: bool = False

    def __post_init__(self) -> None:
        """Make the message of the first problem, or take the table's, where there is none."""
        self.message = self.message or _summary(self.issues) or REASONS[self.reason].message
        Exception.__init__(self, self.reason, self.message)

    @property
    def reconnect(self) -> bool:
        """Whether linking the project to GitHub again may fix it."""
        return self.reason == "reconnect_required"


def _summary(issues: Sequence[Issue], count: int = 0) -> str:
    """The first problem, and how many more there are: many callers log no more than the message."""
    if not issues:
        return ""
    more = max(count, len(issues)) - 1
    first = f"{issues[0].path[:ECHO_LENGTH]}: {issues[0].message[:_MAX_ISSUE_LENGTH]}"
    return f"{first} (and {more} more)" if more else first


def validation_error(invalid: ValidationError) -> TicketError:
    """The failure that reports every problem pydantic found with a command."""
    issues = [
        Issue(
            loc=_loc(error["loc"], error["input"]),
            message=error["msg"],
            type=error["type"],
            # A body that is missing has no input; pydantic would show the sections of the request.
            input=None if error["type"] == "missing" and len(error["loc"]) == 1 else error["input"],
            context=error.get("ctx"),
        )
        for error in invalid.errors(include_url=False)[:MAX_ISSUES]
    ]
    return TicketError("validation_error", _summary(issues, invalid.error_count()), issues=issues)


def _loc(loc: tuple[str | int, ...], value: Any) -> tuple[str | int, ...]:
    """The path to the problem. A name that is itself the problem, which pydantic marks with `[key]`, is cut short."""
    if loc[-1:] == ("[key]",) and loc[-2] == value:
        return *loc[:-2], str(value)[:ECHO_LENGTH]
    return *loc[:-1], *(step[:ECHO_LENGTH] if isinstance(step, str) else step for step in loc[-1:])


def invalid(section: str, name: str, message: str, kind: str = "value_error", value: Any = None) -> TicketError:
    """A validation error that only an operation or a servicer can see, in the shape of a command's own."""
    return TicketError(
        "validation_error", issues=[Issue((section, name) if name else (section,), message, kind, value)]
    )


def field_errors(error: TicketError) -> dict[str, str]:
    """For each path the first message about it."""
    first: dict[str, str] = {}
    for issue in error.issues:
        first.setdefault(issue.path, issue.message)
    return first
