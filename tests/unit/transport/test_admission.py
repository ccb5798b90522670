"""Admission control: how many calls may be in flight, for how long, and what one more is answered."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.errors import TicketError
from service.settings import Settings
from service.transport.admission import AdmissionControl
from service.transport.queue_probe import QueueProbe


@pytest.fixture
def queue_probe() -> QueueProbe:
    return QueueProbe(Settings(max_queue_seconds=0.1))


async def test_no_more_calls_than_the_limit_are_in_flight(queue_probe: QueueProbe) -> None:
    calls = AdmissionControl(1, queue_probe)
    task = calls.begin(10)
    with pytest.raises(TicketError, match="overloaded") as failure:
        calls.begin(10)
    assert (failure.value.reason, failure.value.retry_after) == ("unavailable", 1)
    calls.end(task)
    calls.end(calls.begin(10))


async def test_a_call_past_its_time_is_cancelled_and_known_from_one_whose_caller_left(queue_probe: QueueProbe) -> None:
    calls = AdmissionControl(10, queue_probe)

    async def call(seconds: float) -> bool:
        task = calls.begin(seconds)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return calls.failure_of(task) is not None
        finally:
            calls.end(task)
        return False

    watch = asyncio.create_task(calls.cancel_overdue())
    left = asyncio.create_task(call(1000))
    async with asyncio.timeout(10):
        assert await asyncio.create_task(call(0))
        left.cancel()
        assert not await left
    assert len(calls) == 0
    watch.cancel()


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_call_that_has_its_answer_is_cancelled_no_more(queue_probe: QueueProbe, is_late: bool) -> None:
    """Also not by a deadline that has just passed, and whose cancellation has not arrived."""
    calls = AdmissionControl(10, queue_probe)

    async def call() -> str:
        task = calls.begin(1000)
        if is_late:
            calls.cancel_all()
        await calls.finish(task)
        calls.cancel_all()
        await asyncio.sleep(0)  # the first part of the answer is sent
        calls.end(task)
        return "answered"

    async with asyncio.timeout(10):
        assert await asyncio.create_task(call()) == "answered"


@pytest.mark.parametrize(("seconds", "refused"), [(0.0, False), (0.09, False), (0.2, True)])
async def test_calls_are_refused_when_those_before_wait_for_long(
    queue_probe: QueueProbe, seconds: float, refused: bool
) -> None:
    queue_probe._wait = seconds
    calls = AdmissionControl(10, queue_probe)
    calls.reject_if_queued(lambda: False)  # whose calls are few among those that wait
    if not refused:
        calls.reject_if_queued(lambda: True)
        return
    with pytest.raises(TicketError, match="overloaded") as failure:
        calls.reject_if_queued(lambda: True)
    assert failure.value.retry_after in range(1, 6)


class Queue(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # its package has no types
    """Answers the probes only when it is let."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.length = 0

    async def Check(self, request: Any, context: Any) -> health_pb2.HealthCheckResponse:  # noqa: N802 - gRPC's name
        self.length += 1
        await self.is_open.wait()
        return health_pb2.HealthCheckResponse()


async def test_a_process_asks_itself_how_long_calls_wait(queue_probe: QueueProbe) -> None:
    queue, server = Queue(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(queue, server)
    server.add_insecure_port(queue_probe.address)
    await server.start()
    watch = asyncio.create_task(queue_probe.watch())
    try:
        async with asyncio.timeout(10):
            while queue.length < 10:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0.01)
            assert queue_probe._wait == 0  # nobody knows before the first ones come back
            queue.is_open.set()
            while queue_probe._wait == 0:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0.01)
            while queue_probe._wait > 0.05:  # noqa: ASYNC110 - nobody says when
                await asyncio.sleep(0.01)
    finally:
        watch.cancel()
        await server.stop(None)


async def test_a_queue_that_stands_is_felt_and_a_hiccup_is_not(
    queue_probe: QueueProbe, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("service.transport.queue_probe.time.monotonic", lambda: now[0])

    async def probe(seconds: float) -> bool:
        async def check(_: Any, **_deadline: float) -> None:
            now[0] += seconds

        await queue_probe._probe(check)
        return queue_probe.should_reject()

    assert [await probe(seconds) for seconds in (5, 5, 0.01, 5, 5, 5, 0.01)] == [False] * 5 + [True, False]


def test_refusals_never_become_all_of_the_work(queue_probe: QueueProbe, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("service.transport.queue_probe.time.monotonic", lambda: now[0])
    queue_probe._wait = 5.0
    refused = 0
    for _ in range(50_000):
        now[0] += 0.00002
        refused += queue_probe.should_reject()
    assert 780 <= refused <= 801
