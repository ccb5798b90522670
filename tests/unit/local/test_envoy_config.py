"""deploy/envoy.yaml with workers filled in."""

from typing import Any

from service.local.envoy import envoy_config


def cluster_of(*endpoints: str) -> Any:
    cluster = envoy_config(port=1, endpoints=endpoints)["static_resources"]["clusters"][0]
    found = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    return cluster["type"], [endpoint["endpoint"]["address"] for endpoint in found]


def test_workers_are_ports_or_unix_sockets() -> None:
    tcp = {"socket_address": {"address": "tickets.example", "port_value": 50051}}
    assert cluster_of("tickets.example:50051") == ("STRICT_DNS", [tcp])
    ipv6 = {"socket_address": {"address": "::1", "port_value": 50051}}
    pipe = {"pipe": {"path": "/data/sockets/worker-1"}}
    assert cluster_of("unix:/data/sockets/worker-1", "[::1]:50051") == ("STATIC", [pipe, ipv6])


def test_the_limit_of_calls_follows_the_number_of_workers() -> None:
    for workers in (1, 3):
        config = envoy_config(port=1, endpoints=[f"unix:/data/{number}" for number in range(workers)])
        cluster = config["static_resources"]["clusters"][0]
        assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 256 * workers
