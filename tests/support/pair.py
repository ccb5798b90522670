"""A primary and its standby: two PostgreSQL servers of which the second can take over."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from service.local.postgres import EmbeddedPostgres, _postgres_install
from service.local.processes import wait_for
from service.migrations import upgrade

_SETTINGS = {"fsync": "off"}


class Pair:
    """Both of them, and what becomes of them."""

    def __init__(self, primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
        self.primary, self.standby = primary, standby

    @property
    def url(self) -> str:
        """The URL that names both, for whichever of them takes writes."""
        sockets = (conninfo_to_dict(server.url)["host"] for server in (self.primary, self.standby))
        hosts = ",".join(quote(str(socket), safe="") for socket in sockets)
        return f"postgresql://postgres@/tickets?host={hosts}&port=5432,5432&target_session_attrs=read-write"

    def wait_for_each_other(self) -> None:
        """From now on a commit is answered when the standby has it too."""
        with psycopg.connect(self.primary.url, autocommit=True) as connection:
            # Here and not in the file that the standby copied: it would wait for a standby of its own.
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            states = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait_for(lambda: connection.execute(states).fetchone() == (1,), what="the standby to keep up", timeout=30)

    def promote(self) -> None:
        """The standby takes over: `pg_ctl promote`, which returns when it has."""
        binaries, owner = _postgres_install(self.standby.data_dir)
        who: dict[str, Any] = {}
        if owner is not None:
            who = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        subprocess.run(
            [binaries / "pg_ctl", "promote", "-D", self.standby.data_dir],
            cwd="/",
            check=True,
            stdout=subprocess.DEVNULL,
            **who,
        )

    def kill_primary(self) -> None:
        """All its processes die at once, as with its machine."""
        _kill(self.primary)

    def kill_standby(self) -> None:
        """The same of the standby."""
        _kill(self.standby)

    def restart_standby(self) -> None:
        """Start it again; it follows the primary as before."""
        wait_for(lambda: self.standby.exited() is not None, what="the standby to end", timeout=30)
        self.standby.clear_leftovers()
        self.standby.launch()
        self.standby.wait_until_ready()

    def restart_primary_as_standby(self) -> None:
        """The primary stops and comes back as a standby that follows nobody."""
        self.primary.stop()
        (self.primary.data_dir / "standby.signal").touch()
        self.primary.start()

    @contextmanager
    def hanging(self, server: EmbeddedPostgres | None = None) -> Iterator[None]:
        """All processes of a server, the primary, stand still: it accepts connections, and says nothing."""
        processes = _processes(server or self.primary)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)


@contextmanager
def running_pair(directory: Path) -> Iterator[Pair]:
    """A primary at the newest schema and a standby that follows it."""
    with EmbeddedPostgres(directory / "primary", settings=_SETTINGS) as primary:
        upgrade(primary.url)
        copy = directory / "standby"
        _copy(primary, copy)
        with EmbeddedPostgres(copy, settings=_SETTINGS) as standby:
            yield Pair(primary, standby)


def _copy(primary: EmbeddedPostgres, copy: Path) -> None:
    binaries, owner = _postgres_install(copy)
    subprocess.run(
        [binaries / "pg_basebackup", "-D", copy, "-R", "-X", "stream", "-c", "fast", "-d", primary.url_for("postgres")],
        check=True,
    )
    copy.chmod(0o700)
    if owner is not None:
        for path in (copy, *copy.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _kill(server: EmbeddedPostgres) -> None:
    for process in _processes(server):
        process.kill()


def _processes(server: EmbeddedPostgres) -> Sequence[psutil.Process]:
    postmaster = psutil.Process(int((server.data_dir / "postmaster.pid").read_text().split()[0]))
    return [postmaster, *postmaster.children()]
