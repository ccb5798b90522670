"""The service's certificate, read again from its files as connections begin, so that a new one needs no restart."""

import time
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service.counters import CERTIFICATE_EXPIRY
from service.settings import SettingError, Settings

# Files are looked at no more often, however many connections come.
_LOOK_SECONDS = 1.0

_log = structlog.get_logger()


class Pems(NamedTuple):
    """What the files hold: the certificate with its chain, its key, and who signs the certificates of clients."""

    chain: bytes
    key: bytes
    client_ca: bytes | None


def read_pems(settings: Settings) -> Pems | None:
    """The files that settings name; None where they name none.

    Raises SettingError for one that is missing, cannot be read or is none, and for a key of another certificate.
    """
    paths = {name: getattr(settings, name.lower()) for name in ("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA")}
    given = [name for name, path in paths.items() if path]
    if not given:
        return None
    for name in ("TLS_CERT", "TLS_KEY"):
        if name not in given:
            raise SettingError(f"TICKETS_{name}: must be set, as TICKETS_{given[0]} is")
    chain, key = _contents("TLS_CERT", paths["TLS_CERT"]), _contents("TLS_KEY", paths["TLS_KEY"])
    client_ca = _contents("TLS_CLIENT_CA", paths["TLS_CLIENT_CA"]) if paths["TLS_CLIENT_CA"] else None
    pems = Pems(chain, key, client_ca)
    _check(pems, paths)
    return pems


class Certificate:
    """The certificate of new connections: the newest files that were valid. Open connections keep theirs."""

    def __init__(self, settings: Settings, pems: Pems) -> None:
        self._settings = settings
        self._pems = pems
        self._next_look = 0.0
        self._failure = ""
        self._lock = Lock()  # connections begin in threads of gRPC
        CERTIFICATE_EXPIRY.labels(settings.tls_cert).set_function(self._expiry)

    def credentials(self) -> grpc.ServerCredentials:
        """The credentials of one address. gRPC asks at each new connection, and is given a new certificate once."""
        current = self._pems

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal current
            newest = self._newest()
            if newest == current:
                return None
            current = newest
            return _configuration(newest)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(current),
            renewed,  # type: ignore[arg-type]  # may return None, as gRPC's documentation says
            require_client_authentication=current.client_ca is not None,
        )

    def _expiry(self) -> float:
        return _leaf(self._newest()).not_valid_after_utc.timestamp()

    def _newest(self) -> Pems:
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._next_look = time.monotonic() + _LOOK_SECONDS
                self._look()
            return self._pems

    def _look(self) -> None:
        try:
            pems = read_pems(self._settings) or self._pems
        except SettingError as error:
            if str(error) != self._failure:
                _log.error("certificate", outcome="the one before stays", reason=str(error))
            self._failure = str(error)
            return
        self._failure = ""
        if pems != self._pems:
            _log.info("certificate", outcome="renewed", **words_of(pems))
            self._pems = pems


def _contents(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingError(f"TICKETS_{name}: {path}: {error.strerror}") from None


def _check(pems: Pems, paths: Mapping[str, str]) -> None:
    """Raise SettingError for what gRPC would accept, and then fail each connection for with one line in its log."""
    leaf, path = _certificates("TLS_CERT", pems.chain, paths)[0], paths["TLS_KEY"]
    try:
        key = load_pem_private_key(pems.key, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # TypeError: it needs a password
        raise SettingError(f"TICKETS_TLS_KEY: {path}: is no private key in PEM, without a password") from None
    if key.public_key() != leaf.public_key():
        raise SettingError(f"TICKETS_TLS_KEY: {path}: is not the key of {paths['TLS_CERT']}")
    if pems.client_ca is not None:
        _certificates("TLS_CLIENT_CA", pems.client_ca, paths)


def _certificates(name: str, pem: bytes, paths: Mapping[str, str]) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise SettingError(f"TICKETS_{name}: {paths[name]}: is no certificate in PEM") from None


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pems.key, pems.chain)], root_certificates=pems.client_ca)


def words_of(pems: Pems) -> Mapping[str, str]:
    """What people know a certificate by: its serial number, and until when it is valid."""
    leaf = _leaf(pems)
    return {"serial": f"{leaf.serial_number:x}", "until": leaf.not_valid_after_utc.isoformat()}


def _leaf(pems: Pems) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pems.chain)[0]
