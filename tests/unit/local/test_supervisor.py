"""What is started again: how soon, and what is said of it."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress

import pytest

from service.local.supervisor import next_pause, supervise


def pauses(*lives: float) -> Iterator[float]:
    pause = 0.1
    for lived in lives:
        yield (pause := next_pause(pause, lived))


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        ([3600], [0.1]),
        ([0, 0, 0], [0.2, 0.4, 0.8]),
        ([9.9, 10, 0], [0.2, 0.1, 0.2]),
        ([0] * 20, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, *[15] * 13]),
    ],
)
def test_the_pause_grows_while_exits_follow_at_once(lives: list[float], expected: list[float]) -> None:
    assert list(pauses(*lives)) == pytest.approx(expected)


async def test_each_exit_and_each_failed_start_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    starts = 0
    steady = asyncio.Event()

    async def start() -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            raise RuntimeError("the port is in use\nand more")
        steady.set()

    def exited() -> str | None:
        return None if steady.is_set() else "it exited with 3"

    supervisor = asyncio.create_task(supervise(exited, start))
    await asyncio.wait_for(steady.wait(), timeout=30)
    supervisor.cancel()
    with suppress(asyncio.CancelledError):
        await supervisor
    assert starts == 2
    assert capsys.readouterr().err.splitlines() == [
        "it exited with 3; starting it again in 0.2 s",
        "it did not start: the port is in use",
        "it exited with 3; starting it again in 0.4 s",
    ]
