"""HTTP to addresses that callers chose: never to this host, its network or its cloud's metadata.

A name is resolved here, all of its addresses are checked, and the connection goes to the very address that was checked,
so that the name cannot resolve to another a moment later. No redirect is followed and no proxy is used.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiodns
import httpcore2
from aiodns.error import DNSError
from httpx2 import create_ssl_context

from service.settings import Settings

_RESOLVE_SECONDS = 3.0
_CHECK_SECONDS = 4.0
# The time limit of connecting to each of a host's addresses.
_CONNECT_SECONDS = 5.0
# The body of an answer is read only so that its connection can be used again.
_MAX_BYTES = 64 * 1024
# How many pieces it may come in: each costs the process some time, however small it is.
_MAX_PIECES = 100
_DRAIN_SECONDS = 1.0
_IDLE_SECONDS = 15.0
# How many bytes may come after a request in all: headers without end would keep the process busy.
_MAX_READ = 2 * _MAX_BYTES
_READ_AT_ONCE = 16 * 1024

_PORTS = {"http": 80, "https": 443}
_USER_AGENT = b"tickets-webhooks"
# Public by number and still refused: the IETF's own, where Oracle's metadata is, relays from 6to4, Azure's host.
_REFUSED_V4 = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
# All that is routed; addresses that stand for IPv4 (mapped, NAT64) are outside of it.
_ROUTED_V6 = ip_network("2000::/3")
# Refused within it: Teredo and other assignments of the IETF, 6to4, documentation.
_REFUSED_V6 = tuple(map(ip_network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")))


class UnreachableError(Exception):
    """There is no answer; the message says why, to the caller who chose the address."""


class RefusedError(UnreachableError):
    """The address must not be called."""


class _TooLongError(httpcore2.ReadError):
    """More came back than any answer needs."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    # How many seconds the receiver asks to wait.
    retry_after: float | None


def seconds_of(retry_after: str | None) -> float | None:
    """How long a `Retry-After` asks to wait: it is a number of seconds, or a date. None where it is neither."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # a number of many digits in a date
        return None
    return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - time.time())


@cache
def trusted_authorities() -> ssl.SSLContext:
    """The certificate authorities that this host trusts, read once: that takes 30 ms.

    Those that SSL_CERT_FILE names are for operators' own addresses, not for the ones that callers chose.
    """
    return create_ssl_context(trust_env=False)


class Outbound:
    """The connections of one process to addresses that callers chose."""

    def __init__(self, settings: Settings) -> None:
        self._allows_private = settings.allow_private_targets
        self._backend = _Backend(allows_private=settings.allow_private_targets)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted_authorities(),
            max_connections=None,
            max_keepalive_connections=20,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=self._backend,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()
        await self._backend.close()

    async def check(self, url: str) -> None:
        """Raise UnreachableError for an address that would be refused now, or that does not exist."""
        host, port = self._host_and_port(url)
        if not self._allows_private:
            async with _within(_CHECK_SECONDS):
                await self._backend.addresses(host, port)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, seconds: float) -> Answer:
        """Post a JSON body and return once the answer's headers are there. Raises UnreachableError."""
        self._host_and_port(url)
        # The host keeps the brackets of an IPv6 address.
        sent = [(b"host", urlsplit(url).netloc.encode()), (b"user-agent", _USER_AGENT)]
        sent += [(b"content-type", b"application/json")]
        sent += [(name.encode(), value.encode()) for name, value in headers.items()]
        async with AsyncExitStack() as stack:
            async with _within(seconds):
                stream = self._pool.stream("POST", url, headers=sent, content=body)
                response = await stack.enter_async_context(stream)
            given = {name.lower(): value for name, value in response.headers}
            # The receiver has answered, even if its body cannot be read.
            with suppress(TimeoutError, httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError):
                await _drain(response)
            return Answer(response.status, seconds_of(given.get(b"retry-after", b"").decode("latin-1")))

    def _host_and_port(self, url: str) -> tuple[str, int]:
        try:
            parts = urlsplit(url)
            scheme, host, port = parts.scheme, parts.hostname, parts.port
        except ValueError:
            raise RefusedError("it is not a web address") from None
        if scheme not in _PORTS or not host:
            raise RefusedError("it is not a web address")
        if scheme != "https" and not self._allows_private:
            raise RefusedError("it is not an https address")
        return host, port or _PORTS[scheme]


