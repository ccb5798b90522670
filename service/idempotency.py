"""Idempotent creation: within an hour the same key and body give the first answer again, and nothing is made twice.

The key's row is written by the statement that writes the ticket, so both are there or neither is. The primary key makes
a second request wait for the first to commit; it then fails, undone as a whole, and reads the stored answer instead.
A request that failed has written nothing, so its key is free.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    JSON,
    Column,
    DateTime,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    delete,
    func,
    insert,
    literal_column,
    select,
    text,
)

from service import jsontext
from service.database import Connection, ConstraintViolationError
from service.directory import METADATA
from service.errors import TicketError
from service.operation import Call
from service.statement import Row, Statement, some_rows

_ATTEMPTS = 3

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    # Whose key it is, such as `itsm:{account}:live`.
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    # The row that the first answer was made of.
    Column("response", JSON, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, server_default=text("now() + interval '1 hour'")),
    PrimaryKeyConstraint("scope", "key"),
    Index(None, "expires_at"),
)

_MINE = (
    idempotency_keys.c.scope == bindparam("idempotency_scope", type_=Text),
    idempotency_keys.c.key == bindparam("idempotency_key", type_=Text),
)


class Creation(NamedTuple):
    """The statements of one kind of creation: plain, under a key, and the answer given before."""

    plain: Statement
    keyed: Statement
    replay: Statement


def creation(created: CTE, *others: CTE) -> Creation:
    """The statements that create what `created` returns, together with the `others` it depends on."""
    answer: Select[Any] = select(created)
    remember = (
        insert(idempotency_keys)
        .from_select(
            ["scope", "key", "request_hash", "response"],
            select(
                bindparam("idempotency_scope", type_=Text),
                bindparam("idempotency_key", type_=Text),
                cast(bindparam("request_hash"), LargeBinary),
                func.row_to_json(literal_column(created.name)),
            ).select_from(created),
        )
        .cte("remembered")
    )
    stored = (
        func.json_to_record(idempotency_keys.c.response)
        .table_valued(*(column(c.name, c.type) for c in created.c))
        .render_derived(name="stored", with_types=True)
    )
    # A key whose hour is over is forgotten here, so that it can be used afresh.
    forget = delete(idempotency_keys).where(*_MINE, idempotency_keys.c.expires_at <= func.now()).cte("forgotten")
    replay = (
        select(idempotency_keys.c.request_hash, *stored.c)
        .select_from(idempotency_keys.join(stored, literal_column("true")))
        .where(*_MINE, idempotency_keys.c.expires_at > func.now())
        .add_cte(forget)
    )
    return Creation(Statement(answer.add_cte(*others)), Statement(answer.add_cte(*others, remember)), Statement(replay))


_PURGE = Statement(
    delete(idempotency_keys)
    .where(some_rows(idempotency_keys, 10_000, "expires_at <= now()"))
    .returning(literal_column("1").label("one"))
)


async def purge(connection: Connection) -> None:
    """Forget keys whose hour is over; run in the background, so that the table stays small."""
    await connection.all(_PURGE, {})


async def once(
    connection: Connection,
    call: Call,
    scope: str,
    statements: Creation,
    parameters: Mapping[str, Any],
) -> Row | None:
    """The created row, or under a key that was used before the row it created then; None when nothing was created.

    Raises TicketError `idempotency_mismatch` when the key was used with another payload.
    """
    if call.idempotency_key is None:
        return await connection.one(statements.plain, parameters)
    keyed = {
        **parameters,
        "idempotency_scope": scope,
        "idempotency_key": call.idempotency_key,
        "request_hash": jsontext.digest([*call.method, call.body]),
    }
    for _ in range(_ATTEMPTS):
        try:
            return await connection.one(statements.keyed, keyed)
        except ConstraintViolationError as violation:
            if violation.name != idempotency_keys.primary_key.name:
                raise
        stored = await connection.one(statements.replay, keyed)
        if stored is not None:
            return _replay(call, stored, keyed["request_hash"])
    raise TicketError("unavailable", retry_after=1)


def _replay(call: Call, stored: Row, request_hash: bytes) -> Row:
    if bytes(stored.pop("request_hash")) != request_hash:
        raise TicketError("idempotency_mismatch")
    call.replayed = True
    return stored
