"""The doctor's checks of the machine: free disk, writing and syncing, the database, and the ports.

Nothing of the service is opened or changed, so the checks may run beside it.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, NullPool, create_engine, make_url
from sqlalchemy import text as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from app.commands.ports import port_error
from app.errors import RestoreError
from app.main.storage import open_storage
from app.settings import MEGABYTE, Settings
from app.storage import new_id

_SYNCS = 10
_SLOW_SYNC_MS = 50.0
_BLOCK_BYTES = 4096
_ASK_TIMEOUT_SECONDS = 2.0
_PROBE = b"a probe of the doctor; it may be removed"

FINE, WARNING, BAD = "ok", "warning", "FAILED"


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """`word` is one of FINE, WARNING, BAD; only BAD makes the doctor's exit code 1. `text` ends with the remedy."""

    word: str
    what: str
    text: str


def check_disk(settings: Settings) -> Iterator[CheckResult]:
    """Folders can be written, have room, and sync fast enough (each accepted photo waits for two syncs)."""
    folders = {
        "UPLOAD_FOLDER": settings.upload_folder,
        "PROCESSED_FOLDER": settings.processed_folder,
        "WEIGHTS_FOLDER": settings.weights_folder,
    }
    for name, folder in folders.items():
        place = _existing(folder)
        free_mb = shutil.disk_usage(place).free / MEGABYTE
        if not os.access(place, os.W_OK):
            # A read-only weights folder is a sound choice in a container.
            word = WARNING if name == "WEIGHTS_FOLDER" else BAD
            yield CheckResult(word, "disk", f"{name} {folder} cannot be written; change its owner or choose another")
        elif free_mb < settings.min_free_disk_mb:
            text = f"{name} {folder} has {free_mb:.0f} MB free and MIN_FREE_DISK_MB is {settings.min_free_disk_mb}"
            yield CheckResult(BAD, "disk", f"{text}; make room")
        else:
            yield CheckResult(FINE, "disk", f"{name} {folder}: {free_mb / 1024:.1f} GB free")
    yield _check_sync(_existing(settings.upload_folder))


def check_storage(settings: Settings) -> Iterator[CheckResult]:
    """A bucket takes, gives back and removes a small object; folders are `check_disk`'s business."""
    if not settings.storage_url:
        return
    photo_id = new_id()
    try:
        storage = open_storage(settings)
        with storage.open_upload(photo_id) as writer:
            writer.write(_PROBE)
            writer.commit()
        with storage.upload(photo_id) as path:
            same = path.read_bytes() == _PROBE
        removed = storage.remove_upload(photo_id)
    except RestoreError as error:
        remedy = "check S3_ENDPOINT_URL, the bucket and the credentials; the log line above has the server's words"
        yield CheckResult(BAD, "storage", f"{settings.storage_url}: {error.detail} ({error.code}); {remedy}")
        return
    good = same and removed
    text = "takes, gives back and removes objects" if good else "does not keep what it took; choose another server"
    yield CheckResult(FINE if good else BAD, "storage", f"{settings.storage_url} {text}")


def check_database(settings: Settings) -> Iterator[CheckResult]:
    """The folder can hold an SQLite database (a scratch one is made and removed), or PostgreSQL answers."""
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        yield CheckResult(BAD, "database", "DATABASE_URL cannot be read; the default is sqlite:///data/jobs.sqlite3")
        return
    if url.get_backend_name() == "postgresql":
        yield _check_postgres(url)
    elif url.get_backend_name() == "sqlite" and url.database:
        yield from _check_sqlite(_existing(Path(url.database).parent))
    else:
        text = "DATABASE_URL must name an SQLite file, such as sqlite:///data/jobs.sqlite3, or a PostgreSQL database"
        yield CheckResult(BAD, "database", text)


def _check_sqlite(folder: Path) -> Iterator[CheckResult]:
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
            connection = sqlite3.connect(Path(scratch) / "probe.sqlite3")
            try:
                mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                with connection:
                    connection.execute("CREATE TABLE probe (value INTEGER)")
            finally:
                connection.close()
    except (OSError, sqlite3.Error) as error:
        yield CheckResult(
            BAD, "database", f"the folder of DATABASE_URL cannot hold a database ({error}); choose another"
        )
        return
    if mode != "wal":
        yield CheckResult(BAD, "database", "the disk cannot do write-ahead logging; a network share? use a local disk")
    else:
        yield CheckResult(FINE, "database", f"writable, SQLite {sqlite3.sqlite_version}")


def _check_postgres(url: URL) -> CheckResult:
    """It answers, lets us make tables, and has connections to spare; nothing is changed there."""
    question = (
        "SELECT current_setting('server_version'), has_schema_privilege(current_schema(), 'CREATE'),"
        " current_setting('max_connections')::int - (SELECT count(*) FROM pg_stat_activity)"
    )
    address = url.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(address, poolclass=NullPool, connect_args={"connect_timeout": 3})
        with engine.connect() as connection:
            version, may_create, free = connection.execute(sql(question)).one()
    except ModuleNotFoundError:
        remedy = "run: python -m pip install -r requirements-cluster.txt"
        return CheckResult(BAD, "database", f"the driver of PostgreSQL is not installed; {remedy}")
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        return CheckResult(BAD, "database", f"PostgreSQL cannot be reached ({reason}); check DATABASE_URL")
    if not may_create:
        return CheckResult(BAD, "database", "the user of DATABASE_URL may not create tables there; grant it CREATE")
    return CheckResult(FINE, "database", f"PostgreSQL {version}, {free} connections free")


def check_ports(settings: Settings) -> Iterator[CheckResult]:
    """Both ports are free, or our own service answers there; and nobody else reaches them without a key."""
    if settings.too_open is not None:
        yield CheckResult(BAD, "ports", settings.too_open)
    for name, port in (("PORT", settings.port), ("DASHBOARD_PORT", settings.dashboard_port)):
        if port_error(settings.host, port) is None:
            yield CheckResult(FINE, "ports", f"{name} {port} is free")
        elif _is_ours(settings.host, port):
            yield CheckResult(FINE, "ports", f"{name} {port}: the service is running there")
        else:
            yield CheckResult(
                BAD, "ports", f"{name} {port} is taken by another program; stop it or choose another {name}"
            )


def _check_sync(folder: Path) -> CheckResult:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            times_ms = [_sync_ms(file.fileno()) for _ in range(_SYNCS)]
    except OSError as error:
        return CheckResult(BAD, "disk", f"writing to UPLOAD_FOLDER fails ({error.strerror}); check the disk")
    typical_ms = statistics.median(times_ms)
    if typical_ms > _SLOW_SYNC_MS:
        return CheckResult(WARNING, "disk", f"a sync takes {typical_ms:.0f} ms, so submits are slow; use a local disk")
    return CheckResult(FINE, "disk", f"a sync takes {typical_ms:.1f} ms")


def _sync_ms(descriptor: int) -> float:
    began = time.perf_counter()
    os.write(descriptor, bytes(_BLOCK_BYTES))
    os.fsync(descriptor)
    return (time.perf_counter() - began) * 1000.0


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists (the service makes the rest)."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _is_ours(host: str, port: int) -> bool:
    """Whether the open health route answers there."""
    connection = http.client.HTTPConnection(host, port, timeout=_ASK_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
