"""Whether a history and a snapshot agree: nothing acknowledged is lost, doubled or reordered.

Each check says what is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from support.history.records import (
    ACKNOWLEDGED,
    APIS,
    RETRIED,
    Event,
    EventKey,
    History,
    Snapshot,
    Ticket,
    Watched,
    Write,
)

T = TypeVar("T")
Problems = Iterator[str]


def problems(history: History, snapshot: Snapshot) -> list[str]:
    """Everything that is wrong."""
    return [problem for check in CHECKS for problem in check(history, snapshot)]


def outcomes(history: History, _: Snapshot) -> Problems:
    """No attempt fails in a way of which clients are not told to try again."""
    for write in history.writes:
        for attempt in write.attempts:
            if attempt.ended is not None and attempt.outcome not in RETRIED | {ACKNOWLEDGED}:
                fault = history.fault_at(attempt.ended)
                yield f"{write.operation} {attempt.request_id} failed after {fault}: {attempt.outcome}"


def creations(history: History, snapshot: Snapshot) -> Problems:
    """A creation that was acknowledged is there once, as it was answered each time; any other at most once."""
    made = _grouped(snapshot.tickets, lambda ticket: ticket.creation)
    begun = {write.name: write for write in history.writes if write.ticket_id is None}
    for name in made.keys() - begun.keys():
        yield f"tickets that nobody asked for: {made[name]}"
    for name, write in begun.items():
        there = made.get(name, [])
        if len(there) > 1 or (write.acknowledged is not None and not there):
            yield f"creation {name} was acknowledged {len(write.answers)} times and is there {len(there)} times"
        for answer in write.answers:
            if there and (answer.ticket_id, answer.number) != (there[0].id, there[0].number):
                yield f"creation {name} was answered with {answer}, and {there[0]} is there"


def changes(history: History, snapshot: Snapshot) -> Problems:
    """A change that was acknowledged is in its ticket's events once, any other at most once."""
    done = _grouped(snapshot.events, lambda event: event.write)
    begun = {write.name: write for write in history.writes}
    for name in done.keys() - begun.keys():
        yield f"events of no known write: {done[name]}"
    for name, write in begun.items():
        yield from _applied(write, done.get(name, []))


def _applied(write: Write, events: Sequence[Event]) -> Problems:
    if len(events) > 1 or (write.acknowledged is not None and not events):
        yield f"{write.name} was acknowledged {len(write.answers)} times, and has {len(events)} events"
    for event in events:
        if _says_otherwise(write, event):
            yield f"{write.operation} {write.name} of {write.ticket_id} is told as {event}"
    versions = {event.version for event in events}
    for answer in write.answers:
        if answer.text != write.name or (answer.version is not None and answer.version not in versions):
            yield f"{write.name} was answered with {answer}; its events have the versions {sorted(versions)}"


def _says_otherwise(write: Write, event: Event) -> bool:
    if write.ticket_id is None:
        return event.type != "ticket.created"
    return event.ticket_id != write.ticket_id or event.text is None or event.text["to"] != write.name


def versions(_: History, snapshot: Snapshot) -> Problems:
    """The events of a ticket are its versions from 1 on, in order, each beginning where the last one ended."""
    events = _grouped(snapshot.events, lambda event: (event.api, event.ticket_id))
    tickets = {(ticket.api, ticket.id): ticket for ticket in snapshot.tickets}
    for key in events.keys() - tickets.keys():
        yield f"events of a ticket that is not there: {events[key]}"
    for key, ticket in tickets.items():
        yield from _history_of(ticket, events.get(key, []))


def _history_of(ticket: Ticket, events: Sequence[Event]) -> Problems:
    told = [event.version for event in events]
    if told != list(range(1, ticket.version + 1)):
        yield f"ticket {ticket.id} is at version {ticket.version}, and its events have {told}"
    text = ticket.creation
    for event in events:
        if event.text is not None:
            if event.text["from"] != text:
                yield f"ticket {ticket.id} was {text!r} before version {event.version}, which says {dict(event.text)}"
            text = event.text["to"]
    if text != ticket.text:
        yield f"ticket {ticket.id} is {ticket.text!r}; after its events it would be {text!r}"


def numbers(_: History, snapshot: Snapshot) -> Problems:
    """Tickets that have a number count up from 1 without a gap."""
    for api in APIS:
        found = sorted(t.number for t in snapshot.tickets if t.api == api and t.number is not None)
        if found != list(range(1, len(found) + 1)):
            missing = sorted(set(range(1, max(found) + 1)) - set(found))
            yield f"numbers of {api}: missing {missing}, twice {_repeated(found)}"


