"""CPU time of groups of processes: on a noisy machine CPU per request is steadier than requests per second."""

import contextlib
from collections.abc import Mapping, Sequence

import psutil

Groups = Mapping[str, Sequence[psutil.Process]]


def seconds(groups: Groups) -> dict[str, float]:
    """User and system time that each group has used so far, its children's children included."""
    return {name: sum(map(_tree_seconds, processes)) for name, processes in groups.items()}


def per_request(before: Mapping[str, float], after: Mapping[str, float], requests: int) -> dict[str, float]:
    """Microseconds for each request that each group used in between."""
    return {name: round((after[name] - before[name]) * 1e6 / max(requests, 1), 1) for name in after}


def _tree_seconds(process: psutil.Process) -> float:
    # Of children that have ended the parent keeps the sum, the living are asked themselves; one that ends between
    # these two readings would be counted twice or not at all, so they are repeated until none did.
    while True:
        before = process.cpu_times()
        total = before.user + before.system + before.children_user + before.children_system
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(_tree_seconds(child) for child in process.children())
            after = process.cpu_times()
            if (before.children_user, before.children_system) == (after.children_user, after.children_system):
                return float(total)
