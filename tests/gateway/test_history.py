"""Nothing acknowledged is lost, doubled or reordered (contracts/errors.md, Retries), whatever dies meanwhile.

Clients write to two workers at both transports and in all three APIs, watches resume where they ended, webhooks are
sent; meanwhile workers, Envoy and PostgreSQL are killed and started again. Then what the clients saw and what the
database holds are compared (support/history/checks.py).
"""

import os
import secrets
from pathlib import Path

import pytest
from support.history.checks import problems
from support.history.run import Plan, recorded
from support.system import Issuer

pytestmark = pytest.mark.processes


def seed() -> int:
    return int(os.environ.get("HISTORY_SEED") or secrets.randbits(32))


@pytest.fixture
def own_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Short enough for a socket, whatever the test is called.
    return tmp_path_factory.mktemp("history")


async def check(directory: Path, issuer: Issuer, plan: Plan) -> None:
    history, snapshot = await recorded(directory, issuer, plan)
    print(plan, history.figures())
    wrong = problems(history, snapshot)
    assert not wrong, f"{len(wrong)} problems with {plan}, such as\n" + "\n".join(wrong[:20])


async def test_nothing_acknowledged_is_lost_doubled_or_reordered(own_directory: Path, issuer: Issuer) -> None:
    await check(own_directory, issuer, Plan(seed(), seconds=0, silent_seconds=15))


@pytest.mark.long
async def test_nothing_is_lost_doubled_or_reordered_for_long(own_directory: Path, issuer: Issuer) -> None:
    """For five minutes, or HISTORY_SECONDS. HISTORY_SEED repeats the choices of an earlier run."""
    seconds = float(os.environ.get("HISTORY_SECONDS", "300"))
    await check(own_directory, issuer, Plan(seed(), seconds=seconds, silent_seconds=90))
