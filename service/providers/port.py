"""What the service asks of an external ITSM provider, and how a call can fail."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from pydantic import ConfigDict

from service.fields import Section

ProviderName = Literal["freshservice", "zendesk", "servicenow", "jira"]


@dataclass(frozen=True)
class Link:
    """An account's provider: its address, our credential there, and what else its vendor needs.

    The `options` of each vendor are declared in its own file.
    """

    provider: ProviderName
    url: str
    credential: str = field(repr=False)
    options: Mapping[str, Any]


class LinkOptions(Section):
    """What a vendor needs beside an address and a credential. An unknown member is a mistake."""

    model_config = ConfigDict(extra="forbid")

    # How a credential of the vendor is written: for people, and as a regular expression.
    credential_form: ClassVar[str] = "user:password"
    credential_pattern: ClassVar[str] = r"[^:]+:.+"


class NewExternalTicket(NamedTuple):
    """A ticket to create at the provider; `key` is our id for it, never changes, and finds it again.

    Status and priority are the service's own values; each vendor maps them to its own.
    """

    key: str
    subject: str
    description: str
    status: str
    priority: str | None
    requester_email: str | None


# The members of a ticket that a provider has too, by these names.
MEMBERS = NewExternalTicket._fields[1:]


class ExternalTicket(NamedTuple):
    """A ticket at the provider: its id there, and the address of its page."""

    id: str
    url: str


class RejectedError(Exception):
    """The provider rejected the request; its message is for the caller. A retry does not help."""


class LinkBrokenError(Exception):
    """The address, credential or permissions of the link are wrong: for the operator to mend. Nothing was written."""


class UnavailableError(Exception):
    """No usable answer: a retry may help. `in_doubt` where the request may have been carried out."""

    def __init__(self, message: str, *, in_doubt: bool, retry_after: float | None = None) -> None:
        """`retry_after` is in seconds, where the provider gave it."""
        super().__init__(message)
        self.in_doubt = in_doubt
        self.retry_after = retry_after


class Provider(Protocol):
    """One vendor's API. Every method raises RejectedError, LinkBrokenError and UnavailableError, and nothing else."""

    async def create(self, ticket: NewExternalTicket) -> ExternalTicket:
        """Create the ticket."""

    async def find(self, key: str) -> ExternalTicket | None:
        """The ticket that was created under a key, if any."""

    async def update(self, external_id: str, changes: Mapping[str, Any]) -> None:
        """Change members: any of those of NewExternalTicket but the key, by those names; None clears."""
