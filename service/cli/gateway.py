"""`tickets gateway`: Envoy's configuration, and the names of its certificates beside it."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import WRONG_SETTING, fail, load_settings
from service.settings import SettingError

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_PORT = re.compile("[0-9]{1,5}")
_PEM = "PEM, by the path that Envoy has it at"


def print_gateway(
    service: Annotated[str, typer.Option(help="Where Envoy finds the service: `host:port`.")] = "tickets:50051",
    workers: Annotated[int, typer.Option(min=1, max=10_000, help="Processes of the service behind that name.")] = 2,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port for Envoy's own metrics; none without it.")
    ] = None,
    trusted_hops: Annotated[
        int,
        typer.Option(
            min=0, max=100, help="Proxies in front of Envoy that say in X-Forwarded-For who called, such as an ingress."
        ),
    ] = 0,
    output: Annotated[Path | None, typer.Option(help="The file to write; standard output without one.")] = None,
    cert: Annotated[str, typer.Option(help=f"The gateway's certificate, for TLS with callers: {_PEM}.")] = "",
    key: Annotated[str, typer.Option(help="Its key.")] = "",
    service_ca: Annotated[
        str, typer.Option(help=f"Who signed the service's certificate, for TLS with it: {_PEM}.")
    ] = "",
    service_name: Annotated[
        str, typer.Option(help="The name in the service's certificate, where it is not the host of --service.")
    ] = "",
    service_cert: Annotated[str, typer.Option(help="The gateway's certificate as a client of the service.")] = "",
    service_key: Annotated[str, typer.Option(help="Its key.")] = "",
) -> None:
    """Print the Envoy configuration: deploy/envoy.yaml, and what TICKETS_* and options say.

    With certificates there are files beside the output (`sds-….yaml`): Envoy must have all of them at /etc/envoy.
    """
    from service.local.envoy import deployed_config, yaml_of  # noqa: PLC0415 - `serve` needs no YAML
    from service.local.gateway_traces import trace  # noqa: PLC0415 - as above
    from service.local.tls import GatewayTls, write_secrets  # noqa: PLC0415 - as above

    settings = load_settings()
    host, _, port = service.rpartition(":")
    if not (_HOST.fullmatch(host) and _PORT.fullmatch(port) and 0 < int(port) < 65536):
        fail(f"--service: {service} is not host:port", WRONG_SETTING)
    tls = GatewayTls(cert, key, service_ca, service_cert, service_key, service_name)
    try:
        tls.check()
    except SettingError as error:
        fail(str(error), WRONG_SETTING)
    if tls.has_files and output is None:
        fail("--output: must be given with certificates, as files beside it name them", WRONG_SETTING)
    origins = settings.cors_origins
    config = deployed_config(
        service=service,
        workers=workers,
        cors_origins=origins,
        docs=settings.docs,
        tls=tls,
        metrics_port=metrics_port,
        trusted_hops=trusted_hops,
    )
    trace(config, settings)
    if output is None:
        sys.stdout.write(yaml_of(config))
        return
    try:
        write_secrets(tls, output.parent)
        output.write_text(yaml_of(config), encoding="utf-8")
    except OSError as error:
        fail(str(error))
