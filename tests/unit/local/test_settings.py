"""Wrong settings are one line that names each of them, in every command."""

import pytest
from typer.testing import CliRunner

from service.__main__ import app

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
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", LINE)


def test_a_commands_own_settings_are_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    # A command needs one connection, whatever the service needs.
    for name, value in WRONG.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["migrate"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == LINE.split("; ")[1]
