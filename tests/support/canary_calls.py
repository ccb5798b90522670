"""Calls with canaries for everything that is given: those that succeed, and those that fail in each documented way."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from service.access.api_keys import new_api_key
from support.canaries import Canaries
from support.locks import LockedTicket
from support.provider_lab import until
from support.system import Credential, Program, World
from support.transports import Grpc, Reply, Rest

TEXT, META, EMAIL = "ticket text", "ticket metadata", "e-mail address"
KEY, REPLAYED = "idempotency key", "replayed idempotency key"
REFUSED, WRONG = "refused text", "wrong credential"
API_KEY, TOKEN = "API key", "bearer token"
WEBHOOK_SECRET, WEBHOOK_URL = "webhook secret", "webhook address"
QUOTED = "text that PostgreSQL itself refuses"
ABSENT = "7b0a3c9e-51d8-4a6e-8f0c-0b8f6f1f2a33"
# More than a request may have.
_MANY = 2**20
_PROGRAM = ("tickets:read", "tickets:write", "webhooks:manage")


@dataclass
class Calls:
    """One transport, what it is told, and what it answers."""

    transport: Rest | Grpc
    world: World
    canaries: Canaries
    # Without the answers that show a new secret.
    own: list[Reply] = field(default_factory=list)
    others: list[Reply] = field(default_factory=list)

    async def call(self, operation: str, who: Credential, **sections: Any) -> Any:
        """The body of an answer to whoever owns what the call is about."""
        reply = await self.transport.call(operation, who, **sections)
        self.own.append(reply)
        return reply.body

    async def ask(self, operation: str, who: Credential, **sections: Any) -> None:
        """A call of somebody else."""
        self.others.append(await self.transport.call(operation, who, **sections))

    async def fail(self, reason: str, operation: str, who: Credential, body: Any) -> None:
        """A call, under an idempotency key, that is to fail for this reason."""
        reply = await self.transport.call(operation, who, body=body, headers=self.key(REFUSED))
        reply.failed(reason)
        self.own.append(reply)

    async def program(self, *, scopes: tuple[str, ...] = _PROGRAM, account_id: str | None = None) -> Program:
        """A program with an API key."""
        program = await self.world.program(scopes=scopes, account_id=account_id)
        self.canaries.note(API_KEY, program.key)
        return program

    def bearer(self, subject: str, **claims: Any) -> Credential:
        """The header with a token."""
        credential = self.world.issuer.bearer(subject, **claims)
        self.canaries.note(TOKEN, credential["authorization"].removeprefix("Bearer "))
        return credential

    def key(self, kind: str = KEY) -> Mapping[str, str]:
        """The header with a new idempotency key."""
        return {"idempotency-key": self.canaries.new(kind)}

    def text(self, kind: str = TEXT) -> str:
        """A new text."""
        return self.canaries.new(kind)

    async def all(self, hook_url: str) -> None:
        """Every call of every API; the hook's address answers what a receiver of webhooks does."""
        await itsm(self)
        await webhooks(self, hook_url)
        await helpdesk(self)
        await handoff(self)


async def itsm(calls: Calls) -> None:
    """The tickets of an account."""
    program, stranger = await calls.program(), await calls.program()
    email = f"{calls.text(EMAIL)}@example.com"
    body: dict[str, Any] = {"subject": calls.text(), "description": calls.text(), "requester_email": email}
    body["metadata"] = {calls.text(META): calls.text(META)}
    used, replayed = calls.key(), calls.key(REPLAYED)
    ticket = await calls.call("itsm.create", program.credential, body=body, headers=used)
    for given in (body, body, {**body, "subject": calls.text(REFUSED)}):
        await calls.call("itsm.create", program.credential, body=given, headers=replayed)
    path = {"ticket_id": ticket["id"]}
    for operation in ("itsm.get", "itsm.events"):
        await calls.call(operation, program.credential, path=path)
    await calls.call("itsm.list", program.credential, query={"metadata": body["metadata"]})
    changes = {"subject": calls.text(), "requester_email": None}
    await calls.call("itsm.update", program.credential, path=path, body=changes, headers=calls.key())
    await _refused(calls, program, path)
    await _with_bad_keys(calls, program, path)
    for operation, more in (("itsm.get", {}), ("itsm.events", {}), ("itsm.update", {"body": {"subject": "Taken"}})):
        await calls.ask(operation, stranger.credential, path=path, **more)
    await calls.ask("itsm.list", stranger.credential)
    await calls.ask("itsm.create", stranger.credential, body={"subject": "a", "description": "b"}, headers=replayed)


