"""Whose a request of the ITSM API is."""

from service.operation import Call


def key_scope(call: Call, _command: object = None) -> str:
    """The scope of idempotency keys: they belong to the account, in each of its modes."""
    mode = "live" if call.caller.live else "test"
    return f"itsm:{call.caller.account_id}:{mode}"
