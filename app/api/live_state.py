"""What those who follow a job live are told: its newest state as JSON.

The WebSocket and the stream of server-sent events send the same texts.
"""

from __future__ import annotations

import dataclasses
import json

from app.api import views
from app.api.dependencies import AppContext, check_id, get_job_and_position

REST_SECONDS = 0.1  # between two messages: faster than anybody looks


@dataclasses.dataclass(frozen=True)
class LiveState:
    """A job as one message, and whether it has ended."""

    text: str
    ended: bool


def read_state(context: AppContext, owner: str, job_id: str) -> LiveState:
    """The state of a job now. Raises `NotFound` `job_not_found`."""
    job, position = get_job_and_position(context, owner, check_id(job_id))
    return LiveState(json.dumps(views.live_view(job, position, context.forecast.seconds_left(job))), job.status.ended)
