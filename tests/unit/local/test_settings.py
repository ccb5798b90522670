"""Wrong settings are one line that names each of them, in every command, with exit code 2; no line quotes a secret."""

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.__main__ import app
from service.settings import Settings, missing_jwks, unknown_settings

WRONG = {"TICKETS_POOL_SIZE": "none", "TICKETS_LOG_LEVEL": "loud", "TICKETS_GRPC_LISTEN": "127.0.0.1:1"}
LINE = (
    "TICKETS_POOL_SIZE: Input should be a valid integer, unable to parse string as an integer; "
    "TICKETS_LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'\n"
)


@pytest.mark.parametrize("command", ["serve", "up"])
def test_wrong_settings_are_one_line(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", LINE)


def test_a_commands_own_settings_are_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A command needs one connection, whatever the service needs.
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["migrate"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == LINE.split("; ")[1]


SECRET = "s3cret"
ESCAPE = (
    "TICKETS_DATABASE_URL: Input should be a libpq connection string: in a user's name and password of a URL, write"
    " @ as %40, : as %3A, / as %2F, # as %23, ? as %3F, % as %25\n"
)
PARSE = "TICKETS_DATABASE_URL: Input should be a libpq connection string\n"


@pytest.mark.parametrize("command", ["serve", "up", "migrate", "admin create-account"])
@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("postgresql://tickets:x@{}@db.example/tickets", ESCAPE),  # libpq takes `{}@db.example` for the host
        ("postgresql://tickets:{}/x@db.example/tickets", ESCAPE),  # … `{}` for the port
        ("postgresql://tickets:12/{}@db.example/tickets", ESCAPE),  # … `{}@db.example/tickets` for the database
        ("postgresql://tickets:{}%zz@db.example/tickets", PARSE),
        ("host=db.example password={} x", PARSE),
        ("{}", PARSE),
    ],
)
def test_an_address_of_a_database_that_is_none_is_not_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, url: str, line: str
) -> None:
    monkeypatch.setenv("TICKETS_DATABASE_URL", url.format(SECRET))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.parametrize("command", ["serve", "up"])
def test_nor_is_that_of_a_standby(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    monkeypatch.setenv("TICKETS_DATABASE_READ_URL", f"postgresql://tickets:{SECRET}%zz@db.example/tickets")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [command])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", PARSE.replace("_URL", "_READ_URL"))
    assert SECRET not in repr(Settings(database_read_url=f"postgresql://tickets:{SECRET}@db.example/tickets"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://tickets:p%40ss@one:5432,two:5433/tickets?target_session_attrs=read-write",
        "postgresql://postgres@/tickets?host=%2Ftmp%2Fsockets&port=5432",
        "host=db.example password='a@b/c' dbname=tickets",
        "postgresql://tickets@[::1]/tickets?application_name=a@b",
    ],
)
def test_an_address_of_a_database_may_have_any_form_of_libpqs(url: str) -> None:
    assert Settings(database_url=url).database_url == url
    assert Settings(database_read_url=url).database_read_url == url


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("GRPC_LISTEN", "50051", "Input should be addresses, comma separated: host:port or unix:/path"),
        ("GRPC_LISTEN", "127.0.0.1:99999", "Input should be addresses, comma separated: host:port or unix:/path"),
        ("GRPC_LISTEN", "unix:", "Input should be addresses, comma separated: host:port or unix:/path"),
        ("GRPC_LISTEN", "127.0.0.1:\uff11", "Input should be addresses, comma separated: host:port or unix:/path"),
        ("METRICS_LISTEN", "9464", "Input should be an address: host:port"),
        ("METRICS_LISTEN", "unix:/x", "Input should be an address: host:port"),
        ("JWKS", "ftp://login.example/jwks.json", "Input should be a file's path or an http(s) URL"),
        ("JWKS", "https://", "Input should be a file's path or an http(s) URL"),
    ],
)
def test_an_address_has_its_form(monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str) -> None:
    monkeypatch.setenv(f"TICKETS_{name}", value)
    done = CliRunner().invoke(app, ["serve"])
    assert (done.exit_code, done.stderr) == (2, f"TICKETS_{name}: {line}\n")


@pytest.mark.parametrize(
    ("name", "values", "bound"),
    [
        ("LOCK_TIMEOUT_SECONDS", ["inf", "1e308", "1e9"], 86400),
        ("DEFAULT_DEADLINE_SECONDS", ["inf", "1e300", "86401"], 86400),
        ("MAX_QUEUE_SECONDS", ["inf"], 86400),
        ("DELIVERY_PAUSE_SECONDS", ["inf"], 86400),
        ("DRAIN_NOTICE_SECONDS", ["inf"], 86400),
        ("DRAIN_SECONDS", ["inf"], 86400),
        ("POOL_SIZE", ["1001", "9" * 25], 1000),
        ("MAX_CONCURRENT_CALLS", ["9" * 25], 1_000_000),
        ("MAX_WATCHES", ["9" * 25], 1_000_000),
        ("MAX_REQUEST_BYTES", ["2147483648", "9" * 25], 1024**3),
    ],
)
def test_numbers_that_overflow_somewhere_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, values: list[str], bound: int
) -> None:
    for value in values:
        monkeypatch.setenv(f"TICKETS_{name}", value)
        done = CliRunner().invoke(app, ["serve"])
        line = f"TICKETS_{name}: Input should be less than or equal to {bound}\n"
        assert (done.exit_code, done.stderr) == (2, line), value
    monkeypatch.setenv(f"TICKETS_{name}", str(bound))
    assert getattr(Settings(), name.lower()) == bound


