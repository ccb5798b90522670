"""Which addresses may be called, and that the one called is the one that was checked."""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiodns
import httpcore2
import pytest
from aiodns.error import DNSError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.emulators.http import Fault, Request, Response, Server, speaking

from service import outbound
from service.outbound import Outbound, RefusedError, UnreachableError
from service.settings import Settings

REFUSED = [
    # This host, its networks, and those of the provider.
    *("127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255"),  # noqa: S104
    *("192.168.0.1", "192.168.255.255"),
    *("100.64.0.1", "169.254.1.1", "198.18.0.1", "255.255.255.255", "240.0.0.1", "224.0.0.1", "239.1.1.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd12:3456::1", "ff02::1"),
    # Metadata of clouds.
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"),
    # Detours to IPv4: mapped, compatible, translated, 6to4, Teredo, ISATAP.
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2002:808:808::1", "2001:0:a00:1::1", "192.88.99.1", "fe80::5efe:10.0.0.1"),
    # For documentation and for discarding.
    *("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "100::1", "5f00::1"),
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::200e"]

Outside = Callable[[bool], Outbound]


@pytest.fixture
async def outside() -> AsyncIterator[Outside]:
    """Makes an Outbound, given whether it may call private addresses."""
    made = list[Outbound]()

    def make(private: bool) -> Outbound:
        made.append(Outbound(Settings(allow_private_targets=private)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """The answers of the resolver for each name, one after the other."""
    answers: dict[str, list[list[str]]] = {}

    async def resolve(_: Any, host: str, _port: int) -> list[str]:
        if not answers.get(host):
            raise DNSError(4, "no such name")
        return answers[host].pop(0)

    monkeypatch.setattr(outbound, "_resolve", resolve)
    return answers


class Silence(asyncio.DatagramProtocol):
    """A name server that never answers."""

    def __init__(self, names: set[bytes]) -> None:
        self._left = set(names)
        self.was_asked_for_all = asyncio.Event()

    def datagram_received(self, data: bytes, _: Any) -> None:
        # The question comes after the twelve bytes of the header, its first label after the length of that.
        self._left.discard(data[13 : 13 + data[12]])
        if not self._left:
            self.was_asked_for_all.set()


async def test_names_whose_servers_hang_delay_no_others(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {b"n%d" % n for n in range(100)}
    loop, one = asyncio.get_running_loop(), outside(True)
    transport, silence = await loop.create_datagram_endpoint(lambda: Silence(names), local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    one._backend._resolver = aiodns.DNSResolver(nameservers=[f"{host}:{port}"])
    hanging = [asyncio.create_task(one._backend.addresses(f"{name.decode()}.example.com", 443)) for name in names]
    await silence.was_asked_for_all.wait()
    assert "127.0.0.1" in await one._backend.addresses("localhost", 443)
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    monkeypatch.setattr(outbound, "_RESOLVE_SECONDS", 0.1)
    with pytest.raises(UnreachableError, match=r"^its host has no address$"):
        await one._backend.addresses("n.example.com", 443)
    transport.close()


@pytest.mark.parametrize("address", REFUSED)
def test_no_address_of_a_private_or_special_network_is_public(address: str) -> None:
    assert not outbound.is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_other_addresses_are_public(address: str) -> None:
    assert outbound.is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://8.8.8.8/", "it is not an https address"),
        ("ftp://8.8.8.8/", "it is not a web address"),
        ("https:///hook", "it is not a web address"),
        ("https://[::::]/hook", "it is not a web address"),
        ("https://8.8.8.8:99999/hook", "it is not a web address"),
        *[
            (f"https://{host}/hook", "its host is not on the public Internet")
            # As a number, short, octal, hexadecimal: the resolver knows them all.
            for host in ("127.0.0.1", "2130706433", "127.1", "0177.0.0.1", "0x7f.0.0.1", "[::1]", "[::ffff:10.0.0.1]")
        ],
        ("https://localhost:8443", "its host is not on the public Internet"),
    ],
)
async def test_an_address_is_refused_when_checked_and_when_called(outside: Outside, url: str, why: str) -> None:
    for attempt in (outside(False).check(url), outside(False).post(url, {}, b"{}", 5)):
        with pytest.raises(RefusedError, match=f"^{why}$"):
            await attempt


@pytest.mark.parametrize(
    ("answer", "is_allowed"),
    [
        (["93.184.216.34"], True),
        (["10.0.0.1"], False),
        (["93.184.216.34", "10.0.0.1"], False),
        (["2606:4700::1111", "::1"], False),
    ],
)
async def test_every_address_of_a_name_must_be_public(
    outside: Outside, names: dict[str, list[list[str]]], answer: Sequence[str], is_allowed: bool
) -> None:
    names["name.example"] = [list(answer)]
    check = outside(False).check("https://name.example/hook")
    if is_allowed:
        await check
    else:
        with pytest.raises(RefusedError):
            await check


async def test_a_name_without_an_address_is_not_reached(outside: Outside, names: dict[str, list[list[str]]]) -> None:
    with pytest.raises(UnreachableError, match=r"^its host has no address$"):
        await outside(False).check("https://name.example/hook")


async def test_it_connects_to_the_address_that_was_checked(outside: Outside, names: dict[str, list[list[str]]]) -> None:
    async with receiver() as server:
        port = server.url.rpartition(":")[2]
        # Resolved a second time it would be another.
        names["name.example"] = [["127.0.0.1"], ["10.255.255.1"]]
        answer = await outside(True).post(f"http://name.example:{port}/hook", {"x-a": "b"}, b'{"n":1}', 5)
        assert answer == (200, None)
        (request,) = server.requests
        assert (request.method, request.path, request.raw) == ("POST", "/hook", b'{"n":1}')
        assert (request.headers["host"], request.headers["x-a"]) == (f"name.example:{port}", "b")
        assert names["name.example"] == [["10.255.255.1"]]


@pytest.mark.parametrize(
    ("response", "fault", "status"),
    [
        (Response(200, "x" * 200_000), None, 200),
        (Response(302, headers={"location": "http://127.0.0.1:1/"}), None, 302),
        (Response(204), "slow", 204),
    ],
    ids=["too much", "redirect", "a body without end"],
)
async def test_an_answer_counts_once_its_status_is_there(
    outside: Outside, monkeypatch: pytest.MonkeyPatch, response: Response, fault: Fault | None, status: int
) -> None:
    monkeypatch.setattr(outbound, "_DRAIN_SECONDS", 0.2)
    async with receiver(response) as server:
        server.faults = [fault] if fault else []
        assert (await outside(True).post(server.url, {}, b"{}", 5)).status == status
        assert len(server.requests) == 1


async def test_headers_without_end_are_refused(outside: Outside) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnreachableError, match=r"^its answer is too long$"):
            await outside(True).post(f"http://127.0.0.1:{port}/", {}, b"{}", 15)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
    ],
    ids=["nothing", "a half", "another protocol", "no length"],
)
async def test_what_is_no_complete_answer_is_called_so(outside: Outside, sent: bytes) -> None:
    async with speaking(sent) as url:
        with pytest.raises(UnreachableError, match=r"^no complete HTTP answer came$"):
            await outside(True).post(url, {}, b"{}", 5)


async def test_a_host_that_takes_no_connection_is_called_so(outside: Outside, monkeypatch: pytest.MonkeyPatch) -> None:
    one = outside(True)

    async def silence(*_: Any) -> None:
        raise httpcore2.ConnectTimeout

    monkeypatch.setattr(one._backend._network, "connect_tcp", silence)
    with pytest.raises(UnreachableError, match=r"^no connection within 5 seconds$"):
        await one.post("http://127.0.0.1:1/", {}, b"{}", 5)


@pytest.mark.parametrize(("pieces", "kept"), [(10, 1), (1000, 0)], ids=["a few pieces", "many"])
async def test_a_body_in_many_pieces_is_left_unread(outside: Outside, pieces: int, kept: int) -> None:
    hung_up = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * pieces + b"0\r\n\r\n")
        await hung_up.wait()
        writer.close()

    one = outside(True)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await one.post(f"http://127.0.0.1:{port}/", {}, b"{}", 5) == (200, None)
        # A connection is kept where its answer was read to the end.
        assert len(one._pool.connections) == kept
        hung_up.set()


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("9" * 400, math.inf),
        (None, None),
        *((wrong, None) for wrong in ("", "soon", "-5", "1.5", "²", "٣", "Fri, 32 Nov 2026 10:00:00 GMT")),
        *((wrong, None) for wrong in (f"Fri, {'9' * 30} Nov 2026 10:00:00 GMT", f"27 Nov 2026 10:00:00 +{'9' * 20}")),
        # As HTTP has dates, its older forms too.
        ("Fri, 27 Nov 2026 10:02:00 GMT", 120),
        ("Friday, 27-Nov-26 10:02:00 GMT", 120),
        ("Fri Nov 27 10:02:00 2026", 120),
        ("Fri, 27 Nov 2026 12:02:00 +0200", 120),
        ("Fri, 27 Nov 2026 09:00:00 GMT", 0),
    ],
)
def test_what_retry_after_asks_for(
    monkeypatch: pytest.MonkeyPatch, retry_after: str | None, seconds: float | None
) -> None:
    now = datetime(2026, 11, 27, 10, tzinfo=UTC).timestamp()
    monkeypatch.setattr("service.outbound.time.time", lambda: now)
    assert outbound.seconds_of(retry_after) == seconds


@pytest.mark.parametrize("name", ["receiver.example", "other.example"])
async def test_tls_is_to_the_name(
    outside: Outside,
    names: dict[str, list[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
    server_context, client_context = _certificate("receiver.example", tmp_path)
    monkeypatch.setattr(outbound, "trusted_authorities", lambda: client_context)
    names[name] = [["127.0.0.1"]]
    async with receiver(tls=server_context) as server:
        answer = outside(True).post(f"https://{name}:{server.url.rpartition(':')[2]}/", {}, b"{}", 5)
        if name == "receiver.example":
            assert (await answer).status == 200
        else:
            with pytest.raises(UnreachableError, match=r"^no connection: .*certificate"):
                await answer


@asynccontextmanager
async def receiver(response: Response | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    def answer(_: Request) -> Response:
        return response or Response(200)

    server = Server(answer)
    async with server.listening(tls=tls):
        yield server


def _certificate(name: str, directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The TLS of a server of this name, and of a client that trusts it."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))
