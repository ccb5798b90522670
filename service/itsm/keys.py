"""Whose idempotency keys those of the ITSM API are."""

from typing import Any

from service.idempotency import Keys
from service.itsm import tables
from service.operation import Call


def _owner(call: Call, _command: object) -> dict[str, Any]:
    """They belong to the account, in each of its modes."""
    return {"account_id": call.caller.account_id, "live": call.caller.live}


KEYS = Keys(tables.keys, _owner)
