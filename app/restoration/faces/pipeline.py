"""The faces of one photo, from finding to pasting: which are restored, in which order, and what is said about each.

It joins detection, alignment, the restoring network, parsing and pasting. Everything about a photo lives in arguments
and results; a `LoadedFaceModels` is shared by all.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.errors import Cancelled, OutOfMemory
from app.images import Picture, Pixels
from app.images.face_layers import FaceLayer
from app.restoration.device_errors import is_out_of_memory
from app.restoration.device_memory import release_memory
from app.restoration.faces import alignment
from app.restoration.faces.alignment import Matrix
from app.restoration.faces.detection import Detect, DetectedFace
from app.restoration.faces.gfpgan import Restore
from app.restoration.faces.parsing import Mask, Parse, plain_mask, soft_mask
from app.restoration.faces.pasting import Patch, match_colours, paste, to_pixels
from app.results import FaceReason
from app.stages import OnFraction

log = logging.getLogger(__name__)

MIN_EYE_DISTANCE_PIXELS = 5.0  # upstream's
MAX_FACES = 64
MAX_LAYERS_BYTES = 384 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class LoadedFaceModels:
    """The loaded face networks, shared by all photos.

    Attributes:
        detect: (H, W, 3) RGB to the faces in it.
        restore: (N, 3, 512, 512) fp32 RGB in [-1, 1] to the same, restored.
        exact: gives `restore` in fp32, for faces that reduced precision spoiled; None where it is exact already.
        parse: face parsing of restored faces to (512, 512) segmentation masks; None for the plain mask.
        batch: how many faces go through a network at once.
        fills_batch: a smaller rest is filled up to `batch`, so that every face is computed in a batch of the same size.
        remember_batch: told the smaller batch when memory ran out.
        device: torch device name, where memory is given back when it ran out.
        match_surroundings: fit colours, and fade the mask towards its frame; False is upstream's way.
        facts: what the record of a restoration says about them.
    """

    detect: Detect
    restore: Restore
    exact: Callable[[], Restore] | None = None
    parse: Parse | None = None
    batch: int = 1
    fills_batch: bool = False
    remember_batch: Callable[[int], None] = lambda batch: None
    device: str = "cpu"
    match_surroundings: bool = True
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Face:
    """A face that was found, its (2, 3) matrix into the frame, and why it is not restored (None: it is)."""

    found: DetectedFace
    matrix: Matrix | None
    reason: FaceReason | None


@dataclasses.dataclass(frozen=True)
class FacesResult:
    """What became of the faces of one photo: a row for each, and the layers of those that were pasted."""

    rows: tuple[dict[str, Any], ...]
    layers: tuple[FaceLayer, ...]
    layers_too_large: bool = False
    redone_in_fp32: int = 0


def find_faces(models: LoadedFaceModels, rgb: Pixels) -> tuple[Face, ...]:
    """All faces of a photo from left to right, each with what speaks against restoring it.

    Args:
        models: the networks.
        rgb: (H, W, 3) uint8 or uint16 RGB, the photo before enlarging.
    """
    found = models.detect(rgb)
    largest = sorted(found, key=_eye_distance, reverse=True)
    places = {id(one): place for place, one in enumerate(largest)}
    ordered = sorted(found, key=lambda one: (one.box[0] + one.box[2], one.box[1]))
    return tuple(_classify(one, places[id(one)]) for one in ordered)


def _classify(found: DetectedFace, place: int) -> Face:
    if _eye_distance(found) < MIN_EYE_DISTANCE_PIXELS:
        return Face(found, None, FaceReason.TOO_SMALL)
    if place >= MAX_FACES:
        return Face(found, None, FaceReason.TOO_MANY)
    matrix = alignment.estimate_similarity(found.landmarks)
    return Face(found, matrix, FaceReason.NOT_ALIGNED if matrix is None else None)


def _eye_distance(found: DetectedFace) -> float:
    return float(np.linalg.norm(found.landmarks[0] - found.landmarks[1]))


def restore_faces(
    models: LoadedFaceModels,
    picture: Picture,
    result: Pixels,
    faces: Sequence[Face],
    strength: float,
    on_fraction: OnFraction,
) -> FacesResult:
    """Restore the faces that nothing speaks against, and paste them into the enlarged photo in place.

    Args:
        models: the networks.
        picture: the photo before enlarging.
        result: (H', W', 3) RGB of the same dtype, the enlarged photo; changed.
        faces: what `find_faces` gave for that photo.
        strength: 0..1, how much of the restored face is taken.
        on_fraction: told the fraction done after every network.

    Raises:
        Cancelled: `on_fraction` said stop. OutOfMemory: not even one face fits the device.
    """
    wanted = [index for index, face in enumerate(faces) if face.reason is None]
    run = _FacePass(models, picture, result.shape[:2], faces, on_fraction, max(1, len(wanted)))
    patches = list(run.patches(wanted))
    done = paste(result, patches, strength, MAX_LAYERS_BYTES)
    failures = {patch.index: FaceReason.NOTHING_TO_PASTE for patch in patches if patch.index not in done.places}
    failures |= run.failed
    rows = tuple(_row(index, face, failures.get(index), strength, picture) for index, face in enumerate(faces))
    return FacesResult(rows, done.layers, bool(done.places) and not done.layers, run.redone)


def _row(index: int, face: Face, failure: FaceReason | None, strength: float, picture: Picture) -> dict[str, Any]:
    """What is said about a face: JSON-ready, in the photo's own pixels."""
    reason = face.reason or failure
    x0, y0, x1, y1 = face.found.box
    box = (max(0.0, x0), max(0.0, y0), min(float(picture.width), x1), min(float(picture.height), y1))
    return {
        "index": index,
        "box": [round(value, 1) for value in box],
        "score": round(face.found.score, 3),
        "size": round(max(x1 - x0, y1 - y0)),
        "restored": reason is None,
        "reason": reason,
        "strength": strength if reason is None else 0.0,
    }


