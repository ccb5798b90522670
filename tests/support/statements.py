"""Every statement of the service, by name: those of its modules, and what its builders build."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import product
from typing import Any, cast

import service.server  # noqa: F401 - every module that has statements
from service.admin import queries as admin
from service.directory import accounts, api_keys, project_members, projects, tenants
from service.handoff import change_queries, list_queries
from service.handoff import queries as handoff
from service.handoff import tables as handoff_tables
from service.helpdesk import comment_queries, event_queries
from service.helpdesk import list_queries as helpdesk_lists
from service.helpdesk import queries as helpdesk
from service.helpdesk import tables as helpdesk_tables
from service.helpdesk.sla import queries as sla
from service.itsm import queries as itsm
from service.itsm import tables as itsm_tables
from service.itsm.webhooks import SOURCE
from service.providers.tables import deliveries, links
from service.reindex import Reindex
from service.storage.built import Built
from service.storage.statement import BUILT, Statement
from service.storage.timings import _names_in
from service.watch import EventFeed
from service.webhooks import fan_out_queries, message_queries
from service.webhooks import queries as webhooks
from support.built import at_once

Build = Callable[[], object]
_BOTH = (False, True)
# How helpdesk callers see tickets: an agent, an application, a person.
_SEEN_BY = [frozenset({"tenant_id", *narrower}) for narrower in ((), ("app_id",), ("person_id",))]
_BY_ID, _BY_NUMBER = ([seen | {by} for seen in _SEEN_BY] for by in ("id", "number"))
_ONE_TICKET = [*_BY_ID, *_BY_NUMBER]


def _each(builder: Callable[..., object], *positional: Sequence[Any], **named: Sequence[Any]) -> list[Build]:
    """What a builder builds for every combination of these arguments."""
    return [
        partial(builder, *arguments[: len(positional)], **dict(zip(named, arguments[len(positional) :], strict=True)))
        for arguments in product(*positional, *named.values())
    ]


def _any_and_all(names: Iterable[str]) -> list[frozenset[str]]:
    """None of them, each of them alone, and all at once."""
    return [frozenset(), *(frozenset({name}) for name in names), frozenset(names)]


_ITSM_FILTERS = ("status", "priority", "requester_email", "start_date", "end_date", "metadata_terms", "search_terms")
_ITSM_MEMBERS = ("subject", "status", "priority", "metadata", "requester_email")
_ADMIN_LISTS: Sequence[tuple[Any, str, Sequence[str]]] = (
    (accounts, "id", ()),
    (api_keys, "id", ("account_id",)),
    (projects, "id", ("account_id",)),
    (project_members, "user_id", ("project_id",)),
    (tenants, "id", ()),
    (links, "account_id", ()),
    (deliveries, "id", ("account_id", "state", "kind")),
)
# Of a search for several words.
_WORDS = ("words",)
# By the function that is called; a test finds those that are missing.
BUILDERS: Mapping[Any, Sequence[Build]] = {
    admin.update_project: _each(admin.update_project, _any_and_all(["github_repo", "default_roles"])),
    admin.one: [
        lambda: admin.one(accounts, id="account_id"),
        lambda: admin.one(api_keys, id="api_key_id"),
        lambda: admin.one(projects, id="project_id"),
        lambda: admin.one(project_members, project_id="project_id", user_id="user_id"),
        lambda: admin.one(tenants, id="tenant_id"),
        lambda: admin.one(links, account_id="account_id"),
        lambda: admin.one(deliveries, id="delivery_id"),
    ],
    admin.list_page: [
        build
        for table, key, by in _ADMIN_LISTS
        for build in _each(admin.list_page, [table], [key], _any_and_all(by), after=_BOTH, since=_BOTH[: 1 + len(by)])
    ],
    admin.list_failing_webhooks: _each(admin.list_failing_webhooks, [SOURCE.tables], one_account=_BOTH, after=_BOTH),
    handoff.read_tickets: _each(handoff.read_tickets, ("id", "number", "any")),
    handoff.list_events: _each(handoff.list_events, ("id", "number")),
    change_queries.lock_tickets: _each(change_queries.lock_tickets, ("id", "number", "any")),
    # (Called by the next one.)
    list_queries._list_tickets: [],
    list_queries.list_tickets: [
        *_each(
            at_once(list_queries.list_tickets),
            [frozenset(), frozenset({*list_queries.FILTERS, *_WORDS})],
            after=_BOTH,
            of_project=_BOTH,
        ),
        *_each(at_once(list_queries.list_tickets), [frozenset({"project_id"})], after=[True], of_project=[False]),
        *_each(at_once(list_queries.list_tickets), [frozenset()], after=[False], of_project=[True], offset=[True]),
    ],
    helpdesk.get_ticket: _each(helpdesk.get_ticket, _ONE_TICKET),
    helpdesk.ticket_to_write: _each(helpdesk.ticket_to_write, _ONE_TICKET, locks=_BOTH),
    helpdesk.update_ticket: _each(helpdesk.update_ticket, _BY_ID),
    helpdesk_lists._list_tickets: [],
    helpdesk_lists.list_tickets: [
        *_each(
            at_once(helpdesk_lists.list_tickets),
            _SEEN_BY,
            [frozenset({*helpdesk_lists._FILTERS, *_WORDS})],
            ["due_at", "-priority"],
            after=[True],
        ),
        *_each(at_once(helpdesk_lists.list_tickets), _SEEN_BY, [frozenset()], ["-created_at"], after=_BOTH),
    ],
    event_queries.list_events: _each(event_queries.list_events, _ONE_TICKET, internal=[False]),
    event_queries.events_after: _each(event_queries.events_after, _SEEN_BY, internal=_BOTH),
    comment_queries.list_comments: _each(comment_queries.list_comments, _ONE_TICKET, internal=[False], after=[True]),
    sla.get_ticket_and_terms: _each(sla.get_ticket_and_terms, _ONE_TICKET),
    sla.list_policies: _each(sla.list_policies, of_status=_BOTH, after=_BOTH),
    itsm.ticket_to_change: _each(itsm.ticket_to_change, locks=_BOTH),
    itsm.update_ticket: [
        *_each(at_once(itsm.update_ticket), [frozenset({"priority"})], mirrored=_BOTH),
        *_each(at_once(itsm.update_ticket), [frozenset(_ITSM_MEMBERS)], mirrored=[True], as_read=_BOTH),
    ],
    itsm.list_tickets: [
        *_each(at_once(itsm.list_tickets), _any_and_all(_ITSM_FILTERS), skips=[False]),
        *_each(at_once(itsm.list_tickets), [frozenset(), frozenset({*_ITSM_FILTERS, *_WORDS})], skips=[True]),
        *_each(at_once(itsm.list_tickets), _any_and_all(_ITSM_FILTERS[:5]), skips=[True], far=[True]),
        *_each(at_once(itsm.list_tickets), _any_and_all(["status"]), skips=[False], short=[True]),
    ],
    webhooks.update_webhook: _each(webhooks.update_webhook, [SOURCE], _any_and_all(["is_active", "url"])),
    webhooks.for_source: _each(webhooks.for_source, [SOURCE]),
    message_queries.for_source: _each(message_queries.for_source, [SOURCE]),
    fan_out_queries.for_source: _each(fan_out_queries.for_source, [SOURCE]),
    EventFeed: [
        partial(EventFeed, cast(Any, None), table, 1)
        for table in (itsm_tables.events, handoff_tables.events, helpdesk_tables.events)
    ],
    Reindex: [
        partial(Reindex, table, ("description",), str)
        for table in (itsm_tables.tickets, handoff_tables.tickets, helpdesk_tables.tickets)
    ],
}


def builders() -> Iterator[str]:
    """The cached functions of the service that build statements, by name."""
    for module in list(sys.modules.values()):
        if module.__name__.startswith("service."):
            for name, value in vars(module).items():
                is_cached = isinstance(value, Built) or hasattr(value, "cache_info")
                if is_cached and value.__module__ == module.__name__:
                    types = value.__wrapped__.__annotations__
                    kind = str(types.get("return"))
                    if ("Statement" in kind and "template" not in types) or kind.endswith("Queries'>"):
                        yield f"{module.__name__}.{name}"


@cache
def statements() -> Mapping[str, Sequence[Statement]]:
    """Every statement, by what holds or builds it: `itsm.queries.GET`, `itsm.queries.list_tickets`."""
    kept = [build() for builds in BUILDERS.values() for build in builds]
    found: dict[str, list[Statement]] = {}
    names: dict[str, Mapping[int, str]] = {}
    for statement in BUILT:
        module, name = statement.timing.module, statement.timing.function
        if module.startswith("service."):
            if module not in names:
                names[module] = _names_in(vars(sys.modules[module]))
            name = names[module].get(id(statement), name).strip("_")
            found.setdefault(f"{module.removeprefix('service.')}.{name}", []).append(statement)
    assert kept
    return found
