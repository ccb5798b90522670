"""deploy/README.md, Metrics: what a process and its gateway show; the dashboard and the rules ask for nothing else."""

import json
import re
import time
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.emulators.http import Response
from support.system import Metrics, World
from support.transports import Grpc, Rest
from support.watches import ITSM
from support.webhook_lab import Account, Machine, Process, Receiver
from ulid import ULID

from service import backlog
from service.counters import REGISTRY

DEPLOY = Path(__file__).parents[3] / "deploy"
GROUPS = yaml.safe_load((DEPLOY / "prometheus/tickets.rules.yaml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
PANELS = json.loads((DEPLOY / "grafana/tickets.json").read_text())["panels"]
# Of node_exporter, beside PostgreSQL.
ELSEWHERE = {"node_filesystem_avail_bytes", "node_filesystem_size_bytes"}
# Of a process with a certificate (unit/transport/test_certificates.py).
WITH_TLS = {"tickets_certificate_expiry_timestamp_seconds"}

HOUR = 3600
WAITING = (
    *("deliveries_queued", "deliveries_oldest_seconds", "webhook_messages_queued", "webhook_messages_oldest_seconds"),
    *("webhook_messages_overdue_seconds", "webhooks_failing", "totals_unmerged", "sla_behind_seconds"),
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def read(url: str) -> Samples:
    async with httpx2.AsyncClient() as client:
        text = (await client.get(url)).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
async def shown(rest: Rest, world: World, metrics: Metrics) -> Samples:
    """What the process shows after some calls."""
    program = await world.program()
    (await rest.call("itsm.list", program.credential)).succeeded()
    (await rest.call("itsm.list", {})).failed("unauthenticated")
    return await read(f"http://{metrics.service}/metrics")


def of(shown: Samples, name: str, **labels: str) -> float:
    return shown[name, tuple(sorted(labels.items()))]


def test_statements_are_timed_by_names_of_the_code(shown: Samples) -> None:
    for name in ("access.authenticator.FIND_KEY", "itsm.queries.list_tickets"):
        number = of(shown, "tickets_statement_duration_seconds_count", statement=name)
        seconds = of(shown, "tickets_statement_duration_seconds_sum", statement=name)
        assert number >= 1
        assert 0 < seconds < 60 * number


def test_the_process_and_its_schema_are_shown(shown: Samples) -> None:
    assert of(shown, "process_cpu_seconds_total") > 0
    assert of(shown, "process_resident_memory_bytes") > 1e7
    assert 0 < of(shown, "process_open_fds") < of(shown, "process_max_fds")
    assert of(shown, "tickets_schema_served") == 1
    [labels] = [dict(labels) for name, labels in shown if name == "tickets_schema_info"]
    assert labels["revision"] == labels["needed"] != ""


async def test_open_watches_are_counted_and_how_old_their_last_look_is(
    transport: Rest | Grpc, world: World, metrics: Metrics
) -> None:
    program, url = await world.program(), f"http://{metrics.service}/metrics"
    before = of(await read(url), "tickets_watches_open", api="itsm")
    async with ITSM.watching(transport, program.credential) as messages:
        await anext(messages)
        shown = await read(url)
        assert of(shown, "tickets_watches_open", api="itsm") == before + 1
        assert 0 < of(shown, "tickets_watches_behind_seconds", api="itsm") < 60


async def test_what_waits_is_shown_with_its_age(machine: Machine, process: Process, receiver: Receiver) -> None:
    account = Account()
    await backlog.look(process.database)
    assert {name: gauge("tickets_" + name) for name in WAITING} == dict.fromkeys(WAITING, 0)
    webhooks = [
        await process.register(account, receiver.url + path, ["ticket.created"]) for path in ("/one", "/two", "/well")
    ]
    receiver.planned = {"/one": [Response(500)], "/two": [Response(500)]}
    await process.create(account)
    failed, succeeded = ({"outcome": outcome} for outcome in ("failed", "succeeded"))
    attempts = [gauge("tickets_webhook_attempts_total", **labels) for labels in (failed, succeeded)]
    await machine.send(process)
    assert gauge("tickets_webhook_attempts_total", **failed) == attempts[0] + 2
    assert gauge("tickets_webhook_attempts_total", **succeeded) == attempts[1] + 1
    machine.rows("UPDATE itsm_webhook_messages SET next_attempt_at = now() - interval '1 minute'")
    event = f"evt_{ULID.from_timestamp(time.time() - 2 * HOUR)}"
    machine.rows("UPDATE itsm_webhook_messages SET event_id = %s WHERE webhook_id = %s", event, webhooks[0]["id"])
    for state, hours in (("queued", 3), ("queued", 1), ("dead", 9)):
        machine.rows(
            "INSERT INTO provider_deliveries (id, account_id, ticket_id, version, kind, members, has_ticket, actor,"
            " request_id, state, created_at)"
            " VALUES (%s, %s, %s, 1, 'update', '{}', true, '', '', %s, now() - %s * interval '1 hour')",
            *(uuid4(), account.id, uuid4(), state, hours),
        )
    await backlog.look(process.database)
    shown = {name: gauge("tickets_" + name) for name in WAITING}
    counts = {name: shown.pop(name) for name in WAITING if not name.endswith("seconds")}
    assert counts == {"deliveries_queued": 2, "webhook_messages_queued": 2, "webhooks_failing": 2, "totals_unmerged": 1}
    ages = {"deliveries_oldest": 3 * HOUR, "webhook_messages_oldest": 2 * HOUR, "webhook_messages_overdue": 60}
    assert shown == {f"{name}_seconds": pytest.approx(age, abs=50) for name, age in {**ages, "sla_behind": 0}.items()}


async def test_messages_that_wait_for_their_receiver_are_not_overdue(
    machine: Machine, process: Process, receiver: Receiver
) -> None:
    account = Account()
    webhook = await process.register(account, receiver.url + "/hook")
    ticket = await process.create(account)
    receiver.planned = {"/hook": [Response(500)]}
    await machine.send(process)
    await process.update(account, ticket, subject="Waits for the first")
    await machine.send(process)
    late = "UPDATE itsm_webhook_messages SET next_attempt_at = now() - interval '1 hour' WHERE version > %s"

    async def overdue() -> float:
        await backlog.look(process.database)
        return gauge("tickets_webhook_messages_overdue_seconds")

    # The first comes again later, and until then the second waits for it.
    machine.rows(late, 1)
    assert await overdue() == 0
    machine.rows(late, 0)
    assert await overdue() == pytest.approx(HOUR, abs=50)
    # While one is in flight, the account's others wait for that.
    machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() + interval '1 minute' WHERE version = 1")
    assert await overdue() == 0
    machine.rows("UPDATE itsm_webhook_messages SET leased_until = now() - interval '1 minute' WHERE version = 1")
    assert await overdue() == pytest.approx(HOUR, abs=50)
    # Nobody is late who was told not to send.
    machine.rows("UPDATE itsm_webhooks SET is_active = false WHERE id = %s", webhook["id"])
    assert await overdue() == 0
    machine.rows("DELETE FROM itsm_webhooks WHERE id = %s", webhook["id"])


async def test_no_more_of_a_queue_is_counted_than_the_bound(machine: Machine, process: Process) -> None:
    machine.rows(
        "INSERT INTO itsm_total_changes (account_id, live, status, change)"
        " SELECT gen_random_uuid(), true, 'open', 1 FROM generate_series(1, %s)",
        backlog.MOST + 1,
    )
    await backlog.look(process.database)
    assert gauge("tickets_totals_unmerged") == backlog.MOST
    machine.rows("TRUNCATE itsm_total_changes")


async def test_sla_clocks_that_nobody_looks_at_are_behind(machine: Machine, process: Process) -> None:
    for number, minutes, is_deleted in ((1, 5, False), (2, 9, True), (3, -5, False)):
        machine.rows(
            "INSERT INTO helpdesk_tickets (tenant_id, id, number, title, type, status, priority, submitted_by_id, tags,"
            " source, source_type, created_by, updated_by, is_deleted, sla_look_at)"
            " VALUES ('t', %s, %s, '', 'incident', 'open', 'low', '', '[]', '', 'api', '', '', %s,"
            " now() - %s * interval '1 minute')",
            *(str(number), number, is_deleted, minutes),
        )
    await backlog.look(process.database)
    assert gauge("tickets_sla_behind_seconds") == pytest.approx(300, abs=50)


async def test_keys_are_estimated_and_never_counted(machine: Machine, process: Process) -> None:
    for table, whose in (("helpdesk_keys", "'', '', ''"), ("admin_keys", "''")):
        machine.rows(f"INSERT INTO {table} SELECT {whose}, n, '', '{{}}' FROM generate_series(1, 250) n")
    await backlog.look(process.database)
    assert gauge("tickets_idempotency_keys") == 0
    machine.rows("ANALYZE helpdesk_keys, admin_keys")
    await backlog.look(process.database)
    assert gauge("tickets_idempotency_keys") == 500


def gauge(name: str, **labels: str) -> float:
    """A value of this process."""
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/", "/stats", "/stats/prometheus", "/stats/prometheus/..", "/quitquitquit"])
async def test_the_gateways_metrics_are_all_that_its_port_shows(
    gateway_url: str, metrics: Metrics, method: str, path: str
) -> None:
    async with httpx2.AsyncClient() as client:
        answer = await client.request(method, f"http://{metrics.gateway}{path}")
    assert (answer.status_code == 200) == ((method, path) == ("GET", "/stats/prometheus"))


def test_the_page_has_every_metric(shown: Samples) -> None:
    page = set(re.findall(r"`(tickets_\w+)`", (DEPLOY / "README.md").read_text()))
    families = {re.sub(r"_(count|sum|bucket)$", "", name) for name, _ in shown if name.startswith("tickets_")}
    assert families | WITH_TLS == page


def named(expression: str) -> set[str]:
    """The metrics that an expression names, but for what the rules record."""
    bare = re.sub(r"\{[^{}]*\}|\b(?:by|on|without) ?\([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:tickets|envoy|process|node)_\w+", bare))


async def test_dashboard_and_rules_name_metrics_that_are_there(
    shown: Samples, gateway_url: str, metrics: Metrics
) -> None:
    async with httpx2.AsyncClient() as client:
        text = (await client.get(f"http://{metrics.gateway}/stats/prometheus")).text
    there = {name for name, _ in shown} | set(re.findall(r"^\w+", text, re.MULTILINE)) | WITH_TLS
    asked = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    for expression in (*asked, *(rule["expr"] for rule in RULES)):
        assert named(expression) - there - ELSEWHERE == set(), expression
        assert set(re.findall(r"tickets:\w+:\w+", expression)) <= recorded, expression
    assert len(asked) > 40
