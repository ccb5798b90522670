"""contracts/helpdesk.md, Who may do what: the rights of requesters, integrations and agents, case by case."""

from collections.abc import Callable
from typing import Any

import pytest

from service.access.policy import Caller
from service.errors import TicketError
from service.helpdesk import rights
from service.helpdesk.commands import NewTicket, TicketChanges

TICKET = {
    "app_id": None,
    "submitted_by_id": "per_submitter",
    "created_by": "per_creator",
    "assigned_to_id": "per_assigned",
}
OF_APPLICATION = {**TICKET, "app_id": "app_1"}
COMMENT = {"author_id": "per_author", "internal": False}
INTERNAL = {**COMMENT, "internal": True}


def caller(subject: str, *scopes: str, app_id: str | None = None) -> Caller:
    named = frozenset(f"helpdesk:{name}" for name in ("read", "write", *scopes))
    return Caller(subject, named, tenant_id="ten_1", app_id=app_id)


# Whom the caller is, and with which scopes more; whether they see all of the tenant, and whether they may change the
# ticket of a person, and that of the application app_1.
SIGHT: list[tuple[Caller, bool, bool, bool]] = [
    (caller("per_submitter"), False, True, True),
    (caller("per_creator"), False, True, True),
    (caller("per_assigned"), False, False, False),
    (caller("per_other"), False, False, False),
    (caller("per_other", "read_all"), True, False, False),
    (caller("per_creator", "read_all"), True, True, True),
    (caller("per_other", "agent"), True, True, True),
    # All of an application's tickets are its own, and no others, whatever its scopes.
    (caller("app", app_id="app_1"), False, False, True),
    (caller("app", "read_all", app_id="app_1"), False, False, True),
    (caller("per_submitter", app_id="app_1"), False, False, True),
    (caller("per_submitter", app_id="app_2"), False, False, False),
]


@pytest.mark.parametrize(("who", "whole", "of_person", "of_application"), SIGHT)
def test_who_sees_all_of_the_tenant_and_whose_tickets_are_whose(
    who: Caller, whole: bool, of_person: bool, of_application: bool
) -> None:
    assert rights.sees_whole_tenant(who) == whole
    for ticket, may in ((TICKET, of_person), (OF_APPLICATION, of_application)):
        assert rights.may_change_ticket(who, ticket) == may
        if may:
            rights.require_change_ticket(who, ticket)
        else:
            with pytest.raises(TicketError, match="Only agents can change a ticket of someone else") as failure:
                rights.require_change_ticket(who, ticket)
            assert failure.value.reason == "forbidden"


REQUESTER, INTEGRATION, AGENT = caller("per_1"), caller("app", app_id="app_1"), caller("per_2", "agent")
READER, AGENT_OF_APPLICATION = caller("per_3", "read_all"), caller("app", "agent", app_id="app_1")

# By member: who may set it in a creation, and who later. r: requesters, i: integrations, a: agents.
MEMBERS: dict[str, tuple[str, str]] = {
    "title": ("ria", "ria"),
    "description": ("ria", "ria"),
    "category": ("ria", "ria"),
    "tags": ("ria", "ria"),
    "related_asset_id": ("ria", "ria"),
    "related_vulnerability_id": ("ria", "ria"),
    "type": ("ria", "a"),
    "priority": ("ria", "a"),
    "source_type": ("ria", "a"),
    "submitted_by_id": ("ia", "a"),
    "source": ("ia", "a"),
    "assigned_to_id": ("a", "a"),
    "team_id": ("a", "a"),
    "sla_policy": ("a", "a"),
    "due_at": ("a", "a"),
    "status": ("a", "a"),
}
KINDS = {"r": (REQUESTER, READER), "i": (INTEGRATION,), "a": (AGENT, AGENT_OF_APPLICATION)}


def test_every_member_has_its_cells() -> None:
    assert MEMBERS.keys() == {*NewTicket.model_fields} == {*TicketChanges.model_fields} - {"etag"}


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("kind", KINDS)
def test_who_sets_which_member(kind: str, name: str) -> None:
    in_creation, later = MEMBERS[name]
    for who in KINDS[kind]:
        assert rights.may_set_in_creation(who, name) == (kind in in_creation)
        assert rights.may_set_later(who, name, "other") == (kind in later)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", ["open", "closed", "in_progress", "pending", "resolved"])
def test_who_is_no_agent_closes_and_reopens(kind: str, status: str) -> None:
    for who in KINDS[kind]:
        assert rights.may_set_later(who, "status", status) == (kind == "a" or status in ("open", "closed"))
        assert rights.may_set_in_creation(who, "status") == (kind == "a")


def test_a_refusal_names_every_member_that_it_is_about() -> None:
    there = {"title": "x", "team_id": None, "due_at": None, "status": "open", "priority": "low"}
    given = {**there, "title": "New", "team_id": "grp_1", "status": "pending"}
    for require in (rights.require_set_in_creation, rights.require_set_later):
        with pytest.raises(TicketError) as failure:
            require(REQUESTER, given, there)
        assert (failure.value.reason, failure.value.message) == ("forbidden", "Only agents can set status, team_id")
        assert [issue.path for issue in failure.value.issues] == ["status", "team_id"]
        require(AGENT, given, there)
        # What is there already, or is the default, is no setting: what was read may be sent back.
        require(REQUESTER, {**there, "title": "New"}, there)


# Whom the caller is, and whether an agent; whether they may write a public and an internal comment, see a public and
# an internal comment, edit a comment.
COMMENTS: list[tuple[Caller, tuple[bool, bool, bool, bool, bool]]] = [
    (caller("per_submitter"), (True, False, True, False, False)),
    (caller("per_author"), (True, False, True, False, True)),
    (caller("per_author", "read_all"), (True, False, True, False, True)),
    (caller("per_author", "agent"), (True, True, True, True, True)),
    (caller("per_other", "agent"), (True, True, True, True, False)),
    (INTEGRATION, (True, False, True, False, False)),
    (AGENT_OF_APPLICATION, (True, True, True, True, False)),
]
REQUIREMENTS: list[tuple[Callable[[Caller], None], int, str]] = [
    (lambda who: rights.require_write_comment(who, internal=False), 0, "never"),
    (lambda who: rights.require_write_comment(who, internal=True), 1, "internal comments"),
    (lambda who: rights.require_edit_comment(who, COMMENT), 4, "the author of a comment"),
]


@pytest.mark.parametrize(("who", "expected"), COMMENTS)
def test_who_may_do_what_with_comments(who: Caller, expected: tuple[bool, ...]) -> None:
    assert (
        rights.may_write_comment(who, internal=False),
        rights.may_write_comment(who, internal=True),
        rights.may_see_comment(who, COMMENT),
        rights.may_see_comment(who, INTERNAL),
        rights.may_edit_comment(who, COMMENT),
    ) == expected
    assert rights.may_see_internal(who) == rights.may_see_comment(who, INTERNAL)
    for require, right, words in REQUIREMENTS:
        if expected[right]:
            require(who)
            continue
        with pytest.raises(TicketError, match=words) as failure:
            require(who)
        assert failure.value.reason == "forbidden"


@pytest.mark.parametrize("scopes", [(), ("helpdesk:read",), ("helpdesk:write",), ("agent",), ("helpdesk:agents",)])
def test_only_the_scope_makes_an_agent(scopes: tuple[str, ...]) -> None:
    who: Any = Caller("per_agent", frozenset(scopes))
    assert not rights.is_agent(who)
    assert not rights.sees_whole_tenant(who)
