"""Two kinds of text for the grounds of lists and searches, and words that are as rare as their names say.

Natural text has words of every frequency: PostgreSQL's statistics of it know how rare a word may be. Machine-made text
has a few words that every ticket has, and an id of its own in each: of that the statistics know next to nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import psycopg


class Kind(StrEnum):
    """Who wrote the tickets."""

    NATURAL = "natural"
    MACHINE = "machine"


# By Zipf's law: the k-th word is in every k-th place, more or less.
_VOCABULARY, _WORDS = 20_000, 30
_TEXTS = {
    Kind.NATURAL: f"(SELECT array_agg(DISTINCT 'w' || power({_VOCABULARY}, random())::int)"
    f" FROM generate_series(1, {_WORDS} + n * 0))",
    Kind.MACHINE: "ARRAY['alert', 'check', 'failed', 'service', 'host' || n %% 8, 'event', left(md5(n::text), 12)]",
}
# How many tickets have such a word.
_RARE = {"one": 1, "hundred": 100, "tenthousand": 10_000}


def terms(kind: Kind, tickets: int, scope: str) -> str:
    """The SQL, for psycopg, of the index terms of the n-th ticket, the oldest first; `scope` is SQL of its scope's."""
    steps = {word: max(tickets // hits, 1) for word, hits in _RARE.items()}
    rare = [f"CASE WHEN n %% {step} = {step // 2} THEN '{word}' END" for word, step in steps.items()]
    # In the older half, and there alone.
    rare += [f"CASE WHEN n < {tickets // 2} AND n %% 10 = 0 THEN 'former' END"]
    rare += [f"CASE WHEN n < {tickets // 10 * 9} THEN 'earlier' END", "'always'", scope]
    return f"array_to_tsvector(array_remove(ARRAY[{', '.join(rare)}], NULL) || {_TEXTS[kind]})"


def searches(kind: Kind) -> dict[str, str]:
    """What is searched for, by what it is."""
    common = "w1" if kind == Kind.NATURAL else "alert"
    return {
        "q: of none": "zebra",
        "q: of 1": "one",
        "q: of 100": "hundred",
        "q: of 10,000": "tenthousand",
        "q: of 5 %, all of them old": "former",
        "q: of all but the newest tenth": "earlier",
        "q: of all": "always",
        "q: common, and of 100": f"{common} hundred",
        "q: common, and of none": f"{common} zebra",
    }


@contextmanager
def without_indexes(connection: psycopg.Connection[Any], table: str) -> Iterator[None]:
    """Drop the indexes of a table that are no keys for as long as it is filled, and make them again."""
    made = connection.execute(
        "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i"
        " LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid WHERE i.indrelid = %s::regclass AND c.oid IS NULL",
        [table],
    ).fetchall()
    for name, _ in made:
        connection.execute(f"DROP INDEX {name}".encode())
    yield
    connection.execute("SET maintenance_work_mem = '512MB'")
    for _, definition in made:
        connection.execute(str(definition).encode())
    connection.execute(f"VACUUM ANALYZE {table}".encode())


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows under their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in cells)


def sizes(connection: psycopg.Connection[Any], name: str) -> str:
    """How large a table is, and each of its indexes."""
    found = connection.execute(
        "SELECT indexrelid::regclass::text, pg_size_pretty(pg_relation_size(indexrelid)) FROM pg_index"
        " WHERE indrelid = %(name)s::regclass UNION ALL SELECT %(name)s, pg_size_pretty(pg_relation_size(%(name)s))"
        " UNION ALL SELECT 'its indexes', pg_size_pretty(pg_indexes_size(%(name)s))",
        {"name": name},
    )
    return table(found.fetchall())
