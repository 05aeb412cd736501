"""The shapes of answers, for `/openapi.json` and for readers; the answers themselves are built in `views`.

A test compares real answers with these models, so they cannot drift apart. No work is done here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Word = Literal["queued", "processing", "completed", "failed", "cancelled"]


class Shape(BaseModel):
    """Nothing beyond the named keys."""

    model_config = ConfigDict(extra="forbid")


class ProblemShape(BaseModel):
    """Every error. `code` is stable; some problems carry further members."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[dict[str, Any]] | None = None
    job_id: str | None = None


class Submitted(Shape):
    """An accepted job. `queue_position` 1 means next."""

    job_id: str
    status: Word
    queue_position: int


class BatchSubmitted(Submitted):
    """An accepted batch; `batch_id` is the job's id."""

    batch_id: str


class NoticeShape(Shape):
    """A warning: its stable code, one plain sentence, and exactly what it says (`kind`) with the values in it."""

    code: str
    message: str
    kind: str
    values: dict[str, str | int | float] = {}


class ResultShape(Shape):
    """One finished photo; `seconds` is the restoration alone."""

    original_filename: str
    url: str
    width: int
    height: int
    backend: str
    model: str
    faces: list[dict[str, Any]]
    seconds: float
    warnings: list[NoticeShape]


class FullResultShape(ResultShape):
    """With its size in bytes and the parameters of the run."""

    bytes: int
    params: dict[str, Any]


class FailureShape(Shape):
    """One photo that failed."""

    original_filename: str
    code: str
    message: str


class StatusShape(Shape):
    """`progress` runs from 0 to 1; `queue_position` is 0 when nothing waits."""

    job_id: str
    status: Word
    progress: float
    queue_position: int
    results: list[ResultShape]
    errors: list[FailureShape]


class AttemptShape(Shape):
    """One restoration of one photo; times are epoch seconds; `version` grows with each re-blend of its faces.

    The original's size is as it stands beside the result, upright and turned. `own_options`: what differs from the
    job's options, or below a photo from the defaults.
    """

    id: str
    photo_id: str
    version: int
    status: Word
    progress: float
    stage: str
    original_filename: str
    original_width: int
    original_height: int
    original_bytes: int
    backend: str
    own_options: dict[str, Any]
    own_mask: bool  # it came with a mask of what to repair
    created_at: float
    started_at: float | None
    ended_at: float | None
    result: FullResultShape | None
    error: FailureShape | None
    damage_url: str | None


class WebhookShape(Shape):
    """How far the telling of a job's end is; `next_try_at` is epoch seconds."""

    status: Literal["waiting", "pending", "delivered", "failed"]
    tries: int
    next_try_at: float | None
    response_status: int | None
    error: str | None


class JobShape(StatusShape):
    """The whole job."""

    created_at: float
    expires_at: float | None  # null while it is active, and while it is kept
    kept: bool
    seconds_left: float | None  # until its last photo is done, everybody's photos ahead of it counted
    stage: str
    options: dict[str, Any]
    attempts: list[AttemptShape]
    webhook: WebhookShape | None


class ListedJob(JobShape):
    """A job in a list. On a page of more than 20, one of more than 5 photos has null where its photos would stand."""

    results: list[ResultShape] | None  # type: ignore[assignment]
    errors: list[FailureShape] | None  # type: ignore[assignment]
    attempts: list[AttemptShape] | None  # type: ignore[assignment]
    photos: int


class JobPage(Shape):
    """A page of jobs, newest first; `next` goes into `before` for the following page."""

    jobs: list[ListedJob]
    next: str | None


class LiveShape(Shape):
    """One message of the WebSocket."""

    job_id: str
    status: Word
    progress: float
    stage: str
    queue_position: int
    seconds_left: float | None
    attempts: list[AttemptShape]


class Removed(Shape):
    """What DELETE did."""

    job_id: str
    status: Literal["cancelled", "removed"]


class AttemptRemoved(Removed):
    """What DELETE of one photo of a job did."""

    attempt_id: str


class PhotoAttemptShape(AttemptShape):
    """An attempt as its photo shows it, with the job that it is."""

    job_id: str


class PhotoShape(Shape):
    """One uploaded photo with its attempts, oldest first. Equal bytes uploaded again are the same photo."""

    id: str
    status: Literal["uploaded", "processing", "ready", "archived"]
    original_filename: str
    mime: str
    width: int
    height: int
    bytes: int
    sha256: str
    created_at: float
    expires_at: float | None  # null while an attempt is active, and while a job of it is kept
    selected_attempt_id: str | None
    attempts: list[PhotoAttemptShape]


class PhotoPage(Shape):
    """A page of photos, newest first; `next` goes into `before` for the following page."""

    photos: list[PhotoShape]
    next: str | None


class RestoreSubmitted(Submitted):
    """An accepted attempt at a photo, as a job of its own."""

    attempt_id: str


class PhotoRemoved(Shape):
    """What DELETE of a photo did."""

    photo_id: str
    status: Literal["removed"]


class FaceShape(BaseModel):
    """One face: `box` is [x0, y0, x1, y1] in the original photo's pixels; crops are null where none are kept."""

    index: int
    box: list[float]
    score: float
    size: float
    restored: bool
    reason: str | None
    strength: float | None
    before_url: str | None
    after_url: str | None


class AttemptFaces(Shape):
    """The faces of one finished photo, from left to right, and the newest version of its result."""

    attempt_id: str
    original_filename: str
    version: int
    reblendable: bool
    url: str
    faces: list[FaceShape]


class FacesShape(Shape):
    """The faces of all finished photos of a job."""

    job_id: str
    attempts: list[AttemptFaces]


class CauseShape(Shape):
    """A reason of health: its stable code, one plain sentence, and the values in it."""

    code: str
    message: str
    values: dict[str, str | int | float] = {}


class HealthShape(Shape):
    """Health as a word, with plain reasons, and notes that are no fault (a small model restores).

    `causes` are the reasons with their codes.
    """

    status: Literal["starting", "ready", "busy", "degraded", "failing", "draining"]
    reasons: list[str]
    causes: list[CauseShape] = []
    notes: list[str] = []


class ShareShape(Shape):
    """A limit with what is used and left of it; times are epoch seconds."""

    limit: int
    used: int
    left: int
    resets_at: float | None = None
    window_seconds: int | None = None


class MeShape(Shape):
    """Who is asking. `owner` tells users of one name apart and stays with every new token; `expires_at` is its end.

    A share is null where there is no limit.
    """

    name: str
    role: Literal["user", "admin"]
    owner: str
    expires_at: float | None
    photos_today: ShareShape | None
    waiting: ShareShape | None
    stored_bytes: ShareShape | None
    uploads: ShareShape | None
    requests: ShareShape | None


PROBLEM: dict[str, Any] = {
    "description": "A problem",
    "content": {"application/problem+json": {"schema": ProblemShape.model_json_schema()}},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    return dict.fromkeys(statuses, PROBLEM)
