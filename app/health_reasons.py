"""Why the service is not well: the stable code of every reason that health gives, so that a page can translate it.

A reason is a `Sentence` of one of these codes, or of the code of the error that it comes from.
"""

from __future__ import annotations

import enum

from app.notices import Sentence

NO_MODEL = "No model is installed; run: python3 run.py models download"


class HealthReason(enum.StrEnum):
    """Never renamed once released. Each has a text on the page, in each of its languages."""

    SHUTTING_DOWN = "shutting_down"
    LOADING = "loading"
    # what keeps every photo from being restored
    BACKEND_FAILED = "backend_failed"
    NO_MODEL = "no_model"
    NO_WORKER = "no_worker"
    ALL_WORKERS_FAILED = "all_workers_failed"
    RESTORATION_HANGS = "restoration_hangs"
    WORKER_STOPPED = "worker_stopped"
    THREAD_DIES = "thread_dies"
    DISK_FULL = "disk_full"
    SCANNER_AWAY = "scanner_away"
    # what works, but not as it should
    CPU_INSTEAD = "cpu_instead"
    DEFAULT_MODEL_FAILED = "default_model_failed"
    MODEL_STANDS_IN = "model_stands_in"
    MODEL_UNREADABLE = "model_unreadable"
    WORKER_TROUBLE = "worker_trouble"
    SCANNER_LIMIT = "scanner_limit"
    TOKEN_KEYS_AWAY = "token_keys_away"  # noqa: S105 - no secret
    PROVIDER_AWAY = "provider_away"
    REDIS_AWAY = "redis_away"
    JANITOR_DIES = "janitor_dies"
    LEASE_KEEPER_DIES = "lease_keeper_dies"
    OTHER = "other"  # what another process said without a code


def as_reason(said: str) -> Sentence:
    """A reason as it is, or what has no code as `OTHER`."""
    return said if isinstance(said, Sentence) else Sentence(HealthReason.OTHER, said)
