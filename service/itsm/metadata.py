"""What a ticket's metadata is found by: one word for each of its members (README, The APIs).

The words are hashes, because a value may be longer than what an index takes, with the account and its mode in them:
else a look for `category=Network` would go through the tickets of everyone.
"""

import hashlib
from collections.abc import Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from service import jsontext
from service.itsm.commands import MAX_NAME_LENGTH
from service.jsontext import JsonText

# Of one ticket: nobody means more, and each costs time and a place in the index.
_MOST = 1000


def index_terms(account_id: UUID, live: bool, metadata: JsonText) -> str | None:
    """The words of a ticket; None when there are none, which keeps it out of the index."""
    if metadata.text == "{}":
        return None
    members = islice(jsontext.parse(metadata.text.encode()).items(), _MOST)
    texts = {name: _text(value) for name, value in members if 0 < len(name) <= MAX_NAME_LENGTH}
    known = {name: text for name, text in texts.items() if text is not None}
    return query_terms(account_id, live, known) if known else None


def query_terms(account_id: UUID, live: bool, members: Mapping[str, str]) -> str:
    """The words of a ticket that has these members, as PostgreSQL writes an array: every creation has some."""
    scope = f"{account_id}{'live' if live else 'test'}"
    # (Migration 0007 says the same in SQL. No name has a NUL.)
    hashes = (hashlib.sha256(f"{scope}{name}\0{text}".encode()) for name, text in members.items())
    return f"{{{','.join(one.hexdigest()[:32] for one in hashes)}}}"


def _text(value: Any) -> str | None:
    """A string as it is, a number or boolean as JSON has it; nothing else is found."""
    if isinstance(value, str):
        return value
    return None if value is None or isinstance(value, dict | list) else jsontext.dump(value).decode()
