"""The scenario of tests/clients, by the Python client."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
from tickets.client import TicketsClient, TicketsError
from tickets.client.itsm import Ticket, WatchResponse


class Trailers(grpc.UnaryUnaryClientInterceptor):
    """Keeps the trailing metadata of the last call."""

    def __init__(self) -> None:
        self.last: Mapping[str, Any] = {}

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        call = continuation(details, request)
        self.last = {name: value for name, value in call.trailing_metadata() or ()}  # noqa: C416 - gRPC's pairs are no tuples
        return call


def see(what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{what}: {found!r} and not {expected!r}")


def looks_like(ticket: Ticket, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        see(name, getattr(ticket, name), value)


def fails(call: Callable[[], object], expected: Mapping[str, Any]) -> None:
    try:
        call()
    except TicketsError as error:
        see("code", error.status.name, expected["code"])
        see("reason", error.reason, expected["reason"])
        if "fields" in expected:
            see("fields", [issue.path for issue in error.issues], expected["fields"])
        see("message", error.message[: len(expected.get("message_begins", ""))], expected.get("message_begins", ""))
        see("message", error.message, expected.get("message", error.message))
    else:
        sys.exit(f"no failure, and not {expected}")


def main(client: TicketsClient, trailers: Trailers, steps: Mapping[str, Any]) -> None:
    tickets, key = client.itsm.tickets, str(uuid4())

    first = tickets.create(**steps["create"]["ticket"], idempotency_key=key)
    looks_like(first, steps["create"]["expect"])
    print("ok create")

    see("id", tickets.create(**steps["create"]["ticket"], idempotency_key=key).id, first.id)
    see("replayed", trailers.last.get("idempotent-replayed"), steps["repeat"]["expect"]["idempotent_replayed"])
    print("ok repeat")

    reuse = steps["reuse_key"]
    fails(lambda: tickets.create(**reuse["ticket"], idempotency_key=key), reuse["expect"])
    print("ok reuse_key")

    pages = steps["pages"]
    made = {first.id, *(tickets.create(**steps["create"]["ticket"]).id for _ in range(pages["create"]))}
    listed = [ticket.id for ticket in tickets.list(status=pages["status"], page_size=pages["limit"])]
    see("each once", len(listed), len(set(listed)))
    see("all of them", made - set(listed), set())
    see("enough pages", len(listed) > pages["limit"] * (pages["expect"]["pages_at_least"] - 1), True)
    print("ok pages")

    cleared: Any = dict.fromkeys(steps["clear"]["update_mask"])
    looks_like(tickets.update(first.id, **cleared), steps["clear"]["expect"])
    print("ok clear")

    fails(lambda: tickets.create(**steps["invalid"]["ticket"]), steps["invalid"]["expect"])
    print("ok invalid")

    fails(lambda: tickets.get(steps["not_found"]["ticket_id"]), steps["not_found"]["expect"])
    print("ok not_found")

    watch = tickets.watch()
    next(watch)
    tickets.update(first.id, status=steps["watch"]["status"])
    seen = its_next(watch, first)
    watch.close()
    see("type", seen.event and seen.event.type, steps["watch"]["expect"]["type"])
    print("ok watch")

    tickets.update(first.id, status=steps["resume"]["status"])
    watch = tickets.watch(cursor=seen.cursor)
    resumed = its_next(watch, first)
    watch.close()
    if seen.event is None or resumed.event is None or resumed.event.type not in steps["resume"]["expect"]["types"]:
        sys.exit(f"resumed with {resumed}")
    see("version", resumed.event.version, seen.event.version + 1)
    print("ok resume")


def its_next(watch: Iterator[WatchResponse], ticket: Ticket) -> WatchResponse:
    return next(found for found in watch if found.event is not None and found.event.ticket_id == ticket.id)


if __name__ == "__main__":
    credentials = json.loads(Path(os.environ["TICKETS_CREDENTIALS"]).read_text())
    scenario = json.loads(Path(os.environ["TICKETS_SCENARIO"]).read_text())
    noting = Trailers()
    with grpc.insecure_channel(credentials["grpc_target"]) as channel:
        intercepted = grpc.intercept_channel(channel, noting)
        main(TicketsClient(intercepted, api_key=credentials["itsm_api_key"]), noting, scenario["steps"])
