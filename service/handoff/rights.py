"""Who may do what with handoff tickets: every right on one page (contracts/handoff.md, "Who may do what").

Members of every role read their projects' tickets. To everybody else a project does not exist: its tickets are in no
list, and every operation that names it fails as `not_a_member`.
"""

from collections.abc import Collection, Iterable, Sequence

from service.directory import MemberRole
from service.errors import TicketError
from service.handoff import lifecycle

# The roles whose members create tickets, edit their own, and work on all of them.
WORKERS: Sequence[MemberRole] = ("member", "triager", "owner")
# The roles whose members also edit and triage the tickets of others, and report deployments.
TRIAGERS: Sequence[MemberRole] = ("triager", "owner")
# A token with this scope reports deployments, whatever its user's role in the project.
DEPLOY_SCOPE = "handoff:deploy"

# The fields of a ticket by who may change them; workers may change every other field.
TRIAGE_FIELDS = frozenset({"milestone_id", "roles", "github_issue_number"})
AUTHOR_FIELDS = frozenset(lifecycle.PLAIN) - TRIAGE_FIELDS


def may_work(member_role: str) -> bool:
    """Whether a member creates tickets and changes stages, statuses, resolutions and the state of roles."""
    return member_role in WORKERS


def may_edit(member_role: str, *, is_author: bool) -> bool:
    """Whether a member changes a ticket's AUTHOR_FIELDS."""
    return may_triage(member_role) or (may_work(member_role) and is_author)


def may_triage(member_role: str) -> bool:
    """Whether a member changes everybody's tickets, TRIAGE_FIELDS included."""
    return member_role in TRIAGERS


def may_report_deployments(member_role: str, scopes: Collection[str]) -> bool:
    """Whether a member reports deployments, with a token of these scopes."""
    return may_triage(member_role) or DEPLOY_SCOPE in scopes


def require_worker(member_role: str) -> None:
    """Raise TicketError `forbidden` unless the member may work on tickets."""
    if not may_work(member_role):
        raise TicketError("forbidden", "You may not change tickets in this project")


def require_right_to_change(fields: Iterable[str], member_role: str, *, is_author: bool) -> None:
    """Raise TicketError `forbidden` unless the member may change all of these fields of a ticket."""
    require_worker(member_role)
    names = frozenset(fields)
    if names & TRIAGE_FIELDS and not may_triage(member_role):
        raise TicketError("forbidden", f"Only triagers and owners may change {_listed(names & TRIAGE_FIELDS)}")
    if names & AUTHOR_FIELDS and not may_edit(member_role, is_author=is_author):
        raise TicketError(
            "forbidden", f"Only the ticket's author, triagers and owners may change {_listed(names & AUTHOR_FIELDS)}"
        )


def require_deployer(member_role: str, scopes: Collection[str]) -> None:
    """Raise TicketError `forbidden` unless the member may report deployments."""
    if not may_report_deployments(member_role, scopes):
        raise TicketError(
            "forbidden", f"Only triagers, owners and tokens with scope {DEPLOY_SCOPE} may report deployments"
        )


def not_a_member() -> TicketError:
    """The failure of a call that names a project of others, or none."""
    return TicketError("forbidden", "You are not a member of this project")


def not_a_creator() -> TicketError:
    """The failure of a creation by a viewer, or in a project of others."""
    return TicketError("forbidden", "You may not create tickets in this project")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
