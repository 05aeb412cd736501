"""Health as a status with reasons, and what the machine has left. It reads the parts and changes nothing."""

from __future__ import annotations

from typing import Any

import psutil

from app.api.dependencies import AppContext
from app.errors import RestoreError
from app.health_reasons import NO_MODEL, HealthReason, as_reason
from app.notices import Sentence, say
from app.threads import ThreadState


def get_health(context: AppContext) -> dict[str, Any]:
    """`status` is the worst word that holds; `reasons` says why, empty when all is well; `notes` are no fault.

    draining > starting > failing > degraded > busy > ready.
    """
    judged = _judged(context)
    return {**judged, "notes": [str(note) for note in context.catalog.description().get("notes", ())]}


def _judged(context: AppContext) -> dict[str, Any]:
    if context.admission.draining:
        return _health("draining", [say(HealthReason.SHUTTING_DOWN, "The service is shutting down.")])
    if context.catalog.loading:
        return _health("starting", [say(HealthReason.LOADING, "The network is being loaded.")])
    worker = context.worker_health()
    failing = _failures(context)
    if worker.status in ("failing", "stopped"):
        failing += map(as_reason, worker.reasons)
    complaints = _complaints(context)
    if failing:
        return _health("failing", list(dict.fromkeys(failing + complaints)))
    degraded = [*complaints, *map(as_reason, worker.reasons)]
    if degraded:
        return _health("degraded", degraded)
    return _health("busy" if worker.status == "busy" else "ready", [])


def get_resources(context: AppContext) -> dict[str, Any]:
    """Processor in percent (since the last call), memory and disk in bytes."""
    process, memory = psutil.Process(), psutil.virtual_memory()
    return {
        "cpu_percent": psutil.cpu_percent(),
        "cpu_count": psutil.cpu_count(),
        "memory_total_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "process_memory_bytes": process.memory_info().rss,
        "process_threads": process.num_threads(),
        "free_disk_ok": context.storage.free_disk_ok(),
    }


def _health(word: str, reasons: list[Sentence]) -> dict[str, Any]:
    return {"status": word, "reasons": reasons, "causes": [reason.as_facts() for reason in reasons]}


def _failures(context: AppContext) -> list[Sentence]:
    """What keeps every photo from being restored."""
    reasons: list[Sentence] = []
    failure = context.catalog.failure
    if failure is not None:
        coded = failure if isinstance(failure, Sentence) else say(HealthReason.BACKEND_FAILED, "{why}", why=failure)
        reasons.append(coded)
    elif not context.catalog.can_restore():
        reasons.append(say(HealthReason.NO_MODEL, NO_MODEL))
    try:
        context.store.counts()
    except RestoreError as error:
        reasons.append(Sentence(error.code, error.detail))
    if not context.storage.free_disk_ok():
        words = "There is too little free disk space, so new photos are refused."
        reasons.append(say(HealthReason.DISK_FULL, words))
    if context.scanner is not None and (scanner_away := context.scanner.away()) is not None:
        reasons.append(as_reason(scanner_away))
    return reasons


def _complaints(context: AppContext) -> list[Sentence]:
    """What works, but not as it should."""
    reasons = [as_reason(reason) for reason in context.catalog.description().get("problems", ())]
    storage_problem = context.storage.problem()
    if storage_problem is not None:
        reasons.append(as_reason(storage_problem))
    if context.authentication.problem is not None:
        reasons.append(as_reason(context.authentication.problem))
    if context.scanner is not None and (limit := context.scanner.problem()) is not None:
        reasons.append(as_reason(limit))
    provider_problem = context.catalog.provider_problem()
    if provider_problem is not None:
        reasons.append(as_reason(provider_problem))
    rate_problem = context.rate_limits.windows.problem()
    if rate_problem is not None:
        reasons.append(as_reason(rate_problem))
    if context.janitor.state is not ThreadState.RUNNING:
        words = "The janitor keeps dying or is not running; the log says why."
        reasons.append(say(HealthReason.JANITOR_DIES, words))
    if context.lease_keeper.state is not ThreadState.RUNNING:
        words = "The lease keeper keeps dying or is not running; the log says why."
        reasons.append(say(HealthReason.LEASE_KEEPER_DIES, words))
    return reasons
