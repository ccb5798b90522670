"""Idempotent requests: within an hour the same key and request give the first answer again, and nothing is done twice.

The answer is stored in the transaction of the write, so both are there or neither is. A request that failed has written
nothing, so its key is free. Nothing here is an error to PostgreSQL, whose log would quote the key.

Most writes (`write`, `once`) do their work and store the answer last. If an earlier request has stored one, the work is
undone as a whole, and that answer is given. A creation (`Keys.creation`, `create_once`) is a single statement, which
does nothing under a used key. Of two requests at once the second waits for the first, and finds the key used.

Each API has a table of its own (`key_table`), with the columns that tell whose a key is.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import reduce
from typing import Any, ClassVar, NamedTuple, TypeVar
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
    Subquery,
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
from service.etags import without_weakness
from service.fields import Command, IdempotencyHeader
from service.operation import Call, Dependencies, Operation, TransactionMode, View, in_transaction, view_of
from service.storage.database import Connection, Database
from service.storage.scope import EVERYONE, Scope, separation
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

_ONE: Label[int] = literal_column("1").label("one")
_EMPTY = cast(literal("{}", Text), JSON)
_key, _hash = bindparam("idempotency_key", type_=Text), cast(bindparam("request_hash"), LargeBinary)
_SLASH = literal_column("'/'", Text)
_PURGED_AT_ONCE = 10_000
# The conditions under which something is created.
Guard = Sequence[ColumnElement[bool]]


def key_table(name: str, *owner: Column[Any], info: dict[str, Any]) -> Table:
    """The table of an API's keys. `owner` are the columns that tell whose a key is, all in the scope in its `info`."""
    return Table(
        name,
        METADATA,
        *owner,
        Column("key", Text, nullable=False),
        Column("request_hash", LargeBinary, nullable=False),
        # The row that the first answer was made of, or the answer itself.
        Column("response", JSON, nullable=False),
        Column("expires_at", DateTime(timezone=True), nullable=False, server_default=text("now() + interval '1 hour'")),
        PrimaryKeyConstraint(*(column.name for column in owner), "key"),
        Index(None, "expires_at"),
        info=info,
    )


