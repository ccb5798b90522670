"""The commands of operators: every bound and default of their input."""

from typing import Annotated

from pydantic import Field, StringConstraints

from service.admin.fields import DefaultRoles, GithubRepo, Name, ProviderUrl, SignedTenant, Slug, TenantName
from service.directory import KeyScope, MemberRole
from service.fields import Command, IdempotencyHeader, Instant, JsonObject, Page, Section, Uuid, distinct, without_nul
from service.jsontext import JsonText
from service.providers.port import ProviderName
from service.providers.tables import DeliveryKind, DeliveryState


class NewAccount(Section):
    """An account."""

    name: Name


class NewApiKey(Section):
    """An API key of an account."""

    account_id: Uuid
    scopes: Annotated[list[KeyScope], Field(min_length=1, max_length=8), distinct]
    test: bool = False
    expires_at: Instant | None = None


class ApiKeyId(Section):
    """Which API key."""

    api_key_id: Uuid


class NewProject(Section):
    """A project. Without an account one is created with the project's name."""

    name: Name
    slug: Slug
    account_id: Uuid | None = None
    backend_repo: Name | None = None
    frontend_repo: Name | None = None
    github_repo: GithubRepo | None = None
    default_roles: DefaultRoles = Field(["backend"])


class ProjectId(Section):
    """Which project."""

    project_id: Uuid


class ProjectChanges(Section):
    """The changes of a project; null clears the members that may be None."""

    name: Name = ""
    backend_repo: Name | None = None
    frontend_repo: Name | None = None
    github_repo: GithubRepo | None = None
    default_roles: DefaultRoles = Field(["backend"])


class NewMember(Section):
    """A user's membership of a project."""

    project_id: Uuid
    user_id: Uuid
    role: MemberRole


class MemberId(Section):
    """Which membership."""

    project_id: Uuid
    user_id: Uuid


class NewTenant(Section):
    """A helpdesk tenant."""

    name: Name
    id: TenantName | None = None


class TenantId(Section):
    """Which tenant."""

    tenant_id: SignedTenant


class NewLink(Section):
    """An account's provider; its options are checked by the vendor's own model."""

    account_id: Uuid
    provider: ProviderName
    url: ProviderUrl
    credential: Annotated[str, StringConstraints(min_length=1, max_length=4096), without_nul]
    options: JsonObject = JsonText("{}")


class AccountId(Section):
    """Which account."""

    account_id: Uuid


class DeliveryFilter(Page):
    """Which deliveries to list."""

    account_id: Uuid | None = None
    state: DeliveryState | None = None
    kind: DeliveryKind | None = None
    since: Instant | None = None


class AccountFilter(Page):
    """Which of all accounts' resources to list."""

    account_id: Uuid | None = None


class MemberFilter(Page):
    """Whose members to list."""

    project_id: Uuid


class DeliveryId(Section):
    """Which delivery."""

    delivery_id: Uuid


class CreateAccount(Command):
    """AdminService.CreateAccount."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewAccount


class CreateApiKey(Command):
    """AdminService.CreateApiKey."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewApiKey


class RevokeApiKey(Command):
    """AdminService.RevokeApiKey."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: ApiKeyId


class CreateProject(Command):
    """AdminService.CreateProject."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewProject


class UpdateProject(Command):
    """AdminService.UpdateProject."""

    header: IdempotencyHeader = IdempotencyHeader()
    path: ProjectId
    body: ProjectChanges


class AddMember(Command):
    """AdminService.AddMember."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewMember


class RemoveMember(Command):
    """AdminService.RemoveMember."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: MemberId


class CreateTenant(Command):
    """AdminService.CreateTenant."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewTenant


class LinkProvider(Command):
    """AdminService.LinkProvider."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: NewLink


class UnlinkProvider(Command):
    """AdminService.UnlinkProvider."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: AccountId


class ListDeliveries(Command):
    """AdminService.ListDeliveries."""

    query: DeliveryFilter


class RequeueDelivery(Command):
    """AdminService.RequeueDelivery."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: DeliveryId


class ListAccounts(Command):
    """AdminService.ListAccounts."""

    query: Page


class ListApiKeys(Command):
    """AdminService.ListApiKeys."""

    query: AccountFilter


class ListProjects(Command):
    """AdminService.ListProjects."""

    query: AccountFilter


class ListMembers(Command):
    """AdminService.ListMembers."""

    query: MemberFilter


class ListTenants(Command):
    """AdminService.ListTenants."""

    query: Page


class ListLinks(Command):
    """AdminService.ListLinks."""

    query: AccountFilter


class GetAccount(Command):
    """AdminService.GetAccount."""

    path: AccountId


class GetApiKey(Command):
    """AdminService.GetApiKey."""

    path: ApiKeyId


class GetProject(Command):
    """AdminService.GetProject."""

    path: ProjectId


class GetMember(Command):
    """AdminService.GetMember."""

    path: MemberId


class GetTenant(Command):
    """AdminService.GetTenant."""

    path: TenantId


class GetLink(Command):
    """AdminService.GetLink."""

    path: AccountId


class GetDelivery(Command):
    """AdminService.GetDelivery."""

    path: DeliveryId


class ListFailingWebhooks(Command):
    """AdminService.ListFailingWebhooks."""

    query: AccountFilter


class SuspendAccount(Command):
    """AdminService.SuspendAccount."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: AccountId


class ResumeAccount(Command):
    """AdminService.ResumeAccount."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: AccountId


class SuspendApiKey(Command):
    """AdminService.SuspendApiKey."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: ApiKeyId


class ResumeApiKey(Command):
    """AdminService.ResumeApiKey."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: ApiKeyId


class SuspendTenant(Command):
    """AdminService.SuspendTenant."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: TenantId


class ResumeTenant(Command):
    """AdminService.ResumeTenant."""

    header: IdempotencyHeader = IdempotencyHeader()
    body: TenantId
