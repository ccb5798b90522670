"""What the TypeScript client says of the service: its reasons are those of the service, and it calls every method."""

import re
from pathlib import Path

import pytest

from service.errors import REASONS
from service.server import DESCRIPTORS

SOURCE = Path(__file__).parents[2] / "gen/typescript/src"
FILES = {"handoff": ["handoff.ts"], "helpdesk": ["helpdesk.ts", "sla.ts"], "itsm": ["itsm.ts"]}


def test_its_reasons_are_those_of_the_service() -> None:
    union = re.search(r"export type Reason =\n(.*?);", (SOURCE / "errors.ts").read_text(), re.DOTALL)
    assert union is not None
    assert re.findall(r'"(\w+)"', union[1]) == sorted(REASONS)


@pytest.mark.parametrize("api", FILES)
def test_it_calls_every_method(api: str) -> None:
    code = "".join((SOURCE / name).read_text() for name in FILES[api])
    typed = [service for service in DESCRIPTORS if service.file.package == f"tickets.{api}.v1"]
    methods = [method.name[0].lower() + method.name[1:] for service in typed for method in service.methods]
    called = set(re.findall(r"Service\.method\.(\w+)", code)) | set(re.findall(r"const { (\w+) } = \w+\.method;", code))
    assert called == set(methods)
