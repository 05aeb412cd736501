"""`run.py database copy`: takes the jobs and photos of a stopped SQLite service over to PostgreSQL."""

from __future__ import annotations

import contextlib
from pathlib import Path

from app.commands.configure import read_settings
from app.commands.console import complain, say
from app.errors import BadRequest, RestoreError
from app.exit_codes import EXIT_FAILED, EXIT_OK
from app.store.copying import copy_rows
from app.store.database import open_database_at


def copy(file: Path) -> int:
    """Copy the rows of an SQLite file into the database of DATABASE_URL; returns the exit code."""
    settings = read_settings()
    try:
        counts = _copy(file, settings.database_url)
    except RestoreError as error:
        complain(error.detail)
        return EXIT_FAILED
    say(f"Copied {', '.join(f'{count} {name}' for name, count in counts.items())}.")
    say("Start the service with the same UPLOAD_FOLDER and PROCESSED_FOLDER: the files themselves stay where they are.")
    return EXIT_OK


def _copy(file: Path, database_url: str) -> dict[str, int]:
    if not database_url.startswith("postgresql"):
        raise BadRequest("not_postgresql", "Set DATABASE_URL to the PostgreSQL database that the rows shall go to.")
    if not file.is_file():
        raise BadRequest("no_such_file", f"There is no database file {file}.")
    with contextlib.ExitStack() as opened:
        source, target = open_database_at(f"sqlite:///{file}"), open_database_at(database_url)
        for database in (source, target):
            database.open()
            opened.callback(database.close)
        return copy_rows(source, target)
