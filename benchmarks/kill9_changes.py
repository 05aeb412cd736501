"""Kill -9 while results change: while faces are blended anew, jobs are deleted, and the janitor expires and tidies.

Run from the repository's root: `python -m benchmarks.kill9_changes --kills 26 --rounds 3`: so many kills at random
moments, and so many at each named point of such a change. After every kill each completed row has its whole file, of
the version that it names, and no accepted job is gone that nobody deleted and that was not old enough to expire; at the
end the service still blends. It prints one JSON line and exits 1 on any fault.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import Connection

from benchmarks.kill9 import SETTLE_TIMEOUT_SECONDS, Campaign
from tests.fault_changes import POINTS, RETENTION_SECONDS, blend, change, jobs, serve_changing, submit

HTTP_OK = 200


class ChangeCampaign(Campaign):
    """Lives whose clients change results; a job that ended may expire after `RETENTION_SECONDS`."""

    serve_http = staticmethod(serve_changing)
    load = staticmethod(change)

    def __init__(self, folder: Path, seed: int) -> None:
        super().__init__(folder, f"sqlite:///{folder}/data/jobs.sqlite3", seed, http=True, wrong_order=False)
        self._noted_at = time.monotonic()
        self._young: dict[str, float] = {}  # id of an accepted job -> a moment before which it did not exist
        self._deleted: set[str] = set()
        self.looked_for = 0

    def note(self, lines: list[str]) -> None:
        """See `Campaign`; a line with a minus tells of a job that is to be deleted."""
        self._deleted |= {line[1:] for line in lines if line.startswith("-")}
        accepted = [line for line in lines if not line.startswith("-")]
        self.accepted.update(accepted)
        self._young |= dict.fromkeys(accepted, self._noted_at)
        self._noted_at = time.monotonic()

    def look(self) -> None:
        """See `Campaign`; and whether a young job is gone."""
        super().look()
        expired = time.monotonic() - RETENTION_SECONDS
        self._young = {job_id: at for job_id, at in self._young.items() if at > expired}
        if self._young:
            with self.database() as database:
                known = {row[0] for row in database.exec_driver_sql("SELECT id FROM jobs")}
            wanted = set(self._young) - self._deleted
            self.looked_for += len(wanted)
            self.faults += [f"accepted job {job_id} is lost" for job_id in sorted(wanted - known)]

    def look_at_jobs(self, database: Connection) -> None:
        """See `Campaign`; jobs may have expired, but none has failed."""
        odd = database.exec_driver_sql("SELECT id, status, error_code FROM attempts WHERE status = 'failed'").fetchall()
        self.faults += [f"attempt {tuple(row)} failed" for row in odd]

    def ask_at_the_end(self, port: int) -> None:
        """A new photo is restored, and its faces are blended anew."""
        job_id = submit(port)
        deadline = time.monotonic() + SETTLE_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if any(job["job_id"] == job_id and job["status"] == "completed" for job in jobs(port)):
                if (status := blend(port, str(job_id), 0.5)) != HTTP_OK:
                    self.faults.append(f"the last service did not blend: {status}")
                return
            time.sleep(0.05)
        self.faults.append("the last service did not restore a photo")


def main() -> int:
    """Run the campaign; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=26, help="kills at random moments")
    parser.add_argument("--rounds", type=int, default=3, help="kills at each named point")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill9-changes-") as folder:
        campaign = ChangeCampaign(Path(folder), asked.seed)
        rounds = [*list(POINTS) * asked.rounds, *[None] * asked.kills]
        campaign.run(rounds)
        print(json.dumps({**campaign.summary(), "looked_for": campaign.looked_for}))
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
