"""Which part of the service a process is, and which settings go together with that."""

from __future__ import annotations

import enum
from collections.abc import Collection

from app.errors import Conflict
from app.queue.names import QueueName
from app.settings import Settings
from app.store.database import is_shared


class ProcessRole(enum.StrEnum):
    """What one process does."""

    ALL = "serve"  # serves HTTP and restores: the whole service
    API = "api"  # serves HTTP; workers restore
    WORKER = "worker"  # restores what API servers accept


def check_role(settings: Settings, role: ProcessRole) -> None:
    """Raises `Conflict` `settings_conflict` with a sentence where the settings do not allow this role."""
    if role is not ProcessRole.ALL and not settings.broker_url:
        raise _conflict(
            f"run.py {role} needs BROKER_URL, the Redis that API servers and workers share; "
            "for one machine alone use run.py serve."
        )
    if settings.broker_url and not is_shared(settings.database_url):
        raise _conflict(
            "BROKER_URL is set, but SQLite belongs to one process alone; set DATABASE_URL to a PostgreSQL database."
        )
    if settings.broker_url and not settings.storage_url and not settings.shared_folders:
        raise _conflict(
            "BROKER_URL is set, but the photos lie in folders of this machine; set STORAGE_URL to a bucket, or "
            "SHARED_FOLDERS=true when UPLOAD_FOLDER and PROCESSED_FOLDER are one file system for all hosts."
        )


def refuse_open(settings: Settings) -> None:
    """Raises `Conflict` `settings_conflict` where HTTP would be open to others than this machine, and needs a key."""
    if settings.too_open is not None:
        raise _conflict(f"{settings.too_open}.")


def queues_of(settings: Settings, asked: Collection[QueueName]) -> list[QueueName]:
    """The queues that a worker serves: those asked for, else `gpu`, and `cloud` where there is a key for it.

    Raises `Conflict` `settings_conflict` when it was asked for what it cannot do.
    """
    has_key = bool(settings.siliconflow_api_key.get_secret_value())
    if QueueName.CLOUD in asked and not has_key:
        raise _conflict("A worker of the queue cloud needs SILICONFLOW_API_KEY.")
    if asked:
        return list(dict.fromkeys(asked))
    return [QueueName.GPU, QueueName.CLOUD] if has_key else [QueueName.GPU]


def _conflict(sentence: str) -> Conflict:
    return Conflict("settings_conflict", sentence)
