"""The checks of a history find what they are for: each case breaks one promise in a history that keeps them all."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from support.history.checks import problems
from support.history.records import ACKNOWLEDGED, Answer, Event, History, Message, Snapshot, Ticket, Watched, Write

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Run:
    """A history and a snapshot, which a case changes."""

    history: History = field(default_factory=lambda: History(webhooks=["/hook"]))
    tickets: list[Ticket] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=lambda: {"open": 1, "closed": 0})
    unsent: int = 0
    now: float = 0

    def problems(self) -> list[str]:
        return problems(self.history, Snapshot(self.tickets, self.events, self.totals, self.unsent))

    def write(self, api: str, name: str, ticket_id: str | None = None) -> Write:
        write = Write(api, name, ticket_id)
        self.history.writes.append(write)
        return write

    def attempt(self, write: Write, outcome: str, answer: Answer | None = None) -> None:
        attempt = write.begin(self.now)
        attempt.ended, attempt.outcome, attempt.answer = self.now + 1, outcome, answer
        self.now += 2


def a_run() -> Run:
    """One ticket of each API, changed twice. The first creation and the first change took two attempts."""
    run = Run()
    for api in ("itsm", "helpdesk", "handoff"):
        number = None if api == "itsm" else 1
        names = [f"{api}-{part}" for part in ("create", "one", "two")]
        for version, name in enumerate(names, 1):
            write = run.write(api, name, None if version == 1 else f"{api}-id")
            if version < 3:
                run.attempt(write, "unavailable")
            run.attempt(write, ACKNOWLEDGED, Answer(f"{api}-id", name, number, version))
            changes = {} if version == 1 else {"from": names[version - 2], "to": name}
            updated_at = BEGIN + timedelta(seconds=version)
            run.events.append(
                Event(
                    api,
                    f"{api}-id",
                    version,
                    "ticket.created" if version == 1 else "ticket.updated",
                    write.attempts[-1].request_id,
                    {"subject" if api == "itsm" else "title": changes} if changes else {},
                    updated_at if api == "itsm" else None,
                )
            )
            if api == "itsm":
                run.history.messages.append(Message("/hook", "itsm-id", name, updated_at, True))
        run.tickets.append(Ticket(api, f"{api}-id", names[0], number, names[2], "open", 3))
        run.history.watches.append(Watched(api, api, [(f"{api}-id", version) for version in (1, 2, 3)]))
    return run


def test_a_history_that_keeps_all_promises_has_no_problem() -> None:
    assert a_run().problems() == []


def test_a_write_that_was_never_acknowledged_may_be_there_or_not() -> None:
    run = a_run()
    for name in ("not there", "there"):
        run.attempt(run.write("itsm", name), "broken")
    run.tickets.append(Ticket("itsm", "second", "there", None, "there", "open", 1))
    run.totals["open"] = 2
    run.events.append(Event("itsm", "second", 1, "ticket.created", "there.0", {}, BEGIN))
    run.history.watches[0].events.append(("second", 1))
    run.history.messages.append(Message("/hook", "second", "there", BEGIN, True))
    assert run.problems() == []


def test_messages_that_come_again_and_those_that_were_refused_do_not_count() -> None:
    run = a_run()
    created, first, second = run.history.messages
    run.history.messages = [created, replace(first, accepted=False), created, first, first, second, first]
    assert run.problems() == []


Break = Callable[[Run], object]


def replaced(events: list[Event], index: int, **values: object) -> None:
    events[index] = replace(events[index], **values)  # type: ignore[arg-type]


def with_event(run: Run, event: Event) -> None:
    """It is written and told."""
    run.events.append(event)
    run.history.watches[("itsm", "helpdesk", "handoff").index(event.api)].events.append(event.key)


def applied_twice(run: Run) -> None:
    """The last change of a ticket is there again, as its next version."""
    with_event(run, replace(run.events[8], version=4))
    run.tickets[2] = replace(run.tickets[2], version=4)


def copied(run: Run) -> None:
    """A creation is there twice."""
    run.tickets.append(replace(run.tickets[1], id="copy", number=2, text="helpdesk-create", version=1))
    with_event(run, replace(run.events[3], ticket_id="copy", request_id="helpdesk-create.0"))


def swapped(run: Run) -> None:
    """Of two tickets, the one that was asked for after the other was answered has the lower number."""
    run.tickets[2] = replace(run.tickets[2], number=2)
    for attempt in run.history.writes[6].attempts[1:]:
        attempt.answer = Answer("handoff-id", "handoff-create", 2, 1)
    for write in run.history.writes[7:]:
        write.attempts[-1].answer = replace(write.answers[-1], number=2)
    later = run.write("handoff", "later")
    run.attempt(later, ACKNOWLEDGED, Answer("later-id", "later", 1, 1))
    run.tickets.append(Ticket("handoff", "later-id", "later", 1, "later", "open", 1))
    with_event(run, Event("handoff", "later-id", 1, "ticket.created", "later.0", {}))


def reordered(run: Run) -> None:
    """The second change began after the first was acknowledged, and is before it."""
    one, two = run.history.writes[7:9]
    one.attempts, two.attempts = two.attempts, one.attempts
    for write in (one, two):
        for number, attempt in enumerate(write.attempts):
            attempt.request_id = f"{write.name}.{number}"
    one.attempts[-1].answer, two.attempts[-1].answer = (
        Answer("handoff-id", "handoff-one", 1, 2),
        Answer("handoff-id", "handoff-two", 1, 3),
    )
    replaced(run.events, 7, request_id="handoff-one.0")
    replaced(run.events, 8, request_id="handoff-two.1")


def skipped(run: Run) -> None:
    """The last version has the number after its own."""
    replaced(run.events, 8, version=4)
    run.tickets[2] = replace(run.tickets[2], version=4)


CASES: dict[str, tuple[Break, str]] = {
    "a failure that nobody is told to repeat": (
        lambda run: run.attempt(run.write("itsm", "x"), "500"),
        "itsm.create x.0 failed after none: 500",
    ),
    "an acknowledged creation is lost": (lambda run: run.tickets.pop(), "creation handoff-create was acknowledged 1"),
    "a creation is there twice": (copied, "creation helpdesk-create was acknowledged 1 times and is there 2 times"),
    "a creation that nobody asked for": (lambda run: run.history.writes.pop(0), "tickets that nobody asked for"),
    "an answer with another number": (
        lambda run: run.tickets.__setitem__(1, replace(run.tickets[1], number=2)),
        "creation helpdesk-create was answered with",
    ),
    "an acknowledged change is lost": (
        lambda run: replaced(run.events, 8, request_id="handoff-one.1"),
        "handoff-two was acknowledged 1 times, and has 0 events",
    ),
    "a change is applied twice": (applied_twice, "handoff-two was acknowledged 1 times, and has 2 events"),
    "a change says another text": (
        lambda run: replaced(run.events, 8, changes={"title": {"from": "handoff-one", "to": "x"}}),
        "handoff.update handoff-two of handoff-id is told as",
    ),
    "an answer with another version": (
        lambda run: replaced(run.events, 8, version=5),
        "its events have the versions [5]",
    ),
    "a version is skipped": (skipped, "is at version 4, and its events have [1, 2, 4]"),
    "an event is missing": (lambda run: run.events.pop(), "is at version 3, and its events have [1, 2]"),
    "events are out of order": (
        lambda run: run.events.__setitem__(slice(7, 9), run.events[8:6:-1]),
        "is at version 3, and its events have [1, 3, 2]",
    ),
    "a change is written over another": (
        lambda run: replaced(run.events, 8, changes={"title": {"from": "handoff-create", "to": "handoff-two"}}),
        "was 'handoff-one' before version 3",
    ),
    "the ticket is not what its events made it": (
        lambda run: run.tickets.__setitem__(2, replace(run.tickets[2], text="x")),
        "ticket handoff-id is 'x'; after its events it would be 'handoff-two'",
    ),
    "a gap in the numbers": (
        lambda run: run.tickets.__setitem__(2, replace(run.tickets[2], number=2)),
        "numbers of handoff: missing [1]",
    ),
    "a later ticket has a lower number": (swapped, "numbers of handoff: later began after handoff-create"),
    "a later change comes first": (reordered, "versions of handoff-id: handoff-one began after handoff-two"),
    "a total is wrong": (lambda run: run.totals.update(closed=1), "the total of closed tickets is 1; there are 0"),
    "a watch skips an event": (lambda run: run.history.watches[0].events.pop(1), "missing [('itsm-id', 2)]"),
    "a watch tells an event twice": (
        lambda run: run.history.watches[0].events.append(("itsm-id", 3)),
        "twice [('itsm-id', 3)]",
    ),
    "a watch is out of order": (
        lambda run: run.history.watches[0].events.reverse(),
        "told ('itsm-id', 3) where ('itsm-id', 1) was due",
    ),
    "a webhook misses a version": (
        lambda run: run.history.messages.pop(1),
        "accepted versions 1, 3 of ticket itsm-id, which has 3",
    ),
    "a webhook is sent a later version first": (
        lambda run: run.history.messages.reverse(),
        "accepted versions 3, 2, 1 of ticket itsm-id, which has 3",
    ),
    "a webhook is sent another state": (
        lambda run: run.history.messages.__setitem__(1, replace(run.history.messages[1], text="itsm-two")),
        "was sent what no version of its ticket is",
    ),
    "a message is still queued": (lambda run: setattr(run, "unsent", 1), "1 messages of webhooks are still queued"),
}


@pytest.mark.parametrize(("broken", "found"), CASES.values(), ids=CASES)
def test_a_broken_promise_is_found(broken: Break, found: str) -> None:
    run = a_run()
    broken(run)
    assert any(found in problem for problem in run.problems()), run.problems()
