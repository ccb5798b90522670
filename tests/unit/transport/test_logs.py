"""The line of a call: written if it can be, and never at the cost of the answer."""

import asyncio
import logging
import os
import select
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime

import orjson
import pytest
import structlog

from service.transport.logs import CallLog, configure


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(write)
    with suppress(OSError):
        os.close(read)


def lines(pipe: tuple[int, int]) -> list[bytes]:
    """What has been written so far."""
    os.set_blocking(pipe[0], False)
    try:
        return os.read(pipe[0], 1_000_000).splitlines(keepends=True)
    except BlockingIOError:
        return []


async def test_a_call_is_one_json_line(pipe: tuple[int, int]) -> None:
    log = CallLog("info", pipe[1])
    log.write(method="/a/B", ms=1.5)
    log.flush()
    (text,) = lines(pipe)
    line = orjson.loads(text)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "call", "level": "info", "method": "/a/B", "ms": 1.5}


async def test_for_people_a_call_is_a_line_of_text(pipe: tuple[int, int]) -> None:
    log = CallLog("info", pipe[1], "console")
    log.write(method="/a/B", caller="it's\nforged \x1b[2J\x9b", request_id="", ms=1.5)
    log.flush()
    (text,) = lines(pipe)
    time_of_day, rest = text.decode().split(" ", 1)
    assert datetime.strptime(time_of_day, "%H:%M:%S.%f")  # noqa: DTZ007 - a time of day
    assert rest == """info    call method=/a/B caller="it's\\nforged \\x1b[2J\\x9b" ms=1.5\n"""


def test_for_people_other_lines_are_text_too(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure("info", "console")
    structlog.get_logger().info("serving", addresses="a:1, b:2")
    logging.getLogger("a.library").warning("beware of %s", "it")
    structlog.get_logger().error("failure", exc_info=ValueError("no\x1b[2J"))
    serving, beware, failure, *traceback = capfd.readouterr().err.splitlines()
    assert serving.endswith(" info    serving addresses='a:1, b:2'")
    assert beware.endswith(" warning 'beware of it' logger=a.library")
    assert failure.endswith(" error   failure")
    assert traceback == ["ValueError: no?[2J"]


def test_a_collector_that_is_away_is_said_once_a_minute(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure("info")
    for number in range(3):
        logging.getLogger("opentelemetry.exporter").warning("no collector %s", number)
        logging.getLogger("another").warning("something else %s", number)
    said = [orjson.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert said == ["no collector 0", *(f"something else {number}" for number in range(3))]


async def test_lines_are_gathered_and_written_by_themselves(pipe: tuple[int, int]) -> None:
    log = CallLog("info", pipe[1])
    for number in range(3):
        log.write(method="/a/B", ms=number)
    assert lines(pipe) == []
    # Readable once it is written to.
    readable = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe[0], readable.set)
    async with asyncio.timeout(5):
        await readable.wait()
    asyncio.get_running_loop().remove_reader(pipe[0])
    assert [orjson.loads(line)["ms"] for line in lines(pipe)] == [0, 1, 2]


async def test_a_write_is_no_longer_than_a_pipe_keeps_whole(pipe: tuple[int, int]) -> None:
    log = CallLog("info", pipe[1])
    for _ in range(100):
        log.write(method="/a/B", caller="x" * 100)
        read, write = lines(pipe), b"".join(log._lines)
        assert len(b"".join(read)) <= select.PIPE_BUF
        assert len(write) <= select.PIPE_BUF


async def test_no_line_is_written_below_its_level(pipe: tuple[int, int]) -> None:
    log = CallLog("warning", pipe[1])
    log.write(method="/a/B")
    log.flush()
    assert lines(pipe) == []


async def test_a_reader_who_is_gone_fails_no_call(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    log = CallLog("info", pipe[1])
    log.write(method="/a/B")
    log.flush()
