"""What is measured: the five operations as HTTP requests, as typed gRPC requests, and as the SQL that they become."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from tickets.itsm.v1 import ticket_pb2, ticket_service_pb2

from service.itsm import queries
from service.search import tsvector
from service.storage.statement import Statement

from .stack import ID_OF_SEED

NEW_TICKET: Mapping[str, Any] = {
    "subject": "Laptop does not wake up",
    "description": "It stays dark after lunch. Power light is on, keyboard light is on, nothing on the second screen.",
    "priority": "high",
    "requester_email": "person17@example.com",
    "metadata": {"category": "Hardware", "floor": 3, "asset": {"tag": "LT-2041", "age_years": 2}},
}
STATUSES = ("pending", "resolved", "closed", "open")


@dataclass(frozen=True)
class Operation:
    """One operation in its three forms. Bodies and messages are taken in turn; `{id}` is a ticket's, at random."""

    name: str
    title: str
    verb: str
    path: str
    rpc: str
    # Typed requests; each is finished by `with_id` where it names a ticket.
    messages: tuple[Message, ...]
    sql: Callable[[], tuple[Statement, Mapping[str, str]]]
    bodies: tuple[str, ...] = ()
    names_ticket: bool = False
    fresh_key: bool = False


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
    "idempotency_scope": "'pgbench'",
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
            "GetTicket",
            (ticket_service_pb2.GetTicketRequest(),),
            lambda: (queries.GET, {"ticket_id": _RANDOM_ID}),
            names_ticket=True,
        ),
        Operation(
            "list",
            "LIST 20, exact total",
            "GET",
            "/api/v1/tickets",
            "ListTickets",
            (ticket_service_pb2.ListTicketsRequest(),),
            lambda: (queries.list_tickets(frozenset(), skips=False), {"limit": "20", "offset": "0"}),
        ),
        Operation(
            "create",
            "POST create",
            "POST",
            "/api/v1/tickets",
            "CreateTicket",
            (_new_message(),),
            lambda: (queries.CREATE.plain, _CREATED),
            (json.dumps(NEW_TICKET),),
        ),
        Operation(
            "idempotent",
            "POST, fresh key",
            "POST",
            "/api/v1/tickets",
            "CreateTicket",
            (_new_message(),),
            lambda: (queries.CREATE.keyed, _KEYED),
            (json.dumps(NEW_TICKET),),
            fresh_key=True,
        ),
        Operation(
            "patch",
            "PATCH status",
            "PATCH",
            "/api/v1/tickets/{id}",
            "UpdateTicket",
            tuple(
                ticket_service_pb2.UpdateTicketRequest(status=ticket_pb2.Status.Value(f"STATUS_{status.upper()}"))
                for status in STATUSES
            ),
            lambda: (queries.update_ticket(frozenset({"status"})), _CHANGED),
            tuple(json.dumps({"status": status}) for status in STATUSES),
            names_ticket=True,
        ),
    )
}


def pgbench_script(operation: Operation, account_id: str, tickets: int) -> str:
    """The operation's statement, as the service sends it, for pgbench."""
    statement, given = operation.sql()
    constants = {name: f"'{value}'" for name, value in statement._constants.items()}
    expressions = {**constants, **given, "account_id": f"'{account_id}'", "live": "true"}

    def expression(match: re.Match[str]) -> str:
        return f"({expressions[statement.names[int(match[1]) - 1]]})"

    sql = re.sub(r"\$(\d+)", expression, statement.sql.decode())
    return f"\\set n random(1, {tickets})\n\\set m random(1, 9000000000000000000)\n{' '.join(sql.split())};\n"
