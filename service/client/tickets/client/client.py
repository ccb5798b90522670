"""The two clients: the same methods, blocking and asynchronous."""

from dataclasses import dataclass
from typing import Any, Generic, Self

import grpc
from tickets.client import handoff, helpdesk, itsm, sla
from tickets.client.session import AsyncCredential, Credential, Retries, Session, TransportT
from tickets.client.transport import Asynchronous, Blocking

_TIMEOUT_SECONDS = 10.0
_RETRIES = Retries()
_USER_AGENT = "tickets-client"
_OPTIONS = (
    # A page of large tickets is larger than gRPC's four megabytes.
    ("grpc.max_receive_message_length", -1),
    # While a channel waits to reconnect every attempt fails at once, so it waits no longer than attempts go on.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    # While there are calls, pings find a peer that has stalled, for which a watch would wait for ever. The service
    # permits two a second. gRPC by itself gives a ping a minute, and sends two until it sends data again.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


@dataclass(frozen=True, slots=True)
class Handoff(Generic[TransportT]):
    """The resources of the handoff API."""

    tickets: handoff.Tickets[TransportT]


@dataclass(frozen=True, slots=True)
class Helpdesk(Generic[TransportT]):
    """The resources of the helpdesk API."""

    tickets: helpdesk.Tickets[TransportT]
    sla_policies: sla.SlaPolicies[TransportT]
    calendar: sla.TenantCalendar[TransportT]


@dataclass(frozen=True, slots=True)
class Itsm(Generic[TransportT]):
    """The resources of the ITSM API."""

    tickets: itsm.Tickets[TransportT]
    webhooks: itsm.Webhooks[TransportT]


class _Client(Generic[TransportT]):
    def __init__(self, session: Session[TransportT]) -> None:
        self.helpdesk = Helpdesk(helpdesk.Tickets(session), sla.SlaPolicies(session), sla.TenantCalendar(session))
        self.handoff = Handoff(handoff.Tickets(session))
        self.itsm = Itsm(itsm.Tickets(session), itsm.Webhooks(session))


class TicketsClient(_Client[Blocking]):
    """The blocking client. Threads may share one.

    `target` is an address, or a channel, which the caller closes; `secure` and `user_agent` are for an address.
    Helpdesk and handoff calls need the `token`, a JWT, and ITSM calls the `api_key`; either may be a function that
    returns a fresh one. `timeout` is in seconds, for all attempts of a call that has no timeout of its own.
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
        channel: grpc.Channel = _open(grpc, target, secure, user_agent) if isinstance(target, str) else target
        self._transport = Blocking(channel, is_owner=isinstance(target, str))
        super().__init__(Session(self._transport, token, api_key, timeout, retries))

    def close(self) -> None:
        """Close the client for good, and its own channel: calls in flight and later ones raise TicketsError."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncTicketsClient(_Client[Asynchronous]):
    """The asynchronous client: methods are coroutines and asynchronous generators.

    It may be made anywhere, also before there is an event loop. Everything else is as in TicketsClient; the function
    that returns a fresh token or key may be a coroutine function.
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
        self._transport = Asynchronous(
            lambda: _open(grpc.aio, target, secure, user_agent) if isinstance(target, str) else target,
            is_owner=isinstance(target, str),
        )
        super().__init__(Session(self._transport, token, api_key, timeout, retries))

    async def close(self) -> None:
        """As TicketsClient's."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _open(grpc_: Any, target: str, secure: bool | grpc.ChannelCredentials, user_agent: str) -> Any:
    """A channel of `grpc` or of `grpc.aio`: both open theirs alike."""
    options = (*_OPTIONS, ("grpc.primary_user_agent", user_agent))
    if secure is False:
        return grpc_.insecure_channel(target, options)
    return grpc_.secure_channel(target, grpc.ssl_channel_credentials() if secure is True else secure, options)
