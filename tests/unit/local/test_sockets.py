"""Where unix sockets lie."""

import os
import pwd
import socket
import stat
from pathlib import Path

import pytest

from service.local.sockets import socket_folder


def test_sockets_lie_in_the_folder_itself(tmp_path: Path) -> None:
    with socket_folder(tmp_path, "worker-64") as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


@pytest.mark.parametrize("name", ["deep" * 30, "with space", "a,b", "50%25", "größe", "a?b#c"])
def test_a_path_that_is_too_long_or_odd_gives_way_to_a_private_folder(tmp_path: Path, name: str) -> None:
    given = tmp_path / name
    given.mkdir()
    with socket_folder(given, "worker-64") as folder, socket.socket(socket.AF_UNIX) as listener:
        assert folder != given
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        listener.bind(str(folder / "worker-64"))
    assert given.exists()
    assert not folder.exists()


def test_the_longest_path_that_is_not_too_long_can_be_bound(tmp_path: Path) -> None:
    given = tmp_path / ("x" * (103 - len(str(tmp_path)) - len("//worker-64")))
    given.mkdir()
    with socket_folder(given, "worker-64") as folder, socket.socket(socket.AF_UNIX) as listener:
        assert folder == given
        listener.bind(str(folder / "worker-64"))
    with socket_folder(given, "worker-640") as folder:
        assert folder != given


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_a_private_folder_is_its_owners(tmp_path: Path) -> None:
    owner = pwd.getpwnam("nobody")
    with socket_folder(tmp_path / ("deep" * 30), "x", owner) as folder:
        assert folder.stat().st_uid == owner.pw_uid
