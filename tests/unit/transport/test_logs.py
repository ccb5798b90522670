"""The line of a call: written if it can be, and never at the cost of the answer."""

import os
from collections.abc import Iterator
from contextlib import suppress

import orjson
import pytest

from service.transport.logs import CallLog


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(write)
    with suppress(OSError):
        os.close(read)


def test_a_call_is_one_json_line(pipe: tuple[int, int]) -> None:
    CallLog("info", pipe[1]).write(method="/a/B", ms=1.5)
    line = orjson.loads(os.read(pipe[0], 10_000))
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "call", "level": "info", "method": "/a/B", "ms": 1.5}


def test_no_line_is_written_below_its_level(pipe: tuple[int, int]) -> None:
    CallLog("warning", pipe[1]).write(method="/a/B")
    os.set_blocking(pipe[0], False)
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)


def test_a_reader_who_is_gone_fails_no_call(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    CallLog("info", pipe[1]).write(method="/a/B")
