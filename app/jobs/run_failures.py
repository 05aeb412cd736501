"""What an error of a run says: about the photo, about the process, or only about this moment."""

from __future__ import annotations

import logging
from http import HTTPStatus

from app.errors import RestoreError, is_exhaustion
from app.store import Attempt

log = logging.getLogger(__name__)

DECODER_TROUBLE = ("decoder_unavailable", "decoder_out_of_memory")  # it cannot be started, or somebody killed it
INTERNAL = (
    "internal_error",
    "The restoration failed for a reason of ours; try again, and tell the operator if it stays.",
)
_OUT_OF_MEMORY = (
    "out_of_memory",
    "There was not enough memory for this photo; try a smaller scale or a smaller photo.",
)


def may_fare_better_alone(error: Exception) -> bool:
    """What a photo may have met only for its neighbours' or another process's sake."""
    return isinstance(error, MemoryError) or (isinstance(error, RestoreError) and error.code in DECODER_TROUBLE)


def is_passing(error: Exception) -> bool:
    """Whether the same may work later: a full disk, a busy database, too little memory; not an odd picture."""
    if isinstance(error, RestoreError):
        return error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    return isinstance(error, OSError | MemoryError) or is_exhaustion(error)


def reason_of(attempt: Attempt, error: Exception) -> tuple[str, str]:
    """Stable code and plain sentence of a failure; what nobody expected goes to the log with its trace."""
    if isinstance(error, RestoreError):
        log.info("attempt %s failed: %s", attempt.id, error.code)
        return error.code, error.detail
    if isinstance(error, MemoryError):
        log.error("attempt %s ran out of memory", attempt.id)
        return _OUT_OF_MEMORY
    log.error("attempt %s failed unexpectedly", attempt.id, exc_info=error)
    return INTERNAL
