"""One restoration from a waiting row to a result on disk, in three steps that neighbouring attempts may overlap.

Every expected failure ends in the row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from app import images
from app.backends.pages import has_pages, restore_pages
from app.backends.protocol import Backend, Charging, DeviceSharing, Receipts
from app.errors import Cancelled, Conflict, DeviceLost, NotFound, RestoreError, is_exhaustion
from app.images import PagesEncoder, Picture
from app.jobs.memory_need import check_attempt_memory
from app.jobs.own_masks import load_mask, restore_with
from app.jobs.prepared import PictureDecoder, Prepared
from app.jobs.progress import Progress
from app.jobs.receipts import AttemptReceipts
from app.jobs.result_writing import SURROUNDINGS_NOT_KEPT, Finished, ResultWriter, WrittenPages, without_surroundings
from app.jobs.run_failures import INTERNAL, is_passing, may_fare_better_alone, reason_of
from app.jobs.run_scope import parent_of, run_scope, stage_spans
from app.jobs.settlement import Settlement
from app.jobs.storage_retries import StorageRetries
from app.jobs.tile_cutting import TileCutter
from app.logs import Sparing
from app.metrics import Metrics
from app.notices import NoticeKind, notice
from app.options import BackendName, Pages, Partial, RestoreOptions
from app.stages import OnProgress, Stage
from app.storage import Storage, first_version, new_id, translate_disk_full
from app.storage.protocol import OnBytes, ignore_bytes
from app.store import MAX_TRIES, Attempt, Result, Store
from app.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from app.jobs.result_cache import ResultCache

log = logging.getLogger(__name__)

FACTS_NOT_KEPT = notice(NoticeKind.FACTS_NOT_KEPT, "What is known of this run could not be stored.")
SHUTTING_DOWN = "shutting_down"  # the code of a decoder that was closed


def _noop() -> None:
    """The beat of a caller that watches no heartbeat."""


def _not_cancelled() -> bool:
    """The stop sign of a caller that never stops a run, and what it says to another try."""
    return False


class Runner:
    """Performs restorations. The steps of one attempt follow each other; steps of different attempts may overlap.

    `backends` has them by name. With `memory_bytes`, what this process may use in all, a photo that can never fit fails
    before it is decoded: no worker, or only larger ones, may have been there when it was accepted.
    `exhausted_runs` says how many were given back because this process lacked something, as descriptors.
    """

    def __init__(
        self,
        store: Store,
        storage: Storage,
        decoder: PictureDecoder,
        backends: Mapping[str, Backend],
        metrics: Metrics,
        *,
        tracer: Tracer = NO_TRACER,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
        cache: ResultCache | None = None,
        memory_bytes: int | None = None,
        tile_cutter: TileCutter | None = None,
    ) -> None:
        self._store, self._storage, self._decoder = store, storage, decoder
        self.backends, self._metrics, self._tracer, self._cache = backends, metrics, tracer, cache
        self._clock, self._wall, self._memory_bytes = clock, wall, memory_bytes
        self._with_retries = StorageRetries(clock, pause)
        self._writer = ResultWriter(storage, self._with_retries, tile_cutter)
        self._settlement, self._sparing, self.exhausted_runs = Settlement(), Sparing(clock), 0

    def run_attempt(self, attempt_id: str) -> None:
        """All three steps in a row. Does nothing when the attempt does not wait (any more)."""
        prepared = self.prepare(attempt_id, new_id(), self._wall())
        if prepared is not None and (finished := self.restore(prepared)) is not None:
            self.finish(finished)

    def prepare(self, attempt_id: str, token: str, now: float) -> Prepared | None:
        """Claim the attempt for the run `token` and decode its photo; None when it does not wait, or it failed.

        Raises `Unavailable` when the store cannot take the claim.
        """
        attempt = self._store.claim(attempt_id, token, now)
        return None if attempt is None else self.decode(attempt, token, now)

    def decode(self, attempt: Attempt, token: str, now: float) -> Prepared | None:
        """Decode the photo of an attempt that the run `token` has claimed; None when it failed."""
        self._tracer.record("queued", attempt.created_at, now, parent=parent_of(attempt), attempt=attempt.id)
        with run_scope(self._tracer, attempt, "decode"):
            return self._decoded(attempt, token)

    def _decoded(self, attempt: Attempt, token: str) -> Prepared | None:
        began = self._clock()
        try:
            options = RestoreOptions.from_json(attempt.options_json)
            key = None if self._cache is None else self._cache.key_of(attempt, options)
            if self._cache is not None and key and (copied := self._cache.copy(attempt, token, key)):
                self._settle_result(attempt, token, copied)
                return None
            if attempt.backend == BackendName.LOCAL and self._memory_bytes is not None:
                check_attempt_memory(attempt, options.scale, self._memory_bytes)
            page = 0 if options.pages == Pages.ALL else None
            wanted = functools.partial(self._store.holds, attempt.id, token)
            picture = self._with_retries(lambda: self._decode(attempt, options, page), wanted)
            images.check_picture(picture, options.output_format, options.scale)
            mask = self._with_retries(lambda: load_mask(self._storage, attempt, picture), wanted)
        except Exception as error:  # noqa: BLE001 - every failure ends in the row
            self._fail_unless_closed(attempt, token, error)
            return None
        self._metrics.observe_stage("decode", self._clock() - began)
        shares_device = isinstance(self.backends.get(attempt.backend), DeviceSharing)
        return Prepared(attempt, token, options, picture, began, key, mask, shares_device)

    def set_waiting(self, prepared: Prepared) -> None:
        """Show an attempt that was decoded ahead as what it is for its owner: waiting for the one before it."""
        with contextlib.suppress(RestoreError):  # only words
            self._store.report_progress(prepared.attempt.id, prepared.token, 0.0, Stage.WAITING)

    def restore(
        self,
        prepared: Prepared,
        *,
        heartbeat: Callable[[], None] = _noop,
        stop_requested: Callable[[], bool] = _not_cancelled,
    ) -> Finished | None:
        """Run the backend. `heartbeat` is called with every word of progress.

        `stop_requested` is read as often; once it says True the run stops and the attempt is given back to the queue.
        None when the run was cancelled, stopped or failed. Raises `DeviceLost`, with the row as it was: the lane gives
        the attempt back when its thread dies of it.
        """
        with run_scope(self._tracer, prepared.attempt, "restore") as span:
            finished = self._restore(prepared, heartbeat, stop_requested)
            if finished is not None:
                span.set(model=finished.restored.model, faces=len(finished.restored.faces))
            return finished

    def _restore(
        self, prepared: Prepared, heartbeat: Callable[[], None], stop_requested: Callable[[], bool]
    ) -> Finished | None:
        attempt, token = prepared.attempt, prepared.token
        progress = Progress(self._store, attempt.id, token, self._clock, heartbeat, stop_requested)
        began = self._clock()
        try:
            if not progress.may_begin(prepared.claimed_at):
                raise Cancelled
            with stage_spans(self._tracer, progress) as on_progress:
                done = self._restored(prepared, progress, on_progress)
                finished = dataclasses.replace(done, cache_key=prepared.cache_key)
        except Cancelled:
            self._stopped(attempt, token, progress)
            return None
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 - every failure ends in the row
            self._fail_unless_closed(attempt, token, error)
            return None
        self._metrics.observe_stage("restore", self._clock() - began)
        return finished

    def _restored(self, prepared: Prepared, progress: Progress, on_progress: OnProgress) -> Finished:
        attempt, options, picture = prepared.attempt, prepared.options, prepared.picture
        receipts = AttemptReceipts(self._store, attempt, prepared.token)
        backend = self._backend(attempt.backend, receipts)
        if not has_pages(picture, options):
            restored = restore_with(backend, picture, options, on_progress, prepared.mask)
            paid = progress.sent or receipts.are_kept
            finished = Finished(attempt, prepared.token, options, restored, picture.notes, paid=paid)
            return dataclasses.replace(finished, fetchable=receipts.are_kept)
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(self._storage.scratch(attempt.id))
            with translate_disk_full():
                encoder = stack.enter_context(contextlib.closing(PagesEncoder(path, picture.pages, options.metadata)))
                decode_page = functools.partial(self._decode, attempt, options, on_bytes=progress.heartbeat)
                restored, encoded = restore_pages(backend, picture, decode_page, options, encoder, on_progress)
            written = WrittenPages(path, encoded, stack.pop_all())
        return Finished(attempt, prepared.token, options, restored, (), written)

    def finish(
        self,
        finished: Finished,
        *,
        heartbeat: Callable[[], None] = _noop,
        wait_to_retry: Callable[[], bool] = _not_cancelled,
    ) -> None:
        """Encode, make the file safe under its name, and only then complete the row.

        What was paid for is not lost to trouble of ours: it is tried again while `wait_to_retry` (which waits a moment)
        says True, and where the encoding itself fails, without metadata and profile.
        """
        with run_scope(self._tracer, finished.attempt, "encode"):
            self._finish(finished, heartbeat, wait_to_retry)

    def _finish(self, finished: Finished, heartbeat: Callable[[], None], wait_to_retry: Callable[[], bool]) -> None:
        attempt, token = finished.attempt, finished.token
        progress = Progress(self._store, attempt.id, token, self._clock, heartbeat, _not_cancelled)
        began = self._clock()
        left: Finished | None = finished
        while left is not None:
            try:
                result = self._writer.write(left, progress)
            except Exception as error:  # noqa: BLE001 - every failure ends in the row
                left = self._next_try(left, error, wait_to_retry)
                continue
            self._metrics.observe_stage("encode", self._clock() - began)
            if result is not None and self._cache is not None:
                result = self._cache.with_key(attempt, left.options, result, left.cache_key)
            self._settle_result(attempt, token, result)
            return

    def _settle_result(self, attempt: Attempt, token: str, result: Result | None) -> None:
        """Complete the row of a result that is safe on disk; None: the run was cancelled meanwhile."""
        if result is None:
            self._metrics.attempt_ended("cancelled")
            return
        bare = dataclasses.replace(result, faces=(), warnings=(FACTS_NOT_KEPT,), params={})
        self._settlement.settle(
            token,
            lambda: self._complete(attempt.id, token, result),
            lambda: self._complete(attempt.id, token, bare),
            lambda: self._fail_plainly(attempt, token),
        )

    def _next_try(self, finished: Finished, error: Exception, wait_to_retry: Callable[[], bool]) -> Finished | None:
        """What to write after a failure: the same later, the pixels alone, or nothing, and then the run has failed."""
        if finished.paid and is_passing(error):
            self._sparing.error(log, "the result of attempt %s waits to be written: %s", finished.attempt.id, error)
            if wait_to_retry():
                return finished
            if finished.fetchable:  # by the run after the next start
                self.give_back(finished.attempt.id, finished.token)
                return None
        elif finished.paid and SURROUNDINGS_NOT_KEPT not in finished.notes:
            log.error("the result of attempt %s is written without metadata", finished.attempt.id, exc_info=error)
            return without_surroundings(finished)
        self._fail(finished.attempt, finished.token, error)
        return None

    def give_back(self, attempt_id: str, token: str) -> None:
        """Put an attempt whose run was stopped in good order back into the queue; no try is burned.

        One that a provider was asked for without an answer on record is failed: it would be paid for twice.
        """
        self._settlement.settle(
            token, lambda: self._count("given_back", self._store.give_back(attempt_id, token, self._wall()))
        )

    def abandon(self, attempt_id: str, token: str) -> None:
        """The run died without a word: back into the queue while tries are left, else failed."""
        self._settlement.settle(
            token, lambda: self._count("crashed", self._store.crashed(attempt_id, token, self._wall()))
        )

    def settle(self) -> int:
        """Try again what the store could not take (a full disk, say); returns how much is still unsettled."""
        return self._settlement.retry()

    def unsettled_tokens(self) -> set[str]:
        """The claims of runs whose end the store could not take yet."""
        return self._settlement.tokens()

    def _decode(
        self, attempt: Attempt, options: RestoreOptions, page: int | None, on_bytes: OnBytes = ignore_bytes
    ) -> Picture:
        keep_partial = options.partial == Partial.KEEP
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(self._storage.upload(attempt.photo_id, on_bytes))
            except NotFound as error:
                raise NotFound("photo_missing", "The uploaded photo is gone; upload it again.") from error
            return self._decoder.decode(path, page=page, keep_partial=keep_partial, rotate=options.rotate)

    def _backend(self, name: str, receipts: Receipts) -> Backend:
        backend = self.backends.get(name)
        if backend is None:
            raise Conflict("backend_unavailable", f"The backend '{name}' is not set up here; choose another one.")
        return backend.with_receipts(receipts) if isinstance(backend, Charging) else backend

    def _complete(self, attempt_id: str, token: str, result: Result) -> None:
        """Complete the row of a published result; a run that lost its claim takes its file away again."""
        if self._store.complete(attempt_id, token, result, self._wall()):
            self._metrics.attempt_ended("completed")
            self._metrics.add_result(result.width, result.height)
            return
        attempt = self._store.attempt(attempt_id)
        shown = None if attempt is None else attempt.result_name
        if shown is None or first_version(shown) != first_version(result.name):  # else it was completed all the same
            with contextlib.suppress(OSError, RestoreError):  # the janitor finds it as an orphan
                self._storage.remove_result(result.name)

    def _stopped(self, attempt: Attempt, token: str, progress: Progress) -> None:
        if progress.stop_seen:
            self.give_back(attempt.id, token)
        elif progress.claim_lost:
            self._metrics.attempt_ended("cancelled")
        else:
            self._fail(attempt, token, RuntimeError("the backend stopped although nobody asked it to"))

    def _fail_unless_closed(self, attempt: Attempt, token: str, error: Exception) -> None:
        if isinstance(error, RestoreError) and error.code == SHUTTING_DOWN:
            self.give_back(attempt.id, token)  # the decoder was closed under us: not the photo's fault
        else:
            self._fail(attempt, token, error)

    def _fail(self, attempt: Attempt, token: str, error: Exception) -> None:
        """End a run that did not work; where it was the process that lacked something, the attempt waits again."""
        if is_exhaustion(error):
            self.exhausted_runs += 1
            self._sparing.error(log, "attempt %s waits again, the service ran out of resources: %s", attempt.id, error)
            self.give_back(attempt.id, token)
            return
        if may_fare_better_alone(error) and attempt.burned_tries < MAX_TRIES:
            log.warning("attempt %s is tried again, alone: %s", attempt.id, type(error).__name__)
            self.abandon(attempt.id, token)
            return
        code, message = reason_of(attempt, error)
        self._tracer.fail(code)
        now = self._wall()
        self._settlement.settle(
            token,
            lambda: self._count("failed", self._store.fail(attempt.id, token, code, message, now)),
            lambda: self._fail_plainly(attempt, token),
        )

    def _fail_plainly(self, attempt: Attempt, token: str) -> None:
        """With words of ours only: nothing in them can keep the store from taking them."""
        self._count("failed", self._store.fail(attempt.id, token, *INTERNAL, self._wall()))

    def _count(self, how: str, changed: bool) -> None:
        if changed:
            self._metrics.attempt_ended(how)
