"""The two clients: the same calls, blocking and asynchronous."""

from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import grpc

from service.client import handoff, helpdesk, itsm, sla
from service.client.link import AsyncCredential, Credential, Link, Retries, W
from service.client.wire import Asynchronous, Blocking

T = TypeVar("T")

_TIMEOUT_SECONDS = 10.0
_RETRIES = Retries()
_USER_AGENT = "tickets-client"
_OPTIONS = (
    # A page of large tickets is larger than gRPC's four megabytes.
    ("grpc.max_receive_message_length", -1),
    # While a channel waits to connect again every attempt fails at once; so it waits no longer than attempts do.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


@dataclass(frozen=True, slots=True)
class Resources(Generic[T]):
    """What one API has."""

    tickets: T


@dataclass(frozen=True, slots=True)
class Helpdesk(Generic[W]):
    """What the helpdesk API has."""

    tickets: helpdesk.Tickets[W]
    sla_policies: sla.SlaPolicies[W]
    calendar: sla.TenantCalendar[W]


@dataclass(frozen=True, slots=True)
class Itsm(Generic[W]):
    """What the ITSM API has."""

    tickets: itsm.Tickets[W]
    webhooks: itsm.Webhooks[W]


class _Client(Generic[W]):
    def __init__(self, link: Link[W]) -> None:
        self.helpdesk = Helpdesk(helpdesk.Tickets(link), sla.SlaPolicies(link), sla.TenantCalendar(link))
        self.handoff = Resources(handoff.Tickets(link))
        self.itsm = Itsm(itsm.Tickets(link), itsm.Webhooks(link))


class TicketsClient(_Client[Blocking]):
    """Calls that return their answers. Threads may share a client.

    `target` is an address, or a channel that stays the caller's to close; `secure` and `user_agent` are for an address.
    Helpdesk and handoff calls need the `token`, a JWT, and ITSM calls the `api_key`; either may be a function that
    gives a fresh one. `timeout` is in seconds, for each call that brings none, all its attempts together.
    """

    def __init__(
        self,
        target: str | grpc.Channel,
        *,
        token: Credential | None = None,
        api_key: Credential | None = None,
        secure: bool | grpc.ChannelCredentials = False,
        user_agent: str = _USER_AGENT,
        timeout: float = _TIMEOUT_SECONDS,
        retries: Retries = _RETRIES,
    ) -> None:
        self._is_owner = isinstance(target, str)
        self._channel: grpc.Channel = _open(grpc, target, secure, user_agent) if isinstance(target, str) else target
        super().__init__(Link(Blocking(self._channel), token, api_key, timeout, retries))

    def close(self) -> None:
        """Close the client's own channel; calls under way are cancelled."""
        if self._is_owner:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTicketsClient(_Client[Asynchronous]):
    """The same calls as coroutines and asynchronous generators. It is used in the event loop that it is made in.

    Everything is as with TicketsClient; what gives a fresh token or key may be a coroutine function.
    """

    def __init__(
        self,
        target: str | grpc.aio.Channel,
        *,
        token: AsyncCredential | None = None,
        api_key: AsyncCredential | None = None,
        secure: bool | grpc.ChannelCredentials = False,
        user_agent: str = _USER_AGENT,
        timeout: float = _TIMEOUT_SECONDS,
        retries: Retries = _RETRIES,
    ) -> None:
        self._is_owner = isinstance(target, str)
        self._channel: grpc.aio.Channel = (
            _open(grpc.aio, target, secure, user_agent) if isinstance(target, str) else target
        )
        super().__init__(Link(Asynchronous(self._channel), token, api_key, timeout, retries))

    async def close(self) -> None:
        """Close the client's own channel; calls under way are cancelled."""
        if self._is_owner:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _open(grpc_: Any, target: str, secure: bool | grpc.ChannelCredentials, user_agent: str) -> Any:
    """A channel of one kind: `grpc` and `grpc.aio` open theirs alike."""
    options = (*_OPTIONS, ("grpc.primary_user_agent", user_agent))
    if secure is False:
        return grpc_.insecure_channel(target, options)
    return grpc_.secure_channel(target, grpc.ssl_channel_credentials() if secure is True else secure, options)
