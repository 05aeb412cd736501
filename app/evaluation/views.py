"""Pictures for comparing and for the page: a `Picture` as plain sRGB on white, small copies, and a telling detail."""

from __future__ import annotations

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.evaluation.degradation import bicubic_to
from app.evaluation.records import Views
from app.images import Picture, samples
from app.images.srgb_table import to_srgb

Rgb = NDArray[np.uint8]  # (H, W, 3) RGB in [0, 255]
Box = tuple[int, int, int, int]  # left, top, width, height

WHOLE_SIDE_PIXELS, DETAIL_SIDE_PIXELS = 640, 264
_WHOLE_QUALITY, _DETAIL_QUALITY = 80, 90
_WEBP_METHOD = 4


def as_rgb(picture: Picture) -> Rgb:
    """A picture as eyes see it: (H, W, 3) uint8 in sRGB, laid on white where it is transparent."""
    rgb = to_srgb(picture)
    if picture.alpha is not None:
        rgb = samples.on_white(rgb, samples.eight_bit(picture.alpha))
    return rgb


def telling_detail(rgb: Rgb, scale: float) -> Box:
    """The box of a photo where most happens, so large that its result fills the page's detail.

    Args:
        rgb: (H, W, 3) uint8 RGB, the input.
        scale: how many times larger the result is.

    Returns:
        left, top, width, height in pixels of the input.
    """
    height, width = rgb.shape[:2]
    side = max(1, int(DETAIL_SIDE_PIXELS / scale))
    box_width, box_height = min(side, width), min(side, height)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    change = np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.5), cv2.CV_32F))
    sums = cv2.integral(np.sqrt(change))  # the root keeps one hard edge from winning over a face or a texture
    tops, lefts = _steps(height - box_height), _steps(width - box_width)
    corner = np.ix_(tops, lefts), np.ix_(tops + box_height, lefts + box_width)
    energy = sums[corner[1]] + sums[corner[0]] - sums[np.ix_(tops, lefts + box_width)]
    energy -= sums[np.ix_(tops + box_height, lefts)]
    row, column = np.unravel_index(int(np.argmax(energy)), energy.shape)
    return int(lefts[column]), int(tops[row]), box_width, box_height


def make_views(rgb: Rgb, whole_size: tuple[int, int], box: Box, detail_size: tuple[int, int]) -> Views:
    """The small whole and the detail of one picture.

    Args:
        rgb: (H, W, 3) uint8 RGB.
        whole_size: (height, width) that all wholes of one photo share.
        box: the detail, in pixels of `rgb`.
        detail_size: (height, width) that all details of one photo share.
    """
    left, top, width, height = box
    detail = rgb[top : top + height, left : left + width]
    return Views(webp(_resized(rgb, whole_size), _WHOLE_QUALITY), webp(_resized(detail, detail_size), _DETAIL_QUALITY))


def whole_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the small whole of a picture of that (height, width)."""
    factor = min(1.0, WHOLE_SIDE_PIXELS / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def scaled_box(box: Box, input_size: tuple[int, int], result_size: tuple[int, int]) -> Box:
    """A box of the input as a box of the result; sizes are (height, width)."""
    down, right = result_size[0] / input_size[0], result_size[1] / input_size[1]
    left, top, width, height = box
    return round(left * right), round(top * down), max(1, round(width * right)), max(1, round(height * down))


def _steps(room: int) -> NDArray[np.intp]:
    return np.unique(np.linspace(0, room, 24).astype(np.intp))


def _resized(rgb: Rgb, size: tuple[int, int]) -> Rgb:
    if size[0] * size[1] < rgb.shape[0] * rgb.shape[1]:
        return np.asarray(cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return bicubic_to(rgb, size)


def webp(rgb: Rgb, quality: int) -> bytes:
    """(H, W, 3) uint8 RGB as a WebP file of a quality of 0 to 100."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, "WEBP", quality=quality, method=_WEBP_METHOD)
    return file.getvalue()
