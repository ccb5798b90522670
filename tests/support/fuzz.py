"""What is fuzzed and by whom: every method that is served, and callers who know some names; many cases at once."""

import asyncio
import inspect
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import uuid4

from google.api import annotations_pb2

from service.fields import Command, Section
from service.operation import Operation
from service.server import DIALECTS
from service.transport.dialect import Service
from service.watch import Watch
from support import isolation
from support.operators import operator_of
from support.system import Credential, World
from support.transports import Grpc

# A hang is a failure.
SECONDS = 5
# What a worker may grow by.
GROWTH_KIB = 20 * 1024
# At once: less than one account may have in flight.
LANES = 12
# Of one run; more of them say nothing new.
_MAX_FINDINGS = 20

PathValues = tuple[str, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Endpoint:
    """One method: the command that its requests become, its typed method, and its REST route if it has one."""

    api: str
    name: str
    command: type[Command]
    view: Any
    typed: Any
    is_watch: bool
    verb: str = ""
    path: str = ""

    def sections(self) -> Mapping[str, type[Section]]:
        """The model of each section of the command."""
        models = {name: section.annotation for name, section in self.command.model_fields.items()}
        return {name: model for name, model in models.items() if isinstance(model, type) and issubclass(model, Section)}

    @property
    def rpc_path(self) -> str:
        """The path of the typed method."""
        return f"/{self.typed.containing_service.full_name}/{self.name}"

    @property
    def collection(self) -> str:
        """The path up to its last variable: what it names is a member of that."""
        return self.path[: self.path.rindex("/{")] if "{" in self.path else ""


@cache
def endpoints() -> Sequence[Endpoint]:
    """Every method that is served and has a command, so that a new one is fuzzed by itself."""
    services = [service for dialect in DIALECTS for service in dialect.services]
    routes = {
        (_api(service), method.name): _route(method)
        for service in services
        for method in service.descriptor.methods
        if service.descriptor.name == "TicketRest"
    }
    return [
        _endpoint(service, method, routes.get((_api(service), method.name), ("", "")))
        for service in services
        for method in service.descriptor.methods
        if service.descriptor.name != "TicketRest"
    ]


def _api(service: Service) -> str:
    api: str = service.descriptor.file.package.split(".")[1]
    return api


def _route(method: Any) -> tuple[str, str]:
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern")
    return verb.upper(), getattr(rule, verb)


def _endpoint(service: Service, method: Any, route: tuple[str, str]) -> Endpoint:
    # What the builders of transport/rpc.py made the method of.
    made_of = inspect.getclosurevars(getattr(service.servicer, method.name)).nonlocals.values()
    use_case = next(one for one in made_of if isinstance(one, Operation | Watch))
    is_watch = isinstance(use_case, Watch)
    return Endpoint(_api(service), method.name, use_case.command, use_case.view, method, is_watch, *route)


@dataclass
class Party:
    """An account, a tenant and a project with their callers, and the names of what they have made so far."""

    account_id: str
    tenant_id: str
    project_id: str
    # An account that operators change: what the others make must go to no provider.
    other_account_id: str
    # By API; the first may do everything.
    credentials: Mapping[str, Sequence[Credential]]
    # By the path of a collection, as in the route: the values of its variables, and of one member's name.
    names: dict[str, list[PathValues]] = field(default_factory=dict)
    # By the route that gave them.
    cursors: dict[str, list[str]] = field(default_factory=dict)

    def credential(self, random: Random, api: str) -> Credential:
        """Mostly of who may do everything."""
        own = self.credentials[api]
        if random.random() < 0.9:
            return own[0]
        strangers: list[Credential] = [{}, {"authorization": "Bearer x"}, {"x-api-key": "itsm_sk_live_x"}]
        return random.choice([*own, *strangers, *(known[0] for known in self.credentials.values())])

    def learn(self, endpoint: Endpoint, values: PathValues, answer: Any) -> None:
        """Remember the ids and the cursor in an answer of a collection."""
        if not isinstance(answer, dict):
            return
        if not endpoint.path.endswith("}"):
            for name in _ids(answer):
                self._keep(self.names, endpoint.path, (*values, name))
        if isinstance(answer.get("next_cursor"), str):
            self._keep(self.cursors, endpoint.path, answer["next_cursor"])

    def copy(self) -> "Party":
        """The same, that learns for itself."""
        names = {path: list(ones) for path, ones in self.names.items()}
        return replace(self, names=names, cursors={path: list(ones) for path, ones in self.cursors.items()})

    def _keep(self, known: dict[str, Any], path: str, one: Any) -> None:
        kept = known.setdefault(path, [])
        if one not in kept:
            kept.append(one)
            del kept[:-50]


def _ids(answer: Mapping[str, Any]) -> Iterable[str]:
    found = [answer, *(value for value in answer.values() if isinstance(value, dict))]
    found += [one for value in answer.values() if isinstance(value, list) for one in value if isinstance(one, dict)]
    return [one["id"] for one in found if isinstance(one.get("id"), str)]


async def new_party(world: World, rpc: Grpc) -> Party:
    """A party with something of each kind."""
    program = await world.program(scopes=("tickets:read", "tickets:write", "webhooks:manage"))
    tenant_id, user_id, project_id = f"ten_{uuid4().hex}", str(uuid4()), await world.project()
    agent = world.person("read", "write", "agent", tenant_id=tenant_id, sub="per_agent")
    employee = world.person("read", "write", tenant_id=tenant_id)
    owner = await world.member(project_id, "owner", user_id)
    member = await world.member(project_id)
    operator = operator_of(world)
    party = Party(
        program.account_id,
        tenant_id,
        project_id,
        (await world.program()).account_id,
        {"itsm": [program.credential], "helpdesk": [agent, employee], "handoff": [owner, member], "admin": [operator]},
    )
    things = await isolation.itsm_things(world, rpc, program)
    desk = await isolation.helpdesk_things(rpc, agent, is_tenants=True)
    board = await isolation.handoff_things(rpc, owner, project_id, user_id)
    party.names = {
        "/api/v1/tickets": [(things["ticket"],)],
        "/api/v1/webhooks": [(things["webhook"],)],
        "/api/v1/webhooks/{webhook_id}/deliveries": [(things["webhook"], things["delivery"])],
        "/api/v1/helpdesk/tickets": [(desk["ticket"],)],
        "/api/v1/helpdesk/tickets/{id}/comments": [(desk["ticket"], desk["comment"])],
        "/api/v1/helpdesk/sla-policies": [(desk["policy"],)],
        "/api/projects": [(project_id,)],
        "/api/projects/{project}/tickets": [(project_id, board["ticket"])],
    }
    return party


def seed(*, is_long: bool) -> str:
    """The same for each short run; of a long one it is in the failure, and FUZZ_SEED sets it."""
    return os.environ.get("FUZZ_SEED") or (uuid4().hex if is_long else "tickets")


def resident_kib(pid: int) -> int:
    """The memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


class UnansweredError(Exception):
    """Something took too long."""


async def timely(answer: Awaitable[T], what: object) -> T:
    """An answer, if it comes in time. Raises UnansweredError."""
    try:
        async with asyncio.timeout(SECONDS):
            return await answer
    except TimeoutError:
        raise UnansweredError(f"no answer within {SECONDS} seconds to {what}") from None


async def run_cases(
    seed: str, numbers: Iterable[int], lanes: Sequence[Callable[[Random], Awaitable[str | None]]]
) -> list[str]:
    """Run the cases of these numbers, each lane one at a time; returns what went wrong, with the way back to it.

    A lane returns what is wrong with its case, or None.
    """
    findings: list[str] = []
    remaining = iter(numbers)

    async def run(lane: Callable[[Random], Awaitable[str | None]]) -> None:
        for number in remaining:
            try:
                finding = await lane(Random(f"{seed}/{number}"))  # noqa: S311 - it must be the same again
            except UnansweredError as error:
                finding = str(error)
            if finding is not None:
                findings.append(f"FUZZ_SEED={seed} case {number}: {finding}")
            if len(findings) >= _MAX_FINDINGS:
                return

    async with asyncio.TaskGroup() as running:
        for lane in lanes:
            running.create_task(run(lane))
    return findings