def test_a_rate_is_two_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("1", "0/1", "1/0", "1/1\n", "\u0661/1", "1/" + "9" * 30):
        monkeypatch.setenv("TICKETS_RATE_LIMIT_READS", value)
        done = CliRunner().invoke(app, ["serve"])
        line = "TICKETS_RATE_LIMIT_READS: Input should be a rate and a burst, such as 500/1000, each up to 999999999\n"
        assert (done.exit_code, done.stderr) == (2, line), value


@pytest.mark.parametrize(
    ("command", "named", "said"),
    [
        ("token --sub=", "'--sub'", "it is empty"),
        ("token --sub ada --ttl 0", "'--ttl'", "Input should be greater than or equal to 1"),
        ("token --sub ada --ttl 99999999999", "'--ttl'", "Input should be less than or equal to"),
        ("up --http-port 8080 --grpc-port 8080", "'--grpc-port'", "8080 is the HTTP port"),
    ],
)
def test_a_wrong_option_is_named(command: str, named: str, said: str) -> None:
    done = CliRunner().invoke(app, command.split())
    assert (done.exit_code, done.stdout) == (2, "")
    # It is shown in a box, whose lines are as wide as the terminal.
    words = " ".join(done.stderr.replace("│", "").split())
    assert named in words
    assert said in words


@pytest.mark.parametrize("command", ["up", "token --sub ada"])
def test_what_the_system_refuses_is_named_without_its_number(tmp_path: Path, command: str) -> None:
    (tmp_path / "data").write_text("a file")
    done = CliRunner().invoke(app, [*command.split(), "--data-dir", str(tmp_path / "data")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert re.fullmatch(rf"{tmp_path}/data(/\S+)?: (File exists|Not a directory)\n", done.stderr)


def test_bytes_that_are_no_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JWKS", "JWT_ISSUER", "RATE_LIMIT_FILE"):
        monkeypatch.setenv(f"TICKETS_{name}", os.fsdecode(b"/etc/\xff"))
        done = CliRunner().invoke(app, ["serve"])
        assert (done.exit_code, done.stderr) == (2, f"TICKETS_{name}: Input should be UTF-8\n")
        monkeypatch.delenv(f"TICKETS_{name}")


def test_doctor_looks_at_all_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path)])
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", LINE)


def test_what_looks_like_a_setting_and_is_none_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TICKETS_POOLSIZE", "3")
    monkeypatch.setenv("TICKETS_FANCY", "yes")
    monkeypatch.setenv(os.fsdecode(b"TICKETS_ODD\n\xff"), "yes")
    lines = [
        "TICKETS_FANCY: there is no such setting",
        "TICKETS_ODD\\n\\udcff: there is no such setting",
        "TICKETS_POOLSIZE: there is no such setting; is it TICKETS_POOL_SIZE?",
    ]
    assert unknown_settings() == lines
    done = CliRunner().invoke(app, ["token", "--sub", "ada", "--data-dir", str(tmp_path)])
    assert done.stderr.splitlines()[:3] == lines


def test_a_jwks_that_is_missing_is_said(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    assert missing_jwks(Settings(jwks=str(path))) == [
        f"TICKETS_JWKS: {path}: No such file or directory; no token is valid until it can be read"
    ]
    path.write_text("{}")
    for source in (str(path), "https://issuer.example/jwks.json", ""):
        assert missing_jwks(Settings(jwks=source)) == []


@pytest.mark.parametrize(
    ("jwks", "why"),
    [
        ("http://127.0.0.1:1/jwks.json", "cannot be had: ConnectError"),
        ("{folder}/garbage", "cannot be had: JSONDecodeError"),
        ("{folder}/empty", "there is no usable key"),
    ],
)
def test_doctor_says_why_a_jwks_is_of_no_use(tmp_path: Path, jwks: str, why: str) -> None:
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / "empty").write_text('{"keys": []}')
    source = jwks.format(folder=tmp_path)
    environment = {"TICKETS_JWKS": source, "TICKETS_DATABASE_URL": "postgresql://127.0.0.1:1/none"}
    done = CliRunner(env=environment).invoke(app, ["doctor", "--data-dir", str(tmp_path)])
    assert re.search(f"^bad +JWKS +{re.escape(f'TICKETS_JWKS: {source}: {why}')}$", done.stdout, re.MULTILINE)
    assert all(line.startswith(("ok ", "bad ", "note ")) for line in done.output.splitlines())


def test_the_version_is_printed() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, "tickets 0.1.0\n")
