"""What two processes on one machine must not have at the same time."""

import os
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.local import claims
from service.local.claims import claim_folder, claim_machine, claim_port
from service.local.processes import free_port, wait_for

HOST = "127.0.0.1"


def test_a_folder_has_one_holder(tmp_path: Path) -> None:
    for _ in range(2):  # the second time after the first has given it back
        with claim_folder(tmp_path, tmp_path / "lock"):
            with pytest.raises(RuntimeError) as refusal, claim_folder(tmp_path, tmp_path / "lock"):
                pass
            assert str(refusal.value) == f"{tmp_path} is in use by another process"


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import sys, time; from pathlib import Path; from service.local.claims import claim_folder, claim_port\n"
        f"with claim_port('{HOST}', {port}), claim_folder(Path('x'), Path('{tmp_path}/lock')):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline() == b"held\n"
    with pytest.raises(OSError, match=f"^port {port} is in use$"), claim_port(HOST, port):
        pass
    with pytest.raises(RuntimeError), claim_folder(tmp_path, tmp_path / "lock"):
        pass
    holder.kill()
    holder.wait()
    with claim_port(HOST, port), claim_folder(tmp_path, tmp_path / "lock"):
        pass


def test_a_claimed_port_is_for_its_holders_processes() -> None:
    port = free_port()
    with claim_port(HOST, port):
        # Two instances that start at once find the port free, for nothing listens yet.
        with pytest.raises(OSError, match="is in use"), claim_port(HOST, port):
            pass
        with ExitStack() as stack:
            for _ in range(2):
                worker = stack.enter_context(socket.socket())
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                worker.bind((HOST, port))
                worker.listen()


def test_a_port_on_which_something_listens_is_not_claimed() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(OSError, match=f"^port {port} is in use$"), claim_port(HOST, port):
            pass
    with claim_port(HOST, port):
        pass


@pytest.fixture
def shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "_SHARED_FOLDER", tmp_path)
    return tmp_path


def test_a_machines_claims_wait_for_each_other(shared_folder: Path) -> None:
    second = threading.Thread(target=lambda: claim_machine("x").__enter__())
    with claim_machine("other"), claim_machine("x"):
        second.start()
        second.join(0.2)
        assert second.is_alive()
    wait_for(lambda: not second.is_alive(), what="the second to get its turn", timeout=10)


def test_a_link_that_someone_has_put_there_is_not_followed(shared_folder: Path) -> None:
    target = shared_folder / "precious"
    (shared_folder / f"tickets-{os.geteuid()}-x.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), claim_machine("x"):
        pass
    assert not target.exists()


@pytest.mark.parametrize("kind", ["fifo", "another user's"])
def test_a_file_that_is_not_ours_is_refused(shared_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = shared_folder / f"tickets-{os.geteuid()}-x.lock"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
        ours = os.geteuid()
        calls = iter([ours])
        monkeypatch.setattr(os, "geteuid", lambda: next(calls, ours + 1))
    with pytest.raises(RuntimeError, match="is not a file of ours: remove it"), claim_machine("x"):
        pass
