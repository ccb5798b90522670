"""The operators' service: gRPC only."""

from contextlib import AsyncExitStack

from tickets.admin.v1 import admin_service_pb2, admin_service_pb2_grpc

from service.admin import gets, lists, operations, suspensions
from service.operation import Dependencies
from service.transport import rpc
from service.transport.dialect import Dialect, Service, Servicer, Started


class AdminService(Servicer, admin_service_pb2_grpc.AdminServiceServicer):
    """The typed service."""

    CreateAccount = rpc.unary(
        operations.create_account, admin_service_pb2.CreateAccountRequest, admin_service_pb2.CreateAccountResponse
    )
    CreateApiKey = rpc.unary(
        operations.create_api_key, admin_service_pb2.CreateApiKeyRequest, admin_service_pb2.CreateApiKeyResponse
    )
    RevokeApiKey = rpc.unary(
        operations.revoke_api_key, admin_service_pb2.RevokeApiKeyRequest, admin_service_pb2.RevokeApiKeyResponse
    )
    CreateProject = rpc.unary(
        operations.create_project, admin_service_pb2.CreateProjectRequest, admin_service_pb2.CreateProjectResponse
    )
    UpdateProject = rpc.unary(
        operations.update_project, admin_service_pb2.UpdateProjectRequest, admin_service_pb2.UpdateProjectResponse
    )
    RemoveMember = rpc.unary(
        operations.remove_member, admin_service_pb2.RemoveMemberRequest, admin_service_pb2.RemoveMemberResponse
    )
    AddMember = rpc.unary(
        operations.add_member, admin_service_pb2.AddMemberRequest, admin_service_pb2.AddMemberResponse
    )
    CreateTenant = rpc.unary(
        operations.create_tenant, admin_service_pb2.CreateTenantRequest, admin_service_pb2.CreateTenantResponse
    )
    LinkProvider = rpc.unary(
        operations.link_provider, admin_service_pb2.LinkProviderRequest, admin_service_pb2.LinkProviderResponse
    )
    UnlinkProvider = rpc.unary(
        operations.unlink_provider, admin_service_pb2.UnlinkProviderRequest, admin_service_pb2.UnlinkProviderResponse
    )
    ListDeliveries = rpc.unary(
        lists.list_deliveries, admin_service_pb2.ListDeliveriesRequest, admin_service_pb2.ListDeliveriesResponse
    )
    ListAccounts = rpc.unary(
        lists.list_accounts, admin_service_pb2.ListAccountsRequest, admin_service_pb2.ListAccountsResponse
    )
    ListApiKeys = rpc.unary(
        lists.list_api_keys, admin_service_pb2.ListApiKeysRequest, admin_service_pb2.ListApiKeysResponse
    )
    ListProjects = rpc.unary(
        lists.list_projects, admin_service_pb2.ListProjectsRequest, admin_service_pb2.ListProjectsResponse
    )
    ListMembers = rpc.unary(
        lists.list_members, admin_service_pb2.ListMembersRequest, admin_service_pb2.ListMembersResponse
    )
    ListTenants = rpc.unary(
        lists.list_tenants, admin_service_pb2.ListTenantsRequest, admin_service_pb2.ListTenantsResponse
    )
    ListLinks = rpc.unary(lists.list_links, admin_service_pb2.ListLinksRequest, admin_service_pb2.ListLinksResponse)
    RequeueDelivery = rpc.unary(
        operations.requeue_delivery, admin_service_pb2.RequeueDeliveryRequest, admin_service_pb2.RequeueDeliveryResponse
    )
    GetAccount = rpc.unary(gets.get_account, admin_service_pb2.GetAccountRequest, admin_service_pb2.GetAccountResponse)
    GetApiKey = rpc.unary(gets.get_api_key, admin_service_pb2.GetApiKeyRequest, admin_service_pb2.GetApiKeyResponse)
    GetProject = rpc.unary(gets.get_project, admin_service_pb2.GetProjectRequest, admin_service_pb2.GetProjectResponse)
    GetMember = rpc.unary(gets.get_member, admin_service_pb2.GetMemberRequest, admin_service_pb2.GetMemberResponse)
    GetTenant = rpc.unary(gets.get_tenant, admin_service_pb2.GetTenantRequest, admin_service_pb2.GetTenantResponse)
    GetLink = rpc.unary(gets.get_link, admin_service_pb2.GetLinkRequest, admin_service_pb2.GetLinkResponse)
    GetDelivery = rpc.unary(
        gets.get_delivery, admin_service_pb2.GetDeliveryRequest, admin_service_pb2.GetDeliveryResponse
    )
    ListFailingWebhooks = rpc.unary(
        lists.list_failing_webhooks,
        admin_service_pb2.ListFailingWebhooksRequest,
        admin_service_pb2.ListFailingWebhooksResponse,
    )
    SuspendAccount = rpc.unary(
        suspensions.suspend_account, admin_service_pb2.SuspendAccountRequest, admin_service_pb2.SuspendAccountResponse
    )
    ResumeAccount = rpc.unary(
        suspensions.resume_account, admin_service_pb2.ResumeAccountRequest, admin_service_pb2.ResumeAccountResponse
    )
    SuspendApiKey = rpc.unary(
        suspensions.suspend_api_key, admin_service_pb2.SuspendApiKeyRequest, admin_service_pb2.SuspendApiKeyResponse
    )
    ResumeApiKey = rpc.unary(
        suspensions.resume_api_key, admin_service_pb2.ResumeApiKeyRequest, admin_service_pb2.ResumeApiKeyResponse
    )
    SuspendTenant = rpc.unary(
        suspensions.suspend_tenant, admin_service_pb2.SuspendTenantRequest, admin_service_pb2.SuspendTenantResponse
    )
    ResumeTenant = rpc.unary(
        suspensions.resume_tenant, admin_service_pb2.ResumeTenantRequest, admin_service_pb2.ResumeTenantResponse
    )


def _start(shared: Dependencies, _stack: AsyncExitStack) -> Started:
    return Started(shared)


DIALECT = Dialect(
    services=(
        Service(
            admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
            AdminService,
            admin_service_pb2_grpc.add_AdminServiceServicer_to_server,
            rpc.Failures(),
        ),
    ),
    start=_start,
)
