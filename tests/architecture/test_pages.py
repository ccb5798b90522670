"""The pages: what they link to, name and list is there, and the front page stays short."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from typer.core import TyperGroup
from typer.main import get_command

from service.__main__ import app
from service.errors import REASONS
from service.server import DESCRIPTORS

ROOT = Path(__file__).parents[2]
FILES = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
FOLDERS = {str(folder) for name in FILES for folder in Path(name).parents}
PAGES = [name for name in FILES if name.endswith(".md")]
CONTRACTS = ROOT / "protos/contracts"

CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# `service/watch.py`, `tests/support/`, `handoff/lifecycle.py`.
PATH = re.compile(r"(?:service|tests|protos|deploy|gen)/[\w./-]*|[\w-]+(?:/[\w-]+)*/[\w-]+\.py")
CITATION = re.compile(r"contracts/(\w+)\.md(?: and (\w+)\.md)?(?: at both \w+)?(?:, (?:\"([^\"]+)\"|([A-Z][^:.)]*)))?")
# A heading, or the word that a paragraph or an item begins with, up to what is said beside it.
SECTION = re.compile(r"^(?:#+ ([^:(\n]+?)(?: \(|:|$)|(?:- )?\**([A-Z][\w ]*?)\**(?: \([^)]*\))?\**:)", re.MULTILINE)


def prose(page: str) -> str:
    return CODE_BLOCK.sub("", (ROOT / page).read_text())


def anchors(page: str) -> Iterator[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen = Counter[str]()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        yield anchor if not seen[anchor] else f"{anchor}-{seen[anchor]}"
        seen[anchor] += 1


def is_there(path: Path) -> bool:
    name = str(path.resolve().relative_to(ROOT))
    return name in FILES or name in FOLDERS


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: str) -> None:
    for target in LINK.findall(CODE.sub("", prose(page))):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / name if name else ROOT / page
        assert is_there(linked), target
        if anchor:
            assert anchor in anchors(str(linked.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])  # which tells of the past
def test_every_file_that_is_named_is_there(page: str) -> None:
    """In the repository, beside the page, or in `service/`."""
    for name in filter(PATH.fullmatch, CODE.findall(prose(page))):
        assert any(is_there(home / name) for home in (ROOT, (ROOT / page).parent, ROOT / "service")), name


def test_every_citation_of_a_contract_is_of_something_that_it_says() -> None:
    for name in FILES:
        if not name.endswith((".py", ".proto", ".yaml", ".md")) or name == str(Path(__file__).relative_to(ROOT)):
            continue
        # A citation may go on in the next line of a comment.
        text = re.sub(r"\s*\n\s*(?:#|//)?\s*", " ", (ROOT / name).read_text())
        for match in CITATION.finditer(text):
            page, other, quoted, plain = match.groups()
            for contract in filter(None, (page, other)):
                assert (CONTRACTS / f"{contract}.md").exists(), f"{name}: {match[0]}"
            found = SECTION.findall((CONTRACTS / f"{page}.md").read_text())
            sections = {heading or label for heading, label in found}
            if quoted:
                assert quoted in sections, f"{name}: {match[0]}"
            # "Provider and Idempotency", "SLA at both transports".
            for cited in plain.split(" and ") if plain else ():
                assert any(re.match(rf"{re.escape(section)}\b", cited) for section in sections), f"{name}: {match[0]}"


# In tests/README.md: "| in `service/purged.py`, `refuse_if_before`: refuse nobody | `…/test_watches.py` |".
BREAK = re.compile(r"^\| in `([^`]+)`((?:,? (?:and )?`[^`]+`)*): .* \| (.*) \|$", re.MULTILINE)


def test_what_the_page_of_the_tests_breaks_is_there() -> None:
    """The file with what it defines, and the tests that fail."""
    page = (ROOT / "tests/README.md").read_text()
    rows = BREAK.findall(page)
    assert len(rows) == len(re.findall(r"^\| in `", page, re.MULTILINE))
    for name, symbols, tests in rows:
        assert name in FILES, name
        text = (ROOT / name).read_text()
        for symbol in CODE.findall(symbols):
            word = re.escape(symbol)
            defined = rf"^ *(?:(?:async )?def|class) {word}\b|^{word}\b.*? = " if name.endswith(".py") else word
            assert re.search(defined, text, re.MULTILINE), f"{name}: {symbol}"
        folder = Path()
        for test in (one for one in CODE.findall(tests) if one.endswith(".py")):
            # `integration/retention/test_watches.py`, `test_gaps.py`.
            folder = Path(test).parent if "/" in test else folder
            assert str("tests" / folder / Path(test).name) in FILES, test


def test_the_front_page_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_the_page_of_the_apis_lists_every_method() -> None:
    page = (ROOT / "protos/README.md").read_text()
    # What stands for `…` in each table.
    bases = ("", "/api/projects/{project_id}/tickets", "/api/v1/helpdesk/tickets")
    listed = {
        (method, f"{verb} {path}".replace(" …", f" {base}"))
        for method, verb, path in re.findall(r"^\| `(\w+)` \| `([A-Z]+) (\S+)` \|", page, re.MULTILINE)
        for base in bases
    }
    for service in DESCRIPTORS:
        for method in service.methods if service.name == "TicketRest" else ():
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            verb = rule.WhichOneof("pattern")
            path = getattr(rule, verb).replace("{project}", "{project_id}")
            assert (method.name, f"{verb.upper()} {path}") in listed


def test_the_page_of_the_apis_has_every_reason() -> None:
    page = (ROOT / "protos/README.md").read_text()
    rows = re.findall(r"^\| `([a-z_]+)` \| ([A-Z_]+) \| (\d+) \| (\d+) \| (\d+) \|", page, re.MULTILINE)
    assert {name: (status, *map(int, http)) for name, status, *http in rows} == {
        name: (reason.status.name, reason.handoff_http or reason.http, reason.http, reason.itsm_http)
        for name, reason in REASONS.items()
    }


def commands(command: Any, *words: str) -> Iterator[tuple[str, list[Sequence[str]]]]:
    """Every subcommand by its words, with the forms of each of its options: `--follow`, `-f`."""
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from commands(inner, *words, name)
    else:
        yield " ".join(words), [one.opts for one in command.params if one.param_type_name == "option"]


def test_the_page_of_the_command_has_every_option() -> None:
    page = (ROOT / "deploy/README.md").read_text()
    cells = re.findall(r"^\| (`tickets .*?) \| ", page, re.MULTILINE)
    # What many commands take is said once, below the table.
    shared = {"--data-dir", "--cursor"}
    for name, options in commands(get_command(app)):
        word = rf"`(?:tickets )?(?:admin )?{name.removeprefix('admin ')}[ `]"
        cell = next(cell for cell in cells if re.search(word, cell))
        for forms in options:
            assert shared.intersection(forms) or any(form in re.findall(r"-[\w-]+", cell) for form in forms), name
