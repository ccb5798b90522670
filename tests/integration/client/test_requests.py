"""tickets.client against a scripted server: which requests it gets, and when."""

from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from support.clients import END, Client, Clients, P
from support.scripted_server import UNAVAILABLE, Server, make
from tickets.client import UnavailableError
from tickets.handoff.v1 import ticket_pb2 as handoff_ticket_pb2
from tickets.handoff.v1 import ticket_service_pb2 as handoff_pb2
from tickets.helpdesk.v1 import ticket_pb2 as helpdesk_ticket_pb2
from tickets.helpdesk.v1 import ticket_service_pb2 as helpdesk_pb2
from tickets.itsm.v1 import ticket_service_pb2 as itsm_pb2


async def test_metadata(clients: Clients, server: Server) -> None:
    server.scripts += [[itsm_pb2.GetTicketResponse()]]
    await make(clients(server.target, token="t", api_key=lambda: "k", user_agent="mine/1.0"), "itsm.get")
    metadata = server.seen[0].metadata
    assert (metadata["authorization"], metadata["x-api-key"]) == ("Bearer t", "k")
    assert str(metadata["user-agent"]).startswith("mine/1.0")


async def test_secure_channels(clients: Clients, server: Server, sleeps: list[float]) -> None:
    server.scripts += [[itsm_pb2.GetTicketResponse()]]
    await make(clients(server.secure_target, secure=grpc.local_channel_credentials()), "itsm.get")
    with pytest.raises(UnavailableError):  # TLS, to a server that has none
        await make(clients(server.target, secure=True), "itsm.get")
    assert len(server.seen) == 1


async def test_a_page_is_read_when_it_is_needed(client: Client, server: Server, sleeps: list[float]) -> None:
    pages = [
        handoff_pb2.ListTicketsResponse(tickets=[handoff_ticket_pb2.Ticket(number=n)] * 2, next_cursor=cursor)
        for n, cursor in ((1, "a"), (2, "b"), (3, ""))
    ]
    server.scripts += [[pages[0]], [UNAVAILABLE], [pages[1]], [pages[2]]]
    tickets = client.client.handoff.tickets.list(page_size=2, project_id=P, priority=None)
    assert server.seen == []
    assert [(await client.next(tickets)).number for _ in range(2)] == [1, 1]
    assert len(server.seen) == 1
    assert [(await client.next(tickets)).number for _ in range(4)] == [2, 2, 3, 3]
    assert await client.next(tickets) is END
    requests = [handoff_pb2.ListTicketsRequest.FromString(seen.request) for seen in server.seen]
    assert requests == [
        handoff_pb2.ListTicketsRequest(limit=2, project_id=P, cursor=cursor) for cursor in (None, "a", "a", "b")
    ]


async def test_a_filter_is_one_word_or_several(client: Client, server: Server) -> None:
    server.scripts += [[helpdesk_pb2.ListTicketsResponse()]]
    several: dict[str, Any] = {"priority": ("low", "high"), "team_id": ["a", "b"], "type": []}
    await client.collect("helpdesk.list", status="in_progress", category="net", tag=None, **several)
    assert helpdesk_pb2.ListTicketsRequest.FromString(server.seen[0].request) == helpdesk_pb2.ListTicketsRequest(
        limit=100,
        status=[helpdesk_ticket_pb2.STATUS_IN_PROGRESS],
        category=["net"],
        priority=[helpdesk_ticket_pb2.PRIORITY_LOW, helpdesk_ticket_pb2.PRIORITY_HIGH],
        team_id=["a", "b"],
    )


async def test_a_condition_is_no_change(client: Client, server: Server) -> None:
    server.scripts += [[helpdesk_pb2.UpdateTicketResponse()]]
    await client.call("helpdesk.update", "1", etag='"3"', title="A", category=None)
    sent = helpdesk_pb2.UpdateTicketRequest.FromString(server.seen[0].request)
    assert (sent.etag, list(sent.update_mask.paths)) == ('"3"', ["title", "category"])


async def test_an_offset_is_where_the_first_page_begins(client: Client, server: Server) -> None:
    pages = [handoff_pb2.ListProjectTicketsResponse(next_cursor=cursor) for cursor in ("a", "")]
    server.scripts += [[page] for page in pages]
    await client.collect("handoff.list_project", "p", offset=3)
    sent = [handoff_pb2.ListProjectTicketsRequest.FromString(seen.request) for seen in server.seen]
    assert [(one.offset, one.cursor) for one in sent] == [(3, ""), (0, "a")]


async def test_a_list_by_offset_ends_at_the_total(client: Client, server: Server) -> None:
    def page(*ids: str, total: int) -> list[Message]:
        tickets = [{"id": id_, "created_at": {"seconds": 7}} for id_ in ids]
        return [itsm_pb2.ListTicketsResponse(tickets=tickets, total=total)]  # type: ignore[arg-type]  # messages as dicts

    server.scripts += [page("e", "d", total=4), page("d", "c", total=5), page("b", total=5)]
    assert [ticket.id for ticket in await client.collect("itsm.list", page_size=2)] == list("edcb")
    offsets = [itsm_pb2.ListTicketsRequest.FromString(seen.request).offset for seen in server.seen]
    assert offsets == [0, 2, 4]
    # The total may say more than there is.
    server.scripts += [page("e", total=4), page(total=4)]
    assert len(await client.collect("itsm.list")) == 1
