"""contracts/helpdesk.md, Who may do what: the rights of agents and of others, case by case."""

from collections.abc import Callable
from typing import Any

import pytest

from service.access.policy import Caller
from service.errors import TicketError
from service.helpdesk import rights

TICKET = {"submitted_by_id": "per_submitter", "created_by": "per_creator", "assigned_to_id": "per_assigned"}
COMMENT = {"author_id": "per_author", "internal": False}
INTERNAL = {**COMMENT, "internal": True}

# Whom the caller is, and whether with the scope `helpdesk:agent`; then whether they may: change the ticket, write a
# public and an internal comment, see a public and an internal comment, edit a comment.
TABLE: list[tuple[str, bool, tuple[bool, bool, bool, bool, bool, bool]]] = [
    ("per_submitter", False, (True, True, False, True, False, False)),
    ("per_submitter", True, (True, True, True, True, True, False)),
    ("per_author", False, (False, True, False, True, False, True)),
    ("per_author", True, (True, True, True, True, True, True)),
    # Neither who created a ticket for someone else nor who is assigned to it has submitted it.
    ("per_creator", False, (False, True, False, True, False, False)),
    ("per_assigned", False, (False, True, False, True, False, False)),
    ("per_other", False, (False, True, False, True, False, False)),
    ("per_other", True, (True, True, True, True, True, False)),
]
REQUIREMENTS: list[tuple[Callable[[Caller], None], str]] = [
    (lambda caller: rights.require_change_ticket(caller, TICKET), "a ticket that someone else submitted"),
    (lambda caller: rights.require_write_comment(caller, internal=True), "internal comments"),
    (lambda caller: rights.require_edit_comment(caller, COMMENT), "the author of a comment"),
]


def caller(subject: str, *, agent: bool) -> Caller:
    scopes = {"helpdesk:read", "helpdesk:write"} | ({"helpdesk:agent"} if agent else set())
    return Caller(subject, frozenset(scopes), tenant_id="ten_1")


@pytest.mark.parametrize(("subject", "agent", "expected"), TABLE)
def test_who_may_do_what(subject: str, agent: bool, expected: tuple[bool, ...]) -> None:
    who = caller(subject, agent=agent)
    assert rights.is_agent(who) == agent
    assert (
        rights.may_change_ticket(who, TICKET),
        rights.may_write_comment(who, internal=False),
        rights.may_write_comment(who, internal=True),
        rights.may_see_comment(who, COMMENT),
        rights.may_see_comment(who, INTERNAL),
        rights.may_edit_comment(who, COMMENT),
    ) == expected
    assert rights.may_see_internal(who) == rights.may_see_comment(who, INTERNAL)


@pytest.mark.parametrize("scopes", [(), ("helpdesk:read",), ("helpdesk:write",), ("agent",), ("helpdesk:agents",)])
def test_only_the_scope_makes_an_agent(scopes: tuple[str, ...]) -> None:
    assert not rights.is_agent(Caller("per_agent", frozenset(scopes)))


@pytest.mark.parametrize(("subject", "agent", "expected"), TABLE)
def test_a_missing_right_is_forbidden(subject: str, agent: bool, expected: tuple[bool, ...]) -> None:
    who, (may_change, _, may_write_internal, _, _, may_edit) = caller(subject, agent=agent), expected
    allowed: Any = (may_change, may_write_internal, may_edit)
    for (require, words), is_allowed in zip(REQUIREMENTS, allowed, strict=True):
        if is_allowed:
            require(who)
            continue
        with pytest.raises(TicketError, match=words) as failure:
            require(who)
        assert failure.value.reason == "forbidden"


def test_everyone_who_may_change_a_ticket_may_write_public_comments() -> None:
    rights.require_write_comment(caller("per_other", agent=False), internal=False)
