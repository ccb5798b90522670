"""tickets-health [SERVICE]: exit code 0 when the service of this container says SERVING, under a name or under none.

For container engines that know no gRPC, or no TLS. It asks at a unix socket, which is plain, where TICKETS_GRPC_LISTEN
has one; else at 127.0.0.1:50051, with the service's own certificate. TICKETS_HEALTH_TARGET names another address.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_SECONDS = 2.0
_OPTIONS = [("grpc.enable_http_proxy", 0)]


def target_of(environment: Mapping[str, str]) -> str:
    """Where the service is asked."""
    listens = [part.strip() for part in environment.get("TICKETS_GRPC_LISTEN", "").split(",")]
    sockets = [part for part in listens if part.startswith("unix")]
    return environment.get("TICKETS_HEALTH_TARGET") or (sockets or ["127.0.0.1:50051"])[0]


def channel_to(target: str, environment: Mapping[str, str]) -> grpc.Channel:
    """The way there. The service's own certificate is all that is trusted, and is shown where clients must have one."""
    cert = environment.get("TICKETS_TLS_CERT")
    if not cert or target.startswith("unix"):
        return grpc.insecure_channel(target, _OPTIONS)
    chain, key = Path(cert).read_bytes(), Path(environment["TICKETS_TLS_KEY"]).read_bytes()
    leaf = x509.load_pem_x509_certificates(chain)[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    name = str(next(iter(names)).value).replace("*", "any", 1)
    credentials = grpc.ssl_channel_credentials(chain, key, chain)
    return grpc.secure_channel(target, credentials, [*_OPTIONS, ("grpc.ssl_target_name_override", name)])


def main() -> int:
    """Ask once."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    target = target_of(os.environ)
    with channel_to(target, os.environ) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            sys.stderr.write(f"{target} {name!r}: {error.code().name}\n")
            return 1
    sys.stdout.write(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) + "\n")
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(main())
