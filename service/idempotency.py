"""Idempotent requests: within an hour the same key and request give the first answer again, and nothing is done twice.

The answer is stored in the transaction of the write, so both are there or neither is. A request that failed has written
nothing, so its key is free. Nothing here is an error to PostgreSQL, whose log would quote the key.

Most writes (`write`, `once`) do their work and store the answer last. If an earlier request has stored one, the work is
undone as a whole, and that answer is given. A creation (`creation`, `create_once`) is a single statement, which does
nothing under a used key. Of two requests at once the second waits at the key's lock, and finds the key used.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from typing import cast as cast_type

from sqlalchemy import (
    CTE,
    JSON,
    Column,
    ColumnElement,
    DateTime,
    Index,
    Label,
    LargeBinary,
    PrimaryKeyConstraint,
    Select,
    Table,
    Text,
    bindparam,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    literal,
    literal_column,
    not_,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.dml import ReturningInsert

from service import jsontext
from service.directory import METADATA
from service.errors import TicketError
from service.fields import Command, IdempotencyHeader
from service.operation import Call, Dependencies, Operation, View, view_of
from service.storage.database import Connection, Database
from service.storage.scope import EVERYONE, Scope, scoped_by
from service.storage.statement import Row, Statement, mine, some_rows
from service.vault import SealedError, Vault

# A key may expire between the statement that finds it used and the one that reads it.
_ATTEMPTS = 2
# A request that was carried out may fail when it is repeated: its webhook is deleted, its ETag is stale. But whoever
# has lost the right to it has lost the right to its answer too.
_FAILS_AGAIN = frozenset({"forbidden", "unavailable", "deadline_exceeded"})
# The member of a stored answer that is encrypted.
_SEALED = "sealed"

A = TypeVar("A", bound=View)
C = TypeVar("C", bound=Command)

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
_ONE: Label[int] = literal_column("1").label("one")
_scope, _key = bindparam("idempotency_scope", type_=Text), bindparam("idempotency_key", type_=Text)
_hash = cast(bindparam("request_hash"), LargeBinary)
_USED = (*mine(idempotency_keys, key=_key), idempotency_keys.c.expires_at > func.now())
_EMPTY = cast(literal("{}", Text), JSON)
_lock = func.pg_advisory_xact_lock(func.hashtextextended(_scope + _key, literal_column("0")))

# Runs before a keyed creation, which then sees what the request before it has committed.
LOCK = Statement(select(_lock), scope=_KEYS, locks=("idempotency_scope", "idempotency_key"))


def _store(response: Select[Any]) -> ReturningInsert[Any]:
    """The statement that stores a key with its answer: no row for a used key, while one that expired is overwritten."""
    stored = upsert(idempotency_keys).from_select(["scope", "key", "request_hash", "response"], response)
    return stored.on_conflict_do_update(
        constraint=idempotency_keys.primary_key,
        set_={name: stored.excluded[name] for name in ("request_hash", "response", "expires_at")},
        where=idempotency_keys.c.expires_at <= func.now(),
    ).returning(_ONE)


_STORE = Statement(
    # The lock is for creations under the same key: they look for it.
    _store(select(_scope, _key, _hash, cast(bindparam("response", type_=JSON), JSON)).where(_lock.is_not(None))),
    scope=_KEYS,
)
_STORED = Statement(
    select(idempotency_keys.c.request_hash, idempotency_keys.c.response).where(*_USED),
    scope=_KEYS,
)
_PURGED_AT_ONCE = 10_000
_PURGE = Statement(
    delete(idempotency_keys).where(some_rows(idempotency_keys, _PURGED_AT_ONCE, "expires_at <= now()")).returning(_ONE),
    scope=EVERYONE("the background forgets everybody's old keys"),
)


async def purge(connection: Connection) -> None:
    """Delete all expired keys; run in the background, so that the table stays small."""
    while len(await connection.all(_PURGE, {})) == _PURGED_AT_ONCE:
        pass


def key_of(call: Call, scope: str, *about: object) -> dict[str, Any]:
    """The parameters of the key: its scope, its text, the hash of the request; all None without a key.

    `about` is what makes the request another one beside its method and its body.
    """
    if call.idempotency_key is None:
        return dict.fromkeys(("idempotency_scope", "idempotency_key", "request_hash"))
    return {
        "idempotency_scope": scope,
        "idempotency_key": call.idempotency_key,
        "request_hash": jsontext.digest([*call.method, *about, call.body]),
    }


class Creation(NamedTuple):
    """The statements of one kind of creation: plain, under a key (after LOCK), and for replaying the stored answer."""

    plain: Statement
    keyed: Statement
    replay: Statement


# The conditions under which something is created.
Guard = Sequence[ColumnElement[bool]]


def creation(create: Callable[[Guard], tuple[CTE, ...]], *, scope: Scope, locks: str) -> Creation:
    """The statements of what `create` returns: what is created, then what depends on it.

    It must create nothing, and take no number, unless the guard that it is given holds. `locks` is the parameter that
    tells which row it locks.
    """
    plain, *plain_others = create(())
    keyed, *keyed_others = create((not_(exists().where(*_USED)),))
    response = select(_scope, _key, _hash, func.row_to_json(literal_column(keyed.name))).select_from(keyed)
    # The answer to another request may not fit the columns.
    own_response = case((idempotency_keys.c.request_hash == _hash, idempotency_keys.c.response), else_=_EMPTY)
    stored = (
        func.json_to_record(own_response)
        .table_valued(*(column(c.name, c.type) for c in keyed.c))
        .render_derived(name="stored", with_types=True)
    )
    replay = (
        select(idempotency_keys.c.request_hash, *stored.c)
        .select_from(idempotency_keys.join(stored, literal_column("true")))
        .where(*_USED)
    )
    return Creation(
        Statement(select(plain).add_cte(*plain_others), scope=scope, short=True, locks=[locks]),
        Statement(
            select(keyed).add_cte(*keyed_others, _store(response).cte("stored_key")),
            scope=scope,
            short=True,
            locks=[locks],
        ),
        Statement(replay, scope=scope, short=True),
    )


async def create_once(
    connection: Connection,
    call: Call,
    scope: str,
    statements: Creation,
    parameters: Mapping[str, Any],
    *,
    admit: Callable[[], Awaitable[None]] | None = None,
) -> Row | None:
    """The created row, or the row created earlier under the same key; None when nothing was created.

    `admit` is called before an earlier row is given: the caller may have lost the right to it. Raises TicketError
    `idempotency_mismatch` when the key was used with another payload, and what `admit` raises.
    """
    if call.idempotency_key is None:
        return await connection.one(statements.plain, parameters)
    keyed = {**parameters, **key_of(call, scope)}
    for _ in range(_ATTEMPTS):
        created = await connection.all(statements.keyed, keyed, lock=LOCK)
        if created:
            return created[0]
        if admit is not None:
            await admit()
        stored = await replay(connection, call, scope, statements)
        if stored is not None:
            return stored
    return None


async def replay(connection: Connection, call: Call, scope: str, statements: Creation) -> Row | None:
    """The row created earlier under this key; None when there was none, or no key.

    Raises TicketError `idempotency_mismatch` when the key was used with another payload.
    """
    if call.idempotency_key is None:
        return None
    key = key_of(call, scope)
    stored = await connection.one(statements.replay, key)
    return None if stored is None else _replay(call, stored, key["request_hash"])


def write(
    command: type[C], scope: Callable[[Call, C], str], *, one_statement: bool = False, is_secret: bool = False
) -> Callable[[Callable[[Connection, Call, C], Awaitable[View]]], Operation[C]]:
    """Make a function an operation as `operation` does, one that is done once for each idempotency key.

    `scope` says whose key it is. An answer that `is_secret` is stored encrypted.
    """
    header = command.model_fields["header"].annotation
    if not isinstance(header, type) or not issubclass(header, IdempotencyHeader):
        raise TypeError(f"{command.__name__} takes no idempotency key")

    def decorate(use_case: Callable[[Connection, Call, C], Awaitable[View]]) -> Operation[C]:
        async def run(dependencies: Dependencies, call: Call, command: C) -> View:
            async def act(connection: Connection) -> View:
                return await use_case(connection, call, command)

            key_scope = scope(call, command)
            return await once(
                dependencies, call, key_scope, command, act, one_statement=one_statement, is_secret=is_secret
            )

        return Operation(command, view_of(use_case), run)

    return decorate


async def once(
    dependencies: Dependencies,
    call: Call,
    scope: str,
    command: Command,
    act: Callable[[Connection], Awaitable[A]],
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    one_statement: bool = False,
    is_secret: bool = False,
) -> A:
    """What `act` answers in a transaction of its own, or its stored answer under a key that was used before.

    Without a key, `one_statement` is a transaction by itself. `before` is what may fail before the transaction begins.
    Raises TicketError `idempotency_mismatch` when the key was used with another request, and what the two raise.
    """
    if call.idempotency_key is not None:
        key = key_of(call, scope, *_about(command))
        vault = dependencies.vault if is_secret else None
        return await _once(dependencies.database, call, key, act, before, vault)
    if before is not None:
        await before()
    if one_statement:
        return await act(dependencies.database)
    async with dependencies.database.transaction() as connection:
        return await act(connection)


async def _once(
    database: Database,
    call: Call,
    key: Mapping[str, Any],
    act: Callable[[Connection], Awaitable[A]],
    before: Callable[[], Awaitable[None]] | None,
    vault: Vault | None,
) -> A:
    """What `act` answers the first time, and its stored answer from then on; encrypted where there is a vault."""
    try:
        if before is not None:
            await before()
        return await _act_and_store(database, call, key, act, vault)
    except _UsedError:
        failure = TicketError("unavailable", retry_after=1)  # should it have expired in between
    except TicketError as error:
        if error.is_final or error.reason in _FAILS_AGAIN:
            raise
        failure = error
    stored = await database.one(_STORED, key)
    if stored is None:
        raise failure
    return cast_type(A, _stored_view(call, _replay(call, stored, key["request_hash"])["response"].text, vault))


def _about(command: Command) -> list[object]:
    """What a command's request is about beside its body: its path, its query, its condition."""
    sections = [getattr(command, name, None) for name in ("path", "query")]
    named: list[object] = [section.model_dump(mode="json") for section in sections if section is not None]
    return [*named, getattr(getattr(command, "header", None), "if_match", None)]


class _UsedError(Exception):
    """The key was used before."""


async def _act_and_store(
    database: Database,
    call: Call,
    key: Mapping[str, Any],
    act: Callable[[Connection], Awaitable[A]],
    vault: Vault | None,
) -> A:
    """What `act` answers, stored under the key. Raises _UsedError, and what it raises; then nothing is kept."""
    async with database.transaction() as connection:
        view = await act(_KeepOpen(connection))
        response = jsontext.text(view if call.etag is None else {**view, "etag": call.etag})
        if vault is not None:
            response = jsontext.text({_SEALED: vault.seal(response.text).decode()})
        if await connection.one(_STORE, {**key, "response": response}) is None:
            raise _UsedError
    return view


def _stored_view(call: Call, response: str, vault: Vault | None) -> dict[str, Any]:
    """The answer that was stored. It is the same JSON: its ids and instants are text."""
    # A view nests what a request held some levels deeper.
    view: dict[str, Any] = jsontext.parse(response.encode(), 2 * jsontext.MAX_DEPTH)
    if vault is not None:
        try:
            view = jsontext.parse(vault.open(view[_SEALED].encode()).encode())
        except SealedError:
            raise TicketError("unavailable") from None
    call.etag = view.pop("etag", None)
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
