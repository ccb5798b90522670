"""What is installed from elsewhere: everything has a hash in a lock, and the locks are of one mind."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTED = "requirements.lock"
LOCKS = sorted(path.name for path in (ROOT / "deploy").glob("*.lock"))
INSTALL = re.compile(r"(?:pip (?:install|wheel)|\$\(PIP_INSTALL\)|\$\(NEWEST_INSTALL\)) .*")
# What is in no lock yet is what `make test-newest` is for.
NEWEST = "--upgrade grpcio "


def pins(lock: str) -> dict[str, set[str]]:
    """The hashes of each version in a lock."""
    entries = re.split(r"\n(?=\S)", (ROOT / "deploy" / lock).read_text().strip())
    return {entry.split(" ")[0]: set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry)) for entry in entries}


def installs(file: str) -> list[str]:
    """The commands of a file that install something, or build it."""
    text = (ROOT / file).read_text().replace("\\\n", " ")
    editable = re.search(r"^EDITABLE := (.*)$", text, re.MULTILINE)
    text = text.replace("$(EDITABLE)", editable[1] if editable else "")
    commands = [command for line in text.splitlines() for command in line.split("&&") if ":=" not in line]
    return [match[0] for command in commands if (match := INSTALL.search(command))]


@pytest.mark.parametrize("file", ["Makefile", "deploy/image/build.sh"])
def test_what_is_downloaded_is_checked_against_its_hash(file: str) -> None:
    found = installs(file)
    assert found
    for command in found:
        # Our own, with nothing beside it.
        is_ours = "--no-deps" in command and ("--no-build-isolation" in command or "--no-index" in command)
        assert is_ours or "--require-hashes -r " in command or NEWEST in command, command


@pytest.mark.parametrize("lock", [*LOCKS, "helm/checks.lock"])
def test_every_package_of_a_lock_has_a_version_and_hashes(lock: str) -> None:
    for package, hashes in pins(lock).items():
        assert re.fullmatch(r"[a-z0-9-]+==\S+", package)
        assert hashes, package


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != TESTED])
def test_what_is_shipped_is_what_is_tested(lock: str) -> None:
    tested, given = pins(TESTED), pins(lock)
    names = {package.split("==")[0] for package in tested}
    shared = {package: hashes for package, hashes in given.items() if package.split("==")[0] in names}
    assert shared == {package: tested.get(package) for package in shared}
    if lock != "tools.lock":
        assert shared == given
