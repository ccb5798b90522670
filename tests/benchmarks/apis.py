"""The three APIs as they are measured: their operations, their seeds, and what is compared before anything is timed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import checks, checks_bearer, handoff, helpdesk, operations, seeds
from .operations import Operation
from .seeds import Account
from .tokens import Issuer


@dataclass(frozen=True)
class Api:
    """One API."""

    operations: Mapping[str, Operation]
    # An account, a tenant or a project with so many tickets.
    seed: Callable[[str, int, Issuer], Account]
    # The tickets' ids, one a line.
    write_ids: Callable[[str, int, Path], None]
    # Compares contestants by name; raises checks.UnequalError.
    check: Callable[[str, list[str], Mapping[str, tuple[str, Account]], str], int]
    # Whose numbers have no gaps: the table, and the column of its scope.
    numbered: tuple[str, str] | None = None


def _write_helpdesk_ids(_: str, tickets: int, path: Path) -> None:
    path.write_text("".join(f"tkt_{n:026d}\n" for n in range(1, tickets + 1)))


def _write_numbers(_: str, tickets: int, path: Path) -> None:
    path.write_text("".join(f"{n}\n" for n in range(1, tickets + 1)))


APIS: Mapping[str, Api] = {
    "itsm": Api(operations.OPERATIONS, seeds.itsm, seeds.write_ids, checks.check),
    "helpdesk": Api(
        helpdesk.OPERATIONS,
        seeds.helpdesk,
        _write_helpdesk_ids,
        checks_bearer.check_helpdesk,
        ("helpdesk_tickets", "tenant_id"),
    ),
    "handoff": Api(
        handoff.OPERATIONS,
        seeds.handoff,
        _write_numbers,
        checks_bearer.check_handoff,
        ("handoff_tickets", "project_id"),
    ),
}
OPERATIONS: Mapping[str, Operation] = {
    name: operation for api in APIS.values() for name, operation in api.operations.items()
}
