"""Tenants with SLA policies, for the tests of service levels."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from support.helpdesk import Transport
from support.helpdesk_sla import SlaLab, SlaTenant, TenantPolicies, create_tenant, open_sla_lab
from support.system import World
from support.transports import Rest


@pytest.fixture(scope="module")
async def sla_lab(world: World) -> AsyncIterator[SlaLab]:
    async with open_sla_lab(world) as lab:
        yield lab


@pytest.fixture(scope="module")
async def shared_tenant(client: httpx2.AsyncClient, world: World) -> TenantPolicies:
    return await create_tenant(Rest(client), world)


@pytest.fixture
def tenant(transport: Transport, sla_lab: SlaLab, shared_tenant: TenantPolicies) -> SlaTenant:
    """For tests that leave policies and calendar as they are."""
    return sla_lab.tenant(transport, shared_tenant)


@pytest.fixture
async def own_tenant(transport: Transport, sla_lab: SlaLab, world: World) -> SlaTenant:
    """For tests that change policies or the calendar."""
    return sla_lab.tenant(transport, await create_tenant(transport, world))
