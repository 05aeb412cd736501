"""Finding what a request asks for: the owner's job, one of its attempts, a finished one.

It turns ids into records or into the right refusal; it knows nothing of forms and files.
"""

from __future__ import annotations

from starlette.requests import Request

from app.api.dependencies import Parts, owner_of, parts_of
from app.errors import Conflict, NotFound
from app.storage import ID_PATTERN
from app.store import Attempt, AttemptStatus, Job

NOT_FINISHED_RETRY_SECONDS = 2


async def read_job(request: Request, job_id: str) -> tuple[Job, int]:
    """The job and its place in the queue. Raises `NotFound` `job_not_found`."""
    parts = parts_of(request)
    return await parts.run(job_and_position, parts, owner_of(request), check_id(job_id))


def job_and_position(parts: Parts, owner: str, job_id: str) -> tuple[Job, int]:
    """The same from a thread that may wait for the store."""
    job = parts.store.job(owner, job_id)
    return job, position_of(parts, job)


def position_of(parts: Parts, job: Job) -> int:
    """The job's place in the queue; 0, without a look at the rows, when nothing of it waits."""
    waits = any(attempt.status is AttemptStatus.QUEUED for attempt in job.attempts)
    return parts.store.queue_position(job.id) if waits else 0


async def finished_attempt(request: Request, job_id: str, attempt_id: str | None) -> Attempt:
    """A completed attempt. Raises `Conflict` `not_finished`, `no_result` or `several_results`, or `NotFound`."""
    job, _ = await read_job(request, job_id)
    chosen = choose(job, attempt_id)
    if chosen.status is AttemptStatus.COMPLETED:
        return chosen
    if not chosen.status.ended:
        raise not_finished()
    raise Conflict("no_result", f"This photo has no result: {chosen.error_message or 'it was cancelled.'}")


def choose(job: Job, attempt_id: str | None) -> Attempt:
    """The one attempt of a single photo, or the named one. Raises `several_results` or `attempt_not_found`."""
    if attempt_id is None and len(job.attempts) > 1:
        raise Conflict(
            "several_results",
            "This job has several photos; add ?attempt= with the id of one, or fetch all from its batch results.",
        )
    chosen = next((a for a in job.attempts if attempt_id in (None, a.id)), None)
    if chosen is None:
        raise NotFound("attempt_not_found", "This job has no such attempt.")
    return chosen


def not_finished() -> Conflict:
    """The error for a result that is not there yet."""
    return Conflict(
        "not_finished",
        "The restoration has not ended yet; ask for the job's state and come back.",
        retry_after_seconds=NOT_FINISHED_RETRY_SECONDS,
    )


def check_id(job_id: str) -> str:
    """The id, once it looks like one of ours."""
    if not ID_PATTERN.fullmatch(job_id):
        raise NotFound("job_not_found", "There is no such job; it may have expired or been removed.")
    return job_id
