"""Conditions that are put into the slots of a statement, and statements that are built when they are needed."""

import asyncio
import threading

import pytest
from sqlalchemy import Text, bindparam, exists, literal, or_, select
from support.scoped_clauses import DESK, MINE, OTHER, TICKETS, given

from service.directory import ACCOUNT
from service.helpdesk import list_queries
from service.helpdesk.queries import SUBMITTED, found_by, scope_of
from service.storage.built import built
from service.storage.conditions import conditions, filled, slot
from service.storage.scope import UnscopedError
from service.storage.statement import Statement

ROWS = select(TICKETS.c.id).where(MINE)
OF = conditions(
    {
        "status": TICKETS.c.status == bindparam("status", type_=Text),
        "word": or_(TICKETS.c.subject == literal("a"), TICKETS.c.subject == bindparam("word", type_=Text)),
        "other word": TICKETS.c.description == literal("b"),
        "twin": exists().where(
            OTHER.c.account_id == given("account_id"), OTHER.c.live == given("live"), OTHER.c.id == TICKETS.c.id
        ),
    },
    ROWS,
    ACCOUNT,
)
LIST = Statement(ROWS.where(slot("first")).limit(bindparam("rows")), scope=ACCOUNT, prepared=False)


def sql(*names: str) -> str:
    return " ".join(filled(LIST, {"first": [OF[name] for name in names]}, prepared=False).sql.decode().split())


def test_a_slot_without_conditions_is_true() -> None:
    assert "AND true LIMIT" in sql()


def test_conditions_of_a_slot_are_all_to_hold() -> None:
    """An OR stays one condition."""
    found = sql("status", "word")
    assert "AND itsm_tickets.status = $3::VARCHAR AND (itsm_tickets.subject = $4" in found
    assert "OR itsm_tickets.subject = $5::VARCHAR) LIMIT" in found


def test_parameters_are_those_of_what_is_filled_in() -> None:
    """Each once, also where it is used twice; and none that PostgreSQL could not guess the type of."""
    assert filled(LIST, {"first": []}, prepared=False).names == ("account_id", "live", "rows")
    of_twin = filled(LIST, {"first": [OF["twin"], OF["status"]]}, prepared=False)
    assert of_twin.names == ("account_id", "live", "status", "rows")


def test_values_that_two_conditions_have_are_told_apart() -> None:
    both = filled(LIST, {"first": [OF["word"], OF["other word"]]}, prepared=False)
    assert sorted(both.constants.values()) == ["a", "b"]
    assert {*both.constants} < {*both.names}


def test_a_slot_that_nothing_is_said_of_is_refused() -> None:
    with pytest.raises(KeyError):
        filled(LIST, {}, prepared=False)


@pytest.mark.parametrize(
    "clause",
    [exists().where(OTHER.c.id == TICKETS.c.id), TICKETS.c.id.in_(select(DESK.c.number).scalar_subquery())],
    ids=["a join alone", "another table"],
)
def test_a_condition_is_refused_that_reads_rows_of_others(clause: object) -> None:
    with pytest.raises(UnscopedError):
        conditions({"theirs": clause}, ROWS, ACCOUNT)  # type: ignore[dict-item]  # what is tested


@pytest.mark.parametrize("narrower", ["app_id", "person_id"])
def test_helpdesks_filters_stay_within_what_a_caller_sees(narrower: str) -> None:
    """They are compiled for an agent, and read no table that is narrower for others."""
    by = frozenset({"tenant_id", narrower})
    whose = [SUBMITTED] if narrower == "person_id" else []
    rows = select(DESK.c.id).where(*found_by(by - {"person_id"}), *whose)
    texts = {name: of.text for name, of in conditions(list_queries._FILTERS, rows, scope_of(by)).items()}
    kept = {name: of.text for name, of in list_queries._CONDITIONS.items() if name in texts}
    assert texts == {**kept, "priority": texts["priority"]}


def test_a_prepared_statement_is_another_one_with_each_condition() -> None:
    names = [filled(LIST, {"first": [*of]}, prepared=True).name for of in ([], [OF["status"]], [OF["word"]])]
    assert len({*names}) == len(names)


async def test_a_statement_is_built_once_and_on_another_thread() -> None:
    threads = []

    @built(2)
    def build(rows: int) -> Statement:
        threads.append(threading.current_thread())
        return Statement(ROWS.limit(rows), scope=ACCOUNT, prepared=False)

    one, same, two = await asyncio.gather(build(1), build(1), build(2))
    assert one is same is await build(1)
    assert two is not one
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_a_caller_who_leaves_takes_no_statement_from_others() -> None:
    goes_on = threading.Event()

    @built(1)
    def build() -> Statement:
        goes_on.wait()
        return LIST

    leaves, stays = asyncio.create_task(build()), asyncio.create_task(build())
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait([leaves])
    goes_on.set()
    assert await stays is LIST
