"""`make release`: what a release has, and that it is refused without a changelog."""

import csv
import hashlib
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from support.chart import tool

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LOCKED = set(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "deploy/service.lock").read_text(), re.MULTILINE))


def make_release(folder: Path, changelog: str) -> subprocess.CompletedProcess[str]:
    file = folder.with_name("CHANGELOG.md")
    file.write_text(changelog)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--silent", "release", f"DIST={folder}", f"CHANGELOG={file}"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_what_no_changelog_tells_of_is_not_released(tmp_path: Path) -> None:
    tool("helm")
    done = make_release(tmp_path / "dist", "# Changelog\n\n## [Unreleased]\n\n- Something.\n")
    assert done.returncode != 0
    assert f"[{VERSION}]" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_a_release_has_wheels_the_chart_its_materials_and_licences(tmp_path: Path) -> None:
    tool("helm")
    folder = tmp_path / "dist"
    done = make_release(folder, f"# Changelog\n\n## [Unreleased]\n\n## [{VERSION}] - 2026-11-27\n\n- All.\n")
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in folder.iterdir()}
    assert names == {
        f"tickets_client-{VERSION}-py3-none-any.whl",
        f"tickets_client-{VERSION}.tar.gz",
        f"tickets_service-{VERSION}-py3-none-any.whl",
        f"tickets_service-{VERSION}.tar.gz",
        f"tickets-{VERSION}.tgz",
        "tickets-service.cdx.json",
        "licenses.csv",
        "SHA256SUMS",
    }
    sums = {line[66:]: line[:64] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert sums == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names - {"SHA256SUMS"}}
    materials = json.loads((folder / "tickets-service.cdx.json").read_text())["components"]
    assert {(each["name"], each["version"]) for each in materials} == LOCKED
    assert all(each["externalReferences"][0]["hashes"] for each in materials)
    with (folder / "licenses.csv").open() as file:
        licences = {(each["Name"].lower().replace("_", "-"), each["License"]) for each in csv.DictReader(file)}
    assert {name for name, _ in licences} == {name for name, _ in LOCKED}
    assert "UNKNOWN" not in {licence for _, licence in licences}