async def _drain(response: httpcore2.Response) -> None:
    async with asyncio.timeout(_DRAIN_SECONDS):
        size = pieces = 0
        async for piece in response.aiter_stream():
            size, pieces = size + len(piece), pieces + 1
            if size > _MAX_BYTES or pieces > _MAX_PIECES:
                return


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    """Raise UnreachableError for everything that keeps an answer from coming."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise UnreachableError(f"no answer within {seconds:g} seconds") from None
    except httpcore2.ConnectTimeout:
        raise UnreachableError(f"no connection within {_CONNECT_SECONDS:g} seconds") from None
    except (httpcore2.ConnectError, ssl.SSLError) as error:
        raise UnreachableError(f"no connection: {error}"[:200]) from error
    except _TooLongError as error:
        raise UnreachableError("its answer is too long") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        # The connection broke, or what came is not HTTP: the one may look like the other.
        raise UnreachableError("no complete HTTP answer came") from error


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is on the public Internet, and no detour to an address that is not."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _ROUTED_V6 and not any(address in network for network in _REFUSED_V6)


class _Bounded(httpcore2.AsyncNetworkStream):
    """A connection that fails when too much comes after what was sent last."""

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream
        self._read = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - as the interface has it
        """Read some."""
        data = await self._stream.read(min(max_bytes, _READ_AT_ONCE), timeout)
        self._read += len(data)
        if self._read > _MAX_READ:
            raise _TooLongError
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as the interface has it
        """Write all of it."""
        self._read = 0
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - as the interface has it
    ) -> httpcore2.AsyncNetworkStream:
        """The same with TLS."""
        return _Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """What is known of it."""
        return self._stream.get_extra_info(info)


class _Backend(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that it has resolved and checked itself."""

    def __init__(self, *, allows_private: bool) -> None:
        self._allows_private = allows_private
        self._network = httpcore2.AnyIOBackend()
        # The system's resolver would hold a thread for each name whose servers do not answer.
        self._resolver = aiodns.DNSResolver()

    async def close(self) -> None:
        """Stop looking up names."""
        await self._resolver.close()

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses of a host. Raises UnreachableError: there is none, or one of them is refused."""
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await _resolve(self._resolver, host, port)
        except (DNSError, UnicodeError, TimeoutError):
            raise UnreachableError("its host has no address") from None
        if not self._allows_private and not all(is_public(ip_address(address)) for address in found):
            # The message leaves the address out: a caller must not learn what names of this network resolve to.
            raise RefusedError("its host is not on the public Internet")
        return found

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface has it
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to the first address that accepts it; TLS still verifies the name."""
        failure: Exception = UnreachableError("its host has no address")
        for address in await self.addresses(host, port):
            try:
                stream = await self._network.connect_tcp(address, port, timeout or _CONNECT_SECONDS, local_address)
                return _Bounded(stream)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise RefusedError("it is not a web address")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def _resolve(resolver: aiodns.DNSResolver, host: str, port: int) -> list[str]:
    with suppress(OSError):
        # A number needs no resolver, however it is written (short, octal, hexadecimal).
        return [socket.inet_ntoa(socket.inet_aton(host))]
    found = await resolver.getaddrinfo(host, port=port, type=socket.SOCK_STREAM)
    # Each address once, in the resolver's order.
    return list(dict.fromkeys(node.addr[0].decode() for node in found.nodes))
