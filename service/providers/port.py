"""What the service asks of an external ITSM provider, and how that can end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from pydantic import ConfigDict

from service.fields import Section

# A ticket's words here, which each vendor has its own for.
Status = Literal["open", "pending", "resolved", "closed"]
Priority = Literal["low", "medium", "high", "urgent"]
ProviderName = Literal["freshservice", "zendesk", "servicenow", "jira"]


@dataclass(frozen=True)
class Link:
    """An account's provider: where it is, who we are there, and what its vendor needs to know beside.

    The `options` of each vendor stand in its own file.
    """

    provider: ProviderName
    url: str
    credential: str = field(repr=False)
    options: Mapping[str, Any]


class LinkOptions(Section):
    """What a vendor needs to know beside an address and a credential. What it does not know is a mistake."""

    model_config = ConfigDict(extra="forbid")


class NewExternalTicket(NamedTuple):
    """A ticket that the provider shall have; `key` is ours, the same for ever, and finds it again."""

    key: str
    subject: str
    description: str
    status: str
    priority: str | None
    requester_email: str | None


# What is told of a ticket, by these names.
MEMBERS = NewExternalTicket._fields[1:]


class ExternalTicket(NamedTuple):
    """A ticket that the provider has: its id there, and where people see it."""

    id: str
    url: str


class RejectedError(Exception):
    """The provider has looked at it and will not do it; its words are for the caller. Asking again does not help."""


class LinkBrokenError(Exception):
    """The provider does not know us, or does not let us: for the operator to mend. Never raised after a write."""


class UnavailableError(Exception):
    """No answer that counts: asking again may help. `done` is None where nobody knows whether it was done."""

    def __init__(self, why: str, *, done: Literal[False] | None, retry_after: float | None = None) -> None:
        """`retry_after` is in seconds, where the provider said so."""
        super().__init__(why)
        self.done = done
        self.retry_after = retry_after


class Provider(Protocol):
    """One vendor's API. Every method raises RejectedError, LinkBrokenError and UnavailableError, and nothing else."""

    async def create(self, ticket: NewExternalTicket) -> ExternalTicket:
        """Make the ticket."""

    async def find(self, key: str) -> ExternalTicket | None:
        """The ticket that was made for a key, if any."""

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members: any of those of NewExternalTicket but the key, by those names; None clears."""
