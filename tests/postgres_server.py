"""A real PostgreSQL server for tests: data and socket in a temporary folder, run by an unprivileged user."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.harness import until
from tests.parent_death import ends_with_us

_USER = "postgres"  # the server refuses to run as root
# A test's data need not survive a power cut, only the death of the server.
_SETTINGS = ("fsync=off", "full_page_writes=off", "listen_addresses=", "jit=off")


def missing() -> str | None:
    """What is not there to run one, as the notice of a skipped test; None when all is there."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (requirements-cluster.txt), so nothing is tested on PostgreSQL"
    if _programs() is None:
        return "there is no PostgreSQL server on this machine (Debian: postgresql), so nothing is tested on it"
    return None


class PostgresServer:
    """One server; `start` and `kill` may follow each other, the data stays."""

    def __init__(self) -> None:
        programs = _programs()
        assert programs is not None
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # the path of a socket must be short
        self._process: subprocess.Popen[bytes] | None = None
        self._as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            user = pwd.getpwnam(_USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        command = [str(programs / "initdb"), "--no-sync", "-A", "trust", "-U", _USER, "-E", "UTF8", "--locale=C"]
        subprocess.run([*command, "-D", self._data], check=True, capture_output=True, cwd="/", **self._as_user)
        self._url = f"postgresql+psycopg://{_USER}@/{_USER}?host={self.folder}"
        self._schemas = 0

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Start, and wait until it answers.

        After SIGKILL a new server ends at once while children of the old one still live, so it is started again.
        """
        until(self._is_up)

    def _is_up(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            self._spawn()
        return self._answers()

    def _spawn(self) -> None:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        command = [str(self._programs / "postgres"), "-D", self._data, "-k", str(self.folder), *settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd="/", preexec_fn=ends_with_us(signal.SIGQUIT), **self._as_user
            )

    def stop(self) -> None:
        """End it at once, its children too, without a last word to the clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
            self._process = None

    def kill(self) -> None:
        """As after a power cut: SIGKILL to the server; its children end when they see that it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)
        self._process = None
        until(lambda: not self._answers())

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self) -> str:
        """The address of an empty database: a schema of its own in the one database, which is made much faster."""
        self._schemas += 1
        name = f"jobs{self._schemas}"
        with self._connect() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        return f"{self._url}&options=-csearch_path%3D{name}"

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except OperationalError:
            return False
        return True

    def _connect(self) -> Connection:
        engine = create_engine(self._url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        return engine.connect()


@functools.cache
def shared_server() -> PostgresServer:
    """The one server of this test run; it ends with the process."""
    server = PostgresServer()
    atexit.register(server.remove)
    server.start()
    return server


def _programs() -> Path | None:
    """The folder of the server's programs; Debian keeps it off the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent
