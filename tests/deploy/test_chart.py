"""The Helm chart: what Kubernetes takes, what policies ask for, and what it says of the service."""

import json
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import (
    CHART,
    KUBERNETES,
    VALUES,
    Resource,
    containers,
    environment,
    helm,
    of_kind,
    pods,
    rendered,
    template,
    tool,
)

from service.settings import Settings

pytestmark = pytest.mark.deploy

CONFIGURATIONS = sorted(path.stem for path in VALUES.glob("*.yaml"))
# What the policies ask for and the chart does otherwise.
ALLOWED = {
    "CKV_K8S_35": "libpq and the settings take secrets from the environment, which on Linux no other process can read",
    "CKV_K8S_15": "a tag that is exact, or a digest, need not be pulled again",
    "CKV_K8S_43": "whose image is built by whoever installs it has no digest yet; `whole` names them",
}


def envoy_arguments(resources: Sequence[Resource], name: str) -> list[str]:
    [container] = pods(resources)[name]["spec"]["initContainers"]
    arguments: list[str] = container["args"]
    return arguments


# What others say of it


@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_helm_finds_nothing_wrong(values: str) -> None:
    done = helm("lint", str(CHART), "--strict", "-f", str(VALUES / f"{values}.yaml"), "--kube-version", KUBERNETES)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kubernetes", ["1.30", KUBERNETES, "1.37"])