async def _refused(calls: Calls, program: Program, path: Mapping[str, str]) -> None:
    """What a program may not send."""
    text = calls.text(REFUSED)
    for bad in (
        {"subject": text},
        {"subject": text, "description": text, "priority": text},
        {"subject": text * 20, "description": text, "requester_email": text},
        {"subject": text, "description": text + "\0"},
        {"subject": text, "description": text + "x" * _MANY},
    ):
        await calls.call("itsm.create", program.credential, body=bad, headers=calls.key(REFUSED))
    await calls.call("itsm.create", program.credential, body={"subject": text}, headers={"idempotency-key": text * 9})
    await calls.call("itsm.update", program.credential, path={"ticket_id": ABSENT}, body={"subject": text})
    await calls.call("itsm.update", program.credential, path=path, body={"status": text})
    await calls.call("itsm.list", program.credential, query={"status": text})


async def _with_bad_keys(calls: Calls, program: Program, path: Mapping[str, str]) -> None:
    """Keys that do not open, and those of others in the wrong place."""
    reader = await calls.program(scopes=("tickets:read",), account_id=program.account_id)
    revoked = await calls.program(account_id=program.account_id)
    calls.world.run("UPDATE api_keys SET revoked_at = now() WHERE id = %s", revoked.key_id)
    text = calls.text(REFUSED)
    for who in (
        reader.credential,
        revoked.credential,
        {},
        {"x-api-key": calls.text(WRONG)},
        {"x-api-key": calls.canaries.note(WRONG, new_api_key(live=True))},
        {"x-api-key": calls.bearer(ABSENT)["authorization"]},
        {"authorization": f"Bearer {program.key}"},
    ):
        await calls.ask("itsm.update", who, path=path, body={"subject": text}, headers=calls.key(REFUSED))


async def webhooks(calls: Calls, hook_url: str) -> None:
    """A webhook, whose secrets nobody is shown twice."""
    program, stranger = await calls.program(), await calls.program()
    url = f"{hook_url}?token={calls.text(WEBHOOK_URL)}"
    body = {"url": url, "events": ["ticket.created"]}
    # Not among the answers that may be seen: it shows the secret.
    made = (await calls.transport.call("itsm.create_webhook", program.credential, body=body)).succeeded(201)
    path = {"webhook_id": made["id"]}
    rotated = (await calls.transport.call("itsm.rotate_secret", program.credential, path=path)).succeeded()
    for shown in (made, rotated):
        calls.canaries.note(WEBHOOK_SECRET, shown["secret"])
    await calls.call("itsm.create", program.credential, body={"subject": calls.text(), "description": calls.text()})
    sent = "SELECT 1 FROM itsm_webhook_attempts WHERE webhook_id = %s AND succeeded"
    await until(lambda: bool(calls.world.rows(sent, made["id"])), what="the webhook to be called")
    await calls.call("itsm.webhooks", program.credential)
    await calls.call("itsm.deliveries", program.credential, path=path)
    await calls.call("itsm.update_webhook", program.credential, path=path, body={"is_active": False})
    for refused in ("ftp://127.0.0.1/" + calls.text(REFUSED), f"http://me:{calls.text(REFUSED)}@127.0.0.1/"):
        await calls.call("itsm.create_webhook", program.credential, body={**body, "url": refused})
    await calls.call("itsm.create_webhook", program.credential, body={**body, "events": [calls.text(REFUSED)]})
    for operation in ("itsm.deliveries", "itsm.rotate_secret"):
        await calls.ask(operation, stranger.credential, path=path)
    await calls.ask("itsm.webhooks", stranger.credential)