class _FacePass:
    """The faces of one photo on their way through the networks. Lives for one call."""

    def __init__(
        self,
        models: LoadedFaceModels,
        picture: Picture,
        size_out: tuple[int, ...],
        faces: Sequence[Face],
        on_fraction: OnFraction,
        count: int,
    ) -> None:
        self._models, self._picture, self._faces, self._on_fraction = models, picture, faces, on_fraction
        self._scale_y, self._scale_x = size_out[0] / picture.height, size_out[1] / picture.width
        self._steps, self._done = count * (2 if models.parse is not None else 1), 0
        self._batch = models.batch
        self.failed: dict[int, FaceReason] = {}
        self.redone = 0

    def patches(self, wanted: list[int]) -> Iterator[Patch]:
        """The restored faces of these places, in order."""
        start = 0
        while start < len(wanted):
            places = wanted[start : start + self._batch]
            made = self._try(places)
            if made is None:
                self._batch = max(1, self._batch // 2)
                self._models.remember_batch(self._batch)
                continue
            yield from made
            start += len(places)

    def _try(self, places: list[int]) -> list[Patch] | None:
        """One batch; None when it did not fit the device's memory and a smaller one may."""
        try:
            return self._restore(places)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if self._size_of_batch(len(places)) == 1:
                text = "The device has too little memory to restore a face; free some, or set face_enhance to false."
                raise OutOfMemory("out_of_memory", text) from None
            log.warning("out of memory with %d faces at once", self._size_of_batch(len(places)))
        # Outside the handler, whose traceback would keep the tensors alive.
        release_memory(self._models.device)
        return None

    def _restore(self, places: list[int]) -> list[Patch]:
        matrices = [self._matrix(place) for place in places]
        crops = [alignment.align_face(self._picture.rgb, matrix) for matrix in matrices]
        out, good = self._restore_checked(to_faces(crops))
        self._report(len(places))
        masks: Sequence[Mask | None] = [None] * len(places)
        if self._models.parse is not None:
            masks = self._models.parse(self._filled(out))[: len(places)]
            self._report(len(places))
        made = []
        for number, place in enumerate(places):
            if good[number]:
                made.append(self._patch(place, crops[number], matrices[number], out[number], masks[number]))
            else:
                self.failed[place] = FaceReason.FAILED
        return made

    def _matrix(self, place: int) -> Matrix:
        matrix = self._faces[place].matrix
        assert matrix is not None, "only aligned faces are restored"
        return matrix

    def _restore_checked(self, faces: Tensor) -> tuple[Tensor, list[bool]]:
        """The restored faces in [-1, 1], those that reduced precision spoiled done again in fp32."""
        out = self._models.restore(self._filled(faces))[: len(faces)]
        good = _finite(out)
        if not all(good) and self._models.exact is not None:
            bad = [i for i, fine in enumerate(good) if not fine]
            log.warning("%d faces are done again in fp32", len(bad))
            self.redone += len(bad)
            out = out.clone()
            out[bad] = self._models.exact()(self._filled(faces[bad]))[: len(bad)]
            good = _finite(out)
        return out.clamp(-1.0, 1.0), good

    def _size_of_batch(self, faces: int) -> int:
        return self._batch if self._models.fills_batch else faces

    def _filled(self, faces: Tensor) -> Tensor:
        """(N, 3, 512, 512) faces, the last one repeated until the batch is full where batches have one size."""
        missing = self._size_of_batch(len(faces)) - len(faces)
        return torch.cat([faces, faces[-1:].expand(missing, -1, -1, -1)]) if missing else faces

    def _patch(self, place: int, crop: Pixels, matrix: Matrix, out: Tensor, hard: Mask | None) -> Patch:
        matches, picture = self._models.match_surroundings, self._picture
        mask = plain_mask() if hard is None else soft_mask(hard, soft_border=matches)
        restored = np.ascontiguousarray(out.permute(1, 2, 0).float().cpu().numpy())  # (512, 512, 3)
        restored = restored * np.float32(0.5) + np.float32(0.5)
        if matches:
            shown = alignment.visible_mask((picture.height, picture.width), matrix)
            match_colours(restored, crop, mask if shown is None else mask * shown)
        back = alignment.inverse_affine(matrix, self._scale_x, self._scale_y)
        return Patch(place, to_pixels(restored, picture.rgb.dtype, grey=picture.grey), mask, back)

    def _report(self, faces: int) -> None:
        self._done = min(self._done + faces, self._steps)
        if not self._on_fraction(self._done / self._steps):
            raise Cancelled


def to_faces(crops: Sequence[Pixels]) -> Tensor:
    """N (512, 512, 3) crops, uint8 or uint16 RGB, to one (N, 3, 512, 512) fp32 batch in [-1, 1], channels-last."""
    stacked: NDArray[np.float32] = np.stack(crops).astype(np.float32)
    stacked *= np.float32(2.0 / np.iinfo(crops[0].dtype).max)
    stacked -= np.float32(1.0)
    return torch.from_numpy(stacked).permute(0, 3, 1, 2)  # (N, 3, 512, 512)


def _finite(out: Tensor) -> list[bool]:
    verdict: list[bool] = torch.isfinite(out.float()).flatten(1).all(1).tolist()
    return verdict
