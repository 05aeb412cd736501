"""The mask of damage that a user drew: from its upload, through the storage, to the run that fills what it marks.

Like the photo it is judged in a decoder's child; what is kept of it are bits of our own, which any host can load. The
order that survives a crash is that of a submission: the file made durable, then the row that says it is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from app.backends.protocol import Backend, Repairing
from app.errors import Conflict, RestoreError, Unprocessable, UnsupportedFormat
from app.images import Header, Picture
from app.images.drawn_mask import Mask, check_mask_size, mask_of, pack_mask, unpack_mask
from app.images.sniffing import MIME_TYPES
from app.options import BackendName, Pages, Repair, RestoreOptions, output_size
from app.results import RestorationResult
from app.stages import OnProgress
from app.storage import Storage, new_id, translate_disk_full
from app.store import NO_ORIGIN, Attempt, AttemptStatus, Job, JobOrigin, SentMask, may_be_committed

MASK_FORMATS = frozenset(("PNG", "WEBP"))


class MaskDecoder(Protocol):
    """Judges and decodes files away from this process (`app.images.DecoderPool`)."""

    def read_header(self, path: Path) -> Header:
        """Raises `RestoreError` for what is no picture that we open."""
        ...

    def decode(self, path: Path, *, as_stored: bool) -> Picture:
        """The same for what cannot be decoded."""
        ...


Restore = Callable[[RestoreOptions, JobOrigin], tuple[Job, int]]


class MaskSubmission:
    """Accepts masks. Calls wait for decoder, disk and database, so they belong in a thread that may wait."""

    def __init__(self, storage: Storage, decoder: MaskDecoder) -> None:
        self._storage, self._decoder = storage, decoder

    def submit(
        self, attempt: Attempt, mask_file: Path, restore: Restore, origin: JobOrigin = NO_ORIGIN
    ) -> tuple[Job, int]:
        """One attempt more at the photo of this one, which fills what the mask marks instead of what would be found.

        Args:
            attempt: whose options the new one gets; where these repair nothing, with repair=auto.
            mask_file: as it was uploaded; nothing of it is kept as it is.
            restore: accepts the attempt with its options and origin.
            origin: of the request.

        Returns:
            The job and its place in the queue.

        Raises:
            Unprocessable: `mask_local_only`, `mask_one_page`, `mask_wrong_size`, `mask_not_grey`.
            UnsupportedFormat: `unsupported_format` for what is neither PNG nor WebP.
            RestoreError: what the decoder and `restore` raise.
        """
        options = options_with_mask(attempt)
        return self._restore(options, pack_mask(self._decoded(mask_file, size_of_photo(attempt))), restore, origin)

    def submit_again(self, attempt: Attempt, restore: Restore, origin: JobOrigin = NO_ORIGIN) -> tuple[Job, int]:
        """Likewise with the mask that the attempt itself came with. Raises `NotFound` `mask_missing` without one."""
        with self._storage.mask(attempt.id) as path:
            packed = path.read_bytes()
        return self._restore(options_with_mask(attempt), packed, restore, origin)

    def _restore(self, options: RestoreOptions, packed: bytes, restore: Restore, origin: JobOrigin) -> tuple[Job, int]:
        """Keep the mask under a new attempt's id, then have that attempt accepted."""
        sent = SentMask(new_id(), len(packed))
        with self._storage.scratch(sent.attempt_id) as temporary:
            with translate_disk_full():
                temporary.write_bytes(packed)
            self._storage.keep_mask(temporary, sent.attempt_id)
        is_named = False
        try:
            job, position = restore(options, dataclasses.replace(origin, mask=sent))
            is_named = job.attempts[0].id == sent.attempt_id  # else the job was made before, with a mask of its own
            return job, position
        except BaseException as error:
            is_named = may_be_committed(error)  # the row may be there; if it is not, the janitor finds an orphan
            raise
        finally:
            if not is_named:
                with contextlib.suppress(OSError, RestoreError):  # the janitor finds it as an orphan
                    self._storage.remove_mask(sent.attempt_id)

    def _decoded(self, mask_file: Path, photo: tuple[int, int]) -> Mask:
        """The marked pixels, (H, W) bool. The size is judged before a pixel is decoded."""
        header = self._decoder.read_header(mask_file)
        if header.format not in MASK_FORMATS:
            raise UnsupportedFormat("unsupported_format", f"A mask is a PNG or WebP file, not {header.format}.")
        check_mask_size((header.width, header.height), photo)
        picture = self._decoder.decode(mask_file, as_stored=True)
        check_mask_size((picture.width, picture.height), photo)
        return mask_of(picture)


def options_with_mask(attempt: Attempt) -> RestoreOptions:
    """The options of an attempt that is made again with a mask. Raises `Unprocessable`, see `MaskSubmission.submit`."""
    options = RestoreOptions.from_json(attempt.options_json)
    if attempt.backend != BackendName.LOCAL:  # where it ran, which may be here though another one was asked for
        raise Unprocessable(
            "mask_local_only", "Only this machine fills what a mask marks; restore the photo with the backend local."
        )
    if options.pages == Pages.ALL and attempt.photo_mime == MIME_TYPES["TIFF"] and _pages_of(attempt) > 1:
        raise Unprocessable(
            "mask_one_page", "A mask belongs to one page, and this photo was restored with all; restore the first one."
        )
    repair = options.repair if options.repair != Repair.OFF else Repair.AUTO.value
    return dataclasses.replace(options, backend=BackendName.LOCAL.value, pages=Pages.FIRST.value, repair=repair)


def _pages_of(attempt: Attempt) -> int:
    """How many pages were restored; of one that has not ended nothing is known, which may be several."""
    return int(attempt.params.get("pages", 1 if attempt.status is AttemptStatus.COMPLETED else 2))


def size_of_photo(attempt: Attempt) -> tuple[int, int]:
    """Width and height of the photo as networks see it: upright, and turned as the attempt turns it."""
    rotate = RestoreOptions.from_json(attempt.options_json).rotate
    return output_size(attempt.photo_width, attempt.photo_height, 1, rotate)


def load_mask(storage: Storage, attempt: Attempt, picture: Picture) -> Mask | None:
    """The mask that an attempt came with, (H, W) bool of its decoded photo; None where it came without.

    Raises:
        NotFound: `mask_missing`.
        Unprocessable: `mask_unreadable`, or `mask_wrong_size` where another version decodes the photo otherwise.
    """
    if attempt.mask_bytes is None:
        return None
    with storage.mask(attempt.id) as path:
        data = path.read_bytes()
    return unpack_mask(data, (picture.width, picture.height))


def restore_with(
    backend: Backend, picture: Picture, options: RestoreOptions, on_progress: OnProgress, mask: Mask | None
) -> RestorationResult:
    """Restore a photo, filling what its own mask, (H, W) bool, marks. Raises what the backend raises."""
    if mask is None:
        return backend.restore(picture, options, on_progress)
    if not isinstance(backend, Repairing):
        raise Conflict("repair_unavailable", "This backend repairs nothing; restore the photo without a mask.")
    return backend.restore_with_mask(picture, mask, options, on_progress)
