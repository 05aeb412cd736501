"""Face layers as the written file holds them, so that they can later be laid onto what is read back from it.

A format may take less than the picture had: fewer bits, no transparency, other greys.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2

from app.errors import Unprocessable
from app.images import samples
from app.images.encoding import choose_format, greys_become_srgb
from app.images.face_layers import MAX_FILE_BYTES, MAX_LAYERS, FaceLayer, save_layers
from app.images.formats import FORMATS
from app.images.picture import Picture, Pixels
from app.images.srgb_table import greys_to_srgb
from app.images.tiff import becomes_eight_bit

_HEADER_BYTES = 4096  # more than what the file says of one array


def keep_layers(path: Path, layers: Sequence[FaceLayer], picture: Picture, output_format: str) -> None:
    """Fit the layers of a result and write them to `path`.

    Raises:
        Unprocessable: `layers_too_large` when they would not be read back.
        OSError: a full disk, say; the caller removes what was written.
    """
    size = sum(layer.before.nbytes + layer.restored.nbytes + layer.mask.nbytes + _HEADER_BYTES for layer in layers)
    if size > MAX_FILE_BYTES or len(layers) > MAX_LAYERS:
        raise Unprocessable("layers_too_large", "The faces of this photo are too large to be kept.")
    save_layers(path, fit_layers(layers, picture, output_format))


def fit_layers(layers: Sequence[FaceLayer], picture: Picture, output_format: str) -> tuple[FaceLayer, ...]:
    """The layers of a result, changed as `encode` changes the result itself; blending stays true to within rounding.

    Args:
        layers: the layers of `picture`, of its depth.
        picture: the result before it is encoded.
        output_format: as `encode` takes it.
    """
    name = choose_format(picture, output_format)
    return tuple(_fit(layer, picture, name) for layer in layers)


def _fit(layer: FaceLayer, picture: Picture, name: str) -> FaceLayer:
    before, restored = (_written(pixels, layer, picture, name) for pixels in (layer.before, layer.restored))
    return dataclasses.replace(layer, before=before, restored=restored)


def _written(pixels: Pixels, layer: FaceLayer, picture: Picture, name: str) -> Pixels:
    """(h, w, 3) RGB of a rectangle as it stands in a file of this format."""
    if picture.grey:
        pixels = _as_rgb(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    if not FORMATS[name].deep or (name == "tiff" and becomes_eight_bit(picture)):
        pixels = samples.eight_bit(pixels)
    if name == "jpg" and picture.alpha is not None:
        alpha = picture.alpha[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width]
        pixels = samples.on_white(samples.eight_bit(pixels), samples.eight_bit(alpha))
    if greys_become_srgb(picture, name):
        pixels = greys_to_srgb(samples.eight_bit(pixels), picture.srgb_table)
    return pixels


def _as_rgb(grey: Any) -> Any:
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
