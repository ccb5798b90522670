"""What settings say to the gateway: origins as they may be written, and what `tickets gateway` prints."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.__main__ import app
from service.local.envoy import envoy_config, parsed
from service.settings import Settings

SHIPPED = Path(__file__).parents[3] / "deploy" / "envoy.yaml"

ORIGINS = [
    ("https://portal.example", "https://portal.example"),
    (" https://a.example , http://localhost:3000", "https://a.example,http://localhost:3000"),
    ("https://Portal.Example", "https://portal.example"),  # as browsers write it
    ("https://a.example:443,http://b.example:80", "https://a.example,http://b.example"),
    ("http://a.example:443", "http://a.example:443"),
    ("http://[::1]:3000", "http://[::1]:3000"),
    ("https://a.example,https://a.example", "https://a.example"),
    ("app://obsidian.md", "app://obsidian.md"),
    ("", ""),
    (" ", ""),
]


@pytest.mark.parametrize(("given", "origins"), ORIGINS)
def test_origins_are_as_browsers_write_them(given: str, origins: str) -> None:
    assert Settings(cors_origins=given).cors_origins == origins


@pytest.mark.parametrize(
    "given",
    [
        "*",
        "https://*.portal.example",
        "https://portal.example/",
        "https://portal.example/app",
        "https://portal.example?x",
        "portal.example",
        "https://",
        "https://user@portal.example",
        "https://portal.example:x",
        "https://a.example,",
        "https://a.example https://b.example",
        "null",
        "https://a.example,*",
    ],
)
@pytest.mark.parametrize("command", ["gateway", "up", "serve"])
def test_what_is_no_origin_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, command: str, given: str) -> None:
    monkeypatch.setenv("TICKETS_CORS_ORIGINS", given)
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("TICKETS_CORS_ORIGINS: Input should be origins, comma separated: scheme://host")


def printed(*arguments: str) -> Any:
    done = CliRunner().invoke(app, ["gateway", *arguments])
    assert (done.exit_code, done.stderr) == (0, "")
    return parsed(done.stdout)


def test_without_settings_it_prints_the_configuration_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("TICKETS_CORS_ORIGINS", "TICKETS_DOCS", "TICKETS_OTLP_ENDPOINT"):
        monkeypatch.delenv(setting, raising=False)
    assert printed() == parsed(SHIPPED.read_text())


def test_it_prints_what_settings_and_options_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TICKETS_CORS_ORIGINS", "https://portal.example,https://admin.example:8443")
    config = printed("--service", "tickets.example:1234", "--workers", "5")
    cluster = config["static_resources"]["clusters"][0]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = {"address": "tickets.example", "port_value": 1234}
    assert endpoint["endpoint"]["address"]["socket_address"] == address
    assert cluster["circuit_breakers"]["thresholds"][0]["max_requests"] == 5 * 256
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    [policy] = manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"].values()
    assert policy["allow_origin_string_match"] == [
        {"exact": "https://portal.example"},
        {"exact": "https://admin.example:8443"},
    ]
    # The preflight's route is for these alone; a dot is a dot.
    origin = manager["route_config"]["virtual_hosts"][0]["routes"][0]["match"]["headers"][-1]
    assert origin["string_match"]["safe_regex"]["regex"] == (r"https://portal\.example|https://admin\.example:8443")
    file = tmp_path / "envoy.yaml"
    assert CliRunner().invoke(app, ["gateway", "--output", str(file)]).stdout == ""
    written = parsed(file.read_text())
    assert written["static_resources"]["listeners"] == config["static_resources"]["listeners"]


def test_switched_off_the_page_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_DOCS", "off")
    text = json.dumps(printed())
    assert all(word not in text for word in ("file_server", "tickets.docs", "openapi.json:", "path: /docs"))


def test_traces_go_to_the_collector_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKETS_OTLP_ENDPOINT", "[::1]:4317")
    monkeypatch.setenv("TICKETS_TRACE_SAMPLE_RATIO", "0.25")
    resources = printed()["static_resources"]
    tracing = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["tracing"]
    assert (tracing["random_sampling"], tracing["client_sampling"]) == ({"value": 25}, {"value": 0})
    [endpoint] = resources["clusters"][-1]["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {"address": "::1", "port_value": 4317}


@pytest.mark.parametrize(("host", "kind"), [("collector.example", "DNS"), ("10.0.0.1", "IP_ADDRESS")])
def test_a_collector_with_tls_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, host: str, kind: str) -> None:
    monkeypatch.setenv("TICKETS_OTLP_ENDPOINT", f"{host}:4317")
    monkeypatch.setenv("TICKETS_OTLP_CA", "/etc/tls/collector/ca.crt")
    tls = printed()["static_resources"]["clusters"][-1]["transport_socket"]["typed_config"]
    context = tls["common_tls_context"]["validation_context"]
    assert context["trusted_ca"] == {"filename": "/etc/tls/collector/ca.crt"}
    assert context["match_typed_subject_alt_names"] == [{"san_type": kind, "matcher": {"exact": host}}]
    assert tls.get("sni") == (host if kind == "DNS" else None)


def test_who_called_is_said_by_so_many_proxies() -> None:
    assert "xff_num_trusted_hops" not in json.dumps(printed())
    listener = printed("--trusted-hops", "2")["static_resources"]["listeners"][0]
    assert listener["filter_chains"][0]["filters"][0]["typed_config"]["xff_num_trusted_hops"] == 2


@pytest.mark.parametrize(("setting", "given"), [("OTLP_ENDPOINT", "http://a:1"), ("TRACE_SAMPLE_RATIO", "1.1")])
def test_traces_that_cannot_be_are_one_line(monkeypatch: pytest.MonkeyPatch, setting: str, given: str) -> None:
    monkeypatch.setenv(f"TICKETS_{setting}", given)
    done = CliRunner().invoke(app, ["gateway"])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"TICKETS_{setting}: Input should be ")


@pytest.mark.parametrize(("host", "offered"), [("127.0.0.1", True), ("::1", True), ("::", False), ("10.0.0.1", False)])
def test_credentials_are_offered_to_this_machine_alone(host: str, offered: bool) -> None:
    config = envoy_config(port=1, endpoints=["a:1"], host=host, demo_folder=Path("/data/docs"))
    assert ("/docs/credentials.json" in json.dumps(config)) == offered


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["gateway", "--output", str(tmp_path / "nowhere" / "envoy.yaml")])
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("service", ["tickets", "tickets:", ":50051", "tickets:x", "tickets:0", "tickets:\u0663"])
def test_a_service_that_is_no_address_is_one_line(service: str) -> None:
    done = CliRunner().invoke(app, ["gateway", "--service", service])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"--service: {service} is not host:port\n"


CERTIFICATES = (
    *("--cert", "/certs/edge/tls.crt", "--key", "/certs/edge/tls.key"),
    *("--service-ca", "/certs/ca.crt", "--service-cert", "/certs/own/tls.crt", "--service-key", "/certs/own/tls.key"),
)


def test_with_certificates_files_beside_the_configuration_name_them(tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    done = CliRunner().invoke(app, ["gateway", "--output", str(file), *CERTIFICATES])
    assert (done.exit_code, done.output) == (0, "")
    config = parsed(file.read_text())
    listener, cluster = config["static_resources"]["listeners"][0], config["static_resources"]["clusters"][0]
    sides = [part["transport_socket"]["typed_config"] for part in (listener["filter_chains"][0], cluster)]
    assert re.findall(r"/etc/envoy/(sds-[a-z-]+\.yaml)", str(sides[0])) == ["sds-edge.yaml"]
    assert sorted(re.findall(r"/etc/envoy/(sds-[a-z-]+\.yaml)", str(sides[1]))) == [
        "sds-service-ca.yaml",
        "sds-service-client.yaml",
    ]
    assert sides[1]["sni"] == "tickets"
    named = {}
    for path in tmp_path.glob("sds-*.yaml"):
        [resource] = parsed(path.read_text())["resources"]
        named[path.name] = sorted(re.findall(r"'(/certs[^']*)'", str(resource)))
    assert named == {
        "sds-edge.yaml": ["/certs/edge", "/certs/edge/tls.crt", "/certs/edge/tls.key"],
        "sds-service-client.yaml": ["/certs/own", "/certs/own/tls.crt", "/certs/own/tls.key"],
        "sds-service-ca.yaml": ["/certs", "/certs/ca.crt"],
    }


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--cert", "/c"), "--key: must be given, as --cert is"),
        (("--key", "/k"), "--cert: must be given, as --key is"),
        (("--service-ca", "/a", "--service-cert", "/c"), "--service-key: must be given, as --service-cert is"),
        (("--service-cert", "/c", "--service-key", "/k"), "--service-ca: must be given, as --service-cert is"),
        (("--service-name", "x"), "--service-ca: must be given, as --service-name is"),
        (("--service-ca", "ca.crt"), "--service-ca: ca.crt: must be absolute, as Envoy finds it"),
        (("--service-ca", "/a"), "--output: must be given with certificates, as files beside it name them"),
    ],
)
def test_certificates_that_cannot_be_used_are_one_line(options: tuple[str, ...], line: str) -> None:
    done = CliRunner().invoke(app, ["gateway", *options])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"{line}\n")


@pytest.mark.parametrize("port", ["-1", "0", "65536"])
@pytest.mark.parametrize(
    "words", [["up", "--http-port"], ["up", "--grpc-port"], ["doctor", "--http-port"]], ids=" ".join
)
def test_a_port_that_is_none_is_refused_by_its_option(tmp_path: Path, words: list[str], port: str) -> None:
    done = CliRunner().invoke(app, [*words, port, "--data-dir", str(tmp_path / "data")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Invalid value for '{words[1]}'" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("service", ["a", ":1", "a:", "a:x", "a:0", "a:65536", "a b:1", "\xfc:1", "unix:/x:1", "::1:1"])
def test_a_service_that_is_nowhere_is_refused(service: str) -> None:
    done = CliRunner().invoke(app, ["gateway", "--service", service])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", f"--service: {service} is not host:port\n")


@pytest.mark.parametrize("words", [["--workers", "10001"], ["--trusted-hops", "101"]], ids=" ".join)
def test_numbers_that_envoy_does_not_take_are_refused(words: list[str]) -> None:
    done = CliRunner().invoke(app, ["gateway", *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"Invalid value for '{words[0]}'" in done.stderr
