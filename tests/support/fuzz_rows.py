"""What holds of a party's rows, whatever was asked: complete histories, exact totals, members within their bounds."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from service import jsontext
from service.handoff import commands as handoff
from service.helpdesk import commands as helpdesk
from service.itsm import commands as itsm
from support.fuzz import Party
from support.system import World

# A table, its scope's column, and the model that its members came in by.
STORED: Sequence[tuple[str, str, type[BaseModel]]] = (
    ("itsm_tickets", "account_id", itsm.NewTicket),
    ("itsm_webhooks", "account_id", itsm.NewWebhook),
    ("helpdesk_tickets", "tenant_id", helpdesk.NewTicket),
    ("helpdesk_comments", "tenant_id", helpdesk.NewComment),
    ("helpdesk_sla_policies", "tenant_id", helpdesk.NewPolicy),
    ("helpdesk_calendars", "tenant_id", helpdesk.CalendarMembers),
    ("handoff_tickets", "project_id", handoff.NewTicket),
    ("handoff_roles", "project_id", handoff.RoleChange),
)
HISTORIES = (
    ("itsm", "account_id", "account_id, live, id", "account_id, live, ticket_id"),
    ("helpdesk", "tenant_id", "tenant_id, id", "tenant_id, ticket_id"),
    ("handoff", "project_id", "project_id, id", "project_id, ticket_id"),
)


def row_problems(world: World, party: Party) -> list[str]:
    """What is wrong with the rows of a party."""
    scopes = {
        "account_id": party.account_id,
        "tenant_id": party.tenant_id,
        "project_id": party.project_id,
    }
    return [
        *(f"history of {api}: {row}" for api, *columns in HISTORIES for row in _histories(world, api, columns, scopes)),
        *(f"totals: {row}" for row in _totals(world, party.account_id)),
        *(
            problem
            for table, scope, model in STORED
            for problem in _beyond_bounds(world, table, scope, scopes[scope], model)
        ),
        *(f"not validated: {row}" for row in world.rows("SELECT conname FROM pg_constraint WHERE NOT convalidated")),
    ]


def _histories(world: World, api: str, columns: Sequence[str], scopes: Any) -> Iterable[Any]:
    """Tickets whose events are not the versions 1 to theirs, and events without a ticket."""
    scope, ticket, event = columns
    return world.rows(
        f"SELECT t.key, t.version, e.versions FROM (SELECT ({ticket})::text AS key, version FROM {api}_tickets"
        f" WHERE {scope} = %s) t FULL JOIN (SELECT ({event})::text AS key, array_agg(version ORDER BY id) AS versions"
        f" FROM {api}_events WHERE {scope} = %s GROUP BY 1) e USING (key)"
        " WHERE e.versions IS DISTINCT FROM ARRAY(SELECT generate_series(1, t.version))",
        scopes[scope],
        scopes[scope],
    )


def _totals(world: World, account_id: str) -> Iterable[Any]:
    """Statuses whose total is not the number of tickets."""
    return world.rows(
        "SELECT live, status, sum(n) FROM ("
        " SELECT live, status, total AS n FROM itsm_totals WHERE account_id = %(account)s UNION ALL"
        " SELECT live, status, change FROM itsm_total_changes WHERE account_id = %(account)s UNION ALL"
        " SELECT live, status, -1 FROM itsm_tickets WHERE account_id = %(account)s"
        ") AS counted GROUP BY live, status HAVING sum(n) <> 0"
        " UNION ALL SELECT live, status || ' of ' || day, sum(n) FROM ("
        " SELECT live, status, day, total AS n FROM itsm_day_totals WHERE account_id = %(account)s UNION ALL"
        " SELECT live, status, day, change FROM itsm_total_changes WHERE account_id = %(account)s UNION ALL"
        " SELECT live, status, (created_at AT TIME ZONE 'UTC')::date, -1"
        " FROM itsm_tickets WHERE account_id = %(account)s"
        ") AS by_day GROUP BY live, status, day HAVING sum(n) <> 0".replace("%(account)s", f"'{account_id}'")
    )


def _beyond_bounds(world: World, table: str, scope: str, value: str, model: type[BaseModel]) -> Iterable[str]:
    types = dict(
        world.rows("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = %s", table)
    )
    names = [name for name in model.model_fields if name in types]
    # As text: numbers stay as they were sent.
    columns = ", ".join(name + ("::text" if types[name] == "json" else "") for name in names)
    for row in world.rows(f"SELECT {columns} FROM {table} WHERE {scope} = %s", value):
        members = {name: _as_given(types[name], member) for name, member in zip(names, row, strict=True)}
        try:
            model.model_validate(members)
        except ValidationError as error:
            yield f"{table}: {error.errors(include_url=False)}"[:1000]


def _as_given(kind: str, member: Any) -> Any:
    """A column's value as a request has it."""
    if kind == "json" and member is not None:
        return jsontext.parse(member.encode())
    if isinstance(member, list):
        return [_as_given("", one) for one in member]
    return member.isoformat() if hasattr(member, "isoformat") else member
