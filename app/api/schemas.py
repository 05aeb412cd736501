"""The shapes of answers, for `/openapi.json` and for readers; the answers themselves are built in `views`.

A test compares real answers with these models, so they cannot drift apart. No work is done here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.options import FIELDS

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


class Warned(Shape):
    """Something the user should know about a result."""

    code: str
    message: str


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
    warnings: list[Warned]


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
    """One restoration of one photo; times are epoch seconds."""

    id: str
    status: Word
    progress: float
    stage: str
    original_filename: str
    original_width: int
    original_height: int
    original_bytes: int
    backend: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    result: FullResultShape | None
    error: FailureShape | None


class JobShape(StatusShape):
    """The whole job."""

    created_at: float
    expires_at: float | None
    stage: str
    options: dict[str, Any]
    attempts: list[AttemptShape]


class JobPage(Shape):
    """A page of jobs, newest first; `next` goes into `before` for the following page."""

    jobs: list[JobShape]
    next: str | None


class LiveShape(Shape):
    """One message of the WebSocket."""

    job_id: str
    status: Word
    progress: float
    stage: str
    queue_position: int
    attempts: list[AttemptShape]


class Removed(Shape):
    """What DELETE did."""

    job_id: str
    status: Literal["cancelled", "removed"]


class HealthShape(Shape):
    """Health as a word, with plain reasons."""

    status: Literal["starting", "ready", "busy", "degraded", "failing", "draining"]
    reasons: list[str]


PROBLEM: dict[str, Any] = {
    "description": "A problem",
    "content": {"application/problem+json": {"schema": ProblemShape.model_json_schema()}},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    return dict.fromkeys(statuses, PROBLEM)


def upload_form(field: str, most: int) -> dict[str, Any]:
    """OpenAPI text of an upload form: the file field and every option with its bounds."""
    binary = {"type": "string", "format": "binary"}
    files = binary if most == 1 else {"type": "array", "items": binary, "minItems": 1, "maxItems": most}
    properties: dict[str, Any] = {field: files}
    for name, option in FIELDS.items():
        kind = {str: "string", int: "integer", float: "number", bool: "boolean"}[option.kind]
        facts = {"minimum": option.low, "maximum": option.high, "enum": option.choices and list(option.choices)}
        known = {key: value for key, value in facts.items() if value is not None}
        properties[name] = {"type": kind, "description": option.help, **known}
    schema = {"type": "object", "properties": properties, "required": [field]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
