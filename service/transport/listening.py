"""Where the service listens: TCP with TLS where settings name a certificate, unix sockets in plain."""

import socket

import grpc

from service.settings import SettingError, Settings
from service.transport.certificates import Certificate, read_pems

# Only users of this machine reach a unix socket, and the file system says which.
_PLAIN = ("unix:", "unix-abstract:")


def listen(server: grpc.aio.Server, settings: Settings, own_address: str) -> None:
    """Listen on all addresses of the settings, and on one that is the process' own. Raises SettingError."""
    pems = read_pems(settings)
    certificate = None if pems is None else Certificate(settings, pems)
    for part in (*settings.grpc_listen.split(","), own_address):
        address = part.strip()
        is_plain = address.startswith(_PLAIN)
        if not is_plain:
            _try(address)
        try:
            if certificate is None or is_plain:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, certificate.credentials())
        except RuntimeError:  # gRPC's message has several lines
            raise SettingError(f"TICKETS_GRPC_LISTEN: cannot listen on {address}") from None


def _try(address: str) -> None:
    """Raise SettingError, with the system's reason, for `host:port` that nobody can listen on; gRPC does not say it."""
    host, _, port = address.rpartition(":")
    reason: OSError | None = None
    try:
        targets = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        targets, reason = [], error
    for family, kind, protocol, _, target in targets:
        try:
            with socket.socket(family, kind, protocol) as probe:
                # As gRPC does: other processes of the service may have the port too.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                probe.bind(target)
        except OSError as error:
            reason = error
        else:
            return
    words = f": {reason.strerror}" if reason is not None else ""
    raise SettingError(f"TICKETS_GRPC_LISTEN: cannot listen on {address}{words}")
