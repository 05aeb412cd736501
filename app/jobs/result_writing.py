"""A restored picture to a published file and what its row will say; the row itself is completed by the runner."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from app import images
from app.errors import RestoreError
from app.images import Encoded, Picture
from app.images.damage_file import save_damage
from app.jobs.progress import Progress
from app.jobs.storage_retries import StorageRetries
from app.jobs.tile_cutting import Keep, TileCutter
from app.notices import Notice, NoticeKind, notice
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import Stage
from app.storage import Beside, Storage, translate_disk_full
from app.store import Attempt, Result

log = logging.getLogger(__name__)

FACES_NOT_KEPT = notice(
    NoticeKind.FACES_NOT_KEPT,
    "There was no room to keep the faces, so their strength cannot be changed without restoring again.",
)

DAMAGE_NOT_KEPT = notice(
    NoticeKind.DAMAGE_NOT_KEPT, "There was no room to keep what was found damaged, so it cannot be shown or changed."
)

SURROUNDINGS_NOT_KEPT = notice(
    NoticeKind.METADATA_NOT_KEPT, "Metadata and colour profile could not be written, so the result is without them."
)

RESTORED_LOCALLY = notice(
    NoticeKind.RESTORED_LOCALLY,
    "SiliconFlow was in trouble, so this machine restored the photo, as fallback=local asks.",
)


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
    cache_key: str | None = None
    paid: bool = False  # a provider was asked for it: it is not given up for trouble of ours
    fetchable: bool = False  # what was paid for is on record, so that another run can fetch it for nothing


class ResultWriter:
    """Encodes results and makes them safe under the names of their runs; keeps nothing between two of them."""

    def __init__(self, storage: Storage, with_retries: StorageRetries, tile_cutter: TileCutter | None = None) -> None:
        self._storage, self._with_retries, self._tile_cutter = storage, with_retries, tile_cutter

    def write(self, finished: Finished, progress: Progress) -> Result | None:
        """Encode into a temporary file and publish it; None when the run was cancelled meanwhile."""
        finished = _saying_who(finished)
        if finished.pages is not None:
            return self._publish_pages(finished, finished.pages, progress)
        if not progress(1.0, Stage.ENCODING):
            return None
        with self._storage.scratch(finished.attempt.id) as temporary, self._cut(finished) as keep_tiles:
            wanted = functools.partial(progress, 1.0, Stage.ENCODING)
            for_room = not finished.paid  # which has its own patience
            result = self._with_retries(lambda: self.encode(finished, temporary), wanted, for_room=for_room)
            if not progress(1.0, Stage.ENCODING):
                return None
            name = self._storage.name_of_run(result.name, finished.token)
            result = self._keep_faces(finished, dataclasses.replace(result, name=name), progress)
            result = self._keep_damage(finished, result, progress)
            publish = functools.partial(self._storage.publish, temporary, name, on_bytes=progress.heartbeat)
            self._with_retries(publish, wanted, for_room=for_room)
            keep_tiles(name)
        return result

    def _cut(self, finished: Finished) -> AbstractContextManager[Keep]:
        if self._tile_cutter is None:
            return contextlib.nullcontext(lambda _name: None)
        return self._tile_cutter.beside(finished.attempt, finished.restored.picture, finished.options.scale)

    def _publish_pages(self, finished: Finished, pages: WrittenPages, progress: Progress) -> Result | None:
        with pages.scratch:
            if not progress(1.0, Stage.ENCODING):
                return None
            result = _row_of(finished, pages.encoded)
            name = self._storage.name_of_run(result.name, finished.token)
            wanted = functools.partial(progress, 1.0, Stage.ENCODING)
            publish = functools.partial(self._storage.publish, pages.path, name, on_bytes=progress.heartbeat)
            self._with_retries(publish, wanted)
        return dataclasses.replace(result, name=name)

    def _keep_faces(self, finished: Finished, result: Result, progress: Progress) -> Result:
        """Make the layers of the faces safe beside the result; where that fails the photo is restored all the same."""
        restored = finished.restored
        if not restored.face_layers:
            return result
        try:
            with self._storage.scratch(finished.attempt.id) as temporary:
                images.keep_layers(temporary, restored.face_layers, restored.picture, finished.options.output_format)
                return self._publish_beside(temporary, result, Beside.FACES, progress)
        except (OSError, RestoreError) as error:
            log.warning("the faces of attempt %s could not be kept: %s", finished.attempt.id, error)
            return dataclasses.replace(result, warnings=(*result.warnings, FACES_NOT_KEPT))

    def _keep_damage(self, finished: Finished, result: Result, progress: Progress) -> Result:
        """The same for what was found and filled; `kept` in the record says that it can be asked for."""
        damage, report = finished.restored.damage, result.params.get("repair")
        if damage is None or not isinstance(report, Mapping):
            return result
        try:
            with self._storage.scratch(finished.attempt.id) as temporary:
                with translate_disk_full():
                    save_damage(temporary, damage)
                result = self._publish_beside(temporary, result, Beside.DAMAGE, progress)
        except (OSError, RestoreError) as error:
            log.warning("the damage of attempt %s could not be kept: %s", finished.attempt.id, error)
            return dataclasses.replace(result, warnings=(*result.warnings, DAMAGE_NOT_KEPT))
        return dataclasses.replace(result, params={**result.params, "repair": {**report, "kept": True}})

    def _publish_beside(self, temporary: Path, result: Result, kind: Beside, progress: Progress) -> Result:
        """Publish what lies beside a result, whose row will say how many bytes that has."""
        size = temporary.stat().st_size
        wanted, on_bytes = functools.partial(progress, 1.0, Stage.ENCODING), progress.heartbeat
        publish = functools.partial(self._storage.publish_beside, temporary, result.name, kind, on_bytes)
        self._with_retries(publish, wanted, for_room=False)
        return dataclasses.replace(result, beside_bytes=result.beside_bytes + size)

    def encode(self, finished: Finished, temporary: Path) -> Result:
        """Write the picture to the temporary file; what its row will say."""
        options = finished.options
        with translate_disk_full():
            encoded = images.encode(
                finished.restored.picture, temporary, options.output_format, options.output_quality, options.metadata
            )
        return _row_of(finished, encoded)


def _saying_who(finished: Finished) -> Finished:
    """With a note when the options asked for another backend than the one that the attempt was given."""
    if finished.attempt.backend == finished.options.backend:
        return finished
    return dataclasses.replace(finished, notes=(*finished.notes, RESTORED_LOCALLY))


def without_surroundings(finished: Finished) -> Finished:
    """The same pixels without metadata, resolution and profile, any of which may be what cannot be encoded."""
    seen = finished.restored.picture
    picture = Picture(seen.rgb, seen.alpha, seen.grey, source_format=seen.source_format)
    restored = dataclasses.replace(finished.restored, picture=picture)
    return dataclasses.replace(finished, restored=restored, notes=(*finished.notes, SURROUNDINGS_NOT_KEPT))


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
