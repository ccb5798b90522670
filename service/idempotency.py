"""Idempotent requests: within an hour the same key and body give the first answer again, and nothing is made twice.

The key's row is written by the statement that writes the ticket, so both are there or neither is. The primary key makes
a second request wait for the first to commit; it then fails, undone as a whole, and reads the stored answer instead.
A request that failed has written nothing, so its key is free.

An operation of several statements claims its key before the first of them (`replay_or_run`), because it reads before it
writes: a second request waits for the claim of the first.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from service import jsontext
from service.directory import METADATA
from service.errors import TicketError
from service.operation import Call, View
from service.storage.database import Connection, ConstraintViolationError
from service.storage.scope import EVERYONE, Scope, scoped_by
from service.storage.statement import Row, Statement, mine, some_rows

_ATTEMPTS = 3

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    # Whose key it is, such as `itsm:{account}:live`.
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    # The row that the first answer was made of, or the answer itself.
    Column("response", JSON, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False, server_default=text("now() + interval '1 hour'")),
    PrimaryKeyConstraint("scope", "key"),
    Index(None, "expires_at"),
    info=scoped_by(scope="idempotency_scope"),
)

# Whose key it is; every scope has that.
_KEYS = Scope()
_KEY = mine(idempotency_keys, key=bindparam("idempotency_key", type_=Text))


class Creation(NamedTuple):
    """The statements of one kind of creation: plain, under a key, and for replaying the stored answer."""

    plain: Statement
    keyed: Statement
    replay: Statement


def creation(created: CTE, *others: CTE, scope: Scope) -> Creation:
    """The statements that create what `created` returns, together with the `others` it depends on."""
    answer: Select[Any] = select(created)
    store_key = (
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
        .cte("stored_key")
    )
    stored = (
        func.json_to_record(idempotency_keys.c.response)
        .table_valued(*(column(c.name, c.type) for c in created.c))
        .render_derived(name="stored", with_types=True)
    )
    # An expired key is deleted here, so that it can be used afresh.
    expire = delete(idempotency_keys).where(*_KEY, idempotency_keys.c.expires_at <= func.now()).cte("expired")
    replay = (
        select(idempotency_keys.c.request_hash, *stored.c)
        .select_from(idempotency_keys.join(stored, literal_column("true")))
        .where(*_KEY, idempotency_keys.c.expires_at > func.now())
        .add_cte(expire)
    )
    return Creation(
        Statement(answer.add_cte(*others), scope=scope),
        Statement(answer.add_cte(*others, store_key), scope=scope),
        Statement(replay, scope=scope),
    )


_claim = upsert(idempotency_keys).values(
    scope=bindparam("idempotency_scope", type_=Text),
    key=bindparam("idempotency_key", type_=Text),
    request_hash=cast(bindparam("request_hash"), LargeBinary),
    response=cast(literal("null", Text), JSON),
)
# No row while another request holds the key; an expired one is taken over.
_CLAIM = Statement(
    _claim.on_conflict_do_update(
        constraint=idempotency_keys.primary_key,
        set_={
            "request_hash": _claim.excluded.request_hash,
            "response": _claim.excluded.response,
            "expires_at": _claim.excluded.expires_at,
        },
        where=idempotency_keys.c.expires_at <= func.now(),
    ).returning(literal_column("1").label("one")),
    scope=_KEYS,
)
_STORED_ANSWER = Statement(
    select(idempotency_keys.c.request_hash, idempotency_keys.c.response).where(*_KEY), scope=_KEYS
)
_STORE_ANSWER = Statement(
    update(idempotency_keys)
    .where(*_KEY)
    .values(response=bindparam("response", type_=JSON))
    .returning(literal_column("1").label("one")),
    scope=_KEYS,
)

_PURGE = Statement(
    delete(idempotency_keys)
    .where(some_rows(idempotency_keys, 10_000, "expires_at <= now()"))
    .returning(literal_column("1").label("one")),
    scope=EVERYONE("the background forgets everybody's old keys"),
)


async def purge(connection: Connection) -> None:
    """Delete expired keys; run in the background, so that the table stays small."""
    await connection.all(_PURGE, {})


async def create_once(
    connection: Connection,
    call: Call,
    scope: str,
    statements: Creation,
    parameters: Mapping[str, Any],
) -> Row | None:
    """The created row, or the row created earlier under the same key; None when nothing was created.

    Raises TicketError `idempotency_mismatch` when the key was used with another payload.
    """
    if call.idempotency_key is None:
        return await connection.one(statements.plain, parameters)
    key = key_of(call, scope)
    for _ in range(_ATTEMPTS):
        try:
            return await connection.one(statements.keyed, {**parameters, **key})
        except ConstraintViolationError as violation:
            if violation.name != idempotency_keys.primary_key.name:
                raise
        stored = await replay(connection, call, scope, statements)
        if stored is not None:
            return stored
    raise TicketError("unavailable", retry_after=1)


async def replay(connection: Connection, call: Call, scope: str, statements: Creation) -> Row | None:
    """The row created earlier under this key; None when there was none, or no key.

    Raises TicketError `idempotency_mismatch` when the key was used with another payload.
    """
    if call.idempotency_key is None:
        return None
    key = key_of(call, scope)
    stored = await connection.one(statements.replay, key)
    return None if stored is None else _replay(call, stored, key["request_hash"])


def key_of(call: Call, scope: str) -> dict[str, Any]:
    """The parameters of the key: its scope, its text, the hash of the request; all None without a key."""
    if call.idempotency_key is None:
        return dict.fromkeys(("idempotency_scope", "idempotency_key", "request_hash"))
    return {
        "idempotency_scope": scope,
        "idempotency_key": call.idempotency_key,
        "request_hash": jsontext.digest([*call.method, call.body]),
    }


async def replay_or_run(
    connection: Connection,
    call: Call,
    scope: str,
    subject: Sequence[str],
    run: Callable[[Connection], Awaitable[View]],
    admit: Callable[[Connection], Awaitable[None]] | None = None,
) -> View:
    """What `run` answers, or its stored answer under a key that was used before; in a transaction.

    `subject` is what the request is about beside its body; `admit` is called before a stored answer is given, because
    the caller may have lost the right to it. Raises TicketError `idempotency_mismatch` when the key was used with
    another request, and what `run` and `admit` raise.
    """
    if call.idempotency_key is None:
        return await run(connection)
    key = {"idempotency_scope": scope, "idempotency_key": call.idempotency_key}
    request_hash = jsontext.digest([*call.method, *subject, call.body])
    if await connection.one(_CLAIM, {**key, "request_hash": request_hash}) is None:
        stored = await connection.one(_STORED_ANSWER, key)
        if stored is None:  # expired in between
            raise TicketError("unavailable", retry_after=1)
        if admit is not None:
            await admit(connection)
        response = _replay(call, stored, request_hash)["response"]
        # A view nests what a request held some levels deeper.
        stored_view: dict[str, Any] = jsontext.parse(response.text.encode(), 2 * jsontext.MAX_DEPTH)
        call.etag = stored_view.pop("etag", None)
        return stored_view
    view = await run(_KeepOpen(connection))
    kept = view if call.etag is None else {**view, "etag": call.etag}
    await connection.one(_STORE_ANSWER, {**key, "response": jsontext.text(kept)}, commit=True)
    return view


class _KeepOpen:
    """A connection whose `commit=True` does not commit yet: the answer is stored first."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def all(
        self,
        statement: Statement,
        parameters: Mapping[str, Any],
        *,
        commit: bool = False,
        lock: Statement | None = None,
    ) -> list[Row]:
        return await self._connection.all(statement, parameters, lock=lock)

    async def one(self, statement: Statement, parameters: Mapping[str, Any], *, commit: bool = False) -> Row | None:
        return await self._connection.one(statement, parameters)


def _replay(call: Call, stored: Row, request_hash: bytes) -> Row:
    if bytes(stored.pop("request_hash")) != request_hash:
        raise TicketError("idempotency_mismatch")
    call.replayed = True
    return stored
