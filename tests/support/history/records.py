"""What clients, watches and webhooks saw, and what the database holds afterwards: plain data, for `checks`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

APIS = ("itsm", "helpdesk", "handoff")
# The member that each change sets to a text of its own.
TEXT = {"itsm": "subject", "helpdesk": "title", "handoff": "title"}

ACKNOWLEDGED = "acknowledged"
BROKEN = "broken"
# How an attempt may end that is repeated. All others but an acknowledgement are failures of the service.
RETRIED = frozenset({"unavailable", "deadline_exceeded", "rate_limited", "cancelled", BROKEN})


@dataclass(frozen=True)
class Answer:
    """The ticket of an acknowledgement."""

    ticket_id: str
    text: str
    # Only handoff and helpdesk number their tickets.
    number: int | None = None
    # Where the answer has an ETag.
    version: int | None = None


@dataclass
class Attempt:
    """One request. Its id is in the event of what it did."""

    request_id: str
    begun: float
    ended: float | None = None
    outcome: str = "in flight"
    answer: Answer | None = None


@dataclass
class Write:
    """A creation or a change, with all its attempts. Its name is its idempotency key and a text in the ticket.

    A change may have no key. It is attempted once: nobody would know whether a second one does it again.
    """

    api: str
    name: str
    # Of a change.
    ticket_id: str | None = None
    has_key: bool = True
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def operation(self) -> str:
        """Such as `itsm.create`."""
        return f"{self.api}.{'create' if self.ticket_id is None else 'update'}"

    @property
    def answers(self) -> Sequence[Answer]:
        """What its acknowledgements said."""
        return [attempt.answer for attempt in self.attempts if attempt.answer is not None]

    @property
    def begun(self) -> float:
        """When its first attempt began."""
        return self.attempts[0].begun

    @property
    def acknowledged(self) -> float | None:
        """When it was first acknowledged, if it was."""
        return min((a.ended for a in self.attempts if a.answer is not None and a.ended is not None), default=None)

    def begin(self, now: float) -> Attempt:
        """One more attempt."""
        self.attempts.append(Attempt(f"{self.name}.{len(self.attempts)}", now))
        return self.attempts[-1]


# A ticket's id and the version of one of its events.
EventKey = tuple[str, int]


@dataclass
class Watched:
    """What one watcher was told, over all watches in which it went on."""

    name: str
    api: str
    events: list[EventKey] = field(default_factory=list)
    # How its watches ended.
    ends: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Message:
    """A message that a webhook's receiver was sent."""

    webhook: str
    ticket_id: str
    text: str
    updated_at: datetime
    # Whether the receiver answered 200.
    accepted: bool


@dataclass
class History:
    """All that was seen from outside."""

    writes: list[Write] = field(default_factory=list)
    watches: list[Watched] = field(default_factory=list)
    webhooks: Sequence[str] = ()
    messages: list[Message] = field(default_factory=list)
    # The name of each fault, and when it began.
    faults: list[tuple[str, float]] = field(default_factory=list)

    def told(self) -> int:
        """How much watchers and webhooks have been told so far."""
        return len(self.messages) + sum(len(watched.events) for watched in self.watches)

    def figures(self) -> str:
        """One line for a person."""
        attempts = Counter(attempt.outcome for write in self.writes for attempt in write.attempts)
        acknowledged = sum(write.acknowledged is not None for write in self.writes)
        ends = sum((watched.ends for watched in self.watches), Counter[str]())
        return (
            f"{acknowledged} of {len(self.writes)} writes acknowledged; attempts: {dict(attempts.most_common())}; "
            f"watches ended: {dict(ends.most_common())}; {len(self.messages)} messages; "
            f"faults: {dict(Counter(name for name, _ in self.faults))}"
        )

    def fault_at(self, instant: float) -> str:
        """The last fault before an instant."""
        return next((name for name, begun in reversed(self.faults) if begun <= instant), "none")


@dataclass(frozen=True)
class Ticket:
    """A ticket's row."""

    api: str
    id: str
    # The name of its creation, which is its description and never changes.
    creation: str
    number: int | None
    text: str
    status: str
    version: int


@dataclass(frozen=True)
class Event:
    """An event's row."""

    api: str
    ticket_id: str
    version: int
    type: str
    request_id: str
    changes: Mapping[str, Any]
    # The ticket's `updated_at` as of then (ITSM).
    updated_at: datetime | None = None

    @property
    def key(self) -> EventKey:
        """What watches tell it by."""
        return self.ticket_id, self.version

    @property
    def write(self) -> str:
        """The name of its write."""
        return self.request_id.rpartition(".")[0]

    @property
    def text(self) -> Mapping[str, str] | None:
        """How the ticket's text changed, `from` and `to`, if it did."""
        return self.changes.get(TEXT[self.api])


@dataclass(frozen=True)
class Snapshot:
    """The database after all is done."""

    tickets: Sequence[Ticket]
    # In the order in which readers go.
    events: Sequence[Event]
    # The `total` that the ITSM list answers for each status.
    totals: Mapping[str, int]
    # Messages that are still queued.
    unsent: int
