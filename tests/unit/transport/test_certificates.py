"""Files of TLS that cannot be used are one line that names the setting and the file, and no more."""

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from support.authority import Authority, Pair, write_pair

from service.counters import REGISTRY
from service.local.checks import doctor
from service.settings import SettingError, Settings
from service.transport.certificates import Certificate, Pems, read_pems

AUTHORITY = Authority("ours")
PAIR = AUTHORITY.pair("tickets.test")
LOCKED = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"a password")
)


def test_without_files_there_is_no_tls() -> None:
    assert read_pems(Settings()) is None


def test_good_files_are_taken_as_they_are(tmp_path: Path) -> None:
    cert, key = map(str, write_pair(tmp_path / "own", PAIR))
    assert read_pems(Settings(tls_cert=cert, tls_key=key)) == Pems(PAIR.cert, PAIR.key, None)
    (tmp_path / "ca").write_bytes(AUTHORITY.cert)
    both = Settings(tls_cert=cert, tls_key=key, tls_client_ca=str(tmp_path / "ca"))
    assert read_pems(both) == Pems(PAIR.cert, PAIR.key, AUTHORITY.cert)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (("tls_cert",), "TICKETS_TLS_KEY: must be set, as TICKETS_TLS_CERT is"),
        (("tls_key",), "TICKETS_TLS_CERT: must be set, as TICKETS_TLS_KEY is"),
        (("tls_client_ca",), "TICKETS_TLS_CERT: must be set, as TICKETS_TLS_CLIENT_CA is"),
        (("tls_cert", "tls_client_ca"), "TICKETS_TLS_KEY: must be set, as TICKETS_TLS_CERT is"),
    ],
)
def test_one_of_a_pair_is_not_enough(given: tuple[str, ...], line: str) -> None:
    with pytest.raises(SettingError) as refused:
        read_pems(Settings.model_validate(dict.fromkeys(given, "/nowhere")))
    assert str(refused.value) == line


@pytest.mark.parametrize(
    ("pair", "client_ca", "line"),
    [
        (Pair(b"", PAIR.key), AUTHORITY.cert, "CERT: {}/cert: is no certificate in PEM"),
        (Pair(PAIR.key, PAIR.key), AUTHORITY.cert, "CERT: {}/cert: is no certificate in PEM"),
        (Pair(PAIR.cert, b"s3cret"), AUTHORITY.cert, "KEY: {}/key: is no private key in PEM, without a password"),
        (Pair(PAIR.cert, LOCKED), AUTHORITY.cert, "KEY: {}/key: is no private key in PEM, without a password"),
        (Pair(PAIR.cert, AUTHORITY.pair("x").key), AUTHORITY.cert, "KEY: {}/key: is not the key of {}/cert"),
        (PAIR, b"nobody", "CLIENT_CA: {}/ca: is no certificate in PEM"),
        (PAIR, None, "CLIENT_CA: {}/ca: No such file or directory"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, pair: Pair, client_ca: bytes | None, line: str) -> None:
    for name, contents in (("cert", pair.cert), ("key", pair.key), ("ca", client_ca)):
        if contents is not None:
            (tmp_path / name).write_bytes(contents)
    settings = Settings(
        tls_cert=str(tmp_path / "cert"), tls_key=str(tmp_path / "key"), tls_client_ca=str(tmp_path / "ca")
    )
    with pytest.raises(SettingError) as refused:
        read_pems(settings)
    assert str(refused.value) == f"TICKETS_TLS_{line.replace('{}', str(tmp_path))}"


def test_metrics_say_until_when_it_is_valid_also_when_nobody_connects(tmp_path: Path) -> None:
    cert, key = map(str, write_pair(tmp_path / "own", PAIR))
    settings = Settings(tls_cert=cert, tls_key=key)
    Certificate(settings, Pems(b"what there was before", b"", None))
    until = x509.load_pem_x509_certificate(PAIR.cert).not_valid_after_utc.timestamp()
    assert REGISTRY.get_sample_value("tickets_certificate_expiry_timestamp_seconds", {"file": cert}) == until


async def test_doctor_says_what_is_wrong_with_them_and_until_when_they_are_valid(tmp_path: Path) -> None:
    cert, key = map(str, write_pair(tmp_path / "own", PAIR))

    async def said(**files: Any) -> list[tuple[bool | None, str]]:
        settings = Settings(database_url="host=/nowhere", **files)
        return [
            (check.is_good, check.words) for check in await doctor(tmp_path, settings, (0, 0)) if check.name == "TLS"
        ]

    assert await said() == []
    assert await said(tls_cert=cert) == [(False, "TICKETS_TLS_KEY: must be set, as TICKETS_TLS_CERT is")]
    [(is_good, words)] = await said(tls_cert=cert, tls_key=key)
    assert is_good
    until = x509.load_pem_x509_certificate(PAIR.cert).not_valid_after_utc
    assert words == f"the certificate has its key, and is valid until {until.isoformat()}"
