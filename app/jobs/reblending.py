"""Blends the faces of a finished result again, from the layers that were kept, as the next version of that result.

No network runs: the first version is decoded, the faces are laid over it at the wished strengths, and the outcome is
made safe under a name of its own before the row shows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from app import images
from app.errors import Conflict, NotFound, RestoreError, TooManyRequests, Unavailable, Unprocessable
from app.images import Encoded, Picture
from app.images.face_layers import FaceLayer, blend_layers, load_layers
from app.metrics import Metrics
from app.options import RestoreOptions
from app.storage import Beside, Storage, first_version, new_id, next_version, translate_disk_full
from app.store import Attempt, AttemptStatus, NewVersion, Store

log = logging.getLogger(__name__)

MAX_WAITING = 16  # with the one in work
MAX_WAITING_OF_ONE = 4  # owner
MOST_TRIES = 5  # of one call whose result other processes change at the same time
_BUSY_RETRY_SECONDS = 3
_FORMATS = {"jpg": "jpg", "png": "png", "webp": "webp", "tif": "tiff", "avif": "avif"}  # by the ending of a name


class ResultDecoder(Protocol):
    """Decodes results of ours away from this process (`app.images.Decoder` with the limits of results)."""

    def decode(self, path: Path, *, as_stored: bool) -> Picture:
        """Raises `RestoreError` for a file that cannot be decoded."""
        ...

    def close(self) -> None:
        """End the process that decodes."""
        ...


class Reblender:
    """One result at a time, in a thread of its own: a large one takes gigabytes for a moment."""

    def __init__(
        self,
        store: Store,
        storage: Storage,
        decoder: ResultDecoder,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._storage, self._decoder, self._metrics = store, storage, decoder, metrics
        self._clock = clock
        self._turn = threading.Lock()
        self._waiting: Counter[str] = Counter()  # by owner
        self._counting = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="reblend")

    def submit(self, owner: str, attempt_id: str, strengths: Mapping[int, float]) -> Future[Attempt]:
        """`reblend` in our own thread.

        Raises `TooManyRequests` `too_many_reblends` when the owner has its share already, or `Unavailable`
        `reblend_busy` when too many wait in all.
        """
        self._take_place(owner)
        try:
            future = self._pool.submit(self.reblend, attempt_id, strengths)
        except RuntimeError:  # the pool was shut down
            self._free_place(owner)
            raise Unavailable("shutting_down", "The service is shutting down; try again in a minute.") from None
        future.add_done_callback(lambda _: self._free_place(owner))
        return future

    def _take_place(self, owner: str) -> None:
        with self._counting:
            if self._waiting[owner] >= MAX_WAITING_OF_ONE:
                raise TooManyRequests(
                    "too_many_reblends",
                    f"{MAX_WAITING_OF_ONE} of your results are being blended already; "
                    "send this again when one of them is done.",
                    retry_after_seconds=_BUSY_RETRY_SECONDS,
                )
            if self._waiting.total() >= MAX_WAITING:
                raise Unavailable(
                    "reblend_busy",
                    "Too many results are being blended just now; try again in a few seconds.",
                    retry_after_seconds=_BUSY_RETRY_SECONDS,
                )
            self._waiting[owner] += 1

    def _free_place(self, owner: str) -> None:
        with self._counting:
            self._waiting[owner] -= 1
            self._waiting += Counter()  # drops owners at zero

    def close(self) -> None:
        """Drop what waits, let the one in work end, and end the decoder."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._decoder.close()
        self._pool.shutdown(wait=True)

    def can_reblend(self, attempt: Attempt) -> bool:
        """Whether the layers of this attempt's faces are kept."""
        if attempt.status is not AttemptStatus.COMPLETED or attempt.result_name is None:
            return False
        return self._storage.has_beside(attempt.result_name, Beside.FACES)

    def reblend(self, attempt_id: str, strengths: Mapping[int, float]) -> Attempt:
        """Make the next version of a result; faces that are not named keep the strength they have.

        Version N is always made from the first version's file and the lossless layers, so no loss piles up. Two calls
        at once follow each other, and the second builds on what the first left; one that another process overtook is
        made again from what that one left.

        Args:
            attempt_id: a completed attempt.
            strengths: 0..1 by the index of a face.

        Returns:
            The attempt with its new version.

        Raises:
            NotFound: `result_not_found` when the attempt or its file is gone.
            Conflict: `not_ready` before the end, `faces_not_kept`, or `result_changed` when it was overtaken too often.
            Unprocessable: `unknown_face`.
            Unavailable: `storage_full`, or the decoder's.
        """
        with self._turn:
            began = self._clock()
            for _ in range(MOST_TRIES):
                attempt = self._store.attempt(attempt_id)
                if attempt is None:
                    raise _gone()
                require_layers(attempt, self.can_reblend(attempt))
                done = self._make_version(attempt, with_strengths(attempt.faces, strengths))
                if done is not None:
                    self._metrics.observe_stage("reblend", self._clock() - began)
                    return done
            raise Conflict("result_changed", "The result was changed by somebody else meanwhile; try again.")

    @contextlib.contextmanager
    def crop_sources(self, attempt: Attempt) -> Iterator[tuple[Path, Path]]:
        """Lend the kept layers and the result's first version, in whose colour profile the layers are.

        Raises `Conflict` `faces_not_kept` or `NotFound` `result_not_found`.
        """
        assert attempt.result_name is not None
        with contextlib.ExitStack() as lent:
            try:
                layers = lent.enter_context(self._storage.beside(attempt.result_name, Beside.FACES))
            except NotFound:
                raise _not_kept() from None
            try:
                result = lent.enter_context(self._storage.result(first_version(attempt.result_name)))
            except NotFound:
                raise _gone() from None
            try:
                yield layers, result
            except Unprocessable as error:
                log.error("the kept faces of attempt %s cannot be read: %s", attempt.id, error.code)
                raise _not_kept() from error

    def _make_version(self, attempt: Attempt, faces: tuple[Mapping[str, Any], ...]) -> Attempt | None:
        assert attempt.result_name is not None
        name = self._storage.name_of_run(next_version(attempt.result_name), new_id())
        with self._storage.scratch(attempt.id) as temporary:
            encoded = self._blend(attempt, faces, temporary)
            self._storage.publish(temporary, name)
        return self._show(attempt, NewVersion(name, encoded.bytes_written, faces))

    def _blend(self, attempt: Attempt, faces: tuple[Mapping[str, Any], ...], temporary: Path) -> Encoded:
        """The first version with its faces at the wished strengths, encoded as it was, into the temporary file."""
        assert attempt.result_name is not None
        layers = self._load(attempt)
        base_name = first_version(attempt.result_name)
        if not self._storage.has_result(base_name):
            raise _gone()
        with self._storage.result(base_name) as path:
            base = self._decoder.decode(path, as_stored=True)
        strengths = {int(face["index"]): float(face["strength"]) for face in faces if face["restored"]}
        try:
            blended = dataclasses.replace(base, rgb=blend_layers(base.rgb, layers, strengths))
        except Unprocessable as error:
            log.error("the kept faces of attempt %s do not fit its result", attempt.id)
            raise _not_kept() from error
        options = RestoreOptions.from_json(attempt.options_json)
        ending = _FORMATS[base_name.rpartition(".")[2]]
        with translate_disk_full():
            return images.encode(blended, temporary, ending, options.output_quality, options.metadata)

    def _show(self, attempt: Attempt, version: NewVersion) -> Attempt | None:
        """Let the row show a published version; the version before the last one goes, unless it is the first.

        None, and nothing is left of it, when the row shows another one meanwhile.
        """
        assert attempt.result_name is not None
        if not self._store.new_version(attempt.id, attempt.version, version):
            now = self._store.attempt(attempt.id)
            if now is None:
                self._storage.remove_result(version.name)
                raise _gone()
            if now.result_name != version.name:
                self._storage.remove_version(version.name)
            return None
        try:  # `attempt` was shown until now: whoever just asked for it may still read it, nobody the one before it
            self._storage.remove_versions_before(attempt.result_name)
        except (OSError, RestoreError):  # the janitor finds it as an orphan
            log.exception("an old version of a result could not be removed")
        shown = self._store.attempt(attempt.id)
        if shown is None:
            raise _gone()
        return shown

    def _load(self, attempt: Attempt) -> tuple[FaceLayer, ...]:
        assert attempt.result_name is not None
        try:
            with self._storage.beside(attempt.result_name, Beside.FACES) as path:
                return load_layers(path)
        except (NotFound, FileNotFoundError):
            raise _not_kept() from None
        except Unavailable:
            raise
        except RestoreError as error:
            log.error("the kept faces of attempt %s cannot be read", attempt.id)
            raise _not_kept() from error


