"""Every statement, built once; SQLAlchemy keeps what it compiled, asyncpg what it prepared."""

from functools import lru_cache

from sqlalchemy import ColumnElement, Select, Update, bindparam, func, insert, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from .tables import events, idempotency_keys, tickets

_MINE = (tickets.c.account_id == bindparam("account_id"), tickets.c.live == bindparam("live"))
_ONE = (*_MINE, tickets.c.id == bindparam("ticket_id"))

GET = select(tickets).where(*_ONE)
LOCK = GET.with_for_update()
CREATE = insert(tickets).returning(tickets)
APPEND_EVENT = insert(events)


@lru_cache(maxsize=64)
def change(names: frozenset[str]) -> Update:
    """Change these members of a ticket."""
    return (
        update(tickets)
        .where(
            tickets.c.account_id == bindparam("its_account_id"),
            tickets.c.live == bindparam("its_live"),
            tickets.c.id == bindparam("its_id"),
        )
        .values(
            {name: bindparam(name) for name in names}
            | {
                "updated_at": func.greatest(
                    func.now(), tickets.c.updated_at + literal_column("interval '1 microsecond'")
                ),
                "version": tickets.c.version + 1,
            }
        )
        .returning(tickets)
    )


@lru_cache(maxsize=8)
def page(filters: frozenset[str]) -> tuple[Select[int], Select[*tuple[object, ...]]]:
    """How many tickets match these filters, and a page of them."""
    conditions: dict[str, ColumnElement[bool]] = {
        "status": tickets.c.status == bindparam("status"),
        "start_date": tickets.c.created_at >= bindparam("start_date"),
        "end_date": tickets.c.created_at <= bindparam("end_date"),
    }
    wanted = (*_MINE, *(conditions[name] for name in filters))
    newest = (
        select(tickets)
        .where(*wanted)
        .order_by(tickets.c.created_at.desc(), tickets.c.id.desc())
        .limit(bindparam("limit"))
        .offset(bindparam("offset"))
    )
    return select(func.count()).select_from(tickets).where(*wanted), newest


# Takes the key, or waits for who has it; gives no row when it was used within the hour.
_claim = upsert(idempotency_keys)
CLAIM_KEY = _claim.on_conflict_do_update(
    index_elements=["account_id", "live", "key"],
    set_={"request_hash": _claim.excluded.request_hash, "expires_at": literal_column("now() + interval '1 hour'")},
    where=idempotency_keys.c.expires_at <= func.now(),
).returning(idempotency_keys.c.key)
_KEY = tuple(idempotency_keys.c[name] == bindparam(f"its_{name}") for name in ("account_id", "live", "key"))
FIND_ANSWER = select(idempotency_keys.c.request_hash, idempotency_keys.c.response).where(*_KEY)
KEEP_ANSWER = update(idempotency_keys).where(*_KEY).values(response=bindparam("response"))
