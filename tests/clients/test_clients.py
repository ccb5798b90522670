"""The scenario, by a program in each language that is built from the packages in `gen/`."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = [f"ok {step}" for step in json.loads((HERE / "scenario.json").read_text())["steps"]]
_SECONDS = 900  # the first build of a language downloads what it needs


@dataclass(frozen=True)
class Language:
    """The tool that a language needs, and the commands that build and run its program, in its folder."""

    tool: str
    commands: Sequence[Sequence[str]]


LANGUAGES: Mapping[str, Language] = {
    "go": Language("go", [["go", "build", "-o", "/dev/null", "."], ["go", "run", "."]]),
    # Its build also compiles the examples of the client's page, and tests its retries and what a browser has to load.
    "typescript": Language("npm", [["npm", "ci"], ["npm", "run", "build"], ["node", "dist/scenario.js"]]),
}


@pytest.mark.clients
@pytest.mark.parametrize("name", LANGUAGES)
def test_a_client_does_all_of_the_scenario(name: str, environment: Mapping[str, str]) -> None:
    language = LANGUAGES[name]
    if shutil.which(language.tool) is None and "CI" not in os.environ:
        pytest.skip(f"{language.tool} is not installed")
    *build, run = language.commands
    for command in build:
        done = subprocess.run(command, cwd=HERE / name, capture_output=True, text=True, timeout=_SECONDS, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        run, cwd=HERE / name, env={**environment}, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert (done.stdout.split("\n"), done.returncode) == ([*STEPS, ""], 0), done.stderr


@pytest.mark.clients
def test_the_generated_typescript_is_fresh(tmp_path: Path) -> None:
    """Fails when a proto changed and `make gen` was not run."""
    if shutil.which("npm") is None and "CI" not in os.environ:
        pytest.skip("npm is not installed")
    subprocess.run(["make", "--silent", "gen-typescript", f"GEN={tmp_path}", "READY="], cwd=ROOT, check=True)
    made, kept = (_texts(gen / "typescript/src/gen") for gen in (tmp_path, ROOT / "gen"))
    assert made.keys() == kept.keys()
    assert [name for name, text in made.items() if text != kept[name]] == []


def _texts(folder: Path) -> Mapping[Path, str]:
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*.ts")}
