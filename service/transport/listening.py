"""Where the service listens: TCP with TLS where settings name a certificate, unix sockets in plain."""

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
        try:
            if certificate is None or address.startswith(_PLAIN):
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, certificate.credentials())
        except RuntimeError:  # gRPC's message has several lines
            raise SettingError(f"TICKETS_GRPC_LISTEN: cannot listen on {address}") from None
