"""The operators' service: gRPC only."""

from contextlib import AsyncExitStack

from tickets.admin.v1 import service_pb2, service_pb2_grpc

from service.admin import operations
from service.operation import Dependencies
from service.transport import rpc
from service.transport.dialect import Dialect, Service, Servicer, Started


class AdminService(Servicer, service_pb2_grpc.AdminServiceServicer):
    """The typed service."""

    CreateAccount = rpc.unary(
        operations.create_account, service_pb2.CreateAccountRequest, service_pb2.CreateAccountResponse
    )
    CreateApiKey = rpc.unary(
        operations.create_api_key, service_pb2.CreateApiKeyRequest, service_pb2.CreateApiKeyResponse
    )
    RevokeApiKey = rpc.unary(
        operations.revoke_api_key, service_pb2.RevokeApiKeyRequest, service_pb2.RevokeApiKeyResponse
    )
    CreateProject = rpc.unary(
        operations.create_project, service_pb2.CreateProjectRequest, service_pb2.CreateProjectResponse
    )
    UpdateProject = rpc.unary(
        operations.update_project, service_pb2.UpdateProjectRequest, service_pb2.UpdateProjectResponse
    )
    RemoveMember = rpc.unary(
        operations.remove_member, service_pb2.RemoveMemberRequest, service_pb2.RemoveMemberResponse
    )
    AddMember = rpc.unary(operations.add_member, service_pb2.AddMemberRequest, service_pb2.AddMemberResponse)
    CreateTenant = rpc.unary(
        operations.create_tenant, service_pb2.CreateTenantRequest, service_pb2.CreateTenantResponse
    )
    LinkProvider = rpc.unary(
        operations.link_provider, service_pb2.LinkProviderRequest, service_pb2.LinkProviderResponse
    )
    UnlinkProvider = rpc.unary(
        operations.unlink_provider, service_pb2.UnlinkProviderRequest, service_pb2.UnlinkProviderResponse
    )
    ListDeliveries = rpc.unary(
        operations.list_deliveries, service_pb2.ListDeliveriesRequest, service_pb2.ListDeliveriesResponse
    )
    RequeueDelivery = rpc.unary(
        operations.requeue_delivery, service_pb2.RequeueDeliveryRequest, service_pb2.RequeueDeliveryResponse
    )


def _start(shared: Dependencies, _stack: AsyncExitStack) -> Started:
    return Started(shared)


DIALECT = Dialect(
    services=(
        Service(
            service_pb2.DESCRIPTOR.services_by_name["AdminService"],
            AdminService,
            service_pb2_grpc.add_AdminServiceServicer_to_server,
            rpc.Failures(),
        ),
    ),
    start=_start,
)
