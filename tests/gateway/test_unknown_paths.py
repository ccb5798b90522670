"""An unknown path, or a verb that its path does not have, is refused in the shape of the API that it is nearest to."""

import httpx2
import pytest
from support.transports import rest_reply

UNKNOWN_ID = "01a20139-af25-72bc-a26c-14d6b397c063"

UNKNOWN_PATHS = [
    ("itsm", "GET", "/api/v1/tickets/x/y"),
    ("itsm", "DELETE", "/api/v1/tickets"),
    ("itsm", "PUT", f"/api/v1/tickets/{UNKNOWN_ID}"),
    ("itsm", "DELETE", f"/api/v1/tickets/{UNKNOWN_ID}"),
    ("itsm", "POST", f"/api/v1/tickets/{UNKNOWN_ID}/events"),
    ("itsm", "GET", "/api/v1/ticket?a=/helpdesk/"),
    ("itsm", "POST", "/api/v1/helpdesks"),
    ("itsm", "GET", "/api/v1/events/x"),
    ("helpdesk", "GET", "/api/v1/helpdesk?limit=1"),
    ("helpdesk", "GET", "/api/v1/helpdesk/tickets/a/b/c"),
    ("helpdesk", "PUT", "/api/v1/helpdesk/tickets"),
    ("helpdesk", "DELETE", "/api/v1/helpdesk/sla-policies/sla_1"),
    ("helpdesk", "POST", "/api/v1/helpdesk/calendar"),
    ("handoff", "POST", "/api/tickets"),
    ("handoff", "GET", "/api/projects"),
    ("handoff", "GET", "/nowhere"),
    ("handoff", "GET", "/api/ticketsx"),
    ("itsm", "POST", "/tickets.itsm.rest.v1.TicketRest/CreateTicket"),
    ("itsm", "POST", "/tickets.itsm.v1.TicketService/CreateTicket"),
    ("handoff", "POST", "/grpc.health.v1.Health/Check"),
]


@pytest.mark.parametrize(("api", "verb", "path"), UNKNOWN_PATHS)
async def test_unknown_paths_and_wrong_verbs_have_the_shape_of_their_api(
    client: httpx2.AsyncClient, api: str, verb: str, path: str
) -> None:
    reply = rest_reply(api, await client.request(verb, path, content=b"{}" if verb in ("POST", "PUT") else None))
    assert reply.status in (404, 405)
    if api == "itsm":
        assert set(reply.body) == {"detail"}
    else:
        assert reply.body["code"] == ("not_found" if reply.status == 404 else "method_not_allowed")
        assert reply.body["error"]
