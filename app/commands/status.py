"""`run.py status`: workers, devices, models and the queue of a service of several processes, from its database.

The exit code says whether a worker of this host is alive and well, which is what a container's health check asks.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from app.commands.configure import read_settings
from app.commands.console import complain, say
from app.errors import RestoreError
from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_FAILED, EXIT_OK
from app.jobs.worker_reports import WorkerReport
from app.store import LiveWorker, SqlStore
from app.store.database import is_shared

_UNWELL = ("failing", "stopped")


def run(*, any_host: bool = False) -> int:
    """Show it; 0 when a worker of this host (with `any_host`: of any) is alive and not failing, else 1."""
    settings = read_settings()
    if not is_shared(settings.database_url):
        complain("The service of one machine answers for itself: ask GET /api/v1/status. This needs PostgreSQL.")
        return EXIT_BAD_SETTINGS
    store = SqlStore(settings.database_url)
    try:
        store.open()
        workers, counts = store.workers.live(), store.counts()
    except RestoreError as error:
        complain(error.detail)
        return EXIT_FAILED
    finally:
        store.close()
    for line in [*worker_lines(workers), f"Queue: {counts.queued} waiting, {counts.processing} in work"]:
        say(line)
    return EXIT_OK if is_well(workers, None if any_host else socket.gethostname()) else EXIT_FAILED


def is_well(workers: Sequence[LiveWorker], host: str | None) -> bool:
    """Whether a worker of this host (None: of any) lives and does not fail."""
    here = [worker for worker in workers if host in (None, worker.host)]
    return any(WorkerReport.from_facts(worker.report).status not in _UNWELL for worker in here)


def worker_lines(workers: Sequence[LiveWorker]) -> list[str]:
    """What there is to say of each worker."""
    if not workers:
        return ["No worker is alive; start one: python3 run.py worker"]
    return [line for worker in workers for line in _lines_of(worker)]


def _lines_of(worker: LiveWorker) -> list[str]:
    report = WorkerReport.from_facts(worker.report)
    facts = report.description
    models = [row["name"] for row in facts.get("models", ()) if row.get("installed")]
    lines = [
        f"{worker.name}: {report.status}, {report.in_work} in work, "
        f"serves {', '.join(report.backends) or 'nothing yet'}, "
        f"seen {worker.silent_seconds:.0f} s ago, version {report.version}"
    ]
    if facts.get("device"):
        lines.append(f"  device {facts['device']}, precision {facts.get('precision')}")
        lines.append(f"  models {', '.join(models) or 'none installed'}")
    return [*lines, *(f"  {reason}" for reason in report.reasons)]
