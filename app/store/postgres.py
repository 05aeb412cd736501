"""PostgreSQL behind a pool of connections, for services of several processes and machines.

Writing transactions are READ COMMITTED and repeated up to three times when another one was in their way; reading ones
see one state of all rows. psycopg is imported only when such a database is named.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Float,
    cast,
    create_engine,
    event,
    exc,
    extract,
    func,
    make_url,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from app.errors import Internal, RestoreError, Unavailable
from app.store.clock import clock_reading
from app.store.locks import AdvisoryLock, hold
from app.store.migration import migrate

log = logging.getLogger(__name__)

POOL_CONNECTIONS = 10  # of a process, opened as they are needed
POOL_TIMEOUT_SECONDS = 5
OPEN_PATIENCE_SECONDS = 30.0  # a server that starts beside this process may need as long
_OPEN_PAUSE_SECONDS = 0.5
_AGAIN_PAUSE_SECONDS = 0.05
_TRIES = 4  # of a transaction that meets another one
_TRUSTED_SECONDS = 0.1  # for so long after its last use a connection is not tested; no server is back so soon
_IDLE_SINCE = "idle_since"
_RETRY_SECONDS = 5
_FULL_RETRY_SECONDS = 60

_SERVER_OPTIONS = (
    "-c statement_timeout=10s -c lock_timeout=5s -c idle_in_transaction_session_timeout=30s -c timezone=UTC"
)
_CONNECT_ARGUMENTS = {
    "connect_timeout": 3,
    "application_name": "neural-image-restore",
    "keepalives_idle": 10,  # seconds; so a host that vanished is noticed
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,  # milliseconds; keepalives are not sent while data waits to be acknowledged
}
# Another transaction was in the way: a serialization failure, a deadlock, or a row that it wrote or removed meanwhile.
_AGAIN = ("40001", "40P01", "23505", "23503")
_REFUSED = ("28000", "28P01", "3D000", "3F000", "42501")

Value = TypeVar("Value")


class PostgresDatabase:
    """A PostgreSQL database; see `Database`. Its clock is the server's, or the given `clock`."""

    exclusive = False

    def __init__(self, database_url: str, clock: Callable[[], float] | None = None) -> None:
        self._url = make_url(database_url).set(drivername="postgresql+psycopg")
        servers: ColumnElement[float] = cast(extract("epoch", func.clock_timestamp()), Float)
        self._now = servers if clock is None else clock_reading(clock)
        self._engines: _Engines | None = None

    def open(self) -> None:
        """Connect and migrate, waiting for a server that is just starting; see `Database`."""
        self._engines = _Engines(_make_engine(self._url, POOL_CONNECTIONS), _make_engine(self._url, 1))
        give_up_at = time.monotonic() + OPEN_PATIENCE_SECONDS
        while True:
            try:
                self.write(self._migrate)
            except Unavailable:  # also workers of an earlier version that are just being stopped
                if time.monotonic() > give_up_at:
                    self.close()
                    raise
                time.sleep(_OPEN_PAUSE_SECONDS)
            except BaseException:
                self.close()
                raise
            else:
                return

    def close(self) -> None:
        """See `Database`."""
        engines, self._engines = self._engines, None
        if engines is not None:
            engines.shared.dispose()
            engines.apart.dispose()

    def now(self) -> ColumnElement[float]:
        """See `Database`."""
        return self._now

    def read(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return _run(self._opened().reading, work)

    def read_statement(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return _run(self._opened().statement_reading, work)

    def write(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return _run(self._opened().shared, work)

    def write_statement(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return _run(self._opened().statement_writing, work)

    def write_grouped(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`; not grouped, since one error would undo the transaction for all, and commits overlap here."""
        return self.write(work)

    def write_apart(self, work: Callable[[Connection], Value]) -> Value:
        """See `Database`."""
        return _run(self._opened().apart, work)

    def _migrate(self, connection: Connection) -> None:
        hold(connection, AdvisoryLock.MIGRATION)
        migrate(connection, self.now())

    def _opened(self) -> _Engines:
        if self._engines is None:
            raise Unavailable("store_closed", "The service is stopping; try again in a minute.")
        return self._engines


class _Engines:
    """One pool for all and one for heartbeats, and views of the first that begin transactions in other ways.

    The views are made once: making one costs as much as a short statement.
    """

    def __init__(self, shared: Engine, apart: Engine) -> None:
        self.shared, self.apart = shared, apart
        self.reading = shared.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self.statement_reading = shared.execution_options(isolation_level="AUTOCOMMIT", postgresql_readonly=True)
        self.statement_writing = shared.execution_options(isolation_level="AUTOCOMMIT")


def _make_engine(url: URL, connections: int) -> Engine:
    given = url.query.get("options", "")
    options = " ".join((_SERVER_OPTIONS, *([given] if isinstance(given, str) else given)))  # the address wins
    try:
        engine = create_engine(
            url,
            isolation_level="READ COMMITTED",
            pool_size=connections,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT_SECONDS,
            pool_use_lifo=True,
            connect_args={**_CONNECT_ARGUMENTS, "options": options},
        )
    except ModuleNotFoundError as error:
        raise Internal(
            "database_driver_missing",
            "DATABASE_URL names a PostgreSQL database, but its driver is not installed; "
            "run: python -m pip install -r requirements-cluster.txt",
        ) from error
    _ping_idle_connections(engine)
    return engine


def _ping_idle_connections(engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
    """Test a connection that was left alone for a while before it is used again, and replace it when it is dead.

    The pool's own `pool_pre_ping` asks at each use, which is a third of what a short statement costs.
    """

    def checked_in(_: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = clock()

    def checked_out(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        if clock() - record.info.get(_IDLE_SINCE, clock()) < _TRUSTED_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise exc.DisconnectionError from error  # the pool opens another one and comes here again

    event.listen(engine, "checkin", checked_in)
    event.listen(engine, "checkout", checked_out)


def _run(engine: Engine, work: Callable[[Connection], Value]) -> Value:
    """One transaction, and again when another one was in the way."""
    for tries_left in range(_TRIES - 1, -1, -1):
        try:
            return _run_once(engine, work)
        except exc.DBAPIError as error:
            if _state(error) not in _AGAIN or not tries_left:
                raise _translate_error(error) from error
            log.info("another transaction was in the way (%s); trying again", _state(error))
        pause = _AGAIN_PAUSE_SECONDS * (_TRIES - tries_left)  # longer each time, and never the same for both
        time.sleep(pause * random.uniform(0.5, 1.5))
    raise AssertionError("the last try returns or raises")


def _run_once(engine: Engine, work: Callable[[Connection], Value]) -> Value:
    try:
        with engine.begin() as connection:
            return work(connection)
    except exc.TimeoutError as error:  # all connections of the pool are in use
        raise _busy() from error


def _state(error: exc.DBAPIError) -> str:
    """The SQLSTATE; empty when the server said nothing, as when it could not be reached."""
    return getattr(error.orig, "sqlstate", None) or ""


def _translate_error(error: exc.DBAPIError) -> RestoreError | exc.DBAPIError:
    state = _state(error)
    log.error("the database refused (%s): %s", state or "no state", error.orig)
    gone = not state and isinstance(error, exc.OperationalError | exc.InterfaceError)
    if gone or state[:2] == "08" or state[:3] == "57P" or state == "53300":
        return Unavailable(
            "database_unavailable",
            "The job database cannot be reached; try again, and check that PostgreSQL runs and DATABASE_URL is right.",
            retry_after_seconds=_RETRY_SECONDS,
        )
    if state in ("55P03", "57014", "40001", "40P01"):
        return _busy()
    if state == "53100":
        return Unavailable(
            "storage_full",
            "There is no free disk space left for jobs; try again later or ask the operator to free some.",
            retry_after_seconds=_FULL_RETRY_SECONDS,
        )
    if state == "25006":
        return Unavailable(
            "database_unwritable",
            "The job database takes no changes just now; check whether DATABASE_URL names a standby.",
            retry_after_seconds=_FULL_RETRY_SECONDS,
        )
    if state in _REFUSED:
        return Internal(
            "database_refused",
            "PostgreSQL refuses the user of DATABASE_URL; it must be able to log in, and to create tables there.",
        )
    return error


def _busy() -> Unavailable:
    return Unavailable("database_busy", "The job database is busy; try again.", retry_after_seconds=_RETRY_SECONDS)
