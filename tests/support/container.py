"""A container without an engine: a root file system of its own that is read-only, a network and processes of its own.

It needs root, and Linux. Inside, nobody is: the user of the image, without capabilities.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.tools import require

USER = 10001
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/dev", "/etc/ld.so.cache", "/etc/ssl")


@dataclass(frozen=True)
class Container:
    """What is in it beside the system: `mounts`, from where to where, which it cannot write to, and `volumes`."""

    mounts: Mapping[Path, str]
    volumes: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, root: Path, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it; `root` is an empty folder."""
        if os.geteuid() != 0 and "CI" not in os.environ:
            pytest.skip("only root can make namespaces")
        for tool in ("unshare", "setpriv", "chroot", "ip"):
            require(tool)
        return subprocess.run(
            [
                "unshare",
                "--mount",
                "--net",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-ec",
                self._script(root, command),
            ],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={"PATH": os.environ["PATH"]},
            check=False,
        )

    def _script(self, root: Path, command: Sequence[str]) -> str:
        # The Python that the environment was made with, at its place: in the image it is the base image's.
        system = {Path(path): path for path in (*SYSTEM, sys.base_prefix) if Path(path).exists()}
        lines = ["mount --make-rprivate /", f"mount -t tmpfs -o mode=0755 root {root}"]
        for source, target in {**system, **self.mounts}.items():
            place = f"{root}{target}"
            lines.append(f"mkdir -p {place}" if source.is_dir() else f"mkdir -p $(dirname {place}); touch {place}")
            lines += [f"mount --rbind {source.resolve()} {place}", f"mount -o remount,bind,ro {place}"]
        for volume in self.volumes:  # as an engine makes them: everybody's
            lines += [f"mkdir -p {root}{volume}", f"mount -t tmpfs -o mode=0777 volume {root}{volume}"]
        lines += [
            f"mkdir -p {root}/proc",
            f"mount -t proc proc {root}/proc",
            f"mount -o remount,ro {root}",
            "ip link set lo up",
        ]
        inside = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all"]
        inside += ["--bounding-set=-all", "--no-new-privs", "env", "--ignore-environment"]
        inside += [f"{name}={value}" for name, value in self.environment.items()]
        return "\n".join([*lines, f"exec chroot {root} {shlex.join([*inside, *command])}"])
