"""Whose idempotency keys those of operators are."""

from typing import Any

from service.admin import tables
from service.idempotency import Keys
from service.operation import Call


def _owner(call: Call, _command: object) -> dict[str, Any]:
    """They are the operator's own."""
    return {"sub": call.caller.subject}


KEYS = Keys(tables.keys, _owner)
