"""Certificates made on the spot: an authority of the test's own, and what it signs."""

import datetime
import os
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its key, in PEM."""

    cert: bytes
    key: bytes

    @property
    def serial(self) -> int:
        """What tells this certificate from others."""
        return x509.load_pem_x509_certificate(self.cert).serial_number


class Authority:
    """Signs certificates for names and addresses."""

    def __init__(self, name: str) -> None:
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self.cert = _signed(self._name, self._key.public_key(), self._name, self._key, constraints).public_bytes(
            Encoding.PEM
        )

    def pair(self, *names: str) -> Pair:
        """A new certificate for these names; for a client's one will do."""
        key = ec.generate_private_key(ec.SECP256R1())
        constraints = x509.BasicConstraints(ca=False, path_length=None)
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        cert = _signed(_named(names[0]), key.public_key(), self._name, self._key, constraints, alternatives)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return Pair(cert.public_bytes(Encoding.PEM), private)


class Files(NamedTuple):
    """A certificate and its key as files of one folder."""

    cert: Path
    key: Path


def write_pair(folder: Path, pair: Pair) -> Files:
    """Put a pair in a folder, in place of the one that is there, as Kubernetes does: by one link that is replaced."""
    folder.mkdir(exist_ok=True)
    version = folder / f"..{pair.serial:x}"
    version.mkdir()
    (version / "tls.crt").write_bytes(pair.cert)
    (version / "tls.key").write_bytes(pair.key)
    files = Files(folder / "tls.crt", folder / "tls.key")
    fresh = folder / "..data_tmp"
    fresh.symlink_to(version.name)
    os.replace(fresh, folder / "..data")
    for file in files:
        if not file.is_symlink():
            file.symlink_to(f"..data/{file.name}")
    return files


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _signed(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(key, hashes.SHA256())
