"""The scenario, by a program in each language built from the packages in `gen/`; and the programs of their pages."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from support import up
from support.tools import require

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STEPS = [f"ok {step}" for step in json.loads((HERE / "scenario.json").read_text())["steps"]]
_SECONDS = 900  # the first build of a language downloads what it needs


@dataclass(frozen=True)
class Language:
    """The tool that a language needs, and the commands that build and run its program, in its folder."""

    tool: str
    commands: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Page:
    """Where a program of the package's README is laid, in the language's folder, and the command that runs it there."""

    file: str
    command: Sequence[str]


LANGUAGES: Mapping[str, Language] = {
    "python": Language(sys.executable, [[sys.executable, "scenario.py"]]),
    "go": Language("go", [["go", "build", "-o", "/dev/null", "."], ["go", "run", "."]]),
    # Its build also compiles the examples of the client's page, and tests its retries and what a browser has to load.
    "typescript": Language("npm", [["npm", "ci"], ["npm", "run", "build"], ["node", "dist/scenario.js"]]),
    "java": Language(
        "mvn",
        [
            ["mvn", "-q", "-B", "-f", "../../../gen/java/pom.xml", "install"],
            ["mvn", "-q", "-B", "process-classes"],
            ["java", "-cp", "target/classes:target/libraries/*", "scenario.Failures"],
            ["java", "-cp", "target/classes:target/libraries/*", "scenario.Main"],
        ],
    ),
    "rust": Language(
        "cargo",
        [
            ["cargo", "fmt", "--all", "--check"],
            ["cargo", "build", "--quiet"],
            ["cargo", "test", "--quiet", "--test", "failures"],
            ["target/debug/scenario"],
        ],
    ),
}
PAGES: Mapping[str, Page] = {
    "java": Page("target/Page.java", ["java", "-cp", "target/classes:target/libraries/*", "target/Page.java"]),
    "rust": Page("examples/page.rs", ["cargo", "run", "--quiet", "--example", "page"]),
}


@cache
def build(name: str) -> None:
    language = LANGUAGES[name]
    require(language.tool)
    for command in language.commands[:-1]:
        done = run(name, command, os.environ)
        assert done.returncode == 0, done.stdout + done.stderr


def run(name: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=HERE / name, env={**environment}, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


@pytest.mark.clients
@pytest.mark.parametrize("name", LANGUAGES)
def test_a_client_does_all_of_the_scenario(name: str, environment: Mapping[str, str]) -> None:
    build(name)
    done = run(name, LANGUAGES[name].commands[-1], environment)
    assert (done.stdout.split("\n"), done.returncode) == ([*STEPS, ""], 0), done.stderr


@pytest.mark.clients
def test_it_does_so_through_the_gateway_as_a_page_would(environment: Mapping[str, str]) -> None:
    build("typescript")
    done = run("typescript", LANGUAGES["typescript"].commands[-1], {**environment, "TICKETS_TRANSPORT": "grpc-web"})
    assert (done.stdout.split("\n"), done.returncode) == ([*STEPS, ""], 0), done.stderr


@pytest.mark.clients
@pytest.mark.parametrize("name", PAGES)
def test_the_programs_of_a_package_s_page_run(name: str, running: up.Up) -> None:
    build(name)
    text = (ROOT / "gen" / name / "README.md").read_text()
    programs = re.findall(rf"^```{name}\b.*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert programs
    page = PAGES[name]
    environment = {**os.environ, "TICKETS_API_KEY": running.credentials()["itsm_api_key"]}
    for program in programs:
        file = HERE / name / page.file
        file.parent.mkdir(exist_ok=True)
        file.write_text(running.here(program))
        done = run(name, page.command, environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout
