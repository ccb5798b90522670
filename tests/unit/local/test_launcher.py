"""Our command is started, whatever else is called `service` where it is started."""

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from service.local.processes import service_command

pytestmark = pytest.mark.processes

TICKETS = Path(sys.executable).with_name("tickets")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder in which someone else has packages of our names."""
    for name in ("service", "tickets"):
        package = tmp_path / name
        package.mkdir()
        for file in ("__init__.py", "__main__.py"):
            (package / file).write_text(f"print('their {name}')\n")
    return tmp_path


def output_of(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_started_process_is_ours(theirs: Path) -> None:
    here = str(theirs)
    shown = output_of(service_command("--help"), theirs, PYTHONPATH=here, PYTHONHOME=here, PYTHONSTARTUP=here)
    assert "Usage: tickets [OPTIONS]" in shown
    assert "their" not in shown


def test_the_command_is_ours(theirs: Path) -> None:
    # An empty part of PYTHONPATH is the working directory.
    shown = output_of([str(TICKETS), "--help"], theirs, PYTHONPATH=":/nowhere")
    assert "Usage: tickets [OPTIONS]" in shown
    assert "their" not in shown


def test_other_variables_for_python_stay_in_force(tmp_path: Path) -> None:
    # As tools do that instrument a program: a `sitecustomize` on PYTHONPATH.
    (tmp_path / "sitecustomize.py").write_text("print('instrumented')\n")
    assert output_of([str(TICKETS), "--help"], tmp_path, PYTHONPATH=str(tmp_path)).startswith("instrumented\n")


def test_an_installation_in_the_users_site_folder_is_found_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert service_command("serve")[1:] == ["-I", "-m", "service", "serve"]
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    assert service_command("serve")[1] == "-I"
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(Path(__file__).parents[3]))
    assert service_command("serve")[1] == "-EP"
