"""contracts/handoff.md, "Who may do what": the table of rights, written down a second time."""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import pytest

from service.directory import MemberRole
from service.errors import TicketError
from service.handoff import rights
from service.handoff.commands import Declared, TicketChanges

# May work, edit an own ticket, edit another's, triage, report deployments.
TABLE: Mapping[str, tuple[bool, bool, bool, bool, bool]] = {
    "viewer": (False, False, False, False, False),
    "member": (True, True, False, False, False),
    "triager": (True, True, True, True, True),
    "owner": (True, True, True, True, True),
}
EDITED = {
    "title",
    "description",
    "request_type",
    "priority",
    "blocking",
    "evidence",
    "suggested_resolution",
    "implementation_notes",
}
WORKED_ON = {"stage", "status", "work_started_note", "resolution_note", "resolution_type", "role_status"}
TRIAGED = {"milestone_id", "roles", "github_issue_number"}


def test_the_table_has_every_role() -> None:
    assert set(TABLE) == set(get_args(MemberRole))


@pytest.mark.parametrize("role", TABLE)
def test_the_predicates_are_the_table(role: str) -> None:
    assert TABLE[role] == (
        rights.may_work(role),
        rights.may_edit(role, is_author=True),
        rights.may_edit(role, is_author=False),
        rights.may_triage(role),
        rights.may_report_deployments(role, frozenset()),
    )


@pytest.mark.parametrize("role", TABLE)
def test_the_deploy_scope_lets_every_role_report_deployments(role: str) -> None:
    assert rights.may_report_deployments(role, {"tickets:read", "handoff:deploy"})
    assert rights.may_report_deployments(role, {"handoff:deployments"}) is TABLE[role][-1]


def test_every_member_of_a_patch_has_its_right() -> None:
    assert set(rights.AUTHOR_FIELDS) == EDITED
    assert set(rights.TRIAGE_FIELDS) == TRIAGED
    # The lock of a PATCH and the declared provenance change nothing.
    changed = set(TicketChanges.model_fields) - set(Declared.model_fields) - {"updated_at"}
    assert changed == EDITED | WORKED_ON | TRIAGED


def is_refused(require: Callable[..., None], *arguments: Any, **options: Any) -> bool:
    """Whether a check raises `forbidden`, which is the only failure that it may raise."""
    try:
        require(*arguments, **options)
    except TicketError as error:
        return error.reason == "forbidden"
    return False


@pytest.mark.parametrize("is_author", [True, False])
@pytest.mark.parametrize("role", TABLE)
def test_a_change_requires_the_right_to_each_field(role: str, is_author: bool) -> None:
    works, edits_own, edits, triages, _ = TABLE[role]
    may_edit = edits_own if is_author else edits
    for fields, expected in ((WORKED_ON, works), (EDITED, may_edit), (TRIAGED, triages), ({"updated_at"}, works)):
        refused = {is_refused(rights.require_right_to_change, [name], role, is_author=is_author) for name in fields}
        assert refused == {not expected}


@pytest.mark.parametrize(
    ("fields", "role", "message"),
    [
        (["stage"], "viewer", "You may not change tickets in this project"),
        (["roles", "title", "milestone_id"], "member", "Only triagers and owners may change milestone_id, roles"),
        (["title", "stage"], "member", "Only the ticket's author, triagers and owners may change title"),
    ],
)
def test_a_refusal_names_the_fields(fields: list[str], role: str, message: str) -> None:
    with pytest.raises(TicketError) as caught:
        rights.require_right_to_change(fields, role, is_author=False)
    assert (caught.value.reason, caught.value.message) == ("forbidden", message)


@pytest.mark.parametrize("role", TABLE)
def test_workers_and_deployers_pass_and_others_are_refused(role: str) -> None:
    works, *_, deploys = TABLE[role]
    assert is_refused(rights.require_worker, role) is not works
    assert is_refused(rights.require_deployer, role, frozenset()) is not deploys
    assert not is_refused(rights.require_deployer, role, {"handoff:deploy"})
