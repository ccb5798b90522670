"""The table of operators' idempotency keys."""

from sqlalchemy import Column, Text

from service.idempotency import key_table
from service.storage.scope import scoped_by

keys = key_table("admin_keys", Column("sub", Text, nullable=False), info=scoped_by("sub"))
