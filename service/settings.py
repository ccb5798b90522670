"""What an operator can set: TICKETS_* environment variables, read once."""

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingError(ValueError):
    """A setting that cannot be used. The text names it, and quotes no secret."""


def _connection_string(text: str) -> str:
    try:
        options = conninfo_to_dict(text)
    except (ProgrammingError, UnicodeEncodeError):
        # libpq's message quotes the text, and the password in it.
        raise PydanticCustomError("connection_string", "Input should be a libpq connection string") from None
    # libpq's messages quote host, port and database, which a mistake may fill with a part of the password.
    ports = str(options.get("port") or "").split(",")
    if not all(port.isdecimal() or not port for port in ports) or _AT_LATE.match(text):
        raise PydanticCustomError(
            "connection_string",
            "Input should be a libpq connection string: in a user's name and password of a URL, write"
            " @ as %40, : as %3A, / as %2F, # as %23, ? as %3F, % as %25",
        )
    return text


# A second @, or one after a slash: then a part of the user's name or password would be taken for a host.
_AT_LATE = re.compile(r"postgres(ql)?://([^/?]*@[^/?]*@|[^/?]*/[^?]*@)")


def _address(part: str) -> bool:
    host, _, port = part.rpartition(":")
    scheme, _, name = part.partition(":")
    if scheme in ("unix", "unix-abstract"):
        return bool(name)
    is_port = port.isascii() and port.isdecimal() and len(port) <= _PORT_DIGITS and int(port) <= _MAX_PORT
    return is_port and bool(host) and "/" not in host


_MAX_PORT = 65_535
_PORT_DIGITS = 5


def _addresses(text: str) -> str:
    if not all(_address(part.strip()) for part in text.split(",")):
        raise PydanticCustomError("addresses", "Input should be addresses, comma separated: host:port or unix:/path")
    return text


def _no_address_or_one(text: str) -> str:
    if text and (text.startswith("unix") or not _address(text)):
        raise PydanticCustomError("address", "Input should be an address: host:port")
    return text


def is_url(source: str) -> bool:
    """Whether a setting that may be a file's path or an http(s) URL is a URL."""
    return source.lower().startswith(("http://", "https://"))


def _path_or_url(text: str) -> str:
    if "://" in text and not (is_url(text) and text.partition("://")[2].strip("/")):
        raise PydanticCustomError("path_or_url", "Input should be a file's path or an http(s) URL")
    return text


_RATE = re.compile(r"[1-9][0-9]{0,8}/[1-9][0-9]{0,8}")


def _rate(text: str) -> str:
    if _RATE.fullmatch(text) is None:
        raise PydanticCustomError("rate", "Input should be a rate and a burst, such as 500/1000, each up to 999999999")
    return text


_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
# The ports that browsers leave out of an origin.
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def _origins(text: str) -> str:
    origins = [_origin(part.strip().lower()) for part in text.split(",")] if text.strip() else []
    return ",".join(dict.fromkeys(origins))


def _origin(text: str) -> str:
    if _ORIGIN.fullmatch(text) is None:
        raise PydanticCustomError(
            "origins", "Input should be origins, comma separated: scheme://host or scheme://host:port, no path and no *"
        )
    return text.removesuffix(_DEFAULT_PORTS.get(text.partition(":")[0], ""))


_SURROGATE = re.compile("[\ud800-\udfff]")
_Days = Annotated[int, Field(ge=0, le=36_500)]
# PostgreSQL takes no more than 2**31 ms for a timeout, and nobody waits for longer. Infinity is no time.
_MAX_SECONDS = 24 * 3600.0
_MAX_PROCESS_CONNECTIONS = 1_000
# Beyond what an operator can mean; what counts with these numbers would overflow long after.
_MAX_CALLS = 1_000_000
_MAX_MESSAGE_BYTES = 1024**3


