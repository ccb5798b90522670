"""Whose idempotency keys those of the helpdesk API are."""

from typing import Any

from service.helpdesk import tables
from service.idempotency import Keys
from service.operation import Call


def _owner(call: Call, _command: object) -> dict[str, Any]:
    """They are the caller's: of one person or account, with the application that they use, if any."""
    caller = call.caller
    return {"tenant_id": caller.tenant_id, "key_app_id": caller.app_id or "", "sub": caller.subject}


KEYS = Keys(tables.keys, _owner)
# The keys of SLA policies and calendars.
SLA_KEYS = Keys(tables.sla_keys, _owner)
