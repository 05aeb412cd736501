"""The use case of a preview: one patch of a photo, restored in several qualities ahead of the queue, nothing kept.

The file stays where its sender's upload lies until it is thrown away; decoding happens in a child, as for every photo.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from app.backends.protocol import Backend, Previewing, Repairing
from app.errors import Conflict, Unavailable, Unprocessable
from app.images import (
    PATCH_SIDE_PIXELS,
    Box,
    Overview,
    PatchWindow,
    Picture,
    detailed_place,
    encode_preview,
    patch_at,
)
from app.notices import Notice
from app.options import BackendName, Partial, Quality, Repair, RestoreOptions, damage_reduction
from app.stages import IsWanted, always_wanted

TURN_SECONDS = 60.0  # how long a patch waits for its turn
# Of a photo's pixels: of 39 undamaged pictures three are over it, with the weights that ship, and both real scans are.
SUGGESTED_SHARE = 0.0015
_MARGIN_PIXELS = 64  # covers what the networks of the table see around a patch
_REPAIR_MARGIN_PIXELS = 224  # what the search for damage sees, in pixels of what it looks at
_LONGEST_WINDOW_PIXELS = 2048
_LONGEST_PATCH_PIXELS = 8 * PATCH_SIDE_PIXELS

Qualities = Callable[[], Sequence[Mapping[str, Any]]]  # rows of `quality`, `model` and `stands_in_for`


class ChosenBy(enum.StrEnum):
    """Why the patch lies where it lies."""

    ASKED = "asked"
    FACE = "face"
    DETAIL = "detail"


class PhotoReader(Protocol):
    """Decodes parts of a file away from this process (`app.images.DecoderPool`)."""

    def overview(self, path: Path, *, keep_partial: bool, rotate: int) -> Overview:
        """The whole photo, reduced."""
        ...

    def window(self, path: Path, box: Box, *, keep_partial: bool, rotate: int) -> Picture:
        """A part of the photo."""
        ...


@dataclasses.dataclass(frozen=True)
class PreparedPreview:
    """A patch that is cut out: where, why there, and the options of each restoration of it.

    Attributes:
        at: the patch in the upright, turned photo.
        variants: the quality (None: a model that was asked for by name) and the options of each.
        original: the patch as it is, as JPEG.
    """

    patch: PatchWindow
    at: Box
    chosen_by: ChosenBy
    variants: tuple[tuple[Quality | None, RestoreOptions], ...]
    original: bytes


@dataclasses.dataclass(frozen=True)
class PreviewedPatch:
    """One restored patch: a JPEG of this size in pixels, the model that ran, and its seconds."""

    quality: Quality | None
    model: str
    width: int
    height: int
    seconds: float
    jpeg: bytes
    warnings: tuple[Notice, ...]


class Previewer:
    """Prepares and restores patches. Calls wait for the decoder and for the device, so they belong in a thread."""

    def __init__(self, reader: PhotoReader, backends: Mapping[str, Backend], qualities: Qualities) -> None:
        self._reader, self._backends, self._qualities = reader, backends, qualities

    def variants(
        self, options: RestoreOptions, asked: Sequence[Quality]
    ) -> tuple[tuple[Quality | None, RestoreOptions], ...]:
        """What is restored: the model that the options name, and each asked quality that is installed.

        Without a model, none asked means all.

        Raises:
            Unprocessable: `preview_local_only` for another backend. Unavailable: `no_model`.
        """
        if options.backend != BackendName.LOCAL:
            raise Unprocessable(
                "preview_local_only", "Previews are made on this machine only; choose the backend local."
            )
        named: tuple[tuple[Quality | None, RestoreOptions], ...] = () if options.model is None else ((None, options),)
        if named and not asked:
            return named
        rows = self._qualities()
        installed = [Quality(row["quality"]) for row in rows if row["stands_in_for"] is None]
        chosen = [quality for quality in Quality if quality in (asked or installed) and quality in installed]
        if not chosen and rows and not named:  # what stands in for all of them
            chosen = [asked[0] if asked else Quality(rows[0]["quality"])]
        if not chosen and not named:
            raise Unavailable("no_model", "No model is installed; run: python3 run.py models download")
        replace = functools.partial(dataclasses.replace, options, model=None)
        return (*named, *((quality, replace(quality=quality.value)) for quality in chosen))

    def prepare(
        self,
        path: Path,
        options: RestoreOptions,
        place: tuple[int, int] | None,
        asked: Sequence[Quality] = (),
        is_wanted: IsWanted = always_wanted,
    ) -> PreparedPreview:
        """Choose the place (a face, else where most detail is) unless one is given, and cut the patch out.

        Args:
            path: the uploaded file.
            options: as of a job.
            place: (x, y) of the patch's middle in the upright, turned photo; moved inside where it lies outside.
            asked: the qualities to show.
            is_wanted: whether somebody still waits for it.

        Raises `RestoreError`, as submitting and restoring the photo would.
        """
        variants = self.variants(options, asked)
        keep_partial = options.partial == Partial.KEEP
        overview = self._reader.overview(path, keep_partial=keep_partial, rotate=options.rotate)
        frames = self._backend().find_faces(overview, options, TURN_SECONDS, is_wanted)
        chosen_by, (x, y) = _place_of(overview, frames, place)
        at = patch_at(x, y, overview.width, overview.height)
        around = _window_around(at, frames, overview, _margin(options, overview))
        window = self._reader.window(path, around, keep_partial=keep_partial, rotate=options.rotate)
        inner = Box(at.left - around.left, at.top - around.top, at.right - around.left, at.bottom - around.top)
        patch = PatchWindow(window, around, inner, overview)
        original = encode_preview(_part(window, inner), PATCH_SIDE_PIXELS + 1)
        return PreparedPreview(patch, at, chosen_by, variants, original)

    def restore(
        self,
        prepared: PreparedPreview,
        quality: Quality | None,
        options: RestoreOptions,
        is_wanted: IsWanted = always_wanted,
    ) -> PreviewedPatch:
        """Restore it in one way. Raises as `Previewing.restore_patch` does."""
        done = self._backend().restore_patch(prepared.patch, options, TURN_SECONDS, is_wanted)
        picture = done.picture
        jpeg = encode_preview(dataclasses.replace(picture, alpha=None), max(_LONGEST_PATCH_PIXELS, picture.width))
        return PreviewedPatch(
            quality, done.model, picture.width, picture.height, round(done.seconds, 2), jpeg, done.warnings
        )

    def damage_share(self, path: Path, is_wanted: IsWanted = always_wanted) -> float:
        """Which part of a photo, 0 to 1, looks damaged where it is made small. Raises as `Repairing.damage_share`."""
        overview = self._reader.overview(path, keep_partial=True, rotate=0)
        backend: object = self._backends.get(BackendName.LOCAL)
        if not isinstance(backend, Repairing):
            raise previews_elsewhere()
        return backend.damage_share(overview.small, TURN_SECONDS, is_wanted)

    def _backend(self) -> Previewing:
        backend: object = self._backends.get(BackendName.LOCAL)
        if isinstance(backend, Previewing):
            return backend
        raise previews_elsewhere()


def previews_elsewhere() -> Conflict:
    """The error of a server that cannot make previews, however often it is asked."""
    return Conflict(
        "preview_unavailable",
        "Previews are made where photos are restored, which this server leaves to others; send the photo itself.",
    )


def _place_of(
    overview: Overview, frames: Sequence[Box], place: tuple[int, int] | None
) -> tuple[ChosenBy, tuple[float, float]]:
    if place is not None:
        return ChosenBy.ASKED, place
    if frames:
        face = frames[0]
        return ChosenBy.FACE, ((face.left + face.right) / 2, (face.top + face.bottom) / 2)
    return ChosenBy.DETAIL, detailed_place(overview)


def _margin(options: RestoreOptions, overview: Overview) -> int:
    if options.repair == Repair.OFF:
        return _MARGIN_PIXELS
    wanted = _REPAIR_MARGIN_PIXELS * damage_reduction(overview.width, overview.height)
    return min(wanted, (_LONGEST_WINDOW_PIXELS - PATCH_SIDE_PIXELS) // 2)


def _window_around(at: Box, frames: Sequence[Box], overview: Overview, margin_pixels: int) -> Box:
    """The patch with its context, and every face that reaches into it, whole where that stays within bounds."""
    margin = functools.partial(Box.grown, margin=margin_pixels, width=overview.width, height=overview.height)
    window = margin(at)
    for frame in frames:
        joined = window.joined(frame).grown(0, overview.width, overview.height)
        if frame.meets(at) and max(joined.width, joined.height) <= _LONGEST_WINDOW_PIXELS:
            window = joined
    return window


def _part(window: Picture, box: Box) -> Picture:
    return dataclasses.replace(window, rgb=window.rgb[box.top : box.bottom, box.left : box.right])
