"""The ITSM API: get, list, create and update, with API keys and idempotency keys."""
