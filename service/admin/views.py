"""Row → what operators see: each resource, and the answers of the operations."""

from datetime import datetime
from typing import TypedDict, TypeVar, cast
from uuid import UUID

from service.directory import KeyScope, MemberRole, RoleName
from service.jsontext import JsonText
from service.operation import View
from service.providers.port import ProviderName
from service.providers.tables import DeliveryKind, DeliveryState
from service.storage.statement import Row

V = TypeVar("V", bound=View)


class Account(TypedDict):
    """A customer account."""

    id: UUID
    name: str
    created_at: datetime
    suspended_at: datetime | None


class AccountAnswer(TypedDict):
    """One account."""

    account: Account


class ApiKey(TypedDict):
    """An API key without its secret."""

    id: UUID
    account_id: UUID
    live: bool
    scopes: list[KeyScope]
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime
    suspended_at: datetime | None
    prefix: str | None
    last_used_at: datetime | None


class ApiKeyAnswer(TypedDict):
    """One API key."""

    api_key: ApiKey


class NewApiKeyAnswer(ApiKeyAnswer):
    """A new API key with the key itself, which is in no other answer."""

    key: str


class Project(TypedDict):
    """A project with its settings."""

    id: UUID
    account_id: UUID
    name: str
    slug: str
    backend_repo: str | None
    frontend_repo: str | None
    github_repo: str | None
    default_roles: list[RoleName]
    created_at: datetime


class ProjectAnswer(TypedDict):
    """One project."""

    project: Project


class Member(TypedDict):
    """A user's membership of a project."""

    project_id: UUID
    user_id: UUID
    role: MemberRole
    created_at: datetime


class MemberAnswer(TypedDict):
    """One membership."""

    member: Member


class Tenant(TypedDict):
    """A helpdesk tenant."""

    id: str
    name: str
    created_at: datetime
    suspended_at: datetime | None


class TenantAnswer(TypedDict):
    """One tenant."""

    tenant: Tenant


class ProviderLink(TypedDict):
    """An account's link to its provider, without the credential."""

    account_id: UUID
    provider: ProviderName
    url: str
    options: JsonText
    created_at: datetime
    updated_at: datetime


class LinkAnswer(TypedDict):
    """One link."""

    link: ProviderLink


class Delivery(TypedDict):
    """A ticket's creation or change on its way to a provider."""

    id: UUID
    account_id: UUID
    ticket_id: UUID
    version: int
    kind: DeliveryKind
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime
    last_error: str | None
    created_at: datetime


class DeliveryAnswer(TypedDict):
    """One delivery."""

    delivery: Delivery


class DeliveryPage(TypedDict):
    """A page of deliveries."""

    deliveries: list[Delivery]
    next_cursor: str | None


class AccountPage(TypedDict):
    """A page of accounts."""

    accounts: list[Account]
    next_cursor: str | None


class ApiKeyPage(TypedDict):
    """A page of API keys."""

    api_keys: list[ApiKey]
    next_cursor: str | None


class ProjectPage(TypedDict):
    """A page of projects."""

    projects: list[Project]
    next_cursor: str | None


class MemberPage(TypedDict):
    """A page of members."""

    members: list[Member]
    next_cursor: str | None


class TenantPage(TypedDict):
    """A page of tenants."""

    tenants: list[Tenant]
    next_cursor: str | None


class LinkPage(TypedDict):
    """A page of links."""

    links: list[ProviderLink]
    next_cursor: str | None


class FailingWebhook(TypedDict):
    """A webhook that fails, and how its last attempt did."""

    id: str
    account_id: UUID
    live: bool
    url: str
    is_active: bool
    disabled_reason: str | None
    failing_since: datetime
    last_attempt_at: datetime | None
    last_attempt: int | None
    last_status_code: int | None
    last_error: str | None


class FailingWebhookPage(TypedDict):
    """A page of failing webhooks."""

    webhooks: list[FailingWebhook]
    next_cursor: str | None


class EmptyAnswer(TypedDict):
    """Nothing: the operation succeeded."""


def resource(kind: type[V], row: Row) -> V:
    """The resource of this type in a row that has its members as columns; other columns are left out."""
    return cast(V, {name: row[name] for name in kind.__annotations__})