def require_layers(attempt: Attempt, kept: bool) -> None:
    """Refuse an attempt whose faces cannot be blended: `not_ready`, `no_result` or `faces_not_kept`."""
    if not attempt.status.ended:
        raise Conflict("not_ready", "The restoration has not ended yet; come back when it has.", retry_after_seconds=2)
    if attempt.status is not AttemptStatus.COMPLETED:
        raise Conflict("no_result", f"This photo has no result: {attempt.error_message or 'it was cancelled.'}")
    if not kept:
        raise _not_kept()


def with_strengths(
    faces: tuple[Mapping[str, Any], ...], strengths: Mapping[int, float]
) -> tuple[Mapping[str, Any], ...]:
    """The rows of faces with new strengths. Raises `Unprocessable` `unknown_face` for one that was not restored."""
    restored = {int(face["index"]) for face in faces if face["restored"]}
    unknown = sorted(set(strengths) - restored)
    if unknown:
        known = ", ".join(str(index) for index in sorted(restored)) or "none"
        raise Unprocessable("unknown_face", f"Face {unknown[0]} was not restored here; restored faces are {known}.")
    return tuple(
        {**face, "strength": strengths[int(face["index"])]} if int(face["index"]) in strengths else face
        for face in faces
    )


def _gone() -> NotFound:
    return NotFound("result_not_found", "The result is not there any more; it has expired or was removed.")


def _not_kept() -> Conflict:
    return Conflict("faces_not_kept", "The faces of this result are not kept; restore the photo again to change them.")
