"""TLS of the gateway: certificates that Envoy reads by files, and reads again when those are replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any, Final

from service.settings import SettingError

# Where Envoy has what `tickets gateway` writes beside the configuration.
ENVOYS_FOLDER: Final = PurePosixPath("/etc/envoy")
_EDGE: Final = "edge"
_CLIENT: Final = "service-client"
_CA: Final = "service-ca"
_TYPE: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_SOCKET: Final = "envoy.transport_sockets.tls"
_PARAMETERS: Final = {"tls_minimum_protocol_version": "TLSv1_2"}


@dataclass(frozen=True, slots=True)
class GatewayTls:
    """PEM files, by the paths that Envoy has them at: of the gateway towards callers, and towards the service."""

    cert: str = ""
    key: str = ""
    service_ca: str = ""
    service_cert: str = ""
    service_key: str = ""
    # The name or the IP address that the service's certificate is for.
    service_name: str = ""

    def check(self) -> None:
        """Raise SettingError for a file without the one that belongs to it, and for a path that is not absolute."""
        for name, needed in _TOGETHER:
            if getattr(self, name) and not getattr(self, needed):
                raise SettingError(f"{_option(needed)}: must be given, as {_option(name)} is")
        for name in _FILES:
            path = getattr(self, name)
            if path and not PurePosixPath(path).is_absolute():
                raise SettingError(f"{_option(name)}: {path}: must be absolute, as Envoy finds it")

    @property
    def has_files(self) -> bool:
        """Whether there is TLS on any side."""
        return bool(self.cert or self.service_ca)


_TOGETHER: Final = (
    ("cert", "key"),
    ("key", "cert"),
    ("service_cert", "service_key"),
    ("service_key", "service_cert"),
    ("service_cert", "service_ca"),
    ("service_name", "service_ca"),
)
_FILES: Final = ("cert", "key", "service_ca", "service_cert", "service_key")


def use_tls(config: dict[str, Any], tls: GatewayTls, folder: PurePosixPath = ENVOYS_FOLDER) -> None:
    """Speak TLS in this configuration, on the sides that have files; `write_secrets` writes what it refers to."""
    resources = config["static_resources"]
    if tls.has_files:
        config["node"] = {"id": "tickets", "cluster": "tickets"}  # without which Envoy reads no such file
    if tls.cert:
        chain = resources["listeners"][0]["filter_chains"][0]
        context = {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [_watched(_EDGE, folder)],
        }
        chain["transport_socket"] = _socket("DownstreamTlsContext", context)
        chain["transport_socket_connect_timeout"] = "10s"  # for the handshake, as for a request's headers
    if tls.service_ca:
        cluster = resources["clusters"][0]
        name = tls.service_name or _host_of(cluster)
        context = {
            "combined_validation_context": {
                "default_validation_context": _for(name),
                "validation_context_sds_secret_config": _watched(_CA, folder),
            },
        }
        if tls.service_cert:
            context["tls_certificate_sds_secret_configs"] = [_watched(_CLIENT, folder)]
        cluster["transport_socket"] = _upstream(name, context)


def server_of(name: str, ca: str) -> Mapping[str, Any]:
    """TLS with an HTTP/2 server whose certificate is for this name or address, and signed by what is in the file."""
    return _upstream(name, {"validation_context": {**_for(name), "trusted_ca": {"filename": ca}}})


def _upstream(name: str, context: Mapping[str, Any]) -> Mapping[str, Any]:
    more = {} if _is_ip(name) else {"sni": name}
    return _socket("UpstreamTlsContext", {"alpn_protocols": ["h2"], **context}, more)


def _for(name: str) -> Mapping[str, Any]:
    kind = "IP_ADDRESS" if _is_ip(name) else "DNS"
    return {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": name}}]}


def write_secrets(tls: GatewayTls, folder: Path) -> None:
    """Write the files that name the certificates. Envoy watches these names: what they name can be replaced."""
    # Imported here, as only commands that write a configuration need YAML.
    from service.local.envoy import yaml_of  # noqa: PLC0415 - that module imports this one

    for name, secret in _secrets(tls):
        resource = {"@type": f"{_TYPE}.Secret", "name": name, **secret}
        (folder / _file(name)).write_text(yaml_of({"resources": [resource]}), encoding="utf-8")


def _secrets(tls: GatewayTls) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, cert, key in ((_EDGE, tls.cert, tls.key), (_CLIENT, tls.service_cert, tls.service_key)):
        if cert:
            pair = {"certificate_chain": {"filename": cert}, "private_key": {"filename": key}}
            yield name, {"tls_certificate": {**pair, **_folder_of(cert)}}
    if tls.service_ca:
        ca = {"trusted_ca": {"filename": tls.service_ca}}
        yield _CA, {"validation_context": {**ca, **_folder_of(tls.service_ca)}}


def _folder_of(path: str) -> Mapping[str, Any]:
    """What is watched: a file that is moved into the folder, or a link in it, as Kubernetes replaces a secret."""
    return {"watched_directory": {"path": str(PurePosixPath(path).parent)}}


def _watched(name: str, folder: PurePosixPath) -> Mapping[str, Any]:
    source = {"path_config_source": {"path": str(folder / _file(name))}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _file(name: str) -> str:
    return f"sds-{name}.yaml"


def _socket(kind: str, context: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    common = {"tls_params": _PARAMETERS, **context}
    return {"name": _SOCKET, "typed_config": {"@type": f"{_TYPE}.{kind}", **(more or {}), "common_tls_context": common}}


def _host_of(cluster: Mapping[str, Any]) -> str:
    [endpoint, *_] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    host: str = endpoint["endpoint"]["address"]["socket_address"]["address"]
    return host


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