@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_kubernetes_takes_it(tmp_path: Path, values: str, kubernetes: str) -> None:
    file = tmp_path / "resources.yaml"
    resources = yaml.safe_load_all(template(values, kubernetes=kubernetes).stdout)
    # A resource of Prometheus' operator, whose schema Kubernetes has not: below.
    kept = [resource for resource in resources if resource and resource["kind"] != "ServiceMonitor"]
    file.write_text(yaml.safe_dump_all(kept))
    command = [tool("kubernetes-validate"), "--strict", "-k", kubernetes, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert (done.returncode, "WARN" in said, said.count("passed for resource")) == (0, False, len(kept)), said


def test_policies_are_kept(tmp_path: Path) -> None:
    for values in CONFIGURATIONS:
        (tmp_path / f"{values}.yaml").write_text(template(values).stdout)
    failed = policy_failures("-d", str(tmp_path), "--framework", "kubernetes")
    assert {check for check, _ in failed} == ALLOWED.keys()
    assert "CKV_K8S_43" not in {check for check, file in failed if file == "/whole.yaml"}


def policy_failures(*options: str) -> set[tuple[str, str]]:
    """The checks that failed, each with its file. Nothing is asked for elsewhere."""
    command = [tool("checkov"), *options, "--output", "json", "--compact", "--quiet", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    return {(found["check_id"], found["file_path"]) for found in report["results"]["failed_checks"]}


def test_the_dockerfile_keeps_policies() -> None:
    dockerfile = CHART.parents[1] / "Dockerfile"
    failed = policy_failures("-f", str(dockerfile), "--framework", "dockerfile")
    # It does not see what the argument's default is: test_image.py does.
    assert {check for check, _ in failed} == {"CKV_DOCKER_7"}


# What refers to what


@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_selectors_find_the_pods_of_one_workload(values: str) -> None:
    resources = rendered(values)
    selectors = [
        *(found["spec"]["selector"] for found in of_kind(resources, "Service").values()),
        *(found["spec"]["selector"]["matchLabels"] for found in of_kind(resources, "Deployment").values()),
        *(found["spec"]["selector"]["matchLabels"] for found in of_kind(resources, "PodDisruptionBudget").values()),
        *(found["spec"]["podSelector"]["matchLabels"] for found in of_kind(resources, "NetworkPolicy").values()),
    ]
    for selector in selectors:
        assert len([pod for pod in pods(resources).values() if selector.items() <= labels(pod).items()]) == 1, selector


def labels(resource: Any) -> dict[str, str]:
    found: dict[str, str] = resource["metadata"]["labels"]
    return found


def test_all_pods_have_a_network_policy() -> None:
    resources = rendered("whole")
    assert of_kind(resources, "NetworkPolicy").keys() == pods(resources).keys()


def test_the_service_is_reached_by_the_gateway_alone_and_its_metrics_by_who_is_named() -> None:
    spec = of_kind(rendered("whole"), "NetworkPolicy")["shop-tickets-service"]["spec"]
    component = {"app.kubernetes.io/component": "gateway"}
    calls, metrics = spec["ingress"]
    assert calls["ports"] == [{"protocol": "TCP", "port": 50051}]
    assert component.items() <= calls["from"][0]["podSelector"]["matchLabels"].items()
    assert metrics["ports"] == [{"protocol": "TCP", "port": 9464}]
    assert "monitoring" in str(metrics["from"])
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 5433, 5432, 5434, 4317, 443]


def test_the_gateway_and_the_service_trace_to_the_same_collector() -> None:
    templates = pods(rendered("whole"))
    [envoy_files] = templates["shop-tickets-gateway"]["spec"]["initContainers"]
    [service] = templates["shop-tickets-service"]["spec"]["containers"]
    assert {environment(one)["TICKETS_OTLP_ENDPOINT"] for one in (envoy_files, service)} == {"collector.traces:4317"}
    policies = of_kind(rendered("whole"), "NetworkPolicy")
    ports = [port["port"] for rule in policies["shop-tickets-gateway"]["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 50051, 4317]


@pytest.mark.parametrize(("of", "path"), [("service", "/metrics"), ("gateway", "/stats/prometheus")])
def test_a_monitor_asks_the_port_that_its_pods_have(of: str, path: str) -> None:
    resources = rendered("whole")
    name = f"shop-tickets-{of}"
    monitor = of_kind(resources, "ServiceMonitor")[name]
    [service] = [
        found
        for found in of_kind(resources, "Service").values()
        if monitor["spec"]["selector"]["matchLabels"].items() <= labels(found).items()
    ]
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint.get("path", "/metrics") == path
    assert endpoint["interval"] == "15s"
    assert labels(monitor)["release"] == "prometheus"
    ports = {port["name"]: (port["port"], port["targetPort"]) for port in service["spec"]["ports"]}
    assert ports[endpoint["port"]] == (9464, "metrics")
    assert service["spec"]["selector"].items() <= labels(pods(resources)[name]).items()
    [container] = pods(resources)[name]["spec"]["containers"]
    assert {"name": "metrics", "containerPort": 9464} in container["ports"]


def test_metrics_listen_where_monitors_ask() -> None:
    resources = rendered("whole")
    [container] = pods(resources)["shop-tickets-service"]["spec"]["containers"]
    assert environment(container)["TICKETS_METRICS_LISTEN"] == "0.0.0.0:9464"
    assert envoy_arguments(resources, "shop-tickets-gateway")[-2:] == ["--metrics-port", "9464"]


def test_the_gateways_metrics_are_read_by_who_is_named() -> None:
    resources = rendered("whole")
    spec = of_kind(resources, "NetworkPolicy")["shop-tickets-gateway"]["spec"]
    calls, metrics = spec["ingress"]
    assert (calls["ports"][0]["port"], metrics["ports"][0]["port"]) == (8080, 9464)
    assert "monitoring" in str(metrics["from"])
    # The Service for callers, which may be for the public, has no port of it.
    assert [port["name"] for port in of_kind(resources, "Service")["shop-tickets"]["spec"]["ports"]] == ["http"]


@pytest.mark.parametrize("name", ["service", "gateway"])
def test_prometheus_operator_takes_the_monitors(name: str) -> None:
    monitor = of_kind(rendered("whole"), "ServiceMonitor")[f"shop-tickets-{name}"]
    assert reading(monitor).returncode == 0
    unknown = {**monitor, "spec": {**monitor["spec"], "ports": []}}
    assert 'unknown field "ports"' in reading(unknown).stderr


def reading(monitor: Resource) -> subprocess.CompletedProcess[str]:
    text = yaml.safe_dump(monitor)
    return subprocess.run([tool("servicemonitor")], input=text, capture_output=True, text=True, check=False)


def test_autoscaling_leaves_the_number_to_itself() -> None:
    resources = rendered("whole")
    for name, scaler in of_kind(resources, "HorizontalPodAutoscaler").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in of_kind(resources, "Deployment")[name]["spec"]
    assert len(of_kind(resources, "HorizontalPodAutoscaler")) == 2


# What it says of the service


@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_settings_are_those_of_the_service(values: str) -> None:
    known = {f"TICKETS_{name}".upper() for name in Settings.model_fields}
    for _, container in containers(rendered(values)):
        ours = {name: value for name, value in environment(container).items() if name.startswith("TICKETS_")}
        assert ours.keys() <= known
        Settings.model_validate(
            {name.removeprefix("TICKETS_").lower(): value for name, value in ours.items() if isinstance(value, str)}
        )


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ("least", "postgresql://db.example/tickets?sslmode=require"),
        ("bare", "postgresql://db.example/tickets"),
        (
            "whole",
            "postgresql://one.example:5433,two.example/tickets%20db?application_name=tickets%20%26%20more"
            "&sslmode=verify-full&sslrootcert=%2Fetc%2Ftickets%2Fdatabase%2Froot.crt&target_session_attrs=read-write",
        ),
    ],
)
def test_secrets_are_named_and_stand_in_no_url(values: str, url: str) -> None:
    resources = rendered(values)
    assert not of_kind(resources, "Secret")
    for name, container in containers(resources):
        variables = environment(container)
        secret = {variable for variable, value in variables.items() if isinstance(value, dict)}
        if container["name"] in ("service", "migration"):
            assert variables["TICKETS_DATABASE_URL"] == url
            keys = {"TICKETS_ENCRYPTION_KEYS"} if values == "whole" and container["name"] == "service" else set()
            assert secret == {"PGUSER", "PGPASSWORD"} | keys
        else:  # nothing that the gateway runs knows any
            assert secret == set(), name


def test_standbys_are_read_by_the_service_alone_and_by_their_own_url() -> None:
    urls = {
        name: environment(container).get("TICKETS_DATABASE_READ_URL")
        for name, container in containers(rendered("whole"))
    }
    assert {name: url for name, url in urls.items() if url is not None} == {
        "shop-tickets-service": "postgresql://three.example:5434,four.example/tickets%20db"
        "?application_name=tickets%20%26%20more&sslmode=verify-full"
        "&sslrootcert=%2Fetc%2Ftickets%2Fdatabase%2Froot.crt&target_session_attrs=standby"
    }
    assert "TICKETS_DATABASE_READ_URL" not in str(rendered("least"))


def test_the_certificate_that_the_url_names_is_there() -> None:
    for name, container in containers(rendered("whole")):
        if "TICKETS_DATABASE_URL" in environment(container):
            [mount] = [mount for mount in container["volumeMounts"] if mount["name"] == "database-ca"]
            volumes = {volume["name"]: volume for volume in pods(rendered("whole"))[name]["spec"]["volumes"]}
            [item] = volumes["database-ca"]["secret"]["items"]
            assert f"{mount['mountPath']}/{item['path']}" == "/etc/tickets/database/root.crt"


@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_a_pod_is_given_the_time_to_drain(values: str) -> None:
    resources = rendered(values)
    for name, pod in pods(resources).items():
        grace = pod["spec"].get("terminationGracePeriodSeconds")
        container = pod["spec"]["containers"][0]
        variables = environment(container)
        if container["name"] == "service":
            drain = float(variables["TICKETS_DRAIN_NOTICE_SECONDS"]) + float(variables["TICKETS_DRAIN_SECONDS"])
            assert grace >= drain + 3, name  # as deploy/README.md asks for
        if container["name"] == "envoy":
            sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][-1].split()[-1])
            assert grace >= sleep + 5
            assert int(container["args"][container["args"].index("--drain-time-s") + 1]) == max(1, math.ceil(sleep))


