"""`make`: which Python it takes, and the protos that it compares with the baseline."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVES, REFUSES = "exit 0", "exit 1"


def make(*args: str, folder: Path = ROOT, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    program = shutil.which("make")
    assert program
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "MAKELEVEL")
    }
    command = [program, "--directory", str(folder), *args]
    return subprocess.run(command, env=environment | {"PATH": path}, capture_output=True, text=True, check=False)


# Pythons


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the Makefile and what an environment is made from, so that nothing is made in this one."""
    folder = tmp_path / "checkout"
    for name in ("Makefile", "pyproject.toml", "service/client/pyproject.toml", "deploy/requirements.lock"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def path_of(folder: Path, pythons: dict[str, str]) -> str:
    """A PATH that has these programs alone, each a script."""
    programs = folder / "bin"
    programs.mkdir()
    for name, script in pythons.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return str(programs)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3": SERVES}, "python3"),
        ({"python3.12": SERVES}, "python3.12"),
        ({"python3.13": SERVES, "python3": SERVES}, "python3.13"),
        ({"python3.11": SERVES, "python3.12": SERVES, "python3": SERVES}, "python3.11"),
        # Too old, without venv, or the stand-in of a version that is not installed.
        ({"python3.11": REFUSES, "python3": SERVES}, "python3"),
    ],
)
def test_the_first_python_that_is_new_enough_is_taken(
    checkout: Path, tmp_path: Path, pythons: dict[str, str], taken: str
) -> None:
    done = make("--dry-run", ".venv/ready", folder=checkout, path=path_of(tmp_path, pythons))
    assert re.findall(r"^(\S+) -m venv \.venv$", done.stdout, re.MULTILINE) == [taken], done.stderr


@pytest.mark.parametrize("pythons", [{}, {"python3": REFUSES, "python3.11": REFUSES}])
def test_it_says_so_when_none_is(checkout: Path, tmp_path: Path, pythons: dict[str, str]) -> None:
    done = make("up", folder=checkout, path=path_of(tmp_path, pythons))
    assert done.returncode == 2
    assert "This needs Python 3.11 or newer" in done.stderr
    assert "none of python3.11 python3.12 python3.13 python3.14 python3 is that" in done.stderr
    assert not (checkout / ".venv").exists()


def test_it_says_so_when_the_named_one_is_not(checkout: Path, tmp_path: Path) -> None:
    done = make(
        "up", "PYTHON=python2", folder=checkout, path=path_of(tmp_path, {"python3": SERVES, "python2": REFUSES})
    )
    assert done.returncode == 2
    assert "python2 is not that" in done.stderr


# Protos


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    return tmp_path / "protos"


def breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    return make("breaking", "READY=", f"PROTO_DIR={protos}")


def test_the_protos_break_nothing_of_the_baseline() -> None:
    done = breaking(ROOT / "protos")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("pattern", "replacement", "complaint"),
    [
        (r"  string subject = 2;\n", "", 'field "2" with name "subject" on message "Ticket" was deleted'),
        (
            r"string subject = 2;",
            "string subject = 99;",
            'field "2" with name "subject" on message "Ticket" was deleted',
        ),
        (
            r"string subject = 2;",
            "bytes subject = 2;",
            'Field "2" with name "subject" on message "Ticket" changed type',
        ),
    ],
    ids=["removed", "renumbered", "retyped"],
)
def test_a_changed_field_breaks_the_baseline(protos: Path, pattern: str, replacement: str, complaint: str) -> None:
    path = protos / "tickets/itsm/v1/ticket.proto"
    text, changes = re.subn(pattern, replacement, path.read_text())
    assert changes == 1
    path.write_text(text)
    done = breaking(protos)
    assert done.returncode != 0
    assert complaint in done.stdout


def test_a_new_field_breaks_nothing(protos: Path) -> None:
    path = protos / "tickets/itsm/v1/ticket.proto"
    path.write_text(path.read_text().replace("string subject = 2;", "string subject = 2;\n  string added = 99;"))
    done = breaking(protos)
    assert done.returncode == 0, done.stdout