class Settings(BaseSettings):
    """Every setting with its default. The table in deploy/README.md is made of these; a test compares them."""

    # A setting may be a secret, so no error and no log quotes any of them.
    model_config = SettingsConfigDict(env_prefix="TICKETS_", frozen=True, extra="ignore", hide_input_in_errors=True)

    @field_validator("*")
    @classmethod
    def _as_utf8(cls, value: Any) -> Any:
        # What is not UTF-8 in the environment has surrogates here, which no log, no file name and no library can write.
        if isinstance(value, str) and _SURROGATE.search(value):
            raise PydanticCustomError("string_unicode", "Input should be UTF-8")
        return value

    database_url: Annotated[
        str,
        AfterValidator(_connection_string),
        Field(repr=False, description="PostgreSQL 15 or newer, as a libpq URL."),
    ] = "postgresql://"
    database_read_url: Annotated[
        str,
        AfterValidator(_connection_string),
        Field(
            repr=False,
            description="A standby of that, as a libpq URL: lists, searches and histories are read there as long as it"
            " has all that was acknowledged before. Empty: the primary answers everything.",
        ),
    ] = ""
    pool_size: Annotated[
        int,
        Field(
            ge=1,
            le=_MAX_PROCESS_CONNECTIONS,
            description="Database connections of one process. From four on, two of them carry short statements in"
            " batches; of the others writes use all but two.",
        ),
    ] = 8
    lock_timeout_seconds: Annotated[
        float,
        Field(
            ge=0.01,
            le=_MAX_SECONDS,
            description="How long a call waits for a row that another change holds; then it gets 503.",
        ),
    ] = 2.0
    grpc_listen: Annotated[
        str,
        AfterValidator(_addresses),
        Field(
            description="Addresses the service listens on, comma separated: `host:port`, whose port processes share, or"
            " `unix:/path`."
        ),
    ] = "127.0.0.1:50051"
    tls_cert: Annotated[
        str,
        Field(
            description="Certificate of the service with its chain, a PEM file, for `host:port` addresses; unix sockets"
            " stay plain. Read again when it changes. Empty: no TLS."
        ),
    ] = ""
    tls_key: Annotated[str, Field(description="Its private key, a PEM file without a password.")] = ""
    tls_client_ca: Annotated[
        str,
        Field(
            description="Who signs the certificates of clients, a PEM file: without such a certificate nobody gets in."
            " Empty: none is asked for."
        ),
    ] = ""
    reflection: Annotated[
        bool,
        Field(description="Serve reflection, so that tools need no protos: for development. `tickets up` does."),
    ] = False
    cors_origins: Annotated[
        str,
        AfterValidator(_origins),
        Field(
            description="Origins whose pages may call the gateway from a browser, comma separated and exact:"
            " `https://portal.example`. Empty: none. For `tickets up` and `tickets gateway`."
        ),
    ] = ""
    docs: Annotated[
        bool,
        Field(
            description="Show the REST face at the gateway's `/docs`, and its OpenAPI at `/openapi.json`. For"
            " `tickets up` and `tickets gateway`."
        ),
    ] = True
    jwks: Annotated[
        str,
        AfterValidator(_path_or_url),
        Field(description="JWKS that signs bearer tokens: a file's path or an http(s) URL. Empty: no token is valid."),
    ] = ""
    jwt_issuer: Annotated[str, Field(description="`iss` that a token must have.")] = ""
    jwt_audience: Annotated[str, Field(description="`aud` that a token must have.")] = ""
    jwt_leeway_seconds: Annotated[int, Field(ge=0, le=60, description="Clock skew allowed in `exp`, `nbf`, `iat`.")] = (
        10
    )
    default_deadline_seconds: Annotated[
        float, Field(gt=0, le=_MAX_SECONDS, description="Deadline of a call that sets none; longer ones are cut to it.")
    ] = 30.0
    max_concurrent_calls: Annotated[
        int,
        Field(
            ge=1,
            le=_MAX_CALLS,
            description="Calls in flight in one process; one more gets 503 with Retry-After. One account, tenant or "
            "user may have a quarter of them; one more gets 429.",
        ),
    ] = 256
    max_watches: Annotated[
        int,
        Field(
            ge=1,
            le=_MAX_CALLS,
            description="Watches of one API open in one process; one more gets 503 with Retry-After. One account, "
            "tenant or user may have a tenth of them, one API key or user a twentieth; one more gets 429.",
        ),
    ] = 1000
    max_queue_seconds: Annotated[
        float,
        Field(
            gt=0, le=_MAX_SECONDS, description="When calls queue for longer than this, some get 503 with Retry-After."
        ),
    ] = 0.05
    max_request_bytes: Annotated[
        int, Field(ge=1, le=_MAX_MESSAGE_BYTES, description="Largest request; larger ones get 413.")
    ] = 1024 * 1024
    encryption_keys: Annotated[
        str,
        Field(
            repr=False,
            description="Fernet keys, comma separated, for credentials of providers and secrets of webhooks: the first"
            " encrypts, all decrypt. Empty: neither can be stored.",
        ),
    ] = ""
    allow_private_targets: Annotated[
        bool,
        Field(
            description="Allow plain http for webhooks and providers, and private addresses for webhooks: only for"
            " development."
        ),
    ] = False
    delivery_pause_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=_MAX_SECONDS,
            description="Pause before a delivery is retried; it doubles with each attempt, up to an hour. Pauses of"
            " webhooks (5 seconds to 24 hours at 10.0) scale with it.",
        ),
    ] = 10.0
    keep_itsm_events_days: Annotated[
        _Days,
        Field(
            description="For how many days events of ITSM tickets are kept: their history, and what watches and"
            " webhooks read. 0: for ever."
        ),
    ] = 0
    keep_helpdesk_events_days: Annotated[_Days, Field(description="The same for events of helpdesk tickets.")] = 0
    keep_handoff_events_days: Annotated[_Days, Field(description="The same for events of handoff tickets.")] = 0
    keep_webhook_messages_days: Annotated[
        _Days,
        Field(
            description="For how many days messages are held for a webhook that is disabled, and its last attempts are "
            "logged. 0: for ever."
        ),
    ] = 0
    keep_dead_deliveries_days: Annotated[
        _Days, Field(description="For how many days changes are kept that a provider did not take. 0: for ever.")
    ] = 0
    keep_deleted_tickets_days: Annotated[
        _Days,
        Field(
            description="For how many days deleted helpdesk tickets can be restored; then they go with all that is"
            " theirs. 0: for ever."
        ),
    ] = 0
    keep_deployments_days: Annotated[
        _Days, Field(description="For how many days reports of deployments are known again. 0: for ever.")
    ] = 0
    keep_revoked_keys_days: Annotated[
        _Days, Field(description="For how many days revoked API keys are listed. 0: for ever.")
    ] = 0
    rate_limit_reads: Annotated[
        str, AfterValidator(_rate), Field(description="Reads of one caller: sustained per second / burst.")
    ] = "500/1000"
    rate_limit_writes: Annotated[
        str, AfterValidator(_rate), Field(description="Writes of one caller: sustained per second / burst.")
    ] = "200/400"
    rate_limit_file: Annotated[
        str,
        Field(
            description="File with the token buckets, shared by the processes of a host, in a directory that only their"
            " user can write to. Empty: `tickets/rate-limits` in `$RUNTIME_DIRECTORY`, else in `$XDG_RUNTIME_DIR`, else"
            " in the user's cache."
        ),
    ] = ""
    drain_notice_seconds: Annotated[
        float,
        Field(
            ge=0,
            le=_MAX_SECONDS,
            description="After SIGTERM: how long calls are still accepted while health says NOT_SERVING.",
        ),
    ] = 2.0
    drain_seconds: Annotated[
        float, Field(ge=0, le=_MAX_SECONDS, description="After that: how long calls in flight may take to finish.")
    ] = 20.0
    metrics_listen: Annotated[
        str,
        AfterValidator(_no_address_or_one),
        Field(description="Address that serves Prometheus metrics of this process over HTTP. Empty: none."),
    ] = ""
    otlp_endpoint: Annotated[
        str,
        AfterValidator(_no_address_or_one),
        Field(
            description="Collector that gets traces by OTLP over gRPC, `host:port`. Empty: none. The service needs the"
            " extra `otel`, which the image has. Also for `tickets up` and `tickets gateway`."
        ),
    ] = ""
    otlp_ca: Annotated[
        str,
        Field(
            description="Who signed the collector's certificate, a PEM file at the same absolute path for the service"
            " and Envoy; read at start. Empty: no TLS, for a collector in your own network."
        ),
    ] = ""
    trace_sample_ratio: Annotated[
        float,
        Field(ge=0, le=1, description="Share of calls that are traced, of those whose callers have not decided it."),
    ] = 0.01
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least severe line logged.")
    ] = "info"
    log_format: Annotated[
        Literal["json", "console"], Field(description="Lines as JSON objects, or as text for people: for development.")
    ] = "json"


def unknown_settings() -> Sequence[str]:
    """A line about each variable of the environment that looks like a setting and is none."""
    prefix = Settings.model_config["env_prefix"]
    known = [f"{prefix}{name}".upper() for name in Settings.model_fields]
    lines = []
    # As ASCII and in one line, whatever bytes a name has.
    for name in sorted(ascii(name)[1:-1] for name in os.environ):
        if name.upper().startswith(prefix) and name.upper() not in known:
            close = get_close_matches(name.upper(), known, 1, 0.8)
            lines.append(f"{name}: there is no such setting" + (f"; is it {close[0]}?" if close else ""))
    return lines


def missing_jwks(settings: Settings) -> Sequence[str]:
    """A line about a JWKS whose file cannot be read; none where it can, or where it is a URL."""
    source = settings.jwks
    if not source or is_url(source):
        return []
    try:
        with Path(source).open("rb"):
            return []
    except OSError as error:
        return [f"TICKETS_JWKS: {source}: {error.strerror}; no token is valid until it can be read"]
