"""What a dialect offers to the server: its services, and what it starts with them in every process."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from service.background import Periodic
from service.operation import Dependencies
from service.transport.interceptor import Failures
from service.watch import EventFeed


class Servicer:
    """What implements one service: its methods run operations with the dialect's dependencies."""

    def __init__(self, dependencies: Any) -> None:
        """`dependencies` are those that the dialect's operations ask for: a subclass of Dependencies."""
        self.dependencies = dependencies


@dataclass(frozen=True, slots=True)
class Service:
    """One protobuf service: its descriptor, what implements it, and how its failures leave."""

    descriptor: ServiceDescriptor
    servicer: type[Servicer]
    register: Callable[[Any, Any], None]
    failures: Failures


@dataclass(frozen=True, slots=True)
class Started:
    """A dialect in one process: what its operations are run with, its event feed if it has one, its periodic work."""

    dependencies: Dependencies
    feed: EventFeed | None = None
    periodic: Sequence[Periodic] = ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API. Adding one is a folder and a word in server.py."""

    services: Sequence[Service]
    # The stack gives back what the dialect has opened.
    start: Callable[[Dependencies, AsyncExitStack], Started]