async def helpdesk(calls: Calls) -> None:
    """The tickets of a tenant, and comments."""
    tenant = f"ten_{calls.transport.name}"
    agent = calls.bearer("per_1", tenant_id=tenant, scope="helpdesk:read helpdesk:agent")
    other = calls.bearer("per_1", tenant_id=f"{tenant}_other", scope="helpdesk:read helpdesk:agent")
    body = {"title": calls.text(), "description": calls.text(), "tags": [calls.text()]}
    ticket = await calls.call("helpdesk.create", agent, body=body, headers=calls.key())
    path, used = {"id": ticket["id"]}, calls.key()
    for given in (calls.text(), calls.text(REFUSED)):
        await calls.call("helpdesk.comment", agent, path=path, body={"body": given}, headers=used)
    for operation in ("helpdesk.get", "helpdesk.comments", "helpdesk.events"):
        await calls.call(operation, agent, path=path)
        await calls.ask(operation, other, path=path)
    stale = {"if-match": '"99"'}
    await calls.call("helpdesk.update", agent, path=path, body={"title": calls.text(REFUSED)}, headers=stale)
    await calls.call("helpdesk.create", agent, body={"title": "a", "priority": calls.text(REFUSED)})
    now, text = int(time.time()), calls.text(REFUSED)
    for who in (
        calls.bearer("per_1", tenant_id=tenant, scope="helpdesk:read"),
        calls.bearer("per_1", tenant_id=tenant, exp=now - 60),
        calls.bearer("per_1", tenant_id=tenant, iss="https://elsewhere.test"),
        calls.bearer("per_1"),
        {"authorization": f"Bearer {calls.text(WRONG)}"},
        {"authorization": f"Basic {calls.text(WRONG)}"},
        {"authorization": "Bearer " + calls.text(WRONG) * 300},
    ):
        await calls.ask("helpdesk.comment", who, path=path, body={"body": text}, headers=calls.key(REFUSED))


async def handoff(calls: Calls) -> None:
    """The tickets of a project."""
    project_id = await calls.world.project()
    member = await calls.world.member(project_id, "owner")
    calls.canaries.note(TOKEN, member["authorization"].removeprefix("Bearer "))
    path, stranger = {"project_id": project_id}, calls.bearer(ABSENT)
    body: dict[str, Any] = {"title": calls.text(), "description": calls.text(), "request_type": "bug"}
    body["evidence"] = {calls.text(META): calls.text(META)}
    made = await calls.call("handoff.create", member, path=path, body=body, headers=calls.key())
    one = {**path, "ticket_id": made["ticket"]["id"]}
    await calls.call("handoff.update", member, path=one, body={"title": calls.text()}, headers=calls.key())
    await calls.call("handoff.update", member, path=one, body={"status": calls.text(REFUSED)})
    await calls.call("handoff.create", member, path=path, body={"title": calls.text(REFUSED)})
    for operation in ("handoff.get", "handoff.events"):
        await calls.call(operation, member, path=one)
        await calls.ask(operation, stranger, path=one)
    await calls.call("handoff.list", member)
    await calls.ask("handoff.list", stranger)
    await calls.ask("handoff.update", stranger, path=one, body={"title": calls.text(REFUSED)})


