"""The results as a table, and as plots, of which deploy/README.md shows one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

from .apis import OPERATIONS
from .results import PEER, Spread, Summary
from .targets import CROWD, OURS, RATES, TAIL

mpl.use("agg")

from matplotlib import pyplot as plt

_COLORS = {"peer": "#b0b7c3", "envoy": "#e07b39", "grpc": "#2f6db5", "pgbench": "#5a9a68"}
_GROUP_COLORS = {"app": "#2f6db5", "envoy": "#e07b39", "postgres": "#5a9a68"}


def table(summaries: Sequence[Summary], titles: Mapping[str, str], base: str) -> str:
    """Lines for a terminal: medians of the rounds, in brackets the least and the most. `base` is what ratios are to."""
    heads = [
        "",
        "requests/s",
        f"x {base}",
        "must, aim",
        "p50 ms",
        "p99 ms",
        f"x {base}",
        "p99/p50",
        "must, aim",
        "CPU us",
    ]
    blocks: dict[str, list[list[str]]] = {}
    for one in summaries:
        title = f"{OPERATIONS[one.operation].title}, {one.concurrency} callers"
        blocks.setdefault(title, []).append([titles[one.contestant], *_cells(one)])
    rows = [row for block in blocks.values() for row in block]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = ["Medians of rounds [least-most]. CPU is the servers' for each request; `load` is the generator's own."]
    for title, block in blocks.items():
        lines += ["", title]
        for row in (heads, *block):
            lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return "\n".join(lines)


def _cells(one: Summary) -> list[str]:
    against_peer = one.contestant != PEER
    tail_target = TAIL if one.contestant in OURS and one.concurrency == CROWD else None
    cpu = " + ".join(f"{name} {used:.0f}" for name, used in one.cpu_us.items())
    return [
        _spread(one.rate, 0),
        _spread(one.rate_ratio, 2) if against_peer else "",
        _verdict(one.rate_ratio, RATES.get((one.operation, one.contestant))),
        _spread(one.p50_ms, 1) if one.p50_ms.median else "",
        _spread(one.p99_ms, 0) if one.p99_ms.median else "",
        _spread(one.p99_ratio, 2) if against_peer and one.p99_ms.median else "",
        _spread(one.tail, 1),
        _verdict(one.tail, tail_target, less=True),
        f"{one.cpu_total_us:.0f} = {cpu}; load {one.generator_us:.0f}",
    ]


def plot(summaries: Sequence[Summary], titles: Mapping[str, str], path: Path, caption: str) -> None:
    """Three panels: throughput against the peer, p99 against the peer, and where the CPU of a request goes."""
    operations = list(dict.fromkeys(one.operation for one in summaries))
    concurrencies = sorted({one.concurrency for one in summaries})
    figure = plt.figure(figsize=(12, 7.5), layout="constrained")
    grid = figure.add_gridspec(2, 2)
    found = {(one.operation, one.concurrency, one.contestant): one for one in summaries}
    labels = [OPERATIONS[name].title for name in operations]
    last = concurrencies[-1]
    for place, concurrency in enumerate(concurrencies[:2]):
        axes = figure.add_subplot(grid[0, place])
        axes.set_title(f"Throughput, {concurrency} callers (peer = 1)", fontsize=11)
        _ratio_bars(
            axes, [[found.get((name, concurrency, who)) for name in operations] for who in OURS], "rate_ratio", titles
        )
        _finish(axes, labels)
    axes = figure.add_subplot(grid[1, 0])
    axes.set_title(f"99th percentile of latency, {last} callers (peer = 1, less is better)", fontsize=11)
    _ratio_bars(axes, [[found.get((name, last, who)) for name in operations] for who in OURS], "p99_ratio", titles)
    _finish(axes, labels)
    axes = figure.add_subplot(grid[1, 1])
    axes.set_title(f"Server CPU for each request, {last} callers (µs, less is better)", fontsize=11)
    _cpu_bars(axes, found, operations, last, titles)
    _finish(axes, labels)
    figure.supxlabel(caption, fontsize=8, color="#555555")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _ratio_bars(axes: Any, rows: Sequence[Sequence[Summary | None]], what: str, titles: Mapping[str, str]) -> None:
    width = 0.38
    axes.axhline(1, color=_COLORS[PEER], linewidth=2, label=titles[PEER], zorder=1)
    for place, (who, row) in enumerate(zip(OURS, rows, strict=True)):
        label = titles[who]
        for at, one in enumerate(row):
            ratio: Spread | None = getattr(one, what) if one else None
            if ratio is None:
                continue
            x = at + (place - 0.5) * width
            reach = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            axes.bar(x, ratio.median, width, color=_COLORS[who], label=label, zorder=2)
            axes.errorbar(x, ratio.median, reach, color="#333333", capsize=3, linewidth=1, zorder=3)
            axes.annotate(
                f"{ratio.median:.2g}", (x, ratio.high), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
            label = "_"  # once in the legend
    axes.legend(fontsize=8, frameon=False)


def _cpu_bars(
    axes: Any,
    found: Mapping[tuple[str, int, str], Summary],
    operations: Sequence[str],
    concurrency: int,
    titles: Mapping[str, str],
) -> None:
    width = 0.26
    labelled: set[str] = set()
    for at, operation in enumerate(operations):
        for place, (who, sign) in enumerate(((PEER, "peer"), ("envoy", "REST"), ("grpc", "gRPC"))):
            one = found.get((operation, concurrency, who))
            if one is None:
                continue
            x, base = at + (place - 1) * width, 0.0
            for group, used in one.cpu_us.items():
                label = (
                    "_" if group in labelled else {"app": "Python", "envoy": "Envoy", "postgres": "PostgreSQL"}[group]
                )
                labelled.add(group)
                axes.bar(x, used, width * 0.94, bottom=base, color=_GROUP_COLORS[group], label=label)
                base += used
            axes.annotate(sign, (x, base), (0, 2), textcoords="offset points", ha="center", fontsize=7)
    axes.legend(fontsize=8, frameon=False)


def _finish(axes: Any, labels: Sequence[str]) -> None:
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)


def _spread(spread: Spread | None, digits: int) -> str:
    return "" if spread is None else spread.text(digits)


def _verdict(ratio: Spread | None, target: tuple[float, float] | None, *, less: bool = False) -> str:
    if ratio is None or target is None:
        return ""
    must, aim = target
    reached = [ratio.median <= bound if less else ratio.median >= bound for bound in (must, aim)]
    return f"{must:g} {'yes' if reached[0] else 'NO'}, {aim:g} {'yes' if reached[1] else 'no'}"
