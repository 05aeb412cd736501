"""What one step of a run carries with it in its thread: the facts for its log lines, and its span.

Context does not follow threads of our own, so each step opens it anew from the row, on whatever host it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from app import logs
from app.stages import OnProgress, Stage
from app.store import Attempt
from app.tracing import Span, Tracer, trace_id_of


@contextlib.contextmanager
def run_scope(tracer: Tracer, attempt: Attempt, step: str) -> Iterator[Span]:
    """While the block runs, this thread works at `step` of this attempt."""
    parent = parent_of(attempt) if tracer.enabled else attempt.trace
    facts = {"job": attempt.job_id, "attempt": attempt.id, "worker": attempt.worker}
    with (
        logs.bind(**facts, request_id=attempt.request_id, owner=attempt.owner, trace_id=trace_id_of(parent)),
        tracer.span(step, parent=parent, **facts, backend=attempt.backend, tries=attempt.tries) as span,
    ):
        yield span


def parent_of(attempt: Attempt) -> str:
    """The span that all steps of a run lie in: that of the submission; else one named by the attempt's own id."""
    return attempt.trace or f"00-{attempt.id}-{attempt.id[:16]}-01"


@contextlib.contextmanager
def stage_spans(tracer: Tracer, progress: OnProgress) -> Iterator[OnProgress]:
    """What a backend calls instead of `progress` while each of its stages is a span; the very progress when off."""
    if not tracer.enabled:
        yield progress
        return
    with contextlib.closing(_StageSpans(tracer, progress)) as spans:
        yield spans


class _StageSpans:
    """Stands between a backend and the progress of its run, and makes a span of each stage.

    How often a backend spoke in a stage is noted: once a tile while it enlarges.
    """

    def __init__(self, tracer: Tracer, progress: OnProgress) -> None:
        self._tracer, self._progress = tracer, progress
        self._stage: Stage | None = None
        self._span: Span | None = None
        self._calls = 0

    def __call__(self, fraction: float, stage: Stage) -> bool:
        """See `OnProgress`."""
        if stage is not self._stage:
            self.close()
            self._stage, self._calls = stage, 0
            self._span = self._tracer.span(stage.value)
        self._calls += 1
        return self._progress(fraction, stage)

    def close(self) -> None:
        """The last stage is over."""
        if self._span is not None:
            self._span.set(**{"tiles" if self._stage is Stage.UPSCALING else "steps": self._calls})
            self._span.end()
        self._span = None
