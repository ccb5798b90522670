"""The wheel, installed, in a folder where someone else has packages of its names: each gets their own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import httpx2
import psutil
import pytest

from service.local.processes import free_port, wait_for

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel; what it depends on comes from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([BIN / "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT, check=True, capture_output=True)
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    [wheel] = folder.glob("*.whl")
    install: list[Path | str] = [
        BIN / "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-cache",
        "--no-deps",
        "--python",
        python,
        wheel,
    ]
    subprocess.run(install, check=True)
    [packages] = environment.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "dependencies.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return python.parent


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder in which someone else has packages of our names."""
    for name in ("service", "tickets"):
        package = tmp_path / name
        package.mkdir()
        for file in ("__init__.py", "__main__.py"):
            (package / file).write_text(f"print('their {name}')\n")
    return tmp_path


def run(command: list[str], folder: Path, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_program_beside_their_package_imports_theirs(installed: Path, theirs: Path) -> None:
    assert run([str(installed / "python"), "-c", "import service"], theirs) == (0, "their service\n", "")


@pytest.mark.parametrize("path", ["", "."], ids=["in their folder", "with their folder on PYTHONPATH"])
def test_a_command_is_ours(installed: Path, theirs: Path, path: str) -> None:
    answer = run([str(installed / "tickets"), "serve"], theirs, PYTHONPATH=path, TICKETS_POOL_SIZE="0")
    assert answer == (1, "", "TICKETS_POOL_SIZE: Input should be greater than or equal to 1\n")


def test_up_runs_our_service_in_their_folder(installed: Path, theirs: Path, apart_url: str) -> None:
    data_dir = theirs / ("deep" * 30)  # too deep for a unix socket
    http_port, grpc_port = free_port(), free_port()
    command: list[Path | str] = [installed / "tickets", "up", "--data-dir", data_dir, "--no-demo", "--workers", "2"]
    command += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    environment = {
        **os.environ,
        "TICKETS_DATABASE_URL": apart_url,
        "PYTHONPATH": ".",
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    output = theirs / "output"
    with output.open("wb") as file:
        up = subprocess.Popen(command, cwd=theirs, env=environment, stdout=file, stderr=file)

    def is_ready() -> bool:
        assert up.poll() is None, output.read_text()
        return output.read_text().startswith("ready: ")

    try:
        wait_for(is_ready, what="tickets up", timeout=60)
        assert httpx2.get(f"http://127.0.0.1:{http_port}/api/v1/tickets").json() == {
            "detail": "Missing authentication credentials"
        }
        addresses = [
            child.environ()["TICKETS_GRPC_LISTEN"].split(",")
            for child in psutil.Process(up.pid).children()
            if "serve" in child.cmdline()
        ]
    finally:
        up.terminate()
        assert up.wait(timeout=60) == 0, output.read_text()
    # One port is everyone's, and each process has a socket of its own.
    assert [shared for shared, _ in addresses] == [f"127.0.0.1:{grpc_port}"] * 2
    own = [Path(address.removeprefix("unix:")) for _, address in addresses]
    assert len(set(own)) == 2
    assert not own[0].parent.exists()
    assert "their" not in output.read_text()
