"""The rows of the store as plain, frozen records, and the words for their states.

Other rooms read these; only the store writes them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from app.errors import NotFound
from app.notices import Notice


class AttemptStatus(enum.StrEnum):
    """`queued -> processing -> completed | failed | cancelled`, and `queued -> cancelled`."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether no further move is legal."""
        return self not in (AttemptStatus.QUEUED, AttemptStatus.PROCESSING)


class PhotoStatus(enum.StrEnum):
    """`uploaded -> processing -> ready`; a failed or cancelled attempt puts back what was before."""

    UPLOADED = "uploaded"
    PROCESSING = "processing"
    READY = "ready"
    ARCHIVED = "archived"
    DELETED = "deleted"


@dataclasses.dataclass(frozen=True)
class NewPhoto:
    """An upload that is already on disk (fsynced) under `id`, about to get its row."""

    id: str
    sha256: str
    name: str  # the client's file name, cleaned: a label, never part of a path
    mime: str
    width: int
    height: int
    bytes: int
    options_json: str | None = None  # of its first attempt, where they are not the job's


@dataclasses.dataclass(frozen=True)
class Photo:
    """One uploaded original with its attempts in the order of submission."""

    id: str
    owner: str
    sha256: str
    name: str
    mime: str
    width: int
    height: int
    bytes: int
    status: PhotoStatus
    created_at: float  # seconds since the epoch, UTC
    selected_attempt_id: str | None  # the result that its owner keeps
    used_at: float | None  # None: the upload of a job, which goes with its jobs
    kept: bool = False  # one of its jobs is kept, and the photo with it
    let_go_at: float | None = None  # when the last of them was let go
    attempts: tuple[Attempt, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether an attempt waits or runs."""
        return not all(attempt.status.ended for attempt in self.attempts)

    @property
    def last_used_at(self) -> float | None:
        """The last upload, choice, end of an attempt or of keeping; None while one is active, or nothing is known."""
        ends = [attempt.ended_at for attempt in self.attempts if attempt.ended_at is not None]
        times = [*ends, *(time for time in (self.used_at, self.let_go_at) if time is not None)]
        return max(times) if times and not self.busy else None


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One restoration of one photo, joined with what callers need of its photo."""

    id: str
    job_id: str
    photo_id: str
    position: int  # place within the job, from 0
    status: AttemptStatus
    backend: str
    options_json: str
    progress: float  # 0..1
    stage: str
    worked_seconds: float | None  # how long it was being restored when `progress` was written; None before
    tries: int  # how often it was claimed and not given back
    lapses: int  # how many of these tries ended because their lease ran out
    claim: str | None  # the token of the run that holds it
    worker: str | None  # host and process of its last run, for people
    lease_until: float | None  # when the claim ends unless it is renewed: epoch seconds by the database's clock
    sent: bool  # handed to a provider that takes money for it, no answer is on record: never run again by itself
    receipts: tuple[Mapping[str, Any], ...]  # what providers answered to calls that cost money; empty once it ended
    request_id: str | None  # of the submission
    trace: str | None  # the `traceparent` of the submission (W3C trace context), where it was traced
    created_at: float
    started_at: float | None
    ended_at: float | None
    owner: str
    original_filename: str
    photo_mime: str
    photo_bytes: int
    photo_width: int
    photo_height: int
    version: int  # of the result: 1, and one more with each re-blend of its faces
    result_name: str | None  # as the storage keeps it: "<attempt id>.<ext>", then "<attempt id>-v2.<ext>"; or with runs
    result_mime: str | None
    result_width: int | None
    result_height: int | None
    result_bytes: int | None
    beside_bytes: int | None  # kept beside it: layers of faces, damage, and under a later version the first one
    model: str | None
    seconds: float | None
    faces: tuple[Mapping[str, Any], ...]
    warnings: tuple[Notice, ...]
    params: Mapping[str, Any]
    error_code: str | None
    error_message: str | None
    mask_bytes: int | None = None  # of the mask that came with it, which the storage keeps; None: there is none

    @property
    def burned_tries(self) -> int:
        """The tries that count against the photo, one that is running among them: those that did not just lapse."""
        return self.tries - self.lapses


class WebhookStatus(enum.StrEnum):
    """`waiting` (for the job's end) `-> pending` (there are tries left) `-> delivered | failed`."""

    WAITING = "waiting"
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class WebhookState:
    """How far the telling of a job's end is.

    `next_at` is epoch seconds by the database's clock; `error` is one of a few words, None when the receiver answered
    with success or was not asked yet.
    """

    status: WebhookStatus
    tries: int
    next_at: float
    response_status: int | None
    error: str | None


@dataclasses.dataclass(frozen=True)
class SentMask:
    """A mask of damage that is already in the storage, under the id that its attempt will have."""

    attempt_id: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class JobOrigin:
    """What is kept of the request that submitted a job.

    Attributes:
        request_id: its id, which the logs of a run repeat.
        trace: its `traceparent`, under which a run on whatever host opens its spans.
        webhook_url: whom to tell when the job ends.
        mask: what came with the one photo of the job, to be filled instead of what would be found.
    """

    request_id: str | None = None
    trace: str | None = None
    webhook_url: str | None = None
    mask: SentMask | None = None


NO_ORIGIN = JobOrigin()


@dataclasses.dataclass(frozen=True)
class Job:
    """One submission: a group of attempts; its status is derived from theirs."""

    id: str
    owner: str
    created_at: float
    options_json: str
    attempts: tuple[Attempt, ...]
    webhook: WebhookState | None = None  # None: nobody is to be told
    kept: bool = False  # its owner keeps it, so it does not expire
    let_go_at: float | None = None  # when that ended

    @property
    def status(self) -> AttemptStatus:
        """See `status_of`."""
        return status_of({attempt.status for attempt in self.attempts})

    @property
    def progress(self) -> float:
        """Mean progress of the attempts by the pixels of their photos, 0..1; an ended attempt counts as 1."""
        sizes = [attempt.photo_width * attempt.photo_height for attempt in self.attempts]
        done = sum(size * (1.0 if a.status.ended else a.progress) for size, a in zip(sizes, self.attempts, strict=True))
        return done / max(1, sum(sizes))

    def attempt(self, attempt_id: str) -> Attempt:
        """The attempt of this id. Raises `NotFound` `attempt_not_found`."""
        found = next((attempt for attempt in self.attempts if attempt.id == attempt_id), None)
        if found is None:
            raise NotFound("attempt_not_found", "This job has no such attempt.")
        return found


@dataclasses.dataclass(frozen=True)
class JobSummary:
    """A job of many photos in a long list: how they are, counted, without the attempts themselves."""

    id: str
    owner: str
    created_at: float
    options_json: str
    counts: Mapping[AttemptStatus, int]
    progress: float  # as `Job.progress`
    stage: str | None  # of an attempt in work
    ended_at: float | None  # of the last attempt that ended
    webhook: WebhookState | None = None
    kept: bool = False
    let_go_at: float | None = None

    @property
    def status(self) -> AttemptStatus:
        """See `status_of`."""
        return status_of(set(self.counts))

    @property
    def photos(self) -> int:
        """How many photos it has."""
        return sum(self.counts.values())


def status_of(states: set[AttemptStatus]) -> AttemptStatus:
    """A job's status from its attempts' states.

    `completed` when all ended and one or more completed; `failed` when all failed; else see the contract.
    """
    if AttemptStatus.PROCESSING in states:
        return AttemptStatus.PROCESSING
    if AttemptStatus.QUEUED in states:
        return AttemptStatus.QUEUED if states == {AttemptStatus.QUEUED} else AttemptStatus.PROCESSING
    if AttemptStatus.COMPLETED in states:
        return AttemptStatus.COMPLETED
    return AttemptStatus.FAILED if states == {AttemptStatus.FAILED} else AttemptStatus.CANCELLED


@dataclasses.dataclass(frozen=True)
class Result:
    """What a finished run writes into its row."""

    name: str  # as the storage keeps it: "<attempt id>.<ext>", or with the mark of the run
    mime: str
    width: int
    height: int
    bytes: int
    model: str
    seconds: float
    faces: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[Notice, ...] = ()
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    beside_bytes: int = 0  # see `Attempt`
    cache_key: str | None = None  # by which an equal job may find it
    from_cache: bool = False


@dataclasses.dataclass(frozen=True)
class NewVersion:
    """What changes in the row when the faces of a finished result are blended again."""

    name: str  # "<attempt id>-v<version>.<ext>"
    bytes: int
    faces: tuple[Mapping[str, Any], ...]
