"""Who is suspended is refused within seconds, at both transports, and watches no longer; resumed, all is as before."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest
from support.system import AUDIENCE, ISSUER, Credential, Issuer, World
from support.token_issuers import bearer
from support.transports import Grpc, Reply, Rest
from support.watches import HELPDESK, ITSM, Watches, WatchMessages, next_of

from service.access.authenticator import Authenticator
from service.access.policy import POLICIES
from service.admin import gets, suspensions
from service.admin import operations as admin
from service.directory import METADATA
from service.errors import TicketError
from service.operation import Operation
from service.settings import Settings
from service.storage.database import Database

Transport = Rest | Grpc
SECONDS = 5  # what contracts promise
ITSM_LIST, HELPDESK_LIST = ("tickets.itsm.v1", "ListTickets"), ("tickets.helpdesk.v1", "ListTickets")
HANDOFF_LIST, ADMIN_LIST = ("tickets.handoff.v1", "ListTickets"), ("tickets.admin.v1", "ListAccounts")


class Suspended(NamedTuple):
    """Somebody who is suspended, somebody beside them who is not, and how."""

    watches: Watches
    who: Credential
    other: Credential
    suspend: Operation[Any]
    resume: Operation[Any]
    named: dict[str, str]
    message: str


async def an_account(world: World) -> Suspended:
    program, other = await world.program(), await world.program()
    named = {"account_id": program.account_id}
    how = suspensions.suspend_account, suspensions.resume_account
    return Suspended(ITSM, program.credential, other.credential, *how, named, "The account is suspended")


async def a_key(world: World) -> Suspended:
    program = await world.program()
    other = await world.program(account_id=program.account_id)
    named = {"api_key_id": program.key_id}
    how = suspensions.suspend_api_key, suspensions.resume_api_key
    return Suspended(ITSM, program.credential, other.credential, *how, named, "The API key is suspended")


async def a_tenant(world: World) -> Suspended:
    # It was never recorded: its tokens are signed all the same, whatever its id is.
    tenant_id = f"Größe & Co {uuid4().hex}"
    who, other = world.person("read", tenant_id=tenant_id), world.person("read")
    how = suspensions.suspend_tenant, suspensions.resume_tenant
    return Suspended(HELPDESK, who, other, *how, {"tenant_id": tenant_id}, "The tenant is suspended")


async def until(ask: Callable[[], Awaitable[Reply]], status: Any) -> Reply:
    """The first answer with this status."""
    async with asyncio.timeout(SECONDS):
        while (reply := await ask()).status != status:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return reply


async def last_of(stream: WatchMessages) -> Reply:
    async with asyncio.timeout(SECONDS):
        async for message in stream:
            if isinstance(message, Reply):
                return message
    raise AssertionError("the watch ended without a word")


async def test_who_is_suspended_is_refused_and_watches_no_longer(rest: Rest, rpc: Grpc, world: World) -> None:
    async def suspended_and_resumed(transport: Transport, one: Suspended) -> None:
        listed = f"{one.watches.api}.list"

        async def ask() -> Reply:
            return await transport.call(listed, one.who)

        served = await ask()
        served.succeeded()
        async with (
            one.watches.watching(transport, one.who) as stream,
            one.watches.watching(transport, one.other) as others,
        ):
            for each in (stream, others):
                await next_of(each)
            await world.operate(one.suspend, **one.named)
            end = await last_of(stream)
        refused = await ask()
        refused.failed("suspended", one.message)
        # The last message of a watch that had begun is the failure.
        assert (end.body, end.status) == (refused.body, 200 if isinstance(transport, Rest) else refused.status)
        await one.watches.refused(transport, one.who, "suspended")
        (await transport.call(listed, one.other)).succeeded()
        await world.operate(one.resume, **one.named)
        await until(ask, served.status)

    makers = (an_account, a_key, a_tenant)
    cases = [(transport, await make(world)) for transport in (rest, rpc) for make in makers]
    await asyncio.gather(*(suspended_and_resumed(*case) for case in cases))


@pytest.fixture
async def authenticator(database_url: str, issuer: Issuer) -> AsyncIterator[Authenticator]:
    """Of a process whose looks are the test's own."""
    settings = Settings(
        database_url=database_url, pool_size=1, jwks=str(issuer.jwks), jwt_issuer=ISSUER, jwt_audience=AUDIENCE
    )
    database = Database(settings, METADATA)
    await database.open()
    authenticator = Authenticator(settings, database)
    yield authenticator
    await authenticator.close()
    await database.close()


