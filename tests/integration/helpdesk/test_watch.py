"""contracts/helpdesk.md at both transports: watches of a tenant and of an application, and their cursors."""

from support.helpdesk import Transport, create, new_tenant_id
from support.helpdesk_calls import ALL, events, page, write_comment
from support.system import World
from support.watches import HELPDESK, next_event, next_of


async def test_a_watch_streams_events_as_they_happen(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    submitter = world.person("read", "write", tenant_id=tenant_id)
    agent = world.person("agent", tenant_id=tenant_id, sub="per_agent")
    before = await create(transport, submitter)
    await world.settled()
    async with HELPDESK.watching(transport, agent) as of_agent, HELPDESK.watching(transport, submitter) as of_submitter:
        for stream in (of_agent, of_submitter):
            first = await next_of(stream)
            assert first["event"] is None
            assert first["cursor"]
        comment = await write_comment(transport, agent, before, internal=True)
        event = await next_event(of_agent)
        assert event["changes"]["comment"]["to"]["id"] == comment["id"]
        assert [event] == (await events(transport, agent, before))[1:]
        made = await create(transport, submitter)
        for stream in (of_agent, of_submitter):
            event = await next_event(stream)
            assert [event] == await events(transport, submitter, made)


async def test_a_resumed_watch_continues_after_its_cursor(transport: Transport, world: World) -> None:
    person = world.person(*ALL)
    cursors = [await HELPDESK.start_cursor(transport, person)]
    made = [await create(transport, person) for _ in range(4)]
    async with HELPDESK.watching(transport, person, cursors[0]) as stream:
        while len(cursors) < 4:
            message = await next_of(stream)
            if message["event"] is not None:
                cursors.append(message["cursor"])
    for number, cursor in enumerate(cursors):
        watched = await HELPDESK.emitted(transport, person, cursor, made[3])
        assert [event["ticket_id"] for event in watched] == [ticket["id"] for ticket in made[number:3]]
    for cursor in ("", "x", cursors[0][:-1]):
        await HELPDESK.refused(transport, person, "validation_error", cursor)


async def test_a_cursor_of_a_watch_is_valid_only_for_its_tenant_and_application(
    transport: Transport, world: World
) -> None:
    tenant_id = new_tenant_id()
    watchers = [
        world.person(*ALL, tenant_id=tenant_id),
        world.person(*ALL, tenant_id=tenant_id, app_id="app_1"),
        world.person(*ALL, tenant_id=tenant_id, app_id="app_2"),
        world.person(*ALL),
        world.person(*ALL, app_id="app_1"),
    ]
    cursors = [await HELPDESK.start_cursor(transport, person) for person in watchers]
    for number, person in enumerate(watchers):
        for owner, cursor in enumerate(cursors):
            if owner != number:
                await HELPDESK.refused(transport, person, "validation_error", cursor)
    made = await create(transport, watchers[0])
    for _ in range(2):
        await write_comment(transport, watchers[0], made)
    others = [
        (await page(transport, watchers[0], made, member, limit=1)).succeeded() for member in ("comments", "events")
    ]
    others.append((await transport.call("helpdesk.list", watchers[0], query={"limit": 1})).succeeded())
    for cursor in (other["next_cursor"] for other in others):
        if cursor is not None:
            await HELPDESK.refused(transport, watchers[0], "validation_error", cursor)
    (await page(transport, watchers[0], made, "events", cursor=cursors[0])).failed("validation_error", paths=["cursor"])


async def test_a_person_watches_the_tenant_and_an_application_its_own(transport: Transport, world: World) -> None:
    tenant_id = new_tenant_id()
    person = world.person(*ALL, tenant_id=tenant_id)
    one, two = (world.person(*ALL, tenant_id=tenant_id, app_id=app_id) for app_id in ("app_1", "app_2"))
    watchers = [(who, await HELPDESK.start_cursor(transport, who)) for who in (person, one, two)]
    made = [await create(transport, who) for who in (one, two, person)]
    for ticket in made:
        # A change by a person does not take it from its application.
        await write_comment(transport, person, ticket)
    last = {who["authorization"]: await create(transport, who) for who in (one, two, person)}
    ends = [ticket["id"] for ticket in last.values()]
    for who, cursor in watchers:
        watched = await HELPDESK.emitted(transport, who, cursor, last[who["authorization"]])
        tickets = [event["ticket_id"] for event in watched if event["ticket_id"] not in ends]
        expected = made if who is person else [made[(one, two).index(who)]]
        assert sorted(tickets) == sorted(ticket["id"] for ticket in expected for _ in range(2))
