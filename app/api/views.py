"""Jobs and attempts as the JSON that clients see: the short form for scripts and the full form of `/api/v1`.

Plain functions from records to dicts; they know no requests and read no rows.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from app.errors import RestoreError
from app.options import RestoreOptions, output_size
from app.stages import Stage
from app.storage import public_name
from app.store import Attempt, AttemptStatus, Job, JobSummary, Photo, WebhookState, WebhookStatus

log = logging.getLogger(__name__)

_PROGRESS_DIGITS = 4
_OPTIONS_KEPT = 256  # texts that were read; a job's photos mostly have the same


def status_view(job: Job, queue_position: int) -> dict[str, Any]:
    """The short form: `results` of what is completed, `errors` of what failed."""
    return {
        "job_id": job.id,
        "status": job.status.value,
        "progress": round(job.progress, _PROGRESS_DIGITS),
        "queue_position": queue_position,
        "results": [result_view(a) for a in job.attempts if a.status is AttemptStatus.COMPLETED],
        "errors": [error_view(a) for a in job.attempts if a.status is AttemptStatus.FAILED],
    }


def result_view(attempt: Attempt) -> dict[str, Any]:
    """One finished photo."""
    return {
        "original_filename": attempt.original_filename,
        "url": _result_url(attempt),
        "width": attempt.result_width,
        "height": attempt.result_height,
        "backend": attempt.backend,
        "model": attempt.model,
        "faces": list(attempt.faces),
        "seconds": None if attempt.seconds is None else round(attempt.seconds, 3),
        "warnings": [notice.as_facts() for notice in attempt.warnings],
    }


def error_view(attempt: Attempt) -> dict[str, Any]:
    """One photo that failed."""
    return {
        "original_filename": attempt.original_filename,
        "code": attempt.error_code,
        "message": attempt.error_message,
    }


def job_view(
    job: Job, queue_position: int, retention_seconds: float, seconds_left: float | None = None
) -> dict[str, Any]:
    """The full form: the short one, all attempts, the options, and when the job will be removed.

    That is in epoch seconds; None while it is active, and while it is kept.
    """
    ended_at = max((a.ended_at for a in job.attempts if a.ended_at is not None), default=None)
    return {
        **status_view(job, queue_position),
        "created_at": job.created_at,
        "expires_at": _expires_at(job, ended_at, retention_seconds),
        "kept": job.kept,
        "seconds_left": seconds_left,
        "stage": stage_of(job),
        "options": options_of(job.options_json).__dict__,
        "attempts": [attempt_view(attempt, job.options_json) for attempt in job.attempts],
        "webhook": webhook_view(job.webhook),
    }


def _expires_at(job: Job | JobSummary, ended_at: float | None, retention_seconds: float) -> float | None:
    """When the job will be removed; None while it is active or kept."""
    if ended_at is None or not job.status.ended or job.kept:
        return None
    return max(ended_at, job.let_go_at or 0.0) + retention_seconds


def webhook_view(webhook: WebhookState | None) -> dict[str, Any] | None:
    """How far the telling of a job's end is; its address, which may hold a secret of the receiver's, is not shown."""
    if webhook is None:
        return None
    return {
        "status": webhook.status.value,
        "tries": webhook.tries,
        "next_try_at": webhook.next_at if webhook.status is WebhookStatus.PENDING and webhook.tries else None,
        "response_status": webhook.response_status,
        "error": webhook.error,
    }


def summary_view(job: JobSummary, queue_position: int, retention_seconds: float) -> dict[str, Any]:
    """A job of many photos in a long list: what `job_view` says, without what it says of each photo."""
    return {
        "job_id": job.id,
        "status": job.status.value,
        "progress": round(job.progress, _PROGRESS_DIGITS),
        "queue_position": queue_position,
        "results": None,
        "errors": None,
        "created_at": job.created_at,
        "expires_at": _expires_at(job, job.ended_at, retention_seconds),
        "kept": job.kept,
        "seconds_left": None,
        "stage": job.status.value if job.status.ended else job.stage or Stage.WAITING.value,
        "options": options_of(job.options_json).__dict__,
        "attempts": None,
        "webhook": webhook_view(job.webhook),
    }


def attempt_view(attempt: Attempt, usual_json: str = "{}") -> dict[str, Any]:
    """One attempt with all that is known of it; `own_options` are those that differ from the usual ones.

    The size of the original is that of the picture beside the result: upright, and turned like it.
    """
    completed = attempt.status is AttemptStatus.COMPLETED
    width, height = output_size(attempt.photo_width, attempt.photo_height, 1, options_of(attempt.options_json).rotate)
    return {
        "id": attempt.id,
        "photo_id": attempt.photo_id,
        "version": attempt.version,
        "status": attempt.status.value,
        "progress": round(1.0 if completed else attempt.progress, _PROGRESS_DIGITS),
        "stage": attempt.stage,
        "original_filename": attempt.original_filename,
        "original_width": width,
        "original_height": height,
        "original_bytes": attempt.photo_bytes,
        "backend": attempt.backend,
        "own_options": _own_options(attempt.options_json, usual_json),
        "own_mask": attempt.mask_bytes is not None,
        "created_at": attempt.created_at,
        "started_at": attempt.started_at,
        "ended_at": attempt.ended_at,
        "result": {**result_view(attempt), "bytes": attempt.result_bytes, "params": dict(attempt.params)}
        if completed
        else None,
        "error": error_view(attempt) if attempt.status is AttemptStatus.FAILED else None,
        "damage_url": _damage_url(attempt),
    }


def _damage_url(attempt: Attempt) -> str | None:
    """The address of what was found damaged, where it is kept."""
    report = attempt.params.get("repair")
    kept = isinstance(report, Mapping) and report.get("kept")
    return f"/api/v1/jobs/{attempt.job_id}/damage?attempt={attempt.id}" if kept else None


def photo_view(photo: Photo, retention_seconds: float) -> dict[str, Any]:
    """One photo with its attempts, and when it will be removed.

    That is in epoch seconds; None while an attempt is active, and while a job of the photo is kept.
    """
    used_at = photo.last_used_at
    return {
        "id": photo.id,
        "status": photo.status.value,
        "original_filename": photo.name,
        "mime": photo.mime,
        "width": photo.width,
        "height": photo.height,
        "bytes": photo.bytes,
        "sha256": photo.sha256,
        "created_at": photo.created_at,
        "expires_at": None if used_at is None or photo.kept else used_at + retention_seconds,
        "selected_attempt_id": photo.selected_attempt_id,
        "attempts": [{**attempt_view(attempt), "job_id": attempt.job_id} for attempt in photo.attempts],
    }


def faces_view(attempt: Attempt, reblendable: bool) -> dict[str, Any]:
    """The faces of one result: a row each, with the addresses of its crops where they are kept."""
    return {
        "attempt_id": attempt.id,
        "original_filename": attempt.original_filename,
        "version": attempt.version,
        "reblendable": reblendable,
        "url": _result_url(attempt),
        "faces": [_face_view(attempt, face, reblendable) for face in attempt.faces],
    }


def _face_view(attempt: Attempt, face: Mapping[str, Any], reblendable: bool) -> dict[str, Any]:
    """`after_url` names the version, so that a page which keeps pictures by their address shows the newest one."""
    crops = f"/api/v1/jobs/{attempt.job_id}/faces/{attempt.id}/{face['index']}"
    kept = reblendable and face["restored"]
    return {
        **face,
        "before_url": f"{crops}/before" if kept else None,
        "after_url": f"{crops}/after?v={attempt.version}" if kept else None,
    }


def live_view(job: Job, queue_position: int, seconds_left: float | None) -> dict[str, Any]:
    """What a WebSocket sends at each change."""
    return {
        "job_id": job.id,
        "status": job.status.value,
        "progress": round(job.progress, _PROGRESS_DIGITS),
        "stage": stage_of(job),
        "queue_position": queue_position,
        "seconds_left": seconds_left,
        "attempts": [attempt_view(attempt, job.options_json) for attempt in job.attempts],
    }


def _own_options(options_json: str, usual_json: str) -> dict[str, Any]:
    if options_json == usual_json:
        return {}
    own, usual = vars(options_of(options_json)), vars(options_of(usual_json))
    return {name: value for name, value in own.items() if value != usual[name]}


@functools.lru_cache(maxsize=_OPTIONS_KEPT)
def options_of(options_json: str) -> RestoreOptions:
    """The options of a row; the defaults for those that an earlier version took and this one does not."""
    try:
        return RestoreOptions.from_json(options_json)
    except (RestoreError, ValueError):
        log.warning("options of a row cannot be read, so the defaults are shown")
        return RestoreOptions()


def stage_of(job: Job) -> str:
    """The stage of the photo in work, else `waiting`, else the job's end state."""
    if job.status.ended:
        return job.status.value
    active = (a.stage for a in job.attempts if a.status is AttemptStatus.PROCESSING and a.stage != Stage.WAITING)
    return next(active, Stage.WAITING.value)


def _result_url(attempt: Attempt) -> str:
    """The address of a finished result in its present version."""
    assert attempt.result_name is not None
    return f"/processed/{public_name(attempt.result_name)}"
