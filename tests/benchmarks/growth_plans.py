"""What single statements cost PostgreSQL: its CPU and the pages that it reads, which other work does not change."""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psycopg
import typer

from service.storage.statement import Statement

from . import growth_texts, stack
from .growth_ground import say

T = TypeVar("T")


class Cost(NamedTuple):
    """Of one run, planning included: the second of two."""

    cpu_ms: float
    blocks: int

    @property
    def text(self) -> str:
        """Both, for a table."""
        return f"{self.cpu_ms:.1f} / {self.blocks:,}"


@contextmanager
def ground(
    seed: Callable[[str, int, growth_texts.Kind], T], tickets: int, text: growth_texts.Kind
) -> Iterator[tuple[psycopg.Connection[Any], T]]:
    """A connection to a PostgreSQL with so many tickets, and what `seed` returned, which made them."""
    with tempfile.TemporaryDirectory() as directory, stack.postgres(Path(directory)) as database:
        say(f"seeding {tickets:,} tickets")
        seeded = seed(database.url, tickets, text)
        with connect(database.url) as connection:
            yield connection, seeded


def show(connection: psycopg.Connection[Any], table: str, rows: Sequence[Sequence[str]]) -> None:
    """Print what lists cost, and how large the table of their tickets is."""
    typer.echo(growth_texts.table(rows))
    typer.echo(growth_texts.sizes(connection, table))


def connect(database_url: str) -> psycopg.Connection[Any]:
    """A connection to explain statements on."""
    connection = psycopg.connect(database_url, cursor_factory=psycopg.ClientCursor, autocommit=True)
    # Workers' CPU would not be seen.
    connection.execute("SET max_parallel_workers_per_gather = 0; SET plan_cache_mode = force_custom_plan")
    return connection


def cost(connection: psycopg.Connection[Any], statement: Statement, given: Mapping[str, Any]) -> Cost:
    """What a statement costs with these parameters."""
    values = [given[name] if name in given else statement.constants[name] for name in statement.names]
    connection.execute(b"PREPARE explained AS " + statement.sql)
    try:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) EXECUTE explained({', '.join(['%s'] * len(values))})"
        for _ in range(2):
            begun = _cpu_ms(connection)
            lines = [line for (line,) in connection.execute(explain, values)]
            used = _cpu_ms(connection) - begun
    finally:
        connection.execute("DEALLOCATE explained")
    read = re.search(r"Buffers: shared((?: \w+=\d+)+)", "\n".join(lines))
    return Cost(used, sum(map(int, re.findall(r"(?:hit|read)=(\d+)", read[1]))) if read else 0)


def _cpu_ms(connection: psycopg.Connection[Any]) -> float:
    return int(Path(f"/proc/{connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e6