@pytest.mark.parametrize("values", CONFIGURATIONS)
def test_health_is_asked_by_name(values: str) -> None:
    """A database that is away takes pods out of service, and restarts none."""
    asked = {
        container["name"]: {kind: container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness")}
        for _, container in containers(rendered(values))
        if container["name"] in ("service", "envoy")
    }
    names = {"startup": "live", "liveness": "live", "readiness": ""}
    if values == "tls":  # which the kubelet does not speak to gRPC
        commands = {kind: probe["exec"]["command"] for kind, probe in asked["service"].items()}
        assert commands == {kind: ["tickets-health", name] for kind, name in names.items()}
    else:
        grpc = {kind: probe["grpc"] for kind, probe in asked["service"].items()}
        assert grpc == {kind: {"port": 50051, "service": name} for kind, name in names.items()}
    assert {probe["httpGet"].get("scheme") == "HTTPS" for probe in asked["envoy"].values()} == {values == "tls"}
    http = {kind: probe["httpGet"]["path"] for kind, probe in asked["envoy"].items()}
    assert http == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_certificates_are_where_settings_and_options_look_for_them() -> None:
    resources = rendered("tls")
    folders = {"service": {"service", "collector"}, "envoy": {"edge", "gateway", "collector"}}
    for name, container in containers(resources):
        sides = folders.get(container["name"], set())
        mounts = {mount["name"]: mount for mount in container["volumeMounts"] if mount["name"].startswith("tls-")}
        assert {f"tls-{side}": f"/etc/tls/{side}" for side in sides} == {
            mount: found["mountPath"] for mount, found in mounts.items()
        }
        volumes = {volume["name"]: volume for volume in pods(resources)[name]["spec"]["volumes"]}
        assert {volumes[f"tls-{side}"]["secret"]["secretName"] for side in sides} == {f"{side}-tls" for side in sides}
    variables = environment(pods(resources)["shop-tickets-service"]["spec"]["containers"][0])
    given = {name: value for name, value in variables.items() if name.startswith("TICKETS_TLS_")}
    assert given == {
        "TICKETS_TLS_CERT": "/etc/tls/service/tls.crt",
        "TICKETS_TLS_KEY": "/etc/tls/service/tls.key",
        "TICKETS_TLS_CLIENT_CA": "/etc/tls/service/ca.crt",
    }
    [envoy_files] = pods(resources)["shop-tickets-gateway"]["spec"]["initContainers"]
    assert {one["TICKETS_OTLP_CA"] for one in (variables, environment(envoy_files))} == {"/etc/tls/collector/ca.crt"}
    assert variables["TICKETS_GRPC_LISTEN"] == "0.0.0.0:50051,unix-abstract:tickets"
    assert "--trusted-hops=1" in envoy_arguments(resources, "shop-tickets-gateway")
    assert envoy_arguments(resources, "shop-tickets-gateway")[4:9] == [
        "--cert=/etc/tls/edge/tls.crt",
        "--key=/etc/tls/edge/tls.key",
        "--service-ca=/etc/tls/gateway/ca.crt",
        "--service-cert=/etc/tls/gateway/tls.crt",
        "--service-key=/etc/tls/gateway/tls.key",
    ]
    [port] = of_kind(resources, "Service")["shop-tickets"]["spec"]["ports"]
    assert (port["name"], port["port"]) == ("https", 443)


@pytest.mark.parametrize(
    ("values", "name", "workers"), [("least", "shop-tickets", 2), ("whole", "shop-tickets", 12), ("bare", "desk", 1)]
)
def test_envoys_limits_follow_the_replicas(values: str, name: str, workers: int) -> None:
    resources = rendered(values)
    assert envoy_arguments(resources, f"{name}-gateway")[:4] == [
        "--service",
        f"{name}-service:50051",
        "--workers",
        str(workers),
    ]
    service = of_kind(resources, "Service")[f"{name}-service"]["spec"]
    # Envoy chooses by addresses: all of the pods', also of those that do not serve, as it asks them itself.
    assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)


