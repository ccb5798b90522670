"""What is measured of ITSM: five operations as HTTP requests, as typed gRPC requests, and as the SQL they become.

Those of the other APIs are in helpdesk.py and handoff.py.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import Message
from tickets.itsm.v1 import ticket_pb2, ticket_service_pb2

from service.itsm import queries
from service.search import tsvector
from service.storage.statement import Statement

from .seeds import ID_OF_SEED

NEW_TICKET: Mapping[str, Any] = {
    "subject": "Laptop does not wake up",
    "description": "It stays dark after lunch. Power light is on, keyboard light is on, nothing on the second screen.",
    "priority": "high",
    "requester_email": "person17@example.com",
    "metadata": {"category": "Hardware", "floor": 3, "asset": {"tag": "LT-2041", "age_years": 2}},
}
_SERVICE = "/tickets.itsm.v1.TicketService"
STATUSES = ("pending", "resolved", "closed", "open")


class Named(NamedTuple):
    """The ticket that a request names, if it does, in an account, a tenant or a project."""

    scope: str
    id: str = ""
    # What the request says of the ticket's version, as it stands in JSON or a header.
    condition: str = ""


@dataclass(frozen=True)
class Operation:
    """One operation in its forms. Bodies and messages are taken in turn; `{id}` is a ticket's, at random.

    With `conditions` an update says which version of its ticket it is of, and each ticket is named once in a turn.
    """

    # `get` of ITSM, `helpdesk.get` of another API.
    name: str
    title: str
    verb: str
    # With `{scope}` and `{id}`.
    path: str
    rpc: str
    # Typed requests; each is finished by what `request` makes of the ticket, or of the scope.
    messages: tuple[Message, ...]
    request: Callable[[Named], Message] | None = None
    # For pgbench; the operations without it are several statements in a transaction.
    sql: Callable[[], tuple[Statement, Mapping[str, str]]] | None = None
    # With `{condition}`, where the body has it.
    bodies: tuple[str, ...] = ()
    names_ticket: bool = False
    fresh_key: bool = False
    # The statement that reads `%(rows)s` tickets of a scope at random, with what is to be said of each one's version.
    conditions: str = ""
    # The header that says it; "": the body does.
    condition_header: str = ""

    @property
    def api(self) -> str:
        """Which API it is of."""
        return self.name.rpartition(".")[0] or "itsm"

    @property
    def kind(self) -> str:
        """What it is in any API: `get`."""
        return self.name.rpartition(".")[2]


def _names(request: type[Message]) -> Callable[[Named], Message]:
    return lambda ticket: request(ticket_id=ticket.id)


def _new_message() -> Message:
    given = {name: value for name, value in NEW_TICKET.items() if name not in ("priority", "metadata")}
    return ticket_service_pb2.CreateTicketRequest(
        **given, priority=ticket_pb2.PRIORITY_HIGH, metadata_json=json.dumps(NEW_TICKET["metadata"])
    )


# For pgbench: the expression that a statement's parameter becomes, by name. `:n` and `:m` are random numbers.
_RANDOM_ID = ID_OF_SEED.format(n=":n")
_EVENT = {"actor": "'pgbench'", "request_id": "'pgbench'"}
# (Without its position, which would be a variable.)
_TERMS = tsvector("@pgbench", NEW_TICKET["subject"], NEW_TICKET["description"]).rpartition(":")[0].replace("'", "''")
_CREATED: Mapping[str, str] = {
    **_EVENT,
    "id": "gen_random_uuid()",
    **{name: f"'{value}'" for name, value in NEW_TICKET.items() if isinstance(value, str)},
    "status": "'open'",
    "metadata": f"'{json.dumps(NEW_TICKET['metadata'])}'",
    "metadata_terms": f"ARRAY[{', '.join('gen_random_uuid()' for _ in NEW_TICKET['metadata'])}]",
    "search_terms": f"'{_TERMS}'",
}
_KEYED = {
    **_CREATED,
    "idempotency_key": "cast(:m AS text)",
    "request_hash": "'\\x00'",
}
_CHANGED = {**_EVENT, "ticket_id": _RANDOM_ID, "new_status": f"(ARRAY{list(STATUSES)})[1 + :n % 4]"}

OPERATIONS: Mapping[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation(
            "get",
            "GET one",
            "GET",
            "/api/v1/tickets/{id}",
            f"{_SERVICE}/GetTicket",
            (ticket_service_pb2.GetTicketRequest(),),
            _names(ticket_service_pb2.GetTicketRequest),
            sql=lambda: (queries.GET, {"ticket_id": _RANDOM_ID}),
            names_ticket=True,
        ),
        Operation(
            "list",
            "LIST 20, exact total",
            "GET",
            "/api/v1/tickets",
            f"{_SERVICE}/ListTickets",
            (ticket_service_pb2.ListTicketsRequest(),),
            sql=lambda: (asyncio.run(queries.list_tickets(frozenset(), skips=False)), {"limit": "20", "offset": "0"}),
        ),
        Operation(
            "create",
            "POST create",
            "POST",
            "/api/v1/tickets",
            f"{_SERVICE}/CreateTicket",
            (_new_message(),),
            sql=lambda: (queries.CREATE.plain, _CREATED),
            bodies=(json.dumps(NEW_TICKET),),
        ),
        Operation(
            "idempotent",
            "POST, fresh key",
            "POST",
            "/api/v1/tickets",
            f"{_SERVICE}/CreateTicket",
            (_new_message(),),
            sql=lambda: (queries.CREATE.keyed, _KEYED),
            bodies=(json.dumps(NEW_TICKET),),
            fresh_key=True,
        ),
        Operation(
            "patch",
            "PATCH status",
            "PATCH",
            "/api/v1/tickets/{id}",
            f"{_SERVICE}/UpdateTicket",
            tuple(
                ticket_service_pb2.UpdateTicketRequest(status=ticket_pb2.Status.Value(f"STATUS_{status.upper()}"))
                for status in STATUSES
            ),
            _names(ticket_service_pb2.UpdateTicketRequest),
            sql=lambda: (asyncio.run(queries.update_ticket(frozenset({"status"}))), _CHANGED),
            bodies=tuple(json.dumps({"status": status}) for status in STATUSES),
            names_ticket=True,
        ),
    )
}


def pgbench_script(operation: Operation, account_id: str, tickets: int) -> str:
    """The operation's statement, as the service sends it, for pgbench."""
    if operation.sql is None:
        raise ValueError(f"{operation.title} is no single statement")
    statement, given = operation.sql()
    constants = {name: f"'{value}'" for name, value in statement.constants.items()}
    expressions = {**constants, **given, "account_id": f"'{account_id}'", "live": "true"}

    def expression(match: re.Match[str]) -> str:
        return f"({expressions[statement.names[int(match[1]) - 1]]})"

    sql = re.sub(r"\$(\d+)", expression, statement.sql.decode())
    return f"\\set n random(1, {tickets})\n\\set m random(1, 9000000000000000000)\n{' '.join(sql.split())};\n"