class Keys:
    """The keys of one API: whose they are, and the statements about them."""

    def __init__(self, table: Table, owner: Callable[[Call, Any], Mapping[str, Any]]) -> None:
        """`owner` gives the parameters that tell whose key that of a call with a command is."""
        self._table, self._owner = table, owner
        declared = separation(table).scope
        self._given = {name: bindparam(kind, type_=table.c[name].type) for name, kind in declared.items()}
        self._scope = Scope(*declared.values())
        self._used = (*mine(table, key=_key), table.c.expires_at > func.now())
        # (PostgreSQL takes what it is not told the type of for a text.)
        whose = [cast(cast(value, value.type), Text) for value in self._given.values()]
        name = reduce(lambda whole, part: whole + _SLASH + part, [*whose, _key])
        lock = func.pg_advisory_xact_lock(func.hashtextextended(name, literal_column("0")))
        # Runs before a keyed creation, which then sees what the request before it has committed.
        self.lock = Statement(select(lock), scope=self._scope, locks=(*declared.values(), "idempotency_key"))
        self.store = Statement(
            # The lock is for creations under the same key: they look for it.
            self._store(select(cast(bindparam("response", type_=JSON), JSON)).where(lock.is_not(None))),
            scope=self._scope,
        )
        self.stored = Statement(select(table.c.request_hash, table.c.response).where(*self._used), scope=self._scope)
        self.expired = Statement(
            delete(table).where(some_rows(table, _PURGED_AT_ONCE, "expires_at <= now()")).returning(_ONE),
            scope=EVERYONE("the background forgets everybody's old keys"),
        )

    def of(self, call: Call, command: object, *about: object) -> dict[str, Any]:
        """The parameters of a call's key: its owner, its text, the hash of the request.

        Without a key they are `idempotency_key` and `request_hash` alone, both None. The hash is of the method, the
        body, and `about`: whatever else tells two requests apart.
        """
        if call.idempotency_key is None:
            return dict.fromkeys(("idempotency_key", "request_hash"))
        return {
            **self._owner(call, command),
            "idempotency_key": call.idempotency_key,
            # A body without members says what none says.
            "request_hash": jsontext.digest([*call.method, *about, call.body or None]),
        }

    async def purge(self, connection: Connection) -> None:
        """Delete all that have expired."""
        while len(await connection.all(self.expired, {})) == _PURGED_AT_ONCE:
            pass

    def creation(
        self, create: Callable[[Guard], tuple[CTE, ...]], *, scope: Scope, locks: str, known: Select[Any] | None = None
    ) -> "CreateStatements":
        """The statements that create a row once for each key.

        `create` takes a guard and returns CTEs: the created row, then what depends on it. They must write nothing, and
        take no number, unless all of the guard holds. `locks` is the parameter that identifies the row they lock.
        `known` selects the complete row, if every value of it is known before the insert; it selects nothing where none
        is to be created. Then the key is inserted first, and the row only if that succeeded: that needs no lock.
        Otherwise, as the database gives a number, the key's advisory lock is taken first, and the key is looked for.
        """
        plain, *plain_others = create(())
        if known is None:
            keyed, *keyed_others = create((not_(exists().where(*self._used)),))
            keyed_others.append(self._store(_as_json(keyed)).cte("stored_key"))
        else:
            stored_key = self._store(_as_json(known.subquery("known"))).cte("stored_key")
            keyed, *keyed_others = create((exists(select(stored_key.c.one)),))
        whole = scope.with_also(*self._scope.parameters)
        locked = [locks] if known is None else [locks, "idempotency_key"]
        return CreateStatements(
            self,
            Statement(select(plain).add_cte(*plain_others), scope=scope, short=True, locks=[locks]),
            Statement(select(keyed).add_cte(*keyed_others), scope=whole, short=True, locks=locked),
            Statement(self._replay(keyed), scope=whole, short=True),
            self.lock if known is None else None,
        )

    def _store(self, response: Select[Any]) -> ReturningInsert[Any]:
        """The statement that stores a key with its answer: no row for a used key; one that expired is overwritten."""
        table = self._table
        row = response.with_only_columns(*self._given.values(), _key, _hash, *response.selected_columns)
        stored = upsert(table).from_select([*self._given, "key", "request_hash", "response"], row)
        return stored.on_conflict_do_update(
            index_elements=list(table.primary_key.columns),
            set_={name: stored.excluded[name] for name in ("request_hash", "response", "expires_at")},
            where=table.c.expires_at <= func.now(),
        ).returning(_ONE)

    def _replay(self, created: CTE) -> Select[Any]:
        """The row that was created, as it was stored, with the hash of the request."""
        table = self._table
        # The answer to another request may not fit the columns.
        own_response = case((table.c.request_hash == _hash, table.c.response), else_=_EMPTY)
        stored = (
            func.json_to_record(own_response)
            .table_valued(*(column(c.name, c.type) for c in created.c))
            .render_derived(name="stored", with_types=True)
        )
        joined = table.join(stored, literal_column("true"))
        return select(table.c.request_hash, *stored.c).select_from(joined).where(*self._used)


def _as_json(row: CTE | Subquery) -> Select[Any]:
    return select(func.row_to_json(literal_column(row.name))).select_from(row)


class CreateStatements(NamedTuple):
    """The statements of one kind of creation: plain, under a key, and for replaying the answer."""

    keys: Keys
    plain: Statement
    keyed: Statement
    replay: Statement
    # Runs before `keyed`, if anything does.
    lock: Statement | None


