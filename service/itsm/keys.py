"""Whose idempotency keys those of the ITSM API are."""

from typing import Any

from service.idempotency import Keys
from service.itsm import lookup, tables
from service.operation import Call


def _owner(call: Call, _command: object) -> dict[str, Any]:
    """They belong to the account, in each of its modes."""
    return lookup.scope(call)


KEYS = Keys(tables.keys, _owner)