def order(history: History, snapshot: Snapshot) -> Problems:
    """What began after another was acknowledged comes after it: in numbers, and in a ticket's versions."""
    numbers = {ticket.creation: ticket.number for ticket in snapshot.tickets if ticket.number is not None}
    versions = {event.write: event.version for event in snapshot.events}
    places = defaultdict[str, list[tuple[Write, int]]](list)
    for write in history.writes:
        if write.ticket_id is None and write.name in numbers:
            places[f"numbers of {write.api}"].append((write, numbers[write.name]))
        elif write.ticket_id is not None and write.name in versions:
            places[f"versions of {write.ticket_id}"].append((write, versions[write.name]))
    for what, placed in places.items():
        for earlier, later in _out_of_order(placed):
            yield f"{what}: {later} began after {earlier} was acknowledged, and comes before it"


def _out_of_order(placed: Sequence[tuple[Write, int]]) -> Iterator[tuple[str, str]]:
    """Pairs of names, given each write's place."""
    ended = sorted((write.acknowledged, at, write.name) for write, at in placed if write.acknowledged is not None)
    highest, name, index = 0, "", 0
    for write, place in sorted(placed, key=lambda one: one[0].begun):
        while index < len(ended) and ended[index][0] < write.begun:
            if ended[index][1] > highest:
                _, highest, name = ended[index]
            index += 1
        if place < highest:
            yield name, write.name


def totals(_: History, snapshot: Snapshot) -> Problems:
    """The totals of ITSM lists are the numbers of tickets."""
    counted = Counter(ticket.status for ticket in snapshot.tickets if ticket.api == "itsm")
    for status, total in snapshot.totals.items():
        if total != counted[status]:
            yield f"the total of {status} tickets is {total}; there are {counted[status]}"


def watches(history: History, snapshot: Snapshot) -> Problems:
    """Each watcher was told every event once, in the order in which readers go."""
    for watched in history.watches:
        yield from _told(watched, [event.key for event in snapshot.events if event.api == watched.api])


def _told(watched: Watched, events: Sequence[EventKey]) -> Problems:
    if watched.events == events:
        return
    missing, unknown = set(events) - set(watched.events), set(watched.events) - set(events)
    repeated = _repeated(watched.events)
    if missing or unknown or repeated:
        yield f"watch {watched.name}: missing {sorted(missing)}, twice {repeated}, unknown {sorted(unknown)}"
    else:
        first = next(pair for pair in zip(watched.events, events, strict=True) if pair[0] != pair[1])
        yield f"watch {watched.name}: told {first[0]} where {first[1]} was due"


def webhooks(history: History, snapshot: Snapshot) -> Problems:
    """Each webhook accepted all versions of each ticket, in order, with the ticket as of then; repeats do not count."""
    events = [event for event in snapshot.events if event.api == "itsm"]
    known = {(event.ticket_id, event.updated_at): event.version for event in events}
    texts = _texts(events, {ticket.id: ticket.creation for ticket in snapshot.tickets})
    accepted = _grouped(history.messages, lambda message: message.webhook)
    for webhook in history.webhooks:
        # Of each ticket, in the order in which they came first.
        received = defaultdict[str, dict[int, None]](dict)
        for message in accepted.get(webhook, []):
            version = known.get((message.ticket_id, message.updated_at))
            if version is None or texts[message.ticket_id, version] != message.text:
                yield f"webhook {webhook} was sent what no version of its ticket is: {message}"
            elif message.accepted:
                received[message.ticket_id].setdefault(version)
        for ticket_id, due in _grouped(events, lambda event: event.ticket_id).items():
            if list(received[ticket_id]) != [event.version for event in due]:
                versions = ", ".join(map(str, received[ticket_id]))
                yield f"webhook {webhook} accepted versions {versions} of ticket {ticket_id}, which has {len(due)}"
    if snapshot.unsent:
        yield f"{snapshot.unsent} messages of webhooks are still queued"


def _texts(events: Iterable[Event], creations: Mapping[str, str]) -> Mapping[EventKey, str]:
    """The text of each version of each ticket."""
    texts, now = dict[EventKey, str](), dict(creations)
    for event in events:
        if event.text is not None:
            now[event.ticket_id] = event.text["to"]
        texts[event.key] = now.get(event.ticket_id, "")
    return texts


def _grouped(items: Iterable[T], name: Callable[[T], str | tuple[str, str]]) -> Mapping[Any, list[T]]:
    groups = defaultdict[Any, list[T]](list)
    for item in items:
        groups[name(item)].append(item)
    return dict(groups)


def _repeated(items: Iterable[Any]) -> list[Any]:
    return sorted(item for item, times in Counter(items).items() if times > 1)


CHECKS: Sequence[Callable[[History, Snapshot], Problems]] = (
    outcomes,
    creations,
    changes,
    versions,
    numbers,
    order,
    totals,
    watches,
    webhooks,
)
