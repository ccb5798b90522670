"""The primary dies or hangs under load and its standby takes over: nothing acknowledged is lost or doubled.

Clients write under idempotency keys and watch, at one process of the service that nobody starts again
(deploy/README.md, Recovery). What they saw is compared with what the new primary holds (support/history/checks.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from support.history.checks import problems
from support.history.clients import Watcher, Writer
from support.history.records import History
from support.history.run import boards, running, seeded, settle, snapshot, totals
from support.pair import Pair, running_pair
from support.system import Issuer, Service, run_service
from support.transports import Grpc
from support.webhook_lab import until

pytestmark = pytest.mark.processes

WRITERS = 3
# Each writes so many times before the fault, and as often after it.
WRITES = 8
# Far beyond what is promised, which a busy machine may not keep.
PATIENCE_SECONDS = 30


@pytest.fixture
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    # Short enough for a socket.
    with running_pair(tmp_path_factory.mktemp("pair")) as pair:
        pair.wait_for_each_other()
        yield pair


@pytest.fixture
def served(pair: Pair, directory: Path, issuer: Issuer) -> Iterator[Service]:
    with run_service(directory, pair.url, issuer) as service:
        yield service


def acknowledged(history: History, since: float = 0) -> int:
    """How many writes were, of those that began after an instant."""
    return sum(write.acknowledged is not None and write.begun >= since for write in history.writes)


@asynccontextmanager
async def writing(writers: Sequence[Writer]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.run())
        yield
        for writer in writers:
            writer.stop()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_nothing_acknowledged_is_lost_or_doubled_and_nobody_starts_anything(
    pair: Pair, served: Service, issuer: Issuer, fault: str
) -> None:
    history, random = History(), seeded(1)
    with ExitStack() as until_the_end:
        async with grpc.aio.insecure_channel(served.target) as channel:
            rpc = Grpc(channel)
            made = await boards(pair.url, issuer)
            writers = [
                Writer(f"{board.api}-{number}", board, rpc, history, random)
                for board in made
                for number in range(WRITERS)
            ]
            watchers = [Watcher(board, rpc, random) for board in made]
            history.watches = [watcher.watched for watcher in watchers]
            async with running(watchers):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await asyncio.gather(*(watcher.has_begun.wait() for watcher in watchers))
                async with writing(writers), asyncio.timeout(2 * PATIENCE_SECONDS):
                    await until(lambda: acknowledged(history) >= WRITES * len(writers))
                    history.faults.append((fault, time.monotonic()))
                    if fault == "killed":
                        pair.kill_primary()
                    else:
                        until_the_end.enter_context(pair.hanging())
                    await asyncio.to_thread(pair.promote)
                    promoted = time.monotonic()
                    await until(lambda: acknowledged(history, promoted) >= WRITES * len(writers))
                await settle(pair.standby.url, PATIENCE_SECONDS, history)
            held = snapshot(pair.standby.url, await totals(rpc, made[0]))
    answers = [attempt.ended for write in history.writes for attempt in write.attempts if attempt.answer is not None]
    back = min(ended for ended in answers if ended is not None and ended > promoted) - promoted
    print(f"{fault}: writes are back {back:.2f} s after the promotion; {history.figures()}")
    wrong = problems(history, held)
    assert not wrong, f"{len(wrong)} problems, such as\n" + "\n".join(wrong[:20])
    assert served.process.poll() is None
