"""`run.py owners`: what each owner has here, whose key is gone, and what becomes of that."""

from __future__ import annotations

import time

from rich.table import Table
from sqlalchemy import Connection

from app.api.auth.api_keys import ApiKeys, NamedKey
from app.commands.configure import read_settings
from app.commands.console import complain, console, say
from app.errors import RestoreError
from app.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from app.settings import Settings
from app.store import owners
from app.store.database import open_database_at
from app.store.owners import Holding
from app.store.stored_bytes import megabytes


def run(action: str, names: list[str]) -> int:
    """`list`, `hand-over OWNER NEW_OWNER` or `let-go OWNER`; returns the exit code."""
    wanted = {"list": 0, "hand-over": 2, "let-go": 1}[action]
    if len(names) != wanted:
        complain("Say: owners list, owners hand-over OWNER NEW_OWNER, or owners let-go OWNER.")
        return EXIT_USAGE
    settings = read_settings()
    keys = _names_of_keys(settings)
    by_name = {name: owner for owner, name in keys.items()}
    chosen = [by_name.get(name, name) for name in names]
    try:
        database = open_database_at(settings.database_url)
        database.open()
        try:
            return database.write(lambda connection: _act(connection, action, chosen, keys, settings))
        finally:
            database.close()
    except RestoreError as error:
        complain(error.detail)
        return EXIT_FAILED


def _act(connection: Connection, action: str, chosen: list[str], keys: dict[str, str], settings: Settings) -> int:
    found = {holding.owner: holding for holding in owners.holdings(connection)}
    if action == "list":
        _show(list(found.values()), keys, "a token's user, or no key" if settings.accepts_tokens else "no key")
        return EXIT_OK
    if chosen[0] not in found or not {*chosen[1:]} <= {*found, *keys}:
        complain("There is no such owner; owners list shows them. A new owner may also be the name of a key.")
        return EXIT_USAGE
    holding = found[chosen[0]]
    if action == "let-go":
        owners.let_go(connection, holding.owner, time.time())
        say(f"{holding.kept} kept jobs expire in {settings.retention_minutes:g} minutes, unless they are kept again.")
    elif chosen[1] != chosen[0]:
        owners.hand_over(connection, *chosen)
        say(f"{holding.jobs} jobs and {holding.photos} photos have another owner now.")
    return EXIT_OK


def _names_of_keys(settings: Settings) -> dict[str, str]:
    """The name of each key by its owner."""
    keys = ApiKeys([NamedKey(one.key, one.name) for one in settings.keys])
    callers = [keys.caller_of_key(one.key.encode()) for one in settings.keys]
    return {caller.owner: caller.name for caller in callers if caller is not None}


def _show(found: list[Holding], keys: dict[str, str], without_key: str) -> None:
    table = Table("owner", "key", "jobs", "kept", "photos", "MB", box=None, pad_edge=False)
    for one in found:
        numbers = (str(one.jobs), str(one.kept), str(one.photos), megabytes(one.stored_bytes))
        table.add_row(one.owner, keys.get(one.owner, without_key), *numbers)
    console().print(table)
