"""The Go client has all that the protos and the reasons have; it is compiled and run by `make test-clients`."""

import re
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from service.errors import REASONS

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "gen/go/client"
SOURCE = "\n".join(path.read_text() for path in sorted(CLIENT.glob("*.go")) if not path.name.endswith("_test.go"))
TYPED = re.compile(r"tickets\.(handoff|helpdesk|itsm)\.v1")
ONLY_REST = {"unsupported_media_type"}


def test_it_calls_every_method() -> None:
    files = FileDescriptorSet.FromString((ROOT / "gen/tickets.binpb").read_bytes()).file
    services = [service for file in files if TYPED.fullmatch(file.package) for service in file.service]
    methods = sorted(method.name for service in services for method in service.method)
    assert sorted(re.findall(r"\br\.(?:service|sla)\.(\w+)\(", SOURCE)) == methods


def test_it_names_every_reason() -> None:
    assert set(re.findall(r'\bReason = "(\w+)"', SOURCE)) == set(REASONS) - ONLY_REST


def test_its_page_lists_every_call() -> None:
    page = (ROOT / "gen/go/README.md").read_text()
    rows = re.findall(r"^\| `client\.\w+\.(\w+)` \| (.+?) \|", page, re.MULTILINE)
    listed = [(name, call) for name, calls in rows for call in re.findall(r"`(\w+)`", calls)]
    kinds = re.findall(r"^func \(r \*(\w+)\) ([A-Z]\w*)\(", SOURCE, re.MULTILINE)
    assert sorted(listed) == sorted((re.sub("^(Handoff|Helpdesk|ITSM)", "", kind), call) for kind, call in kinds)
