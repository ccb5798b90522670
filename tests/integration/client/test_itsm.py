"""tickets.client, both clients against the service: the ITSM API."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.clients import END, Clients
from support.system import Service, World
from tickets.client import ConflictError, NotFoundError, itsm


async def test_itsm(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, api_key=(await world.program()).key)
    # Without a zone it is UTC; with another one it is the same instant.
    before = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=1)
    made = await client.call(
        "itsm.create",
        subject="Printer",
        description="Jams",
        priority="low",
        requester_email="a@example.com",
        metadata={"n": 2**60},
    )
    assert isinstance(made, itsm.Ticket)
    assert (made.status, made.metadata, made.external_provider) == ("open", {"n": 2**60}, None)
    assert await client.call("itsm.get", made.id) == made
    one = await client.collect("itsm.list", priority="low", requester_email="A@example.com")
    assert one == [replace(made, etag=None)]
    members = {"status": "resolved", "priority": None, "requester_email": None}
    changed = await client.call("itsm.update", made.id, etag=made.etag, **members)
    assert (changed.status, changed.priority, changed.requester_email) == ("resolved", None, None)
    assert changed.metadata == made.metadata
    with pytest.raises(ConflictError):
        await client.call("itsm.update", made.id, etag=made.etag, subject="Printer again")
    assert await client.collect("itsm.list", status="resolved", start_date=before) == [replace(changed, etag=None)]
    assert await client.collect("itsm.list", status="open") == []
    assert await client.collect("itsm.list", status=None, end_date=before) == []


async def test_itsm_webhooks(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, api_key=(await world.program(scopes=("webhooks:manage",))).key)
    made = await client.call("itsm.webhooks.create", url="https://127.0.0.1:9/hook", events=["ticket.closed"])
    assert (made.events, made.is_active, made.disabled_reason, made.failing_since) == (
        ("ticket.closed",),
        True,
        None,
        None,
    )
    assert made.secret.startswith("whsec_")
    assert made.secret not in repr(made)
    changed = await client.call("itsm.webhooks.update", made.id, is_active=False, events="ticket.created")
    assert (changed.is_active, changed.events, changed.url, changed.secret) == (
        False,
        ("ticket.created",),
        made.url,
        None,
    )
    assert await client.collect("itsm.webhooks.list") == [changed]
    rotated = await client.call("itsm.webhooks.rotate_secret", made.id)
    assert rotated.secret not in (None, made.secret)
    assert await client.collect("itsm.webhooks.deliveries", made.id) == []
    with pytest.raises(NotFoundError):
        await client.call("itsm.webhooks.replay", made.id, "dlv_0")
    assert await client.call("itsm.webhooks.delete", made.id) is None
    assert await client.collect("itsm.webhooks.list") == []


async def test_tickets_created_while_pages_are_read_are_not_listed_twice(
    clients: Clients, service: Service, world: World
) -> None:
    client = clients(service.target, api_key=(await world.program()).key)
    for n in range(5):
        await client.call("itsm.create", subject=str(n), description="d")
    tickets = client.client.itsm.tickets.list(page_size=2)
    seen = [(await client.next(tickets)).subject]
    for _ in range(3):
        await client.call("itsm.create", subject="new", description="d")
    while (ticket := await client.next(tickets)) is not END:
        seen.append(ticket.subject)
    assert seen == ["4", "3", "2", "1", "0"]


async def test_an_itsm_watch_streams_what_the_key_may_see(clients: Clients, service: Service, world: World) -> None:
    client = clients(service.target, api_key=(await world.program()).key)
    watch = client.client.itsm.tickets.watch()
    begun = await client.next(watch)
    assert begun.event is None
    made = await client.call("itsm.create", subject="A", description="B", metadata={"floor": 3})
    while (response := await client.next(watch)).event is None:
        pass
    assert [response.event] == await client.collect("itsm.events", made.id)
    await client.close(watch)
    again = client.client.itsm.tickets.watch(cursor=begun.cursor)
    assert await client.next(again) == response
    await client.close(again)
    for floor, found in (("3", [replace(made, etag=None)]), ("4", [])):
        assert await client.collect("itsm.list", metadata={"floor": floor}) == found
