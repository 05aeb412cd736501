"""`SqlStore`: one transaction a call over SQLAlchemy Core, and an event to every listener after the commit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import Unpack

from sqlalchemy import Connection

from app.errors import RestoreError
from app.events import Events, LocalEvents
from app.stages import Stage
from app.store import changes, leases, photo_transitions, queries, queue_order, removal, submissions, transitions
from app.store.accounts import Shares, SqlAccounts
from app.store.changes import Revision
from app.store.database import open_database_at
from app.store.idempotency import SqlIdempotency
from app.store.keeping import SqlKeeping
from app.store.leases import Claims, LeaseSweep
from app.store.locks import AdvisoryLock, try_hold
from app.store.named_files import SqlNamedFiles
from app.store.protocol import (
    EXPIRED_JOBS_A_PASS,
    FORGOTTEN_SECONDS,
    LEASE_SECONDS,
    MAX_LAPSES,
    MAX_TRIES,
    NOTIFIED_A_SWEEP,
)
from app.store.queries import Counts
from app.store.queue_order import WaitingFilter
from app.store.receipts import SqlReceiptRows
from app.store.records import NO_ORIGIN, Attempt, Job, JobOrigin, JobSummary, NewPhoto, NewVersion, Result
from app.store.removal import Removal
from app.store.result_cache import SqlResultRows
from app.store.sql_library import SqlLibrary
from app.store.webhooks import SqlWebhooks
from app.store.workers import SqlWorkers


class SqlStore:
    """Rows in SQL; see `Store`.

    Args:
        database_url: an SQLAlchemy address, see `open_database_at`.
        events: hears of every change.
        worker: host and process, written beside each claim for people.
        lease_seconds: how long a claim lasts unless it is renewed.
        clock: instead of the database's own (epoch seconds).
    """

    def __init__(
        self,
        database_url: str,
        events: Events | None = None,
        *,
        worker: str = "",
        lease_seconds: float = LEASE_SECONDS,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._database = open_database_at(database_url, clock)
        self._claims = Claims(worker, self._database.now(), lease_seconds)
        self._events = events = events or LocalEvents()
        self.library, self.keeping = SqlLibrary(self._database, events), SqlKeeping(self._database, events)
        self.results, self.webhooks = SqlResultRows(self._database), SqlWebhooks(self._database)
        self.idempotency, self.accounts = SqlIdempotency(self._database), SqlAccounts(self._database)
        self.workers, self.receipts = SqlWorkers(self._database, events), SqlReceiptRows(self._database, events)
        self.named_files = SqlNamedFiles(self._database)

    def open(self) -> None:
        """See `Store`."""
        self._database.open()

    def close(self) -> None:
        """See `Store`."""
        self._database.close()

    def add_job(
        self, owner: str, photos: Sequence[NewPhoto], options_json: str, backend: str, queue_limit: int, now: float
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
        job_id: str | None = None,
        origin: JobOrigin = NO_ORIGIN,
        **shares: Unpack[Shares],
    ) -> tuple[Job, int]:
        """See `Store`."""
        if not photos:
            raise ValueError("a job has at least one photo")

        asked = (owner, photos, options_json, backend, queue_limit, now, job_id, origin)
        return self._accept(owner, job_id, lambda connection: submissions.insert_job(connection, *asked, **shares))

    def restore_photo(
        self,
        owner: str,
        photo_id: str,
        options_json: str,
        backend: str,
        queue_limit: int,
        now: float,
        *,
        job_id: str | None = None,
        origin: JobOrigin = NO_ORIGIN,
        **shares: Unpack[Shares],
    ) -> tuple[Job, int]:
        """See `Store`."""
        asked = (owner, photo_id, options_json, backend, queue_limit, now, job_id, origin)
        return self._accept(owner, job_id, lambda connection: photo_transitions.restore(connection, *asked, **shares))

    def _accept(self, owner: str, wanted: str | None, insert_job: Callable[[Connection], str]) -> tuple[Job, int]:
        def write(connection: Connection) -> tuple[Job, int]:
            job_id = submissions.make_once(connection, owner, wanted, insert_job)
            return queries.find_job(connection, owner, job_id), queue_order.queue_position(connection, job_id)

        job, position = self._database.write_grouped(write)
        self._events.publish([job.id])
        return job, position

    # What the rows say.

    def job(self, owner: str, job_id: str) -> Job:
        """See `Store`."""
        return self._database.read(lambda connection: queries.find_job(connection, owner, job_id))

    def jobs(self, owner: str, limit: int, before: str | None = None) -> list[Job]:
        """See `Store`."""
        return self._database.read(lambda connection: queries.list_jobs(connection, owner, limit, before))

    def page(self, owner: str, limit: int, before: str | None, most_attempts: int) -> list[Job | JobSummary]:
        """See `Store`."""
        asked = (owner, limit, before, most_attempts)
        return self._database.read(lambda connection: queries.page_jobs(connection, *asked))

    def attempt(self, attempt_id: str) -> Attempt | None:
        """See `Store`."""
        return self._database.read_statement(lambda connection: queries.find_attempt(connection, attempt_id))

    def result_attempt(self, owner: str, result_name: str) -> Attempt:
        """See `Store`."""
        return self._database.read(lambda connection: queries.find_result(connection, owner, result_name))

    def queue_position(self, job_id: str) -> int:
        """See `Store`."""
        return self._database.read(lambda connection: queue_order.queue_position(connection, job_id))

    def queued_ids(self, limit: int | None = None, **which: Unpack[WaitingFilter]) -> list[str]:
        """See `Store`."""
        return self._database.read_statement(lambda connection: queue_order.queued_ids(connection, limit, **which))

    def waiting(self, limit: int, **which: Unpack[WaitingFilter]) -> list[Attempt]:
        """See `Store`."""
        return self._database.read_statement(lambda connection: queries.waiting(connection, limit, **which))

    def waiting_among(self, attempt_ids: Collection[str]) -> dict[str, str]:
        """See `Store`."""
        return self._database.read_statement(lambda connection: queue_order.waiting_among(connection, attempt_ids))

    def revisions(self, job_ids: Collection[str]) -> dict[str, Revision]:
        """See `Store`."""
        return self._database.read_statement(lambda connection: changes.revisions(connection, job_ids))

    def counts(self, owner: str | None = None) -> Counts:
        """See `Store`."""
        return self._database.read_statement(lambda connection: queries.count(connection, owner))

    def seconds_per_megapixel(self) -> float | None:
        """See `Store`."""
        return self._database.read(queries.seconds_per_megapixel)

    def active(self, limit: int) -> list[Attempt]:
        """See `Store`."""
        return self._database.read(lambda connection: queries.active(connection, limit))

    def recent_completed(self) -> list[Attempt]:
        """See `Store`."""
        return self._database.read(queries.recent_completed)

    # The moves of one run. False means that the run does not hold its claim any more, and nothing was changed.

    def claim(
        self, attempt_id: str, token: str, now: float, *, tries: int | None = None, stage: Stage = Stage.DECODING
    ) -> Attempt | None:
        """See `Store`."""
        run = {"token": token, "now": now, "stage": stage.value}
        taken = self._database.write(lambda connection: self._claims.take(connection, attempt_id, run, tries))
        return self._took_turn(taken)

    def claim_next(
        self,
        token: str,
        now: float,
        *,
        first: str | None = None,
        only: str | None = None,
        but: Collection[str] = (),
        stage: Stage = Stage.DECODING,
    ) -> Attempt | None:
        """See `Store`."""
        run = {"token": token, "now": now, "stage": stage.value}

        def write(connection: Connection) -> Attempt | None:
            candidates = queue_order.candidates(connection, first, only, but)
            tried = (self._claims.take_free(connection, attempt_id, run) for attempt_id in candidates)
            return next((attempt for attempt in tried if attempt is not None), None)

        return self._took_turn(self._database.write(write))

    def renew_leases(self, tokens: Collection[str]) -> set[str]:
        """See `Store`."""
        until = self._claims.lease_until
        return self._database.write_apart(lambda connection: leases.renew(connection, tokens, until))

    def report_progress(
        self, attempt_id: str, token: str, fraction: float, stage: str, worked_seconds: float | None = None
    ) -> bool:
        """See `Store`."""
        news = (attempt_id, token, fraction, stage, worked_seconds)
        return self._notify_changed(
            self._database.write_statement(lambda connection: leases.report_progress(connection, *news))
        )

    def mark_sent(self, attempt_id: str, token: str) -> bool:
        """See `Store`."""
        sent = self._database.write_statement(lambda connection: leases.mark_sent(connection, attempt_id, token))
        return self._notify_changed(sent)

    def holds(self, attempt_id: str, token: str) -> bool:
        """See `Store`."""
        return self._database.read_statement(lambda connection: leases.holds(connection, attempt_id, token))

    def complete(self, attempt_id: str, token: str, result: Result, now: float) -> bool:
        """See `Store`."""
        facts = (attempt_id, token, result, now)
        return self._notify_changed(self._database.write(lambda connection: transitions.complete(connection, *facts)))

    def fail(self, attempt_id: str, token: str, code: str, message: str, now: float) -> bool:
        """See `Store`."""
        facts = (attempt_id, token, code, message, now)
        return self._notify_changed(self._database.write(lambda connection: transitions.fail(connection, *facts)))

    def give_back(self, attempt_id: str, token: str, now: float) -> bool:
        """See `Store`."""
        changed = self._database.write(lambda connection: leases.give_back(connection, attempt_id, token, now))
        return self._notify_changed(changed, queue_moved=True)

    def crashed(self, attempt_id: str, token: str, now: float, max_tries: int = MAX_TRIES) -> bool:
        """See `Store`."""
        changed = self._database.write(lambda connection: leases.crashed(connection, attempt_id, token, now, max_tries))
        return self._notify_changed(changed, queue_moved=True)

    def new_version(self, attempt_id: str, was: int, result: NewVersion) -> bool:
        """See `Store`."""
        changed = self._database.write(lambda connection: transitions.new_version(connection, attempt_id, was, result))
        return self._notify_changed(changed)

    # What concerns many rows.

    def recover(
        self, now: float, max_tries: int = MAX_TRIES, *, burn_try: bool = True, predecessors: str = ""
    ) -> list[str]:
        """See `Store`."""

        def write(connection: Connection) -> tuple[set[str], list[str]]:
            of = None if self._database.exclusive else predecessors
            return leases.recover(connection, now, max_tries, burn_try, of), queue_order.queued_ids(connection)

        changed, waiting = self._database.write(write)
        self._events.publish(changed)
        return waiting

    def sweep_leases(
        self, now: float, *, forgotten_seconds: float = FORGOTTEN_SECONDS, max_lapses: int = MAX_LAPSES
    ) -> LeaseSweep:
        """See `Store`."""

        def write(connection: Connection) -> tuple[list[tuple[str, str]], list[str]]:
            if not try_hold(connection, AdvisoryLock.LEASE_SWEEP):
                return [], []
            moment = self._database.now()
            ended = leases.end_lapsed(connection, moment, now, max_lapses)
            return ended, leases.find_forgotten(connection, moment, forgotten_seconds, NOTIFIED_A_SWEEP)

        ended, forgotten = self._database.write(write)
        for _, job_id in ended:
            self._notify_changed(job_id, queue_moved=True)
        lapsed = tuple(attempt_id for attempt_id, _ in ended)
        return LeaseSweep(lapsed, (*lapsed, *forgotten))

    def cancel_or_remove(self, owner: str, job_id: str, now: float, attempt_id: str | None = None) -> Removal:
        """See `Store`."""

        def write(connection: Connection) -> Removal:
            job = queries.find_job(connection, owner, job_id)
            if attempt_id is not None:
                job.attempt(attempt_id)
            if transitions.cancel(connection, job_id, now, attempt_id):
                return Removal("cancelled")
            if attempt_id is not None:
                return removal.remove_attempt(connection, job_id, attempt_id)
            return removal.remove_jobs(connection, [job_id])

        done = self._database.write(write)
        self._notify_changed(job_id, queue_moved=done.outcome == "cancelled")
        return done

    def expire(self, before: float, limit: int = EXPIRED_JOBS_A_PASS) -> Removal:
        """See `Store`."""
        gone = self._database.write(lambda connection: removal.expire(connection, before, limit))
        self._events.publish(gone.jobs)
        return gone

    def _took_turn(self, attempt: Attempt | None) -> Attempt | None:
        """After the commit, since claims of one owner's photos would wait for each other's.

        The claim stands, whatever becomes of this: an error here would leave a row in work that nobody works at.
        """
        if attempt is not None:
            owner, at = attempt.owner, self._database.now()
            with contextlib.suppress(RestoreError):
                self._database.write_statement(lambda connection: queue_order.took_turn(connection, owner, at))
            self._notify_changed(attempt.job_id, queue_moved=True)
        return attempt

    def _notify_changed(self, changed: str | None, *, queue_moved: bool = False) -> bool:
        """Tell the listeners of a change, if there was one; a move of the queue concerns every waiting job."""
        if changed is not None:
            self._events.publish([changed])
            if queue_moved and self._events.has_listeners():
                self._events.publish(job_id for job_id in self._waiting_jobs() if job_id != changed)
        return changed is not None

    def _waiting_jobs(self) -> list[str]:
        try:
            return self._database.read_statement(queue_order.waiting_jobs)
        except RestoreError:  # the change itself is committed; the listeners hear of their place with the next one
            return []