async def create_once(
    connection: Connection,
    call: Call,
    command: object,
    statements: CreateStatements,
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
    keyed = {**parameters, **statements.keys.of(call, command)}
    for _ in range(_ATTEMPTS):
        created = await connection.all(statements.keyed, keyed, lock=statements.lock)
        if created:
            return created[0]
        if admit is not None:
            await admit()
        stored = await replay(connection, call, command, statements)
        if stored is not None:
            return stored
    return None


async def replay(connection: Connection, call: Call, command: object, statements: CreateStatements) -> Row | None:
    """The row created earlier under this key; None when there was none, or no key.

    Raises TicketError `idempotency_mismatch` when the key was used with another payload.
    """
    if call.idempotency_key is None:
        return None
    key = statements.keys.of(call, command)
    stored = await connection.one(statements.replay, key)
    return None if stored is None else _replay(call, stored, key["request_hash"])


def write(
    command: type[C], keys: Keys, *, transaction: TransactionMode = in_transaction, is_secret: bool = False
) -> Callable[[Callable[[Connection, Call, C], Awaitable[View]]], Operation[C]]:
    """Make a function an operation as `operation` does, one that is done once for each idempotency key.

    `keys` are those of its API. Without a key it is run in the `transaction` mode, with one always in a transaction. An
    answer that `is_secret` is stored encrypted.
    """
    header = command.model_fields["header"].annotation
    if not isinstance(header, type) or not issubclass(header, IdempotencyHeader):
        raise TypeError(f"{command.__name__} takes no idempotency key")

    def decorate(use_case: Callable[[Connection, Call, C], Awaitable[View]]) -> Operation[C]:
        async def run_once(dependencies: Dependencies, call: Call, command: C) -> View:
            async def act(connection: Connection) -> View:
                return await use_case(connection, call, command)

            return await once(dependencies, call, keys, command, act, transaction=transaction, is_secret=is_secret)

        return Operation(command, view_of(use_case), run_once)

    return decorate


async def once(
    dependencies: Dependencies,
    call: Call,
    keys: Keys,
    command: Command,
    act: Callable[[Connection], Awaitable[A]],
    *,
    before: Callable[[], Awaitable[None]] | None = None,
    transaction: TransactionMode = in_transaction,
    is_secret: bool = False,
) -> A:
    """What `act` answers in a transaction of its own, or its stored answer under a key that was used before.

    Without a key it is run in the `transaction` mode. `before` is what may fail before the transaction begins.
    Raises TicketError `idempotency_mismatch` when the key was used with another request, and what the two raise.
    """
    if call.idempotency_key is not None:
        key = _Key(keys, keys.of(call, command, *_about(command)))
        vault = dependencies.vault if is_secret else None
        return await _once(dependencies.database, call, key, act, before, vault)
    if before is not None:
        await before()
    return await transaction(dependencies.database, act)


class _Key(NamedTuple):
    """One key of an API's."""

    keys: Keys
    parameters: Mapping[str, Any]


async def _once(
    database: Database,
    call: Call,
    key: _Key,
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
    stored = await database.one(key.keys.stored, key.parameters)
    if stored is None:
        raise failure
    row = _replay(call, stored, key.parameters["request_hash"])
    return cast_type(A, _stored_view(call, row["response"].text, vault))


def _about(command: Command) -> list[object]:
    """What a command's request is about beside its body: its path, its query, its condition."""
    sections = [getattr(command, name, None) for name in ("path", "query")]
    named: list[object] = [section.model_dump(mode="json") for section in sections if section is not None]
    condition = getattr(getattr(command, "header", None), "if_match", None)
    return [*named, condition and without_weakness(condition)]


class _UsedError(Exception):
    """The key was used before."""


async def _act_and_store(
    database: Database,
    call: Call,
    key: _Key,
    act: Callable[[Connection], Awaitable[A]],
    vault: Vault | None,
) -> A:
    """What `act` answers, stored under the key. Raises _UsedError, and what it raises; then nothing is kept."""
    async with database.transaction() as connection:
        view = await act(_KeepOpen(connection))
        response = jsontext.text(view if call.etag is None else {**view, "etag": call.etag})
        if vault is not None:
            response = jsontext.text({_SEALED: vault.seal(response.text).decode()})
        if await connection.one(key.keys.store, {**key.parameters, "response": response}) is None:
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


class _KeepOpen(Connection):
    """A connection whose `commit=True` does not commit yet: the answer is stored first."""

    holds_locks: ClassVar[bool] = True

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


def _replay(call: Call, stored: Row, request_hash: bytes) -> Row:
    if bytes(stored.pop("request_hash")) != request_hash:
        raise TicketError("idempotency_mismatch")
    call.replayed = True
    return stored
