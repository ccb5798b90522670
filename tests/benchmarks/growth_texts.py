"""Two kinds of text for the grounds of lists and searches, and words that are as rare as their names say.

Natural text has words of every frequency: PostgreSQL's statistics of it know how rare a word may be. Machine-made text
has a few words that every ticket has, and an id of its own in each: of that the statistics know next to nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import psycopg

Kind = Literal["natural", "machine"]
KINDS: tuple[Kind, ...] = ("natural", "machine")

_VOCABULARY, _WORDS = 20_000, 30
# By Zipf's law: the k-th word is in every k-th place, more or less.
_NATURAL = (
    f"(SELECT array_agg(DISTINCT 'w' || power({_VOCABULARY}, random())::int) FROM generate_series(1, {_WORDS} + n * 0))"
)
_MACHINE = "ARRAY['alert', 'check', 'failed', 'service', 'host' || n % 8, 'event', substr(md5(n::text), 1, 12)]"
# The n-th of so many tickets, the oldest first, has such a word: how many of a million do.
_RARE = {"one": 1, "hundred": 100, "tenthousand": 10_000}


def terms(kind: Kind, tickets: int, scope: str) -> str:
    """The SQL of the index terms of the n-th ticket. `scope` is that of its scope's term."""
    rare = [
        f"CASE WHEN n % {max(tickets // hits, 1)} = {tickets // hits // 2} THEN '{word}' END"
        for word, hits in _RARE.items()
    ]
    # In the older half, and there alone.
    rare += [f"CASE WHEN n < {tickets // 2} AND n % 10 = 0 THEN 'former' END", "'always'", scope]
    texts = _NATURAL if kind == "natural" else _MACHINE
    return f"array_to_tsvector(array_remove(ARRAY[{', '.join(rare)}], NULL) || {texts})"


def words(kind: Kind) -> dict[str, str]:
    """What is searched for, by what it is."""
    found = {"absent": "zebra", "1 in all": "one", "100": "hundred", "10,000": "tenthousand", "5 %, all old": "former"}
    both = "w1 hundred" if kind == "natural" else "alert hundred"
    id_ = {} if kind == "natural" else {"an id": "c4ca4238a0b9"}
    return {
        **found,
        "all": "always",
        "a common and a rare one": both,
        "a common and an absent one": "always zebra",
    } | id_


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
