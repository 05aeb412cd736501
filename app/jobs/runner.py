"""One restoration from a waiting row to a result on disk, in three steps that neighbouring attempts may overlap.

Every expected failure ends in the row.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from app import images
from app.backends.pages import has_pages, restore_pages
from app.backends.protocol import Backend
from app.errors import Cancelled, Conflict, NotFound, RestoreError
from app.images import Encoded, PagesEncoder, Picture
from app.jobs.progress import Progress
from app.metrics import Metrics
from app.notices import Notice
from app.options import Pages, Partial, RestoreOptions
from app.results import RestorationResult
from app.stages import Stage
from app.storage import Storage, new_id, translate_disk_full
from app.store import Attempt, Result, Store

log = logging.getLogger(__name__)

FACES_NOT_KEPT = Notice(
    "faces_not_kept",
    "There was no room to keep the faces, so their strength cannot be changed without restoring again.",
)
SHUTTING_DOWN = "shutting_down"  # the code of a decoder that was closed


class PictureDecoder(Protocol):
    """Decodes an upload away from this process (`app.images.Decoder`)."""

    def decode(self, path: Path, *, page: int | None, keep_partial: bool) -> Picture:
        """The first picture of a file, or the asked page of a TIFF, from 0.

        Raises `RestoreError` where it cannot be decoded, or lacks pixels that may not be missing.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Prepared:
    """An attempt that is claimed by the run `token` and decoded."""

    attempt: Attempt
    token: str
    options: RestoreOptions
    picture: Picture


@dataclasses.dataclass(frozen=True)
class WrittenPages:
    """A result of several pages, which was written page by page: its scratch file, which goes with `scratch`."""

    path: Path
    encoded: Encoded
    scratch: contextlib.ExitStack


@dataclasses.dataclass(frozen=True)
class Finished:
    """An attempt whose picture is restored, and still has to be encoded and published."""

    attempt: Attempt
    token: str
    options: RestoreOptions
    restored: RestorationResult
    notes: tuple[Notice, ...]  # what had to be given up while decoding
    pages: WrittenPages | None = None


def _noop() -> None:
    """The beat of a caller that watches no heartbeat."""


def _not_cancelled() -> bool:
    """The stop sign of a caller that never stops a run."""
    return False