async def admitted(authenticator: Authenticator, method: tuple[str, str], credential: Credential) -> bool | str:
    try:
        return bool(await authenticator.caller(POLICIES[method], credential))
    except TicketError as error:
        return error.reason


async def test_a_process_that_has_just_begun_knows_who_is_suspended(authenticator: Authenticator, world: World) -> None:
    one = await a_tenant(world)
    await world.operate(one.suspend, **one.named)
    assert await admitted(authenticator, HELPDESK_LIST, one.who) == "suspended"


async def test_all_that_an_account_and_a_tenant_have_is_suspended(authenticator: Authenticator, world: World) -> None:
    program = await world.program()
    test = await world.program(account_id=program.account_id, test=True)
    await world.operate(suspensions.suspend_account, account_id=program.account_id)
    later = await world.program(account_id=program.account_id)
    for key in (program, test, later):
        assert await admitted(authenticator, ITSM_LIST, key.credential) == "suspended"
    # A token of the tenant, whatever it is used for; but operators must be able to end it.
    tenant_id = f"ten_{uuid4().hex}"
    await world.operate(suspensions.suspend_tenant, tenant_id=tenant_id)
    await authenticator.suspensions.look(authenticator._database)
    token = world.issuer.bearer(str(uuid4()), tenant_id=tenant_id, scope="tickets:admin helpdesk:read")
    assert await admitted(authenticator, HELPDESK_LIST, token) == "suspended"
    assert await admitted(authenticator, HANDOFF_LIST, token) == "suspended"
    assert await admitted(authenticator, ADMIN_LIST, token) is True


async def test_who_is_not_authenticated_hears_nothing_of_it(authenticator: Authenticator, world: World) -> None:
    program = await world.program()
    await world.operate(suspensions.suspend_api_key, api_key_id=program.key_id)
    await world.operate(admin.revoke_api_key, api_key_id=program.key_id)
    assert await admitted(authenticator, ITSM_LIST, program.credential) == "invalid_token"


async def test_a_suspension_costs_a_call_no_statement(authenticator: Authenticator, world: World) -> None:
    credential = world.person("read")
    assert await admitted(authenticator, HELPDESK_LIST, credential) is True
    await authenticator._database.close()
    for _ in range(3):
        assert await admitted(authenticator, HELPDESK_LIST, credential) is True


# When a key was last used


async def last_used(world: World, key_id: str) -> Any:
    return (await world.operate(gets.get_api_key, api_key_id=key_id))["api_key"]["last_used_at"]


async def test_the_use_of_a_key_is_written_once_a_minute(authenticator: Authenticator, world: World) -> None:
    used, unused = await world.program(), await world.program()
    database, uses = authenticator._database, authenticator.key_uses
    assert await admitted(authenticator, ITSM_LIST, used.credential) is True
    assert await last_used(world, used.key_id) is None  # the call itself writes nothing
    await uses.write(database)
    [(now,)] = world.rows("SELECT now()")
    first = await last_used(world, used.key_id)
    assert 0 <= (now - first).total_seconds() < 60
    # Another process, or this one, writes the next use no earlier than a minute after it.
    for seconds, is_written in ((59, False), (61, True)):
        world.run(
            "UPDATE api_keys SET last_used_at = %s - make_interval(secs => %s) WHERE id = %s",
            first,
            seconds,
            used.key_id,
        )
        before = await last_used(world, used.key_id)
        uses.note(UUID(used.key_id), first)
        await uses.write(database)
        assert (await last_used(world, used.key_id) != before) == is_written
    assert await last_used(world, unused.key_id) is None


async def test_the_use_of_an_invalid_key_is_not_noted(authenticator: Authenticator, world: World) -> None:
    program = await world.program()
    await world.operate(admin.revoke_api_key, api_key_id=program.key_id)
    for credential in (program.credential, {"x-api-key": "itsm_sk_live_x"}, bearer("x")):
        assert await admitted(authenticator, ITSM_LIST, credential) is not True
    await authenticator.key_uses.write(authenticator._database)
    assert await last_used(world, program.key_id) is None
