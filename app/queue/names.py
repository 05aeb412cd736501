"""The queues of the broker: one for each kind of lane, so that a process takes only what it can restore."""

from __future__ import annotations

import enum

from app.options import BackendName


class QueueName(enum.StrEnum):
    """A queue of the broker, as `run.py worker --queues` names it."""

    GPU = "gpu"  # what the networks of a worker restore, on a card or on its processors
    CLOUD = "cloud"  # what a provider restores


def queue_of(backend: str) -> QueueName:
    """Where attempts of a backend wait."""
    return QueueName.GPU if backend == BackendName.LOCAL else QueueName.CLOUD
