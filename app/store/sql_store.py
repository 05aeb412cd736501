"""`SqlStore`: one transaction a call over SQLAlchemy Core, and an event to every listener after the commit."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, delete, insert, select

from app.errors import RestoreError
from app.events import Events, LocalEvents
from app.store import leases, photo_transitions, queries, removal, submissions, transitions
from app.store.group_commit import GroupCommit
from app.store.protocol import EXPIRED_JOBS_A_PASS, MAX_TRIES
from app.store.queries import Counts
from app.store.records import Attempt, Job, JobSummary, NewPhoto, NewVersion, Result
from app.store.removal import Removal
from app.store.schema import ended_sessions
from app.store.sql_library import SqlLibrary
from app.store.sqlite import Database

log = logging.getLogger(__name__)

_WAITING_JOBS_TOLD = 256  # as many as there may be live connections


class SqlStore:
    """Rows in SQL; see `Store`. Submissions that come together share a transaction (`group_commit`)."""

    def __init__(self, database_url: str, events: Events | None = None) -> None:
        self._database = Database(database_url)
        self._group_commit: GroupCommit[tuple[Job, int]] = GroupCommit(self._database.writing)
        self._events = events or LocalEvents()
        self.library = SqlLibrary(self._database, self._events)

    def open(self) -> None:
        """See `Store`."""
        self._database.open()

    def close(self) -> None:
        """See `Store`."""
        self._database.close()

    def add_job(
        self,
        owner: str,
        photos: Sequence[NewPhoto],
        options_json: str,
        backend: str,
        queue_limit: int,
        now: float,
    ) -> Job:
        """See `Store`."""
        return self.submit(owner, photos, options_json, backend, queue_limit, now)[0]

    def submit(
        self,
        owner: str,
        photos: Sequence[NewPhoto],
        options_json: str,
        backend: str,
        queue_limit: int,
        now: float,
        *,
        owner_limit: int | None = None,
    ) -> tuple[Job, int]:
        """See `Store`."""
        if not photos:
            raise ValueError("a job has at least one photo")

        def write(connection: Connection) -> tuple[Job, int]:
            job_id = submissions.insert_job(
                connection, owner, photos, options_json, backend, queue_limit, now, owner_limit
            )
            return queries.find_job(connection, owner, job_id), queries.queue_position(connection, job_id)

        job, position = self._group_commit.run(write)
        self._events.publish([job.id])
        return job, position

    def restore_photo(
        self,
        owner: str,
        photo_id: str,
        options_json: str,
        backend: str,
        queue_limit: int,
        now: float,
        *,
        owner_limit: int | None = None,
    ) -> tuple[Job, int]:
        """See `Store`."""

        def write(connection: Connection) -> tuple[Job, int]:
            asked = (owner, photo_id, options_json, backend, queue_limit, now, owner_limit)
            job_id = photo_transitions.restore(connection, *asked)
            return queries.find_job(connection, owner, job_id), queries.queue_position(connection, job_id)

        job, position = self._group_commit.run(write)
        self._events.publish([job.id])
        return job, position

    # What the rows say.

    def job(self, owner: str, job_id: str) -> Job:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.find_job(connection, owner, job_id)

    def jobs(self, owner: str, limit: int, before: str | None = None) -> list[Job]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.list_jobs(connection, owner, limit, before)

    def page(self, owner: str, limit: int, before: str | None, most_attempts: int) -> list[Job | JobSummary]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.page_jobs(connection, owner, limit, before, most_attempts)

    def attempt(self, attempt_id: str) -> Attempt | None:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.find_attempt(connection, attempt_id)

    def result_attempt(self, owner: str, result_name: str) -> Attempt:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.find_result(connection, owner, result_name)

    def queue_position(self, job_id: str) -> int:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.queue_position(connection, job_id)

    def queued_ids(self, limit: int | None = None, *, only: str | None = None, but: Collection[str] = ()) -> list[str]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.queued_ids(connection, limit, only, but)

    def counts(self) -> Counts:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.count(connection)

    def seconds_per_megapixel(self) -> float | None:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.seconds_per_megapixel(connection)

    def recent_completed(self) -> list[Attempt]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.recent_completed(connection)

    def known_photo_ids(self) -> set[str]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.known_photo_ids(connection)

    def known_result_names(self) -> set[str]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.known_result_names(connection)

    def active_ids(self) -> set[str]:
        """See `Store`."""
        with self._database.reading() as connection:
            return queries.active_ids(connection)

    # The moves of one run. False means that the run does not hold its claim any more, and nothing was changed.

    def claim(self, attempt_id: str, token: str, now: float) -> Attempt | None:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = leases.claim(connection, attempt_id, token, now)
            attempt = None if changed is None else queries.find_attempt(connection, attempt_id)
        self._notify_changed(changed, queue_moved=True)
        return attempt

    def report_progress(self, attempt_id: str, token: str, fraction: float, stage: str) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = leases.report_progress(connection, attempt_id, token, fraction, stage)
        return self._notify_changed(changed)

    def mark_sent(self, attempt_id: str, token: str) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = leases.mark_sent(connection, attempt_id, token)
        return self._notify_changed(changed)

    def holds(self, attempt_id: str, token: str) -> bool:
        """See `Store`."""
        with self._database.reading() as connection:
            return leases.holds(connection, attempt_id, token)

    def complete(self, attempt_id: str, token: str, result: Result, now: float) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = transitions.complete(connection, attempt_id, token, result, now)
        return self._notify_changed(changed)

    def fail(self, attempt_id: str, token: str, code: str, message: str, now: float) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = transitions.fail(connection, attempt_id, token, code, message, now)
        return self._notify_changed(changed)

    def give_back(self, attempt_id: str, token: str, now: float) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = leases.give_back(connection, attempt_id, token, now)
        return self._notify_changed(changed, queue_moved=True)

    def crashed(self, attempt_id: str, token: str, now: float, max_tries: int = MAX_TRIES) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = leases.crashed(connection, attempt_id, token, now, max_tries)
        return self._notify_changed(changed, queue_moved=True)

    def new_version(self, attempt_id: str, was: int, result: NewVersion) -> bool:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = transitions.new_version(connection, attempt_id, was, result)
        return self._notify_changed(changed)

    # What concerns many rows.

    def recover(self, now: float, max_tries: int = MAX_TRIES, *, burn_try: bool = True) -> list[str]:
        """See `Store`."""
        with self._database.writing() as connection:
            changed = leases.recover(connection, now, max_tries, burn_try=burn_try)
            waiting = queries.queued_ids(connection)
        self._events.publish(changed)
        return waiting

    def cancel_or_remove(self, owner: str, job_id: str, now: float) -> Removal:
        """See `Store`."""
        with self._database.writing() as connection:
            queries.find_job(connection, owner, job_id)
            cancelled = transitions.cancel(connection, job_id, now)
            done = Removal("cancelled") if cancelled else removal.remove_jobs(connection, [job_id])
        self._notify_changed(job_id, queue_moved=cancelled)
        return done

    def end_session(self, session_id: str, until: float) -> None:
        """See `Store`."""
        with self._database.writing() as connection:
            known = select(ended_sessions.c.id).where(ended_sessions.c.id == session_id)
            if connection.execute(known).one_or_none() is None:
                connection.execute(insert(ended_sessions).values(id=session_id, until=until))

    def ended_sessions(self, now: float) -> set[str]:
        """See `Store`."""
        with self._database.writing() as connection:
            connection.execute(delete(ended_sessions).where(ended_sessions.c.until < now))
            return set(connection.execute(select(ended_sessions.c.id)).scalars())

    def expire(self, before: float, limit: int = EXPIRED_JOBS_A_PASS) -> Removal:
        """See `Store`."""
        with self._database.writing() as connection:
            gone = removal.expire(connection, before, limit)
        self._events.publish(gone.jobs)
        return gone

    def _notify_changed(self, changed: str | None, *, queue_moved: bool = False) -> bool:
        """Tell the listeners of a change, if there was one; a move of the queue concerns every waiting job."""
        if changed is None:
            return False
        self._events.publish([changed])
        if queue_moved and self._events.has_listeners():
            self._events.publish(job_id for job_id in self._waiting_jobs() if job_id != changed)
        return True

    def _waiting_jobs(self) -> list[str]:
        try:
            with self._database.reading() as connection:
                return queries.waiting_jobs(connection, _WAITING_JOBS_TOLD)
        except RestoreError:  # the change itself is committed; the listeners hear of their place with the next one
            return []