def test_the_migration_is_before_what_needs_it_and_the_images_are_one() -> None:
    resources = rendered("least")
    [job] = of_kind(resources, "Job").values()
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    ours = {container["image"] for _, container in containers(resources) if container["name"] != "envoy"}
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    assert ours == {f"tickets-service:{version}"}


def test_what_is_left_out_leaves_nothing() -> None:
    resources = rendered("bare")
    assert sorted(found["kind"] for found in resources) == ["Deployment", "Deployment", "Service", "Service"]
    assert "TICKETS_METRICS_LISTEN" not in str(resources)


def test_a_digest_wins() -> None:
    images = {container["image"] for _, container in containers(rendered("whole"))}
    assert {image.partition("@")[0] for image in images} == {
        "registry.example/tickets-service",
        "registry.example/envoy",
    }
    assert all("@sha256:" in image for image in images)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("database.hosts=null", "/database"),
        ("database.hosts={user:secret@db.example}", "/database/hosts/0"),
        ("database.readHosts={user:secret@db.example}", "/database/readHosts/0"),
        ("database.secret.name=", "/database/secret/name"),
        ("database.password=secret", "'password' not allowed"),
        ("database.parameters.password=secret", "invalid propertyName 'password'"),
        ("settings.TICKETS_ENCRYPTION_KEYS=secret", "TICKETS_ENCRYPTION_KEYS"),
        ("settings.TICKETS_DATABASE_URL=postgresql://db", "TICKETS_DATABASE_URL"),
        ("settings.TICKETS_DATABASE_READ_URL=postgresql://db", "TICKETS_DATABASE_READ_URL"),
        ("settings.TICKETS_TLS_CERT=/x", "TICKETS_TLS_CERT"),
        ("tls.service.secret=one", "tls.service.secret and tls.gateway.secret: both or neither"),
        ("settings.LOG_LEVEL=info", "LOG_LEVEL"),
        ("replicas=3", "'replicas' not allowed"),
        ("service.replicas=0", "/service/replicas"),
        ("image.tag=latest", "/image/tag"),
        ("image.digest=sha256:abc", "/image/digest"),
        ("gateway.corsOrigins={*}", "/gateway/corsOrigins/0"),
        ("jwt.jwks=/etc/jwks.json", "/jwt/jwks"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(given: str, complaint: str) -> None:
    done = template("least", "--set", given)
    assert done.returncode != 0
    assert complaint in done.stderr
