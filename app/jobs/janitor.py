"""Keeps the disk tidy: ended jobs past their retention go, rows first, then files, then files that no row names.

Nothing active is ever touched. Where a removal would cut who reads a file just now (in a bucket), files wait for a
grace once no row names them. Time is passed in.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from app.errors import RestoreError
from app.jobs.deletion import Deletion, Forget, forget_nothing
from app.metrics import Metrics
from app.storage import FoundFile, Storage, related_files
from app.store import Store
from app.threads import PeriodicThread

log = logging.getLogger(__name__)

GRACE_SECONDS = 600.0  # an upload or result whose row is not committed yet is younger than this
ORPHAN_SECONDS = 3600.0  # at which one without a row goes at the latest; its last byte is older than its row
PART_SECONDS = 2.0  # a part is locked as soon as it is made
CLOCK_JUMP_SECONDS = 300.0
USAGE_KEPT_SECONDS = 7 * 86_400.0  # only today's photos of an owner count; those of the last days are for people
MAX_ROUNDS = 20  # times `EXPIRED_JOBS_A_PASS` jobs; the rest waits for the next pass


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What one pass removed. `skipped` says that the clock had jumped, and nothing was looked at."""

    jobs: int = 0
    uploads: int = 0
    results: int = 0
    orphans: int = 0
    skipped: bool = False


class Janitor(PeriodicThread):
    """Sweeps by call (`sweep`) or in its own supervised thread (`start`)."""

    def __init__(
        self,
        store: Store,
        storage: Storage,
        metrics: Metrics,
        *,
        retention_seconds: float,
        interval_seconds: float = 1800.0,
        forget: Forget = forget_nothing,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._storage, self._metrics = store, storage, metrics
        self._deletion = Deletion(store, storage, forget)
        self._retention = retention_seconds
        self._clock, self._wall = clock, wall
        self._last: tuple[float, float] | None = None
        super().__init__(
            "janitor",
            lambda: self.tick(self._wall(), self._clock()),
            interval_seconds,
            trouble="the janitor could not finish its pass",
            on_restart=metrics.thread_restarted,
            clock=clock,
        )

    def sweep(self, now: float) -> Sweep:
        """One pass at the time `now` (epoch seconds). Raises `Unavailable` when the store cannot be asked."""
        self._store.idempotency.expire(now)
        done, left = self._sweep_expired(now - self._retention)
        done = dataclasses.replace(done, orphans=self._sweep_orphans(now, left))
        self._store.accounts.forget_usage(now - USAGE_KEPT_SECONDS)
        for kind in ("jobs", "uploads", "results", "orphans"):
            self._metrics.janitor_removed(kind, getattr(done, kind))
        if done != Sweep():
            log.info("janitor removed %s", done)
        return done

    def tick(self, now: float, monotonic: float) -> Sweep:
        """A pass of the loop: `sweep`, unless the wall clock jumped against the monotonic one since the last pass.

        The first one also takes what a process of this host that was killed had begun to write, however young it is.
        """
        last, self._last = self._last, (now, monotonic)
        if last is None:
            parts = self._storage.iter_local_parts()
            self._remove_all([file for file in parts if file.modified_at < now - PART_SECONDS])
        if last is not None and abs((now - last[0]) - (monotonic - last[1])) > CLOCK_JUMP_SECONDS:
            log.warning("the system clock jumped; the janitor waits one pass")
            return Sweep(skipped=True)
        return self.sweep(now)

    def _sweep_expired(self, before: float) -> tuple[Sweep, set[str]]:
        """Jobs past their retention, batch by batch; with the ids of those whose files were left for their readers."""
        jobs = uploads = results = 0
        left: set[str] = set()
        for _ in range(MAX_ROUNDS):
            gone, removed_uploads, removed_results = self._deletion.expire(before)
            jobs, uploads, results = jobs + len(gone.jobs), uploads + removed_uploads, results + removed_results
            if self._storage.grace_seconds() > 0:
                left.update(name[:32] for name in (*gone.uploads, *gone.results, *gone.masks))
            if not gone.jobs and not gone.uploads:
                break
        return Sweep(jobs, uploads, results), left

    def _sweep_orphans(self, now: float, left: Collection[str]) -> int:
        """Files that no row names: of a crash between file and row, and those `left` when their rows expired.

        The files are listed before the rows are read: a file listed here whose row comes later is young. Active
        attempts are read before the names of results: one that ends between the two is in both, and a copy of a cached
        result, another name of an old file, is as old as that.
        """
        limit = now - min(max(self._retention, GRACE_SECONDS), ORPHAN_SECONDS)
        noted = self._storage.unnamed_since()
        listed = (self._storage.iter_uploads(), self._storage.iter_results(), self._storage.iter_masks())
        uploads, results, masks = (
            [file for file in files if file.modified_at < limit or file.name in noted or file.name[:32] in left]
            for files in listed
        )
        parts = [file for file in self._storage.iter_parts() if file.modified_at < limit]
        active = self._store.named_files.active_ids()
        photo_ids = self._store.named_files.photo_ids()
        names = {name for newest in self._store.named_files.result_names() for name in related_files(newest)}
        mask_ids = self._store.named_files.mask_ids()
        orphans = [file for file in uploads if file.name not in photo_ids]
        orphans += [file for file in results if file.name not in names and file.name[:32] not in active]
        orphans += [file for file in masks if file.name[:32] not in mask_ids]
        return self._remove_all(self._unread(orphans, noted, now) + parts)

    def _unread(self, orphans: list[FoundFile], noted: Mapping[str, float], now: float) -> list[FoundFile]:
        """Those that nobody can be reading any more; where that takes a grace, it is noted since when they wait.

        The note lasts longer than this process, whose next pass another one may make.
        """
        grace = self._storage.grace_seconds()
        if grace <= 0:
            return orphans
        since = {file.name: min(noted.get(file.name, now), now) for file in orphans}  # a clock may have been ahead
        if since != noted:
            self._storage.note_unnamed(since)
        return [file for file in orphans if since[file.name] <= now - grace]

    def _remove_all(self, files: Iterable[FoundFile]) -> int:
        """Remove files; one that resists is logged and left for the next pass."""
        removed = 0
        for file in files:
            try:
                removed += self._storage.remove_found(file)
            except (OSError, RestoreError):
                log.exception("the janitor could not remove an orphan")
            else:
                log.info("janitor removed the orphan %s", file.name)
        return removed
