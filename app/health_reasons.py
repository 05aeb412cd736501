"""Why the service is not well: the stable code of every reason that health gives, so that a page can translate it.

A reason is a `Sentence` of one of these codes, or of the code of the error that it comes from.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any

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


def as_causes(said: Iterable[str]) -> list[dict[str, Any]]:
    """Reasons or notes with their codes and values, JSON-ready."""
    return [as_reason(one).as_facts() for one in said]


def with_causes(said: Any, causes: Any) -> tuple[str, ...]:
    """Reasons that came as texts, each with its code and values where `causes` (see `as_causes`) tells them.

    Another version may have written both: what does not fit together stays plain text.
    """
    texts = tuple(str(one) for one in said) if isinstance(said, Sequence) and not isinstance(said, str) else ()
    coded = [Sentence.from_facts(cause) for cause in causes] if isinstance(causes, Sequence) else []
    known = {str(sentence): sentence for sentence in coded if sentence is not None}
    return tuple(known.get(text, text) for text in texts)
