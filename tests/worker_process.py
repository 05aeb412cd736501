"""A worker process for tests: `work` as `run.py worker` calls it, with the Lanczos backend held back for a while.

Run as `python -m tests.worker_process FOLDER SECONDS_PER_STRIP SETTINGS`; SETTINGS is a JSON object. Leases are short,
so that what a killed worker had in hand is soon found.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from app.jobs.lease_keeper import LeaseTimes
from app.main import work, worker_service
from tests.http_service import describe, settings_for
from tests.lanczos_server import SlowBackend

SHORT_LEASES = LeaseTimes(lease_seconds=2.0, renew_seconds=0.5, sweep_seconds=0.5, calm_seconds=1.0)


def main() -> None:
    """Restore until a signal."""
    folder, seconds, changes = sys.argv[1:]
    service = functools.partial(worker_service.WorkerService, lease_times=SHORT_LEASES)
    worker_service.WorkerService = service  # type: ignore[misc,assignment]
    work(
        settings_for(Path(folder), **json.loads(changes)),
        banner=lambda facts: print("loaded", facts["device"], flush=True),
        backends={"local": SlowBackend(float(seconds))},
        describe=describe,
    )


if __name__ == "__main__":
    main()
