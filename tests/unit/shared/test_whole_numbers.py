"""contracts/README.md: a whole number of a body is one however JSON writes it; nothing else is taken for one."""

from typing import Any

import pytest

from service import jsontext
from service.errors import TicketError
from service.fields import Command
from service.handoff.commands import UpdateTicket
from service.helpdesk.commands import CreateSlaPolicy, UpdateSlaPolicy
from service.operation import validated

POLICY = '"name": "p", "priority": "low", '
MEMBERS: list[tuple[type[Command], dict[str, Any], str, str, int]] = [
    (CreateSlaPolicy, {"header": {}}, "resolution_minutes", POLICY, 525_600),
    (UpdateSlaPolicy, {"path": {}}, "first_response_minutes", "", 525_600),
    (
        UpdateTicket,
        {"path": {"project_id": "0" * 32, "ticket_id": ""}, "header": {}},
        "github_issue_number",
        "",
        2**63 - 1,
    ),
]


def _read(command: type[Any], sections: dict[str, Any], members: str) -> Any:
    return validated(command, {**sections, "body": jsontext.parse_request(f"{{{members}}}".encode())}).body


@pytest.mark.parametrize(("command", "sections", "name", "others", "most"), MEMBERS, ids=lambda value: str(value)[:30])
def test_a_whole_number_is_one_however_it_is_written(
    command: type[Command], sections: dict[str, Any], name: str, others: str, most: int
) -> None:
    texts = {
        "60": 60,
        "60.0": 60,
        "6e1": 60,
        "6E+1": 60,
        "600e-1": 60,
        "60." + "0" * 300: 60,
        str(most): most,
        f"{most}.0": most,
    }
    for text, value in texts.items():
        assert (text, getattr(_read(command, sections, f'{others}"{name}": {text}'), name)) == (text, value)
    for text in (
        "60.5",
        "6e-1",
        "-0",
        "0.0",
        "1e400",
        "1e999999",
        "1e-999999",
        f"{most + 1}",
        f"{most + 1}.0",
        '"60"',
        "true",
        "[60]",
        "{}",
    ):
        with pytest.raises(TicketError) as failure:
            _read(command, sections, f'{others}"{name}": {text}')
        assert (text, [issue.path for issue in failure.value.issues]) == (text, [name])