async def raw_requests(client: httpx2.AsyncClient, calls: Calls) -> None:
    """What only HTTP can send: bytes that are no text, headers without end, credentials where none belong."""
    canaries = calls.canaries
    long, text = canaries.new(WRONG), canaries.new(REFUSED)
    for headers in (
        {"x-api-key": canaries.new(WRONG).encode() + b"\xff"},
        {"authorization": b"Bearer " + canaries.new(WRONG).encode() + b"\xff\xfe"},
        {"x-api-key": (long * 600).encode()},
        {"x-api-key": (long * 1000).encode()},
    ):
        for path in ("/api/v1/tickets", "/api/v1/helpdesk/tickets", "/nowhere"):
            await client.post(path, headers=headers, json={"subject": text})  # type: ignore[arg-type]  # bytes
    # Native gRPC, which the gateway passes on as it is.
    for path in ("/tickets.itsm.v1.TicketService/ListTickets", "/tickets.itsm.rest.v1.TicketRest/ListTickets"):
        odd = {
            "content-type": b"application/grpc",
            "te": b"trailers",
            "x-api-key": canaries.new(WRONG).encode() + b"\xff",
        }
        await client.post(path, headers=odd, content=b"\0\0\0\0\0")  # type: ignore[arg-type]  # bytes
    query = {"api_key": canaries.new(WRONG), "access_token": canaries.new(WRONG), "status": text}
    for path in ("/api/v1/tickets", "/api/tickets", "/nowhere"):
        await client.get(path, params=query)
        await client.put(path, params=query)
    await _left_early(client.base_url.copy_with(path="/api/v1/events", params=query), await calls.program())
    for content in (text.encode() + b"\xff", b'{"subject": "' + text.encode(), b'"' + text.encode() + b"x" * 2**21):
        await client.post("/api/v1/tickets", content=content, headers={"x-api-key": canaries.new(WRONG)})


async def _left_early(url: httpx2.URL, program: Program) -> None:
    """A watch whose caller does not wait for it: what the gateway logs, which logs only what went wrong."""
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET " + url.raw_path + f" HTTP/1.1\r\nhost: here\r\nx-api-key: {program.key}\r\n\r\n".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def without_database(each: Sequence[Calls], password: str) -> None:
    """Calls while the database lets nobody in, and one of each transport that was under way."""
    world, program = each[0].world, await each[0].program()
    who, body = program.credential, {"subject": each[0].text(), "description": each[0].text()}
    ticket = await each[0].call("itsm.create", who, body=body)
    locked, changes = LockedTicket(world, ticket["id"]), {"subject": each[0].text(REFUSED)}
    under_way = [
        asyncio.ensure_future(calls.call("itsm.update", who, path={"ticket_id": ticket["id"]}, body=changes))
        for calls in each
    ]
    await until(lambda: locked.waiting() > 0, what="a call to be under way")
    world.run("ALTER ROLE app PASSWORD 'another'")
    world.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    await asyncio.gather(*under_way)
    locked.release()
    await asyncio.gather(*(calls.fail("unavailable", "itsm.create", who, {**body, **changes}) for calls in each))
    world.run(f"ALTER ROLE app PASSWORD '{password}'")
    async with asyncio.timeout(20):
        while "total" not in await each[0].call("itsm.list", who):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def with_a_broken_database(calls: Calls) -> None:
    """Calls that fail as `internal`: a table is gone, and a value is one that the database refuses."""
    program = await calls.program()
    body = {"subject": calls.text(QUOTED), "description": calls.text(REFUSED)}
    calls.world.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM new.subject::int; END $$"
    )
    calls.world.run("CREATE TRIGGER refuse BEFORE INSERT ON itsm_tickets FOR EACH ROW EXECUTE FUNCTION refuse()")
    await calls.fail("internal", "itsm.create", program.credential, body)
    calls.world.run("DROP FUNCTION refuse CASCADE")
    calls.world.run("ALTER TABLE helpdesk_tickets RENAME TO helpdesk_tickets_gone")
    agent = calls.bearer("per_1", tenant_id="ten_broken", scope="helpdesk:agent")
    await calls.fail("internal", "helpdesk.create", agent, {"title": calls.text(REFUSED)})
    calls.world.run("ALTER TABLE helpdesk_tickets_gone RENAME TO helpdesk_tickets")