class Runner:
    """Performs restorations. The steps of one attempt follow each other; steps of different attempts may overlap."""

    def __init__(
        self,
        store: Store,
        storage: Storage,
        decoder: PictureDecoder,
        backends: Mapping[str, Backend],
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._storage, self._decoder = store, storage, decoder
        self._backends, self._metrics = backends, metrics
        self._clock, self._wall = clock, wall
        self._unsettled: list[Callable[[], object]] = []
        self._unsettled_lock = threading.Lock()

    def run_attempt(self, attempt_id: str) -> None:
        """All three steps in a row. Does nothing when the attempt does not wait (any more)."""
        prepared = self.prepare(attempt_id, new_id(), self._wall())
        if prepared is not None:
            finished = self.restore(prepared)
            if finished is not None:
                self.finish(finished)

    def prepare(self, attempt_id: str, token: str, now: float) -> Prepared | None:
        """Claim the attempt for the run `token` and decode its photo.

        None when it does not wait any more, or failed. Raises `Unavailable` when the store cannot take the claim.
        """
        attempt = self._store.claim(attempt_id, token, now)
        if attempt is None:
            return None
        began = self._clock()
        try:
            options = RestoreOptions.from_json(attempt.options_json)
            picture = self._decode(attempt, options, 0 if options.pages == Pages.ALL else None)
            images.check_picture(picture, options.output_format, options.scale)
        except Exception as error:  # noqa: BLE001 - every failure ends in the row
            self._fail_unless_closed(attempt, token, error)
            return None
        self._metrics.observe_stage("decode", self._clock() - began)
        return Prepared(attempt, token, options, picture)

    def restore(
        self,
        prepared: Prepared,
        *,
        heartbeat: Callable[[], None] = _noop,
        stop_requested: Callable[[], bool] = _not_cancelled,
    ) -> Finished | None:
        """Run the backend. `heartbeat` is called with every word of progress.

        `stop_requested` is read as often; once it says True the run stops and the attempt is given back to the queue.
        None when the run was cancelled, stopped or failed.
        """
        attempt, token = prepared.attempt, prepared.token
        progress = Progress(self._store, attempt.id, token, self._clock, heartbeat, stop_requested)
        began = self._clock()
        try:
            if not progress(0.0, Stage.LOADING):
                raise Cancelled
            finished = self._restored(prepared, progress)
        except Cancelled:
            self._stopped(attempt, token, progress)
            return None
        except Exception as error:  # noqa: BLE001 - every failure ends in the row
            self._fail_unless_closed(attempt, token, error)
            return None
        self._metrics.observe_stage("restore", self._clock() - began)
        return finished

    def _restored(self, prepared: Prepared, progress: Progress) -> Finished:
        attempt, options, picture = prepared.attempt, prepared.options, prepared.picture
        backend = self._backend(attempt.backend)
        if not has_pages(picture, options):
            restored = backend.restore(picture, options, progress)
            return Finished(attempt, prepared.token, options, restored, picture.notes)
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(self._storage.scratch(attempt.id))
            with translate_disk_full():
                encoder = stack.enter_context(contextlib.closing(PagesEncoder(path, picture.pages, options.metadata)))
                decode_page = functools.partial(self._decode, attempt, prepared.options)
                restored, encoded = restore_pages(backend, picture, decode_page, options, encoder, progress)
            written = WrittenPages(path, encoded, stack.pop_all())
        return Finished(attempt, prepared.token, options, restored, (), written)

    def finish(self, finished: Finished, *, heartbeat: Callable[[], None] = _noop) -> None:
        """Encode, make the file safe under its name, and only then complete the row."""
        attempt, token = finished.attempt, finished.token
        progress = Progress(self._store, attempt.id, token, self._clock, heartbeat, _not_cancelled)
        began = self._clock()
        try:
            result = self._write_result(finished, progress)
        except Exception as error:  # noqa: BLE001 - every failure ends in the row
            self._fail(attempt, token, error)
            return
        if result is None:
            self._metrics.attempt_ended("cancelled")
            return
        self._metrics.observe_stage("encode", self._clock() - began)
        self._settle(lambda: self._complete(attempt.id, token, result))

    def give_back(self, attempt_id: str, token: str) -> None:
        """Put an attempt whose run was stopped in good order back into the queue; no try is burned.

        One that was sent to a provider is failed instead: it would be paid for twice.
        """
        self._settle(lambda: self._count("given_back", self._store.give_back(attempt_id, token, self._wall())))

    def abandon(self, attempt_id: str, token: str) -> None:
        """The run died without a word: back into the queue while tries are left, else failed."""
        self._settle(lambda: self._count("crashed", self._store.crashed(attempt_id, token, self._wall())))

    def settle(self) -> int:
        """Try again what the store could not take (a full disk, say); returns how much is still unsettled."""
        with self._unsettled_lock:
            moves, self._unsettled = self._unsettled, []
        for move in moves:
            self._settle(move)
        return len(self._unsettled)

    def _settle(self, move: Callable[[], object]) -> None:
        """Make one move of a row now, or keep it for `settle`: a run never leaves its row in the middle."""
        try:
            move()
        except RestoreError as error:
            log.error("the end of a run could not be written yet: %s", error.detail)
            with self._unsettled_lock:
                self._unsettled.append(move)

    def _decode(self, attempt: Attempt, options: RestoreOptions, page: int | None) -> Picture:
        if not self._storage.has_upload(attempt.photo_id):
            raise NotFound("photo_missing", "The uploaded photo is gone; upload it again.")
        with self._storage.upload(attempt.photo_id) as path:
            return self._decoder.decode(path, page=page, keep_partial=options.partial == Partial.KEEP)

    def _backend(self, name: str) -> Backend:
        backend = self._backends.get(name)
        if backend is None:
            raise Conflict("backend_unavailable", f"The backend '{name}' is not set up here; choose another one.")
        return backend

    def _write_result(self, finished: Finished, progress: Progress) -> Result | None:
        """Encode into a temporary file and publish it; None when the run was cancelled meanwhile."""
        if finished.pages is not None:
            return self._publish_pages(finished, finished.pages, progress)
        if not progress(1.0, Stage.ENCODING):
            return None
        with self._storage.scratch(finished.attempt.id) as temporary:
            result = self._encode(finished, temporary)
            if not progress(1.0, Stage.ENCODING):
                return None
            result = self._keep_faces(finished, result)
            self._storage.publish(temporary, result.name)
        return result

    def _publish_pages(self, finished: Finished, pages: WrittenPages, progress: Progress) -> Result | None:
        with pages.scratch:
            if not progress(1.0, Stage.ENCODING):
                return None
            result = _row_of(finished, pages.encoded)
            self._storage.publish(pages.path, result.name)
        return result

    def _keep_faces(self, finished: Finished, result: Result) -> Result:
        """Make the layers of the faces safe beside the result; where that fails the photo is restored all the same."""
        restored, attempt_id = finished.restored, finished.attempt.id
        if not restored.face_layers:
            return result
        try:
            with self._storage.scratch(attempt_id) as temporary:
                images.keep_layers(temporary, restored.face_layers, restored.picture, finished.options.output_format)
                self._storage.publish_layers(temporary, attempt_id)
        except (OSError, RestoreError) as error:
            log.warning("the faces of attempt %s could not be kept: %s", attempt_id, error)
            return dataclasses.replace(result, warnings=(*result.warnings, FACES_NOT_KEPT))
        return result

    def _encode(self, finished: Finished, temporary: Path) -> Result:
        """Write the picture to the temporary file; what its row will say."""
        options = finished.options
        with translate_disk_full():
            encoded = images.encode(
                finished.restored.picture, temporary, options.output_format, options.output_quality, options.metadata
            )
        return _row_of(finished, encoded)

    def _complete(self, attempt_id: str, token: str, result: Result) -> None:
        """Complete the row of a published result; a run that lost its claim takes its file away again."""
        if self._store.complete(attempt_id, token, result, self._wall()):
            self._metrics.attempt_ended("completed")
            self._metrics.add_result(result.width, result.height)
            return
        attempt = self._store.attempt(attempt_id)
        if attempt is None or attempt.result_name != result.name:  # else a later run has written the same name
            with contextlib.suppress(OSError):  # the janitor finds it as an orphan
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
        code, message = _reason(attempt, error)
        self._settle(lambda: self._count("failed", self._store.fail(attempt.id, token, code, message, self._wall())))

    def _count(self, how: str, changed: bool) -> None:
        if changed:
            self._metrics.attempt_ended(how)


def _row_of(finished: Finished, encoded: Encoded) -> Result:
    """What the row of a written result says."""
    restored = finished.restored
    return Result(
        name=f"{finished.attempt.id}.{encoded.extension}",
        mime=encoded.mime,
        width=encoded.width,
        height=encoded.height,
        bytes=encoded.bytes_written,
        model=restored.model,
        seconds=restored.seconds,
        faces=restored.faces,
        warnings=(*restored.warnings, *finished.notes, *encoded.notes),
        params=restored.params,
    )


def _reason(attempt: Attempt, error: Exception) -> tuple[str, str]:
    """Stable code and plain sentence of a failure; what nobody expected goes to the log with its trace."""
    if isinstance(error, RestoreError):
        log.info("attempt %s failed: %s", attempt.id, error.code)
        return error.code, error.detail
    if isinstance(error, MemoryError):
        log.error("attempt %s ran out of memory", attempt.id)
        return "out_of_memory", "There was not enough memory for this photo; try a smaller scale or a smaller photo."
    log.error("attempt %s failed unexpectedly", attempt.id, exc_info=error)
    return (
        "internal_error",
        "The restoration failed for a reason of ours; try again, and tell the operator if it stays.",
    )
