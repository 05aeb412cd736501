"""Face layers: what was pasted where, so that a finished result can be blended again without a network.

Each face of a result is kept as the upscaled background of its rectangle, the restored face and a mask; blending is
arithmetic on these.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import Unprocessable
from app.images.picture import Pixels

MAX_LAYERS = 256
MAX_FILE_BYTES = 2 * 1024**3
_BAND_ROWS = 64  # a band of two pictures in floats stays in the processor's cache
_ENDING = ".npy"


@dataclasses.dataclass(frozen=True, eq=False)
class FaceLayer:
    """One restored face of one result.

    Attributes:
        index: place of the face from left to right, from 0; the same as its row's "index".
        left, top: corner of its rectangle, in the result's pixels.
        before: (h, w, 3) uint8 or uint16 RGB, the upscaled background of the rectangle without any face pasted.
        restored: (h, w, 3) of the same dtype, the restored face in the result's geometry and colours.
        mask: (h, w) uint8, 255 where all is restored; 0 on the rectangle's border, except along the photo's own edge.
    """

    index: int
    left: int
    top: int
    before: Pixels
    restored: Pixels
    mask: NDArray[np.uint8]

    @property
    def height(self) -> int:
        """Height of the rectangle in pixels."""
        return int(self.mask.shape[0])

    @property
    def width(self) -> int:
        """Width of the rectangle in pixels."""
        return int(self.mask.shape[1])


def mix(region: Pixels, restored: Pixels, mask: NDArray[np.uint8], strength: float) -> None:
    """Blend a face into the part of a picture that lies under it, in place.

    Args:
        region: (h, w, 3) uint8 or uint16; becomes region + mask / 255 * strength * (restored - region), rounded.
        restored: (h, w, 3) of the same dtype.
        mask: (h, w) uint8.
        strength: 0 leaves the region as it is, 1 takes the face where the mask is full.
    """
    factor = np.float32(strength / 255.0)
    for start in range(0, len(mask), _BAND_ROWS):
        rows = slice(start, start + _BAND_ROWS)
        under = region[rows].astype(np.float32)
        change = restored[rows].astype(np.float32)
        change -= under
        change *= (mask[rows].astype(np.float32) * factor)[:, :, None]
        change += under
        region[rows] = np.rint(change, out=change).astype(region.dtype)


def blend_layers(rgb: Pixels, layers: Sequence[FaceLayer], strengths: Mapping[int, float]) -> Pixels:
    """A result with its faces blended again; equals what the restoration itself would have given at these strengths.

    Args:
        rgb: (H, W, 3) uint8 or uint16, the finished result with its faces in it; not changed.
        layers: the layers of that result.
        strengths: 0..1 by index; a layer that is not named here is left out (its rectangle shows the background).

    Returns:
        A new (H, W, 3) of the same dtype: every rectangle is first set to `before`, then faces are blended in order.

    Raises:
        Unprocessable: `layers_do_not_fit` when a rectangle leaves the picture or its depth differs.
    """
    blended = rgb.copy()
    ordered = sorted(layers, key=lambda layer: layer.index)
    for layer in ordered:
        if not _fits(layer, rgb):
            raise Unprocessable("layers_do_not_fit", "The kept faces do not belong to this picture; restore it again.")
        _under(blended, layer)[...] = layer.before
    for layer in ordered:
        strength = strengths.get(layer.index, 0.0)
        if strength > 0:
            mix(_under(blended, layer), layer.restored, layer.mask, strength)
    return blended


def _under(rgb: Pixels, layer: FaceLayer) -> Pixels:
    """The part of a picture that a layer covers, as a view."""
    return rgb[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width]


def _fits(layer: FaceLayer, rgb: Pixels) -> bool:
    inside = layer.left >= 0 and layer.top >= 0
    inside = inside and layer.top + layer.height <= rgb.shape[0] and layer.left + layer.width <= rgb.shape[1]
    return inside and layer.before.dtype == rgb.dtype


def save_layers(path: Path, layers: Sequence[FaceLayer]) -> None:
    """Write layers to `path` as one uncompressed npz file; the caller takes care of a temporary name and of fsync.

    Raises:
        OSError: a full disk, say; what was written so far is left to the caller.
    """
    places = np.array([[layer.index, layer.left, layer.top] for layer in layers], np.int64).reshape(-1, 3)
    arrays: dict[str, NDArray[Any]] = {"places": places}
    for number, layer in enumerate(layers):
        arrays |= {f"before{number}": layer.before, f"restored{number}": layer.restored, f"mask{number}": layer.mask}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_layers(path: Path, only: int | None = None) -> tuple[FaceLayer, ...]:
    """Read back what `save_layers` wrote; no pickles, and no array larger than the file that holds it.

    `only` reads the layer of one index and leaves the others where they are.

    Raises:
        FileNotFoundError: no such file.
        Unprocessable: `layers_unreadable` for anything that is not such a file.
    """
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_all(archive, only)
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError) as error:
            raise Unprocessable(
                "layers_unreadable", "The kept faces cannot be read; restore the photo again."
            ) from error


def _read_all(archive: zipfile.ZipFile, only: int | None) -> tuple[FaceLayer, ...]:
    if sum(member.file_size for member in archive.infolist()) > MAX_FILE_BYTES:
        raise ValueError("too large")
    places = _read(archive, "places", np.dtype(np.int64))
    if places.ndim != 2 or places.shape[1] != 3 or len(places) > MAX_LAYERS:
        raise ValueError("places of a wrong shape")
    layers = []
    for number, (index, left, top) in enumerate(places.tolist()):
        if only is not None and index != only:
            continue
        before, restored = (_read(archive, f"{word}{number}", None) for word in ("before", "restored"))
        mask = _read(archive, f"mask{number}", np.dtype(np.uint8))
        if before.shape != (*mask.shape, 3) or restored.shape != before.shape or restored.dtype != before.dtype:
            raise ValueError("arrays of different shapes")
        layers.append(FaceLayer(index, left, top, before, restored, mask))
    return tuple(layers)


def _read(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    """One array; its header must say what is there before memory is taken for it."""
    member = archive.getinfo(name + _ENDING)
    with archive.open(member) as file:
        shape, fortran, found = _header(file)
        allowed = (np.dtype(np.uint8), np.dtype(np.uint16)) if dtype is None else (dtype,)
        if found not in allowed or fortran:
            raise ValueError("an array of a wrong kind")
        return np.frombuffer(file.read(), found).reshape(shape)  # a header that lies does not fit what was read


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an array of an unknown version")
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = npy.read_array_header_1_0(file)
    return header
