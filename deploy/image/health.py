"""tickets-health [SERVICE]: exit code 0 when the service of this container says SERVING, under a name or under none.

For container engines that know no gRPC. TICKETS_HEALTH_TARGET says where it listens.
"""

import os
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_SECONDS = 2.0


def main() -> int:
    """Ask once."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    target = os.environ.get("TICKETS_HEALTH_TARGET", "127.0.0.1:50051")
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
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
