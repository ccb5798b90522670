"""What the indexes of tickets are asked for: the terms of their texts, and of their metadata (protos/README.md).

Each includes the account and its mode: else a search for `category=Network` would go through the tickets of all
accounts. Terms of metadata, one for each member, are hashes, because a value may be longer than an index entry.
"""

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from service import jsontext
from service.itsm.commands import MAX_NAME_LENGTH
from service.jsontext import JsonText
from service.search import tsvector
from service.storage.statement import Row

# The most terms of one ticket: each costs time and index space.
_MAX_MEMBERS = 1000


def search_scope(account_id: UUID, live: bool) -> str:
    """The index term of an account's tickets in one mode: enough of its id that hardly another one has the same."""
    return f"@{account_id.hex[-12:]}{'l' if live else 't'}"


def search_terms(row: Row) -> str:
    """The index terms of a ticket's texts."""
    return tsvector(search_scope(row["account_id"], row["live"]), row["subject"], row["description"])


def metadata_terms(account_id: UUID, live: bool, metadata: JsonText) -> str | None:
    """The terms of a ticket, as PostgreSQL writes an array; None without any, which keeps it out of the index."""
    if metadata.text == "{}":
        return None
    members = islice(jsontext.parse(metadata.text.encode()).items(), _MAX_MEMBERS)
    texts = {name: _text(value) for name, value in members if 0 < len(name) <= MAX_NAME_LENGTH}
    indexed = {name: text for name, text in texts.items() if text is not None}
    return metadata_query_terms(account_id, live, indexed) if indexed else None


def metadata_query_terms(account_id: UUID, live: bool, members: Mapping[str, str]) -> str:
    """The terms of these members, as PostgreSQL writes an array."""
    scope = f"{account_id}{'live' if live else 'test'}"
    # (Migration 0007 computes the same in SQL. No name has a NUL.)
    hashes = (hashlib.sha256(f"{scope}{name}\0{text}".encode()) for name, text in members.items())
    return f"{{{','.join(one.hexdigest()[:32] for one in hashes)}}}"


def _text(value: Any) -> str | None:
    """The text to search for: a string as it is, a number or boolean as in JSON; None for anything else."""
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, dict | list) else jsontext.dump(value).decode()
