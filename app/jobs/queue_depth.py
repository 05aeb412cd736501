"""How many attempts wait and run, as the metrics ask for it: counted from the rows at each look.

On a server that restores nothing it is what a scaler of workers goes by.
"""

from __future__ import annotations

import functools

from app.errors import RestoreError
from app.metrics import Metrics
from app.store import AttemptStatus, Store


def follow_rows(store: Store, metrics: Metrics) -> None:
    """Have these metrics count the rows of this store whenever they are asked; not a number while it is away."""
    metrics.follow_queue(
        functools.partial(_depth, store, AttemptStatus.QUEUED),
        functools.partial(_depth, store, AttemptStatus.PROCESSING),
    )


def _depth(store: Store, status: AttemptStatus) -> float:
    try:
        return float(getattr(store.counts(), status.value))
    except RestoreError:
        return float("nan")
