"""contracts/helpdesk.md at both transports: a person sees their own tickets, and everybody else's do not exist."""

from typing import Any

import pytest
from support.helpdesk import Transport, close, create, get, new_tenant_id, update
from support.helpdesk_calls import ALL, MISSING, comments, events, write_comment
from support.helpdesk_lists import SORTS, listed
from support.system import Credential, World
from support.watches import HELPDESK

READS = ("helpdesk.get", "helpdesk.comments", "helpdesk.events", "helpdesk.sla")
WRITES: dict[str, Any] = {
    "helpdesk.update": {"title": "Taken"},
    "helpdesk.close": None,
    "helpdesk.delete": None,
    "helpdesk.restore": None,
    "helpdesk.comment": {"body": "Taken"},
}


class Tenant:
    """A tenant with a ticket of each of several people; each is named by its title."""

    def __init__(self, transport: Transport, world: World) -> None:
        self._transport, self._world, self.id = transport, world, new_tenant_id()
        self.agent = self.person("agent", ALL)

    def person(self, sub: str, scopes: tuple[str, ...] = ("read", "write"), app_id: str | None = None) -> Credential:
        return self._world.person(*scopes, tenant_id=self.id, sub=sub, app_id=app_id)

    async def fill(self) -> dict[str, Any]:
        made = [
            await create(self._transport, self.person("ann"), title="ann", tags=["vpn"]),
            await create(self._transport, self.person("bob"), title="bob", tags=["vpn"]),
            await create(self._transport, self.agent, title="agent", tags=["vpn"]),
            await create(self._transport, self.agent, title="agent for ann", tags=["vpn"], submitted_by_id="ann"),
            await create(self._transport, self.person("app", app_id="app_1"), title="app_1", tags=["vpn"]),
            await create(
                self._transport,
                self.person("app", app_id="app_1"),
                title="app_1 for ann",
                tags=["vpn"],
                submitted_by_id="ann",
            ),
            # Its id is that of a person.
            await create(self._transport, self.person("app", app_id="bob"), title="app bob", tags=["vpn"]),
        ]
        return {ticket["title"]: ticket for ticket in made}


# Who sees which tickets, by their titles; None: all of them.
SEEN: dict[str, tuple[dict[str, Any], tuple[str, ...] | None]] = {
    "a submitter": ({"sub": "ann"}, ("ann", "agent for ann", "app_1 for ann")),
    "another submitter": ({"sub": "bob"}, ("bob",)),
    "a submitter who only writes": ({"sub": "bob", "scopes": ("write",)}, ("bob",)),
    "somebody else": ({"sub": "cid"}, ()),
    # Without the scope an agent is a person with tickets of their own.
    "who created for another": ({"sub": "agent"}, ("agent", "agent for ann")),
    "an agent": ({"sub": "cid", "scopes": ("agent",)}, None),
    "who reads all": ({"sub": "cid", "scopes": ("read_all",)}, None),
    "an application": ({"sub": "other", "app_id": "app_1"}, ("app_1", "app_1 for ann")),
    "an application with an agent's scope": (
        {"sub": "other", "scopes": ALL, "app_id": "app_1"},
        ("app_1", "app_1 for ann"),
    ),
    "an application that reads all": ({"sub": "ann", "scopes": ("read_all",), "app_id": "bob"}, ("app bob",)),
    "an application without tickets": ({"sub": "ann", "app_id": "app_3"}, ()),
}


@pytest.mark.parametrize("case", SEEN)
async def test_who_sees_which_tickets(transport: Transport, world: World, case: str) -> None:
    who, titles = SEEN[case]
    tenant = Tenant(transport, world)
    person = tenant.person(**who)
    cursor = None if who.get("scopes") == ("write",) else await HELPDESK.start_cursor(transport, person)
    made = await tenant.fill()
    seen = [*made] if titles is None else [*titles]
    for name, ticket in made.items():
        for path in ({"id": ticket["id"]}, {"id": ticket["number"]}):
            for operation in READS if cursor else ():
                reply = await transport.call(operation, person, path=path)
                if name in seen:
                    reply.succeeded()
                else:
                    missing = await transport.call(operation, person, path={"id": MISSING})
                    assert (reply.status, reply.failed("not_found")) == (missing.status, missing.body)
    if cursor is None:
        return
    for query in ({}, {"q": "a"}, {"tag": "vpn"}, {"status": "open"}, {"include_deleted": True}):
        found = await listed(transport, person, **query, sort="created_at")
        expected = [name for name in seen if "q" not in query or name.startswith("a")]
        assert (query, [ticket["title"] for ticket in found]) == (query, expected)
    for sort in SORTS:
        assert {ticket["title"] for ticket in await listed(transport, person, sort=sort)} == {*seen}
    # In a watch: each was created, and then one that ends it.
    last = await create(transport, tenant.person(**{**who, "scopes": ALL}))
    watched = await HELPDESK.emitted(transport, person, cursor, last)
    assert [event["ticket_id"] for event in watched] == [made[name]["id"] for name in seen]


