"""A release: one version everywhere, and a changelog that has it."""

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "deploy/release.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = load()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that name the version."""
    for name, _ in release.PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_say_one_version() -> None:
    assert list(release.differences()) == []


def test_a_version_is_written_wherever_it_stands(checkout: Path) -> None:
    release.write("7.8.9", checkout)
    assert release.version(checkout) == "7.8.9"
    assert list(release.differences(checkout)) == []


@pytest.mark.parametrize(("name", "before"), release.PLACES)
def test_a_place_that_says_another_is_named(checkout: Path, name: str, before: str) -> None:
    release.write("7.8.9", checkout)
    text = (checkout / name).read_text()
    (checkout / name).write_text(text.replace("7.8.9", "7.8.8"))
    assert any(line.startswith(name) for line in release.differences(checkout)) or name == "pyproject.toml"
    assert list(release.differences(checkout))


HEAD = "# Changelog\n\n## [Unreleased]\n\n"


@pytest.mark.parametrize(
    ("changelog", "complaints"),
    [
        (f"{HEAD}## [1.2.3] - 2026-11-27\n\n### Added\n\n- All.\n", []),
        (f"{HEAD}## [1.2.3]\n\n- All.\n", ["newest release"]),
        (f"{HEAD}## [1.2.2] - 2026-11-27\n\n- All.\n", ["newest release"]),
        (f"{HEAD}- Something.\n\n## [1.2.3] - 2026-11-27\n", ["something under [Unreleased]"]),
        (f"{HEAD}- Something.\n", ["something under [Unreleased]", "newest release"]),
        ("# Changelog\n\n## [1.2.3] - 2026-11-27\n", ["does not begin", "newest release"]),
    ],
)
def test_the_changelog_has_the_version_and_nothing_above_it(changelog: str, complaints: list[str]) -> None:
    said = list(release.untold(changelog, "1.2.3"))
    assert len(said) == len(complaints)
    assert all(complaint in line for complaint, line in zip(complaints, said, strict=True))
