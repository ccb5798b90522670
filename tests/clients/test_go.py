"""The Go module: fresh, tidy, and its page runs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support import up
from support.go import go
from support.tools import require

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "gen/go"
MODULES = [MODULE, ROOT / "deploy/grpc-gateway", ROOT / "tests/clients/go"]

pytestmark = pytest.mark.clients


@pytest.fixture(autouse=True)
def _with_go() -> None:
    require("go")


def test_what_is_generated_is_fresh(tmp_path: Path) -> None:
    """Fails when a proto changed and `make gen` was not run where Go is."""
    subprocess.run(["make", "--silent", "gen-go", f"GEN={tmp_path}", "READY="], cwd=ROOT, check=True)
    made, kept = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.go")}
        for folder in (tmp_path / "go/tickets", MODULE / "tickets")
    )
    assert made.keys() == kept.keys()
    assert [str(name) for name in made if made[name] != kept[name]] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(ROOT)))
def test_a_module_is_formatted_vetted_and_tested(module: Path) -> None:
    written = [str(path) for path in module.rglob("*.go") if MODULE / "tickets" not in path.parents]
    assert subprocess.run(["gofmt", "-l", *written], capture_output=True, text=True, check=True).stdout == ""
    go("vet", "./...", cwd=module)
    go("test", "./...", cwd=module)


def test_the_page_is_a_program_that_runs(running: up.Up, tmp_path: Path) -> None:
    page = (MODULE / "README.md").read_text()
    program = "\n".join(re.findall(r"^```go\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    (tmp_path / "main.go").write_text(program)
    assert subprocess.run(["gofmt", "-l", "main.go"], cwd=tmp_path, capture_output=True, check=True).stdout == b""
    name = "github.com/tickets-service/tickets/gen/go"
    shutil.copy(MODULE / "go.sum", tmp_path)
    go("mod", "init", "example", cwd=tmp_path)
    go("mod", "edit", f"-replace={name}={MODULE}", cwd=tmp_path)
    go("mod", "tidy", cwd=tmp_path)
    lines = go("run", ".", str(running.data_dir / "credentials.json"), cwd=tmp_path).splitlines()
    assert lines[0].startswith("TKT-")
    assert lines[1] == "true"
    errors = lines.index(next(line for line in lines if line.startswith("validation_error ")))
    assert lines[errors + 4 : errors + 5] == ["true"]
    assert lines[-2].startswith("ticket.created 1 then resume from ")
    assert lines[-1] == "true [true]"
