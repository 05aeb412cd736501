"""What the workers that are alive restore with, taken together, as if they were one backend.

Pure functions on their reports. A name (model, backend) can be used where one live worker has it. What there is only
one of (device, precision, default model and quality, pace) is that of the fastest worker, which takes most photos.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.health_reasons import HealthReason, as_reason
from app.jobs.worker_reports import WorkerReport
from app.notices import Sentence, say
from app.options import BackendName
from app.store import LiveWorker

_AT_WORK = ("idle", "busy")


@dataclasses.dataclass(frozen=True)
class PoolMember:
    """A live worker with what it said."""

    worker: LiveWorker
    report: WorkerReport

    @property
    def restores_here(self) -> bool:
        """Whether it takes photos for its own networks."""
        return BackendName.LOCAL.value in self.report.backends

    def row(self) -> dict[str, Any]:
        """The worker for people, JSON-ready."""
        described = self.report.description
        return {
            "name": self.worker.name,
            "host": self.worker.host,
            "status": self.report.status,
            "reasons": list(self.report.reasons),
            "backends": list(self.report.backends),
            "device": described.get("device"),
            "precision": described.get("precision"),
            "in_work": self.report.in_work,
            "lanes": dict(self.report.lanes),
            "memory_limit_bytes": self.report.memory_limit_bytes,
            "version": self.report.version,
            "started_at": self.worker.started_at,
            "silent_seconds": round(self.worker.silent_seconds, 1),
        }


def members_of(live: Iterable[LiveWorker]) -> tuple[PoolMember, ...]:
    """Live workers with their reports read."""
    return tuple(PoolMember(worker, WorkerReport.from_facts(worker.report)) for worker in live)


def describe_pool(members: Sequence[PoolMember]) -> dict[str, Any]:
    """One description of all workers with networks (see `app.api.catalog`); empty when none of them knows its own."""
    described = [one for one in members if one.restores_here and one.report.description]
    if not described:
        return {}
    described.sort(key=_slowness)
    descriptions = [one.report.description for one in described]
    return {
        **descriptions[0],
        "workers": max(1, sum(one.report.status in _AT_WORK for one in described)),
        "models": _united(descriptions, "models"),
        "partner_models": _united(descriptions, "partner_models"),
        "face_models": _united(descriptions, "face_models"),
        "problems": _said(described, "problems"),
        "notes": _said(described, "notes"),
    }


def backends_of(members: Sequence[PoolMember]) -> list[dict[str, Any]]:
    """The rows of backends that the workers know; one is available where a live worker takes its photos."""
    rows: dict[str, dict[str, Any]] = {}
    for one in members:
        for row in one.report.backend_rows:
            known = rows.setdefault(row["name"], dict(row))
            if row.get("available") and not known.get("available"):
                rows[row["name"]] = dict(row)
    return list(rows.values())


def smallest_memory_bytes(members: Sequence[PoolMember]) -> int | None:
    """What the worker with networks that has least may use; None when none of them says."""
    limits = (one.report.memory_limit_bytes for one in members if one.restores_here)
    return min((limit for limit in limits if limit is not None), default=None)


def provider_pause_seconds(members: Sequence[PoolMember]) -> float | None:
    """How long until some worker asks the provider again; None when one may now, or none takes photos for it.

    Each breaker is its own worker's; the photos go to whoever asks for the next.
    """
    asking = [one for one in members if BackendName.SILICONFLOW.value in one.report.backends]
    pauses = [(one.report.provider_pause_seconds or 0.0) - one.worker.silent_seconds for one in asking]
    soonest = min(pauses, default=0.0)
    return soonest if soonest > 0 else None


def reasons_of(members: Sequence[PoolMember]) -> tuple[Sentence, ...]:
    """Why workers are not well, each with its worker's name."""
    return tuple(_of_worker(one.worker.name, reason) for one in members for reason in one.report.reasons)


def _of_worker(worker: str, said: str) -> Sentence:
    """What one worker says, with the name of the worker in the text and, for pages, among the values."""
    reason = as_reason(said)
    if reason.code == HealthReason.OTHER:
        return say(HealthReason.WORKER_TROUBLE, "{worker}: {reason}", worker=worker, reason=str(reason))
    return Sentence(reason.code, f"{worker}: {reason}", {**reason.values, "worker": worker})


def _slowness(one: PoolMember) -> tuple[bool, float, str]:
    """Seconds for the same work, by the warm-up run of its default model; workers that had none come last."""
    described = one.report.description
    warm = described.get("warm_run") or {}
    costs = {row["name"]: row.get("megamacs_per_pixel") for row in described.get("models", ())}
    work = (costs.get(warm.get("model")) or 0.0) * float(warm.get("pixels") or 0.0)
    return (work == 0, float(warm["seconds"]) / work if work else 0.0, one.worker.name)


def _united(descriptions: Sequence[Mapping[str, Any]], table: str) -> list[dict[str, Any]]:
    """The rows of all, each name once: as a worker has it that has it installed."""
    rows: dict[str, dict[str, Any]] = {}
    for described in descriptions:
        for row in described.get(table, ()):
            known = rows.setdefault(row["name"], dict(row))
            if row.get("installed") and not known.get("installed"):
                rows[row["name"]] = dict(row)
    return list(rows.values())


def _said(described: Sequence[PoolMember], words: str) -> list[str]:
    """The sentences of all, each once; of one worker among several with its name."""
    by_sentence: dict[str, list[str]] = {}  # a sentence that others say too keeps the code of the first
    for one in described:
        for sentence in one.report.description.get(words, ()):
            by_sentence.setdefault(sentence, []).append(one.worker.name)
    return [
        sentence if len(names) == len(described) else _of_worker(", ".join(names), sentence)
        for sentence, names in by_sentence.items()
    ]
