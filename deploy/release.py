"""The version, which is that of pyproject.toml: written elsewhere (`make version`), compared before a release.

python deploy/release.py set 0.2.0 · python deploy/release.py check [--changelog FILE]
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
# Where it stands: a file, and what is before it. What is generated (gen/openapi.json) takes it from pyproject.toml.
PLACES: Sequence[tuple[str, str]] = (
    ("pyproject.toml", r'^version = "'),
    ("pyproject.toml", r'"tickets-client=='),
    ("service/client/pyproject.toml", r'^version = "'),
    ("deploy/helm/tickets/Chart.yaml", r"^version: "),
    ("deploy/helm/tickets/Chart.yaml", r"^appVersion: "),
    ("gen/typescript/package.json", r'^  "version": "'),
    ("gen/typescript/package-lock.json", r'\A\{\n  "name": "[^"]+",\n  "version": "'),
    ("gen/typescript/package-lock.json", r'^    "": \{\n      "name": "[^"]+",\n      "version": "'),
    (
        "tests/clients/typescript/package-lock.json",
        r'"\.\./\.\./\.\./gen/typescript": \{\n      "name": "[^"]+",\n      "version": "',
    ),
    ("gen/java/pom.xml", r"<artifactId>tickets-client</artifactId>\n  <version>"),
    ("gen/java/README.md", r"<artifactId>tickets-client</artifactId>\n  <version>"),
    ("tests/clients/java/pom.xml", r"<artifactId>tickets-client</artifactId>\n      <version>"),
    ("gen/rust/Cargo.toml", r'^version = "'),
)


def version(root: Path = ROOT) -> str:
    """The one that counts."""
    found: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    return found


def write(wanted: str, root: Path = ROOT) -> None:
    """Write a version everywhere."""
    for name, before in PLACES:
        path = root / name
        text, count = re.subn(rf"({before}){VERSION.pattern}", rf"\g<1>{wanted}", path.read_text(), flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"{name}: {count} places where one was expected: {before}")
        path.write_text(text)


def differences(root: Path = ROOT) -> Iterator[str]:
    """The places that say another version."""
    wanted = version(root)
    for name, before in PLACES:
        found = re.findall(rf"(?:{before})({VERSION.pattern})", (root / name).read_text(), re.MULTILINE)
        if found != [wanted]:
            yield f"{name}: {', '.join(found) or 'none'}, not {wanted} ({before})"


def untold(changelog: str, wanted: str) -> Iterator[str]:
    """What the changelog lacks of a release: its heading, the newest, with a date; and nothing unreleased above it."""
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    unreleased, released = sections[:1], sections[1:2]
    if not unreleased or not unreleased[0].startswith("[Unreleased]"):
        yield "the changelog does not begin with [Unreleased]"
    elif unreleased[0].removeprefix("[Unreleased]").strip():
        yield f"the changelog has something under [Unreleased], which belongs under [{wanted}]"
    if not released or not re.match(rf"\[{re.escape(wanted)}\] - \d{{4}}-\d\d-\d\d\n", released[0]):
        yield f"the changelog's newest release is not “## [{wanted}] - year-month-day”"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 when something is not as it must be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    setting = commands.add_parser("set")
    setting.add_argument("version")
    checking = commands.add_parser("check")
    checking.add_argument("--changelog", type=Path, default=ROOT / "CHANGELOG.md")
    given = parser.parse_args(arguments)
    if given.command == "set":
        if not VERSION.fullmatch(given.version):
            parser.error(f"{given.version} is no version such as 1.2.3")
        write(given.version)
        return 0
    wrong = [*differences(), *untold(given.changelog.read_text(), version())]
    sys.stderr.writelines(line + "\n" for line in wrong)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