async def test_pages_of_own_tickets_go_on_where_they_ended(transport: Transport, world: World) -> None:
    tenant = Tenant(transport, world)
    ann, made = tenant.person("ann"), []
    for number in range(6):
        by = {"submitted_by_id": "ann"} if number % 2 else {}
        made.append((await create(transport, tenant.agent if by else ann, priority="low", **by))["id"])
        await create(transport, tenant.agent)
    for sort in SORTS:
        found, cursor = list[str](), dict[str, str]()
        while True:
            query = {"sort": sort, "limit": 2, **cursor}
            answer = (await transport.call("helpdesk.list", ann, query=query)).succeeded()
            found += [ticket["id"] for ticket in answer["tickets"]]
            if answer["next_cursor"] is None:
                break
            assert len(answer["tickets"]) == 2
            cursor = {"cursor": answer["next_cursor"]}
        assert found == (made if sort in ("created_at", "due_at") else made[::-1])
        # A cursor is for the list of the one who got it.
        reply = await transport.call("helpdesk.list", tenant.person("bob"), query={**query, **cursor})
        reply.failed("validation_error", paths=["cursor"])


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("scopes", [("write",), ("read", "write")])
async def test_what_is_not_ones_own_cannot_be_written_and_does_not_exist(
    transport: Transport, world: World, operation: str, scopes: tuple[str, ...]
) -> None:
    tenant = Tenant(transport, world)
    made = await create(transport, tenant.person("ann"))
    bob = tenant.person("bob", scopes)
    for headers in ({}, {"idempotency-key": "key"}, {"if-match": '"1"'}):
        missing = await transport.call(operation, bob, path={"id": MISSING}, body=WRITES[operation], headers=headers)
        for name in (made["id"], made["number"]):
            reply = await transport.call(operation, bob, path={"id": name}, body=WRITES[operation], headers=headers)
            assert (reply.status, reply.failed("not_found")) == (missing.status, missing.body)
    assert await get(transport, tenant.agent, made) == made


async def test_a_ticket_goes_to_whom_it_is_given(transport: Transport, world: World) -> None:
    tenant = Tenant(transport, world)
    ann, bob = tenant.person("ann"), tenant.person("bob")
    cursors = [await HELPDESK.start_cursor(transport, person) for person in (ann, bob)]
    made = await create(transport, tenant.agent, submitted_by_id="ann")
    await write_comment(transport, ann, made)
    (await update(transport, tenant.agent, made, submitted_by_id="bob")).succeeded()
    assert (await get(transport, bob, made))["submitted_by_id"] == "bob"
    assert len(await comments(transport, bob, made)) == 1
    history = await events(transport, bob, made)
    assert history[-1]["changes"] == {"submitted_by_id": {"from": "ann", "to": "bob"}}
    for operation in READS:
        (await transport.call(operation, ann, path={"id": made["id"]})).failed("not_found", "Ticket not found")
    assert await listed(transport, ann) == []
    # A watch that goes on shows what is theirs now.
    for person, cursor, expected in ((ann, cursors[0], []), (bob, cursors[1], history)):
        last = await create(transport, person)
        assert await HELPDESK.emitted(transport, person, cursor, last) == expected


async def test_who_has_lost_sight_of_a_ticket_gets_no_earlier_answer_about_it(
    transport: Transport, world: World
) -> None:
    tenant = Tenant(transport, world)
    ann = tenant.person("ann")
    made = await create(transport, tenant.agent, submitted_by_id="ann")
    requests: dict[str, Any] = {"helpdesk.update": {"title": "By ann"}, "helpdesk.comment": {"body": "By ann"}}

    async def repeat(operation: str) -> Any:
        headers = {"idempotency-key": operation}
        path = {"id": made["id"]}
        return await transport.call(operation, ann, path=path, body=requests[operation], headers=headers)

    first = {operation: (await repeat(operation)).body for operation in requests}
    # A deleted ticket is still theirs: nothing is done again.
    (await transport.call("helpdesk.delete", tenant.agent, path={"id": made["id"]})).succeeded()
    for operation in requests:
        again = await repeat(operation)
        assert (again.body, again.headers["idempotent-replayed"]) == (first[operation], "true")
    (await transport.call("helpdesk.restore", tenant.agent, path={"id": made["id"]})).succeeded()
    (await update(transport, tenant.agent, made, submitted_by_id="bob")).succeeded()
    for operation in requests:
        (await repeat(operation)).failed("not_found", "Ticket not found")


async def test_an_integration_changes_all_tickets_of_its_application(transport: Transport, world: World) -> None:
    tenant = Tenant(transport, world)
    one, other = (tenant.person(sub, ("read", "write"), "app_1") for sub in ("app", "another"))
    made = await create(transport, one, submitted_by_id="ann", source="monitor")
    assert (made["submitted_by_id"], made["source"]) == ("ann", "monitor")
    assert (await update(transport, other, made, title="New")).succeeded()["title"] == "New"
    assert (await close(transport, other, made)).succeeded()["status"] == "closed"
    # And so does the one for whom it was raised.
    assert (await update(transport, tenant.person("ann"), made, status="open")).succeeded()["status"] == "open"
