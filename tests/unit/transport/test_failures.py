"""contracts/errors.md: how failures are rendered, for those that no call can bring about yet."""

import string
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from tickets.errors.v1 import error_pb2

from service.errors import REASONS, Issue, TicketError
from service.handoff.servicers import DIALECT
from service.operation import Answer
from service.transport import rest

# Java's clients take 8 KiB of trailers, names and all; a gateway adds some.
MOST_BYTES = 7000
PRINTABLE = string.punctuation.replace("%", "") + " "
MESSAGE = "GitHub no longer accepts the project's link"


class AbortedError(Exception):
    """What gRPC raises to end a call."""


class Context:
    """Keeps what a call ends with."""

    def __init__(self) -> None:
        self.sent: dict[str, Any] = {}

    def trailing_metadata(self) -> None:
        """Nothing was set before."""

    async def send_initial_metadata(self, metadata: Any) -> None:
        self.sent |= dict(metadata)

    async def abort(self, code: StatusCode, details: str, trailing: Any) -> None:
        self.sent |= {"code": code, "details": details, **dict(trailing)}
        raise AbortedError


def failures_of(name: str) -> Any:
    return next(service.failures for service in DIALECT.services if service.descriptor.name == name)


async def test_a_link_that_github_no_longer_accepts_asks_to_reconnect_over_rest() -> None:
    context = Context()
    body = await failures_of("TicketRest").fail(context, TicketError("reconnect_required"), Answer())
    assert context.sent == {"x-http-status": "401", "www-authenticate": 'Bearer realm="tickets"'}
    assert body.data == b'{"error":"%b","code":"reconnect_required","reconnect":true}' % MESSAGE.encode()


async def test_a_link_that_github_no_longer_accepts_asks_to_reconnect_over_grpc() -> None:
    context = Context()
    with pytest.raises(AbortedError):
        await failures_of("TicketService").fail(context, TicketError("reconnect_required"), Answer())
    assert (context.sent["code"], context.sent["details"]) == (StatusCode.UNAUTHENTICATED, MESSAGE)
    info, error = error_details_pb2.ErrorInfo(), error_pb2.Error()
    packed_info, packed_error = status_pb2.Status.FromString(context.sent["grpc-status-details-bin"]).details
    assert packed_info.Unpack(info)
    assert packed_error.Unpack(error)
    assert (info.reason, error.code, error.reconnect) == ("reconnect_required", "reconnect_required", True)


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != "reconnect_required"])
def test_no_other_failure_asks_to_reconnect(reason: str) -> None:
    assert "reconnect" not in rest.error_body(TicketError(reason))


async def test_each_failure_has_its_own_details() -> None:
    refusals = [
        ("rate_limited", "", 1),
        ("rate_limited", "", 2),
        ("rate_limited", "Too many", 2),
        ("unavailable", "", 2),
    ]
    for reason, message, seconds in [*refusals, *refusals]:
        context, failure = Context(), TicketError(reason, message, retry_after=seconds)
        with pytest.raises(AbortedError):
            await failures_of("TicketService").fail(context, failure, Answer())
        error, details = error_pb2.Error(), status_pb2.Status.FromString(context.sent["grpc-status-details-bin"])
        assert details.details[-1].Unpack(error)
        assert (error.code, error.message, error.retry_after) == (reason, failure.message, seconds)
        assert (details.code, details.message) == (context.sent["code"].value[0], context.sent["details"])


def bytes_of(sent: Mapping[str, Any]) -> int:
    """What a client counts of the two trailers: gRPC percent-encodes the message, and sends details as Base64."""
    return len(quote(sent["details"], safe=PRINTABLE)) + len(b64encode(sent["grpc-status-details-bin"]))


def issues(number: int, path: str, message: str) -> Sequence[Issue]:
    return [Issue(("body", path, index), message, "value_error") for index in range(number)]


WEEKDAY = "Input should be 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday' or 'sunday'"


@pytest.mark.parametrize(
    ("failure", "listed"),
    [
        pytest.param(TicketError("validation_error", issues=issues(2, "hours", WEEKDAY)), 2, id="few"),
        pytest.param(TicketError("validation_error", issues=issues(100, "hours", "Bad")), 20, id="many short ones"),
        pytest.param(TicketError("validation_error", issues=issues(100, "hours", WEEKDAY)), 13, id="many"),
        pytest.param(TicketError("validation_error", issues=issues(9, "k" * 100, "v" * 100)), 6, id="names"),
        pytest.param(
            TicketError("validation_error", issues=issues(9, "\U0001f600" * 99, "\U0001f600" * 999)), 1, id="emoji"
        ),
        pytest.param(TicketError("provider_rejected", "拒" * 500), 0, id="a provider's words"),
        pytest.param(TicketError("provider_rejected", "\U0001f600%" * 9999), 0, id="more of them"),
    ],
)
async def test_a_failure_fits_into_what_every_client_takes(failure: TicketError, listed: int) -> None:
    context, error = Context(), error_pb2.Error()
    with pytest.raises(AbortedError):
        await failures_of("TicketService").fail(context, failure, Answer())
    status = status_pb2.Status.FromString(context.sent["grpc-status-details-bin"])
    assert status.details[-1].Unpack(error)
    assert bytes_of(context.sent) <= MOST_BYTES
    assert status.message == error.message == context.sent["details"]
    assert failure.message.startswith(error.message)
    assert len(error.message) >= min(len(failure.message), 200)
    assert len(error.issues) == listed
    assert all(whole.path.startswith(issue.path) for issue, whole in zip(error.issues, failure.issues, strict=False))
    assert error.field_errors == {issue.path: issue.message for issue in error.issues}
