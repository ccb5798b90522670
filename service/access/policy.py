"""What each method requires of its caller: one table for the whole service, default deny."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from service.errors import TicketError


@dataclass(frozen=True, slots=True)
class Caller:
    """Who was authenticated. Which members are set depends on the credential; nothing here came from a body."""

    # The token's `sub`, a UUID in one form; or the API key's id.
    subject: str
    scopes: frozenset[str]
    # API keys: the account, and whether the key is live.
    account_id: UUID | None = None
    live: bool = True
    # Whether the account has an external provider that a ticket of this key goes to.
    is_linked: bool = False
    # Tokens: the claims of the same names.
    tenant_id: str | None = None
    app_id: str | None = None
    actor_role: str | None = None
    # Unix time; None for what does not expire.
    expires_at: float | None = None

    @property
    def owner(self) -> UUID | str:
        """Whose share of the service its calls count against: an account, a tenant, or else a user."""
        return self.account_id or self.tenant_id or self.subject


@dataclass(frozen=True, slots=True)
class Policy:
    """What a method requires: a kind of credential, any one of the scopes (none: the operation decides), its bucket."""

    # `user`: a token whose sub is a UUID. `tenant`: a token with tenant_id. `operator`: any token; the scope decides.
    # `program`: an API key. `none`: anyone, without a credential.
    who: Literal["user", "tenant", "operator", "program", "none"]
    scopes: tuple[str, ...] = ()
    kind: Literal["read", "write"] = "read"
    # Whether a token of one application is refused: the method changes what all applications of the tenant share.
    all_applications: bool = False


# Which tickets callers with one of these scopes read is in helpdesk/rights.py.
_READ_HELPDESK = Policy("tenant", ("helpdesk:read", "helpdesk:read_all", "helpdesk:agent"))
_WRITE_HELPDESK = Policy("tenant", ("helpdesk:write", "helpdesk:agent"), "write")
_READ_SLA = Policy("tenant", ("helpdesk:agent",))
_MANAGE_SLA = Policy("tenant", ("helpdesk:agent",), "write", all_applications=True)
_READ_WEBHOOKS = Policy("program", ("webhooks:manage",))
_MANAGE_WEBHOOKS = Policy("program", ("webhooks:manage",), "write")
_ADMIN = Policy("operator", ("tickets:admin",), "write")

# Package and method; the typed service and its REST sister share the entry. A method without one is refused.
POLICIES: Mapping[tuple[str, str], Policy] = {
    # Membership of the project decides, in the statement itself.
    ("tickets.handoff.v1", "ListTickets"): Policy("user"),
    ("tickets.handoff.v1", "ListProjectTickets"): Policy("user"),
    ("tickets.handoff.v1", "GetTicket"): Policy("user"),
    ("tickets.handoff.v1", "ListTicketEvents"): Policy("user"),
    ("tickets.handoff.v1", "WatchTickets"): Policy("user"),
    ("tickets.handoff.v1", "CreateTicket"): Policy("user", kind="write"),
    ("tickets.handoff.v1", "UpdateTicket"): Policy("user", kind="write"),
    ("tickets.handoff.v1", "BulkUpdateTickets"): Policy("user", kind="write"),
    ("tickets.handoff.v1", "ReportDeployment"): Policy("user", kind="write"),
    ("tickets.helpdesk.v1", "ListTickets"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "GetTicket"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "CreateTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "UpdateTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "CloseTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "DeleteTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "RestoreTicket"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "CreateComment"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "UpdateComment"): _WRITE_HELPDESK,
    ("tickets.helpdesk.v1", "ListComments"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "ListTicketEvents"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "GetTicketSla"): _READ_HELPDESK,
    ("tickets.helpdesk.v1", "ListSlaPolicies"): _READ_SLA,
    ("tickets.helpdesk.v1", "GetSlaPolicy"): _READ_SLA,
    ("tickets.helpdesk.v1", "CreateSlaPolicy"): _MANAGE_SLA,
    ("tickets.helpdesk.v1", "UpdateSlaPolicy"): _MANAGE_SLA,
    ("tickets.helpdesk.v1", "GetCalendar"): _READ_SLA,
    ("tickets.helpdesk.v1", "UpdateCalendar"): _MANAGE_SLA,
    ("tickets.helpdesk.v1", "WatchTickets"): _READ_HELPDESK,
    ("tickets.itsm.v1", "CreateTicket"): Policy("program", ("tickets:write",), "write"),
    ("tickets.itsm.v1", "GetTicket"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "ListTickets"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "UpdateTicket"): Policy("program", ("tickets:write",), "write"),
    ("tickets.itsm.v1", "ListTicketEvents"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "WatchTickets"): Policy("program", ("tickets:read",)),
    ("tickets.itsm.v1", "CreateWebhook"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "ListWebhooks"): _READ_WEBHOOKS,
    ("tickets.itsm.v1", "UpdateWebhook"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "DeleteWebhook"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "RotateWebhookSecret"): _MANAGE_WEBHOOKS,
    ("tickets.itsm.v1", "ListWebhookDeliveries"): _READ_WEBHOOKS,
    ("tickets.itsm.v1", "ReplayWebhookDelivery"): _MANAGE_WEBHOOKS,
    ("tickets.admin.v1", "CreateAccount"): _ADMIN,
    ("tickets.admin.v1", "CreateApiKey"): _ADMIN,
    ("tickets.admin.v1", "RevokeApiKey"): _ADMIN,
    ("tickets.admin.v1", "CreateProject"): _ADMIN,
    ("tickets.admin.v1", "UpdateProject"): _ADMIN,
    ("tickets.admin.v1", "AddMember"): _ADMIN,
    ("tickets.admin.v1", "RemoveMember"): _ADMIN,
    ("tickets.admin.v1", "CreateTenant"): _ADMIN,
    ("tickets.admin.v1", "LinkProvider"): _ADMIN,
    ("tickets.admin.v1", "UnlinkProvider"): _ADMIN,
    ("tickets.admin.v1", "ListDeliveries"): _ADMIN,
    ("tickets.admin.v1", "ListAccounts"): _ADMIN,
    ("tickets.admin.v1", "ListApiKeys"): _ADMIN,
    ("tickets.admin.v1", "ListProjects"): _ADMIN,
    ("tickets.admin.v1", "ListMembers"): _ADMIN,
    ("tickets.admin.v1", "ListTenants"): _ADMIN,
    ("tickets.admin.v1", "ListLinks"): _ADMIN,
    ("tickets.admin.v1", "RequeueDelivery"): _ADMIN,
    ("tickets.admin.v1", "GetAccount"): _ADMIN,
    ("tickets.admin.v1", "GetApiKey"): _ADMIN,
    ("tickets.admin.v1", "GetProject"): _ADMIN,
    ("tickets.admin.v1", "GetMember"): _ADMIN,
    ("tickets.admin.v1", "GetTenant"): _ADMIN,
    ("tickets.admin.v1", "GetLink"): _ADMIN,
    ("tickets.admin.v1", "GetDelivery"): _ADMIN,
    ("tickets.admin.v1", "ListFailingWebhooks"): _ADMIN,
    ("tickets.admin.v1", "SuspendAccount"): _ADMIN,
    ("tickets.admin.v1", "ResumeAccount"): _ADMIN,
    ("tickets.admin.v1", "SuspendApiKey"): _ADMIN,
    ("tickets.admin.v1", "ResumeApiKey"): _ADMIN,
    ("tickets.admin.v1", "SuspendTenant"): _ADMIN,
    ("tickets.admin.v1", "ResumeTenant"): _ADMIN,
    ("grpc.health.v1", "Check"): Policy("none"),
    ("grpc.health.v1", "Watch"): Policy("none"),
    ("grpc.reflection.v1alpha", "ServerReflectionInfo"): Policy("none"),
}


def admit(policy: Policy, caller: Caller) -> None:
    """Check that a caller meets a policy. Raises TicketError: `invalid_token`, `missing_scope`, `forbidden`."""
    if policy.who == "tenant" and caller.tenant_id is None:
        raise TicketError("invalid_token", "The token has no tenant_id")
    if policy.who == "user" and not _is_uuid(caller.subject):
        raise TicketError("invalid_token", "The token's sub is not a user's UUID")
    if policy.scopes and caller.scopes.isdisjoint(policy.scopes):
        credential = "API key" if policy.who == "program" else "Token"
        raise TicketError("missing_scope", f"{credential} missing required scope: {policy.scopes[0]}")
    if policy.all_applications and caller.app_id is not None:
        raise TicketError("forbidden", "A token of one application cannot change what the whole tenant shares")


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False
