"""Traces: which contexts are taken on, what is sampled, what statements are called; and that off means off."""

import ast
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from service import tracing
from service.errors import REASONS
from service.itsm.queries import CREATE, GET
from service.settings import SettingError, Settings
from service.storage.traced import name_of

SERVICE = Path(tracing.__file__).parent
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = f"00-{TRACE}-{SPAN}"


@pytest.fixture
def never() -> Iterator[tracing.Tracing]:
    """Samples only what its caller samples."""
    before = tracing.CURRENT.set(None)
    yield tracing.Tracing(TracerProvider(), 0.0)
    tracing.CURRENT.reset(before)


@pytest.mark.parametrize(
    ("given", "sampled"),
    [
        (f"{GIVEN}-01", True),
        (f"{GIVEN}-03", True),
        (f"{GIVEN}-00", False),
        (f"{GIVEN}-02", False),
        (f"cc{GIVEN[2:]}-01-later", True),
    ],
)
def test_a_callers_trace_goes_on(never: tracing.Tracing, given: str, sampled: bool) -> None:
    trace = never.call("/a.B/C", {"traceparent": given}, "id")
    assert trace is not None
    assert (trace.trace_id, trace.span is not None) == (TRACE, sampled)
    assert trace.headers["traceparent"] == f"00-{TRACE}-{trace.span_id}-{'01' if sampled else '00'}"
    assert (trace.span_id != SPAN) == sampled
    assert trace.end_call("ok") == {"trace_id": TRACE}


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        GIVEN,
        f"{GIVEN}-1",
        f"{GIVEN.upper()}-01",
        f"ff{GIVEN[2:]}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{GIVEN}-01\n",
        f"{GIVEN}-01".encode(),
    ],
)
def test_what_is_no_trace_is_none(never: tracing.Tracing, given: Any) -> None:
    assert never.call("/a.B/C", {"traceparent": given}, "ffffffff") is None
    assert tracing.CURRENT.get() is None


@pytest.mark.parametrize(
    ("ratio", "cause", "sampled"),
    [(0.01, f"{99:08x}-and-more", True), (0.01, f"{100:08x}", False), (0, f"{0:08x}", False), (1, "no digits", True)],
)
def test_a_request_id_decides_as_it_does_at_the_gateway(ratio: float, cause: str, sampled: bool) -> None:
    assert tracing.Tracing(TracerProvider(), ratio).samples(cause) == sampled


@pytest.mark.parametrize("outcome", [*REASONS, "ok", "cancelled", "a reason to come"])
def test_every_outcome_ends_a_span(never: tracing.Tracing, outcome: str) -> None:
    trace = never.call("/a.B/C", {"traceparent": f"{GIVEN}-01"}, "id")
    assert trace is not None
    span: Any = trace.span
    trace.end_call(outcome)
    code = span.attributes["rpc.grpc.status_code"]
    assert (code == 0, code == 1) == (outcome == "ok", outcome == "cancelled")
    assert span.status.is_ok == (code not in (2, 4, 12, 13, 14, 15))


def test_a_statement_is_named_by_what_it_does_to_which_tables() -> None:
    assert name_of(GET) == "SELECT itsm_tickets"
    assert name_of(CREATE.plain).startswith("INSERT itsm_tickets")
    assert name_of(CREATE.keys.lock).startswith("SELECT")


async def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingError, match="TICKETS_OTLP_ENDPOINT: install the extra `otel`"):
            tracing.start(Settings(otlp_endpoint="127.0.0.1:4317"), stack)
    assert tracing.active is None


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file or directory"), (b"x", "is no certificate in PEM")]
)
async def test_a_collector_without_its_authority_is_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    ca = tmp_path / "ca.pem"
    if content is not None:
        ca.write_bytes(content)
    async with AsyncExitStack() as stack:
        with pytest.raises(SettingError, match=f"^TICKETS_OTLP_CA: {ca}: {words}$"):
            tracing.start(Settings(otlp_endpoint="127.0.0.1:4317", otlp_ca=str(ca)), stack)
    assert tracing.active is None


async def test_off_there_is_no_trace() -> None:
    async with AsyncExitStack() as stack:
        tracing.start(Settings(), stack)
        assert tracing.active is None
        with (
            tracing.work("delivery", "tickets.request_id", "0"),
            tracing.request("GET", "http://a", "provider") as none,
        ):
            assert none is None


def test_no_module_imports_opentelemetry_with_itself() -> None:
    importing = [path for path in SERVICE.rglob("*.py") if "from opentelemetry" in path.read_text()]
    assert importing == [SERVICE / "tracing.py"]
    body = ast.parse(importing[0].read_text()).body
    imported = [ast.unparse(node) for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("opentelemetry" in line for line in imported)
