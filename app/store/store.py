"""The `Store`: one transaction a call, and a word to every listener after the commit.

It joins the rooms of this package behind one face; it knows nothing of files, pictures or HTTP.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Sequence

from sqlalchemy import Connection

from app.errors import RestoreError
from app.store import photo_transitions, queries, removal, submissions, transitions
from app.store.group_commit import GroupCommit
from app.store.library import Library
from app.store.queries import Counts
from app.store.records import Attempt, Job, NewPhoto, NewVersion, Result
from app.store.removal import Removal
from app.store.sqlite import Database

log = logging.getLogger(__name__)

MAX_TRIES = 2
EXPIRED_JOBS_A_PASS = 500
_WAITING_JOBS_TOLD = 256  # as many as there may be live connections


class Store:
    """Photos, jobs and attempts in SQL. Usable from any thread; open it once, in one process.

    Any call may raise `Unavailable` with `storage_full`, `database_busy`, `database_unwritable` or `store_closed`;
    then nothing was changed.

    Attributes:
        library: photos that are uploaded once and restored many times.
    """

    def __init__(self, database_url: str) -> None:
        self._database = Database(database_url)
        self._group_commit: GroupCommit[tuple[Job, int]] = GroupCommit(self._database.writing)
        self._listeners: dict[int, Callable[[str], None]] = {}
        self._listeners_lock = threading.Lock()
        self._numbers = itertools.count()
        self.library = Library(self._database, self._notify)

    def open(self) -> None:
        """Take the data folder, check and create the tables; raises `Conflict` or `Internal`, see `Database.open`."""
        self._database.open()

    def close(self) -> None:
        """Close the database and free its folder. Harmless when called twice."""
        self._database.close()

    def subscribe(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Hear the id of every job that changed (its place in the queue included), after the commit, in any thread.

        The callback must be quick. Returns the function that ends the subscription.
        """
        number = next(self._numbers)
        with self._listeners_lock:
            self._listeners[number] = callback

        def unsubscribe() -> None:
            with self._listeners_lock:
                self._listeners.pop(number, None)

        return unsubscribe

    def add_job(
        self,
        owner: str,
        photos: Sequence[NewPhoto],
        options_json: str,
        backend: str,
        queue_limit: int,
        now: float,
    ) -> Job:
        """Accept a job, as `submit` does, for callers who do not ask for its place in the queue."""
        return self.submit(owner, photos, options_json, backend, queue_limit, now)[0]

    def submit(
        self,
        owner: str,
        photos: Sequence[NewPhoto],
        options_json: str,
        backend: str,
        queue_limit: int,
        now: float,
    ) -> tuple[Job, int]:
        """Accept a job for photos that are already safe on disk: all of its rows or none.

        Returns the job and its place in the queue (1: next) at the moment it came in.

        Raises:
            Unavailable: `queue_full` with `retry_after_seconds`, when more than `queue_limit` photos would wait.
            TooLarge: `too_many_files`, when the job alone is larger than the queue.
        """
        if not photos:
            raise ValueError("a job has at least one photo")

        def write(connection: Connection) -> tuple[Job, int]:
            job_id = submissions.insert_job(connection, owner, photos, options_json, backend, queue_limit, now)
            return queries.find_job(connection, owner, job_id), queries.queue_position(connection, job_id)

        job, position = self._group_commit.run(write)
        self._notify([job.id])
        return job, position

    def restore_photo(
        self, owner: str, photo_id: str, options_json: str, backend: str, queue_limit: int, now: float
    ) -> tuple[Job, int]:
        """Accept one attempt more at a photo, as a job of its own; returns the job and its place in the queue.

        Raises:
            NotFound: `photo_not_found`.
            Conflict: `photo_busy` while an attempt is active, `photo_archived`.
            Unavailable: `queue_full`, as `submit` does.
        """

        def write(connection: Connection) -> tuple[Job, int]:
            job_id = photo_transitions.restore(connection, owner, photo_id, options_json, backend, queue_limit, now)
            return queries.find_job(connection, owner, job_id), queries.queue_position(connection, job_id)

        job, position = self._group_commit.run(write)
        self._notify([job.id])
        return job, position

    # What the rows say.

    def job(self, owner: str, job_id: str) -> Job:
        """One job of this owner. Raises `NotFound` `job_not_found`."""
        with self._database.reading() as connection:
            return queries.find_job(connection, owner, job_id)

    def jobs(self, owner: str, limit: int, before: str | None = None) -> list[Job]:
        """A page of this owner's jobs, newest first; `before` is the id of the last job of the page before.

        Raises `NotFound` `job_not_found` when `before` is unknown (it may have expired).
        """
        with self._database.reading() as connection:
            return queries.list_jobs(connection, owner, limit, before)

    def attempt(self, attempt_id: str) -> Attempt | None:
        """One attempt, whoever owns it."""
        with self._database.reading() as connection:
            return queries.find_attempt(connection, attempt_id)

    def result_attempt(self, owner: str, result_name: str) -> Attempt:
        """The completed attempt behind the name of any version of its result. Raises `NotFound` `result_not_found`."""
        with self._database.reading() as connection:
            return queries.find_result(connection, owner, result_name)

    def queue_position(self, job_id: str) -> int:
        """1 when the job's first waiting attempt comes next; 0 when none of its attempts waits."""
        with self._database.reading() as connection:
            return queries.queue_position(connection, job_id)

    def queued_ids(self, limit: int | None = None, *, only: str | None = None, but: Collection[str] = ()) -> list[str]:
        """Ids of the waiting attempts in the order of submission: of one backend only, or of all but some."""
        with self._database.reading() as connection:
            return queries.queued_ids(connection, limit, only, but)

    def counts(self) -> Counts:
        """How many attempts stand in each state."""
        with self._database.reading() as connection:
            return queries.count(connection)

    def seconds_per_megapixel(self) -> float | None:
        """Restoration seconds per megapixel of result, over recent attempts; None before the first."""
        with self._database.reading() as connection:
            return queries.seconds_per_megapixel(connection)

    def recent_completed(self) -> list[Attempt]:
        """The last completed attempts of all owners, newest first."""
        with self._database.reading() as connection:
            return queries.recent_completed(connection)

    def known_photo_ids(self) -> set[str]:
        """Ids of all photos that have a row."""
        with self._database.reading() as connection:
            return queries.known_photo_ids(connection)

    def known_result_names(self) -> set[str]:
        """Names of all results that a row names, each in its newest version."""
        with self._database.reading() as connection:
            return queries.known_result_names(connection)

    def active_ids(self) -> set[str]:
        """Ids of the attempts that have not ended."""
        with self._database.reading() as connection:
            return queries.active_ids(connection)

    # The moves of one run. False means that the run does not hold its claim any more, and nothing was changed.

    def claim(self, attempt_id: str, token: str, now: float) -> Attempt | None:
        """Take a waiting attempt for the run named by `token`; None when it does not wait (any more)."""
        with self._database.writing() as connection:
            changed = transitions.claim(connection, attempt_id, token, now)
            attempt = None if changed is None else queries.find_attempt(connection, attempt_id)
        self._notify_changed(changed, queue_moved=True)
        return attempt

    def report_progress(self, attempt_id: str, token: str, fraction: float, stage: str) -> bool:
        """Write how far a run is, `fraction` in [0, 1]."""
        with self._database.writing() as connection:
            changed = transitions.report_progress(connection, attempt_id, token, fraction, stage)
        return self._notify_changed(changed)

    def mark_sent(self, attempt_id: str, token: str) -> bool:
        """Write, before a call that costs money, that it is about to be made; it is never made again by itself."""
        with self._database.writing() as connection:
            changed = transitions.mark_sent(connection, attempt_id, token)
        return self._notify_changed(changed)

    def holds(self, attempt_id: str, token: str) -> bool:
        """Whether the run still holds its claim; a cheap read."""
        with self._database.reading() as connection:
            return transitions.holds(connection, attempt_id, token)

    def complete(self, attempt_id: str, token: str, result: Result, now: float) -> bool:
        """Record the result, whose file is already safe on disk."""
        with self._database.writing() as connection:
            changed = transitions.complete(connection, attempt_id, token, result, now)
        return self._notify_changed(changed)

    def fail(self, attempt_id: str, token: str, code: str, message: str, now: float) -> bool:
        """Record why the run failed."""
        with self._database.writing() as connection:
            changed = transitions.fail(connection, attempt_id, token, code, message, now)
        return self._notify_changed(changed)

    def give_back(self, attempt_id: str, token: str, now: float) -> bool:
        """Put the attempt back to its old place in the queue; the try does not count. Sent: failed `interrupted`."""
        with self._database.writing() as connection:
            changed = transitions.give_back(connection, attempt_id, token, now)
        return self._notify_changed(changed, queue_moved=True)

    def crashed(self, attempt_id: str, token: str, now: float, max_tries: int = MAX_TRIES) -> bool:
        """The run ended without a word: back to the queue while tries are left, else failed `worker_crashed`.

        One that was sent to a provider is failed `interrupted` at once.
        """
        with self._database.writing() as connection:
            changed = transitions.crashed(connection, attempt_id, token, now, max_tries)
        return self._notify_changed(changed, queue_moved=True)

    def new_version(self, attempt_id: str, was: int, result: NewVersion) -> bool:
        """Show the next version of a result, whose file is safe on disk; False unless version `was` is shown now."""
        with self._database.writing() as connection:
            changed = transitions.new_version(connection, attempt_id, was, result)
        return self._notify_changed(changed)

    # What concerns many rows.

    def recover(self, now: float, max_tries: int = MAX_TRIES) -> list[str]:
        """At start, before any run: runs of the last process crashed. Returns all waiting attempts in order."""
        with self._database.writing() as connection:
            changed = transitions.recover(connection, now, max_tries)
            waiting = queries.queued_ids(connection)
        self._notify(changed)
        return waiting

    def cancel_or_remove(self, owner: str, job_id: str, now: float) -> Removal:
        """Cancel a job that is active, remove one that ended; remove the named files afterwards.

        Raises `NotFound` `job_not_found`.
        """
        with self._database.writing() as connection:
            queries.find_job(connection, owner, job_id)
            cancelled = transitions.cancel(connection, job_id, now)
            done = Removal("cancelled") if cancelled else removal.remove_jobs(connection, [job_id])
        self._notify_changed(job_id, queue_moved=cancelled)
        return done

    def expire(self, before: float, limit: int = EXPIRED_JOBS_A_PASS) -> Removal:
        """Remove jobs whose attempts all ended before a time (epoch seconds); never an active one."""
        with self._database.writing() as connection:
            gone = removal.expire(connection, before, limit)
        self._notify(gone.jobs)
        return gone

    def _notify_changed(self, changed: str | None, *, queue_moved: bool = False) -> bool:
        """Tell the listeners of a change, if there was one; a move of the queue concerns every waiting job."""
        if changed is None:
            return False
        self._notify([changed])
        if queue_moved and self._listeners:
            self._notify(job_id for job_id in self._waiting_jobs() if job_id != changed)
        return True

    def _waiting_jobs(self) -> list[str]:
        try:
            with self._database.reading() as connection:
                return queries.waiting_jobs(connection, _WAITING_JOBS_TOLD)
        except RestoreError:  # the change itself is committed; the listeners hear of their place with the next one
            return []

    def _notify(self, job_ids: Iterable[str]) -> None:
        with self._listeners_lock:
            listeners = list(self._listeners.values())
        for job_id in job_ids:
            for listener in listeners:
                try:
                    listener(job_id)
                except Exception:  # a listener's fault must not hide a committed change
                    log.exception("a listener of job changes failed")
