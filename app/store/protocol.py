"""The store border: photos, jobs and attempts as rows. The docstrings are the contract of every implementation.

One call is one transaction: after a return it is committed, after an error nothing was changed. The contract suite is
`tests/test_store_contract.py` with the stateful model in `tests/test_store_model.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, Unpack

from app.stages import Stage
from app.store.accounts import Accounts, Shares
from app.store.changes import Revision
from app.store.idempotency import Idempotency
from app.store.keeping import Keeping
from app.store.leases import LeaseSweep
from app.store.named_files import NamedFiles
from app.store.queries import Counts
from app.store.queue_order import WaitingFilter
from app.store.receipts import ReceiptRows
from app.store.records import NO_ORIGIN, Attempt, Job, JobOrigin, JobSummary, NewPhoto, NewVersion, Photo, Result
from app.store.removal import Removal
from app.store.result_cache import ResultRows
from app.store.webhooks import Webhooks
from app.store.workers import Workers

MAX_TRIES = 3
MAX_LAPSES = 5  # more than tries: a lease that ran out is seldom the photo's fault; alone from the second on
EXPIRED_JOBS_A_PASS = 500
LEASE_SECONDS = 60.0  # a claim lasts so long unless it is renewed
FORGOTTEN_SECONDS = 60.0  # a sweep saw an attempt wait, and after so long it still waits: its wake-up may be lost
NOTIFIED_A_SWEEP = 16  # of the oldest waiting attempts: to notify of all would flood the queue with duplicates


class Library(Protocol):
    """Photos of the photo routes: uploaded once, restored many times. Usable from any thread.

    By id every photo of an owner is found; lists and equal bytes know the library only. Any call may raise
    `Unavailable`, as those of `Store`.
    """

    def add(self, owner: str, new: NewPhoto, now: float, *, storage_limit: int | None = None) -> tuple[Photo, bool]:
        """Take in an upload that is safe on disk under `new.id`.

        Returns the photo and whether it is new: equal bytes of one owner give the photo that is there already, and the
        upload's file is of no use then. Raises `InsufficientStorage` `storage_limit_reached`, as `Store.submit` does.
        """
        ...

    def photo(self, owner: str, photo_id: str) -> Photo:
        """One photo of this owner. Raises `NotFound` `photo_not_found`."""
        ...

    def photos(self, owner: str, limit: int, before: str | None = None, *, archived: bool = False) -> list[Photo]:
        """A page of the library, newest first; `before` is the id of the last photo of the page before.

        Raises `NotFound` `photo_not_found` when `before` is unknown (it may have expired).
        """
        ...

    def select(self, owner: str, photo_id: str, attempt_id: str, now: float) -> Photo:
        """Choose the attempt to keep; see `photo_transitions.select_attempt` for the errors."""
        ...

    def archive(self, owner: str, photo_id: str, now: float) -> Photo:
        """Set a restored photo aside: no attempts any more; see `photo_transitions.archive` for the errors."""
        ...

    def remove(self, owner: str, photo_id: str) -> Removal:
        """Remove a photo with its attempts; remove the named files afterwards.

        Raises `NotFound` `photo_not_found` or `Conflict` `photo_busy`.
        """
        ...


class Store(Protocol):
    """Photos, jobs and attempts. Usable from any thread.

    Times that are passed in are this machine's; leases are measured by the one clock of the database alone. Any call
    may raise `Unavailable` with `storage_full`, `database_busy`, `database_unwritable` or `store_closed`; then nothing
    was changed; after `database_unavailable` nobody knows (`may_be_committed`). Every change is published to the
    events it was built with, after the commit.
    """

    @property
    def library(self) -> Library:
        """Photos that are uploaded once and restored many times."""

    @property
    def results(self) -> ResultRows:
        """Finished results by their keys."""

    @property
    def receipts(self) -> ReceiptRows:
        """What providers answered to calls that cost money."""

    @property
    def named_files(self) -> NamedFiles:
        """Which files the rows name."""
        ...

    @property
    def accounts(self) -> Accounts:
        """What is known of owners beside their jobs."""

    @property
    def idempotency(self) -> Idempotency:
        """The keys of submissions."""

    @property
    def keeping(self) -> Keeping:
        """Jobs that stay."""

    @property
    def workers(self) -> Workers:
        """The processes that restore, as they report."""

    @property
    def webhooks(self) -> Webhooks:
        """Whom to tell when jobs end."""

    def open(self) -> None:
        """Take the data folder, check and create the tables; for the errors see `Database.open`."""
        ...

    def close(self) -> None:
        """Close the database and free its folder. Harmless when called twice."""
        ...

    def add_job(
        self, owner: str, photos: Sequence[NewPhoto], options_json: str, backend: str, queue_limit: int, now: float
    ) -> Job:
        """Accept a job, as `submit` does, for callers who do not ask for its place in the queue."""
        ...

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
        """Accept a job for photos that are already safe on disk: all of its rows or none.

        With `job_id` the job gets that id; where the owner has a job of this id, that one is given back, and nothing is
        changed. Returns the job and its place in the queue (1: next) at the moment it came in.

        Raises:
            Unavailable: `queue_full` with `retry_after_seconds`, when more than `queue_limit` photos would wait.
            TooManyRequests: `owner_queue_full`, when more than `owner_limit` photos of the owner would wait, unless
                these are the first; `quota_exceeded`, when more than `daily_limit` would be accepted on one day.
            InsufficientStorage: `storage_limit_reached`, when the owner's photos and results would have more than
                `storage_limit` bytes.
            TooLarge: `too_many_files`, when the job alone is larger than the queue.
        """
        ...

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
        """Accept one attempt more at a photo, as a job of its own; returns the job and its place in the queue.

        `job_id` is as in `submit`.

        Raises:
            NotFound: `photo_not_found`.
            Conflict: `photo_busy` while an attempt is active, `photo_archived`.
            RestoreError: `queue_full`, `owner_queue_full`, `storage_limit_reached`, `quota_exceeded`, as `submit` does.
        """
        ...

    def job(self, owner: str, job_id: str) -> Job:
        """One job of this owner. Raises `NotFound` `job_not_found`."""
        ...

    def jobs(self, owner: str, limit: int, before: str | None = None) -> list[Job]:
        """A page of this owner's jobs, newest first; `before` is the id of the last job of the page before.

        Raises `NotFound` `job_not_found` when `before` is unknown (it may have expired).
        """
        ...

    def page(self, owner: str, limit: int, before: str | None, most_attempts: int) -> list[Job | JobSummary]:
        """The same for a long list: a job of more than `most_attempts` photos comes without its attempts."""
        ...

    def attempt(self, attempt_id: str) -> Attempt | None:
        """One attempt, whoever owns it."""
        ...

    def result_attempt(self, owner: str, result_name: str) -> Attempt:
        """The completed attempt behind the name of any version of its result. Raises `NotFound` `result_not_found`."""
        ...

    def queue_position(self, job_id: str) -> int:
        """1 when the job's first waiting attempt comes next; 0 when none of its attempts waits."""
        ...

    def queued_ids(self, limit: int | None = None, **which: Unpack[WaitingFilter]) -> list[str]:
        """Ids of the waiting attempts in the order in which they are served."""
        ...

    def waiting(self, limit: int, **which: Unpack[WaitingFilter]) -> list[Attempt]:
        """The first ones of `queued_ids`, whole."""
        ...

    def waiting_among(self, attempt_ids: Collection[str]) -> dict[str, str]:
        """Those of some attempts that wait, with their backends; a cheap read."""
        ...

    def revisions(self, job_ids: Collection[str]) -> dict[str, Revision]:
        """A number of sorts for each of the jobs that is there, which any change of it raises, its place included."""
        ...

    def counts(self, owner: str | None = None) -> Counts:
        """How many attempts stand in each state, of one owner or (None) of all."""
        ...

    def seconds_per_megapixel(self) -> float | None:
        """Restoration seconds per megapixel of result, over recent attempts; None before the first."""
        ...

    def active(self, limit: int) -> list[Attempt]:
        """Attempts in work, then those that wait, in the order in which they come: the first `limit` of each."""
        ...

    def recent_completed(self) -> list[Attempt]:
        """The last completed attempts of all owners, newest first."""
        ...

    def claim(
        self, attempt_id: str, token: str, now: float, *, tries: int | None = None, stage: Stage = Stage.DECODING
    ) -> Attempt | None:
        """Take a waiting attempt for the run named by `token`, at its first stage; None when it waits no more.

        With `tries`, only when it was tried that often so far: whether a run must be alone hangs on it, and another
        process may have tried it since it was read. The claim is a lease: unless renewed it ends after a while.
        """
        ...

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
        """Take the next attempt in the order of `queued_ids` that was never tried, of one backend only or all but some.

        `first` is tried before: it was read as the next a moment ago. Processes that do so at once get different
        attempts, without waiting for each other. None when none waits.
        """
        ...

    def renew_leases(self, tokens: Collection[str]) -> set[str]:
        """Extend the claims of these runs; those of them that still hold theirs (the others must stop)."""
        ...

    def report_progress(
        self, attempt_id: str, token: str, fraction: float, stage: str, worked_seconds: float | None = None
    ) -> bool:
        """Write how far a run is, `fraction` in [0, 1], and how long it has been restoring."""
        ...

    def mark_sent(self, attempt_id: str, token: str) -> bool:
        """Write, before a call that costs money, that it is about to be made; it is never made again by itself."""
        ...

    def holds(self, attempt_id: str, token: str) -> bool:
        """Whether the run still holds its claim; a cheap read."""
        ...

    def complete(self, attempt_id: str, token: str, result: Result, now: float) -> bool:
        """Record the result, whose file is already safe on disk."""
        ...

    def fail(self, attempt_id: str, token: str, code: str, message: str, now: float) -> bool:
        """Record why the run failed."""
        ...

    def give_back(self, attempt_id: str, token: str, now: float) -> bool:
        """Put the attempt back to its old place in the queue; the try does not count. Sent: failed `interrupted`."""
        ...

    def crashed(self, attempt_id: str, token: str, now: float, max_tries: int = MAX_TRIES) -> bool:
        """The run ended without a word: back to the queue while tries are left, else failed `worker_crashed`.

        One that was sent to a provider is failed `interrupted` at once.
        """
        ...

    def new_version(self, attempt_id: str, was: int, result: NewVersion) -> bool:
        """Show the next version of a result, whose file is safe on disk; False unless version `was` is shown now."""
        ...

    def recover(
        self, now: float, max_tries: int = MAX_TRIES, *, burn_try: bool = True, predecessors: str = ""
    ) -> list[str]:
        """At start, before any run of this process; returns all waiting attempts in order.

        Where no other process can use the database, every run is of the last process and is `crashed`, or with
        `burn_try` False (the whole machine went down, say) given back, and its try does not count. Where others can,
        those runs are `crashed` whose worker's name begins with `predecessors` (the supervisor of this process saw that
        worker die); the runs of other dead processes are found by `sweep_leases`.
        """
        ...

    def sweep_leases(
        self, now: float, *, forgotten_seconds: float = FORGOTTEN_SECONDS, max_lapses: int = MAX_LAPSES
    ) -> LeaseSweep:
        """End every run whose lease ran out, and find waiting attempts that may be forgotten.

        Whether the photo killed its process, or the process was frozen or cut off, is not known: such a run goes back
        to the queue and burns no try; the last of `max_lapses` fails it as `worker_lost`. One that was sent is failed
        `interrupted` at once. Forgotten is one of the oldest waiting attempts that a sweep saw waiting
        `forgotten_seconds` ago. While another process sweeps, nothing is done.
        """
        ...

    def cancel_or_remove(self, owner: str, job_id: str, now: float, attempt_id: str | None = None) -> Removal:
        """Cancel what is active, remove what ended, of a job or of one attempt; remove the named files afterwards.

        Raises `NotFound` `job_not_found` or `attempt_not_found`."""
        ...

    def expire(self, before: float, limit: int = EXPIRED_JOBS_A_PASS) -> Removal:
        """Remove jobs whose attempts all ended before a time (epoch seconds); never an active one."""
        ...
