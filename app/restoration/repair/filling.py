"""Holes filled from their surroundings, window by window, and the photo's own grain put back.

Diffusion fills everything; where a hole is wide the inpainting network, if there is one, corrects what diffusion says.
Windows go from top left to bottom right, and each takes what is filled already for known, so that no border between
two can be seen; one that sees nothing but hole waits until its neighbours are filled. Time goes by the area around the
holes. Outside the mask not one bit changes: the fill takes up the values of the hole's edge (its colour from further
away where JPEG has thinned it), and the grain fades in from there, so nothing outside needs to be feathered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from app.errors import Cancelled, OutOfMemory
from app.images import Pixels
from app.restoration.device_errors import is_out_of_memory
from app.restoration.repair.chroma_bleeding import without_bleeding
from app.restoration.repair.detection import NO_ROOM
from app.restoration.repair.diffusion_inpainting import Mask, Plane, carried_on, diffusion_fill
from app.restoration.repair.grain import grain_for
from app.restoration.repair.inpainting_network import MULTIPLE, FillCorrection
from app.restoration.repair.windows import Window, of_each, windows_of
from app.stages import OnFraction

WIDE_PIXELS = 6  # holes wider than this are the network's
_FILLING_SHARE = 0.7  # of the time; the rest is colour and grain


def fill(
    rgb: Pixels,
    mask: Mask,
    network: FillCorrection | None = None,
    on_fraction: OnFraction = lambda fraction: True,
    *,
    hidden: Mask | None = None,
    with_grain: bool = True,
) -> Pixels:
    """A new picture with the masked pixels filled; outside the mask not one bit changes.

    Args:
        rgb: (H, W, 3) uint8 or uint16 RGB. Where it is grey the fill is grey.
        mask: (H, W), what is to be filled.
        network: corrects wide holes; None: diffusion fills them too.
        on_fraction: told the fraction done after every window.
        hidden: (H, W), what nobody sees (fully transparent), so that no fill is made of it; None: nothing.
        with_grain: False leaves the fill smooth, which is how fills are compared by figures.

    Returns:
        (H, W, 3) of the same dtype.

    Raises:
        Cancelled: `on_fraction` said stop.
    """
    filled, open_holes = rgb.copy(), mask.copy()
    unseen = np.broadcast_to(np.False_, mask.shape) if hidden is None else hidden
    windows = list(windows_of(mask))
    for number, (inner, outer) in enumerate(_from_the_rim(windows, open_holes, unseen)):
        plane = _plane(filled[outer], open_holes[outer], unseen[outer])
        _write(filled, inner, outer, mask, _smooth(plane, open_holes[outer], network))
        open_holes[inner] = False
        _go_on(on_fraction, _FILLING_SHARE * (number + 1) / len(windows))
    smooth = filled.copy()

    def finished(_: Window, outer: Window) -> Plane:
        plane = _plane(smooth[outer], np.broadcast_to(np.False_, mask[outer].shape), unseen[outer])
        plane = without_bleeding(plane, mask[outer])
        if not with_grain:
            return plane
        return plane + grain_for(plane, mask[outer] | unseen[outer], (outer[0].start, outer[1].start))

    for number, ((inner, outer), plane) in enumerate(of_each(windows, finished)):
        _write(filled, inner, outer, mask, plane)
        _go_on(on_fraction, _FILLING_SHARE + (1.0 - _FILLING_SHARE) * (number + 1) / len(windows))
    return filled


def _from_the_rim(
    windows: Sequence[tuple[Window, Window]], open_holes: Mask, unseen: Mask
) -> Iterator[tuple[Window, Window]]:
    """The windows, those that show nothing last; what whoever takes them has filled is no hole any more."""
    waiting, put_off = deque(windows), 0
    while waiting:
        window = waiting.popleft()
        if (open_holes[window[1]] | unseen[window[1]]).all() and put_off < len(waiting):
            waiting.append(window)
            put_off += 1
            continue
        put_off = 0
        yield window


def wide_part(hole: Mask) -> Mask:
    """Where a hole, (H, W) bool, is wider than `WIDE_PIXELS` in every direction."""
    side = WIDE_PIXELS + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_OPEN, disc), dtype=np.bool_)


def correct(network: FillCorrection, begun: Plane, hole: Mask) -> Plane:
    """The network's fill of the whole hole, (H, W) bool: a fill (H, W, 3 or 1) float32 in [0, 1] to the same."""
    height, width = hole.shape
    padding = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
    device = next(network.parameters()).device
    color = np.repeat(begun, 3, axis=2) if begun.shape[2] == 1 else begun
    x = torch.from_numpy(np.ascontiguousarray(color.transpose(2, 0, 1)))[None].to(device)  # (1, 3, H, W)
    where = torch.from_numpy(hole[None, None]).to(x)
    with torch.inference_mode():
        y = network(functional.pad(x, padding, mode="replicate"), functional.pad(where, padding))
    pixels: NDArray[np.float32] = y[0, :, :height, :width].float().clamp(0.0, 1.0).permute(1, 2, 0).cpu().numpy()
    return pixels.mean(axis=2, keepdims=True) if begun.shape[2] == 1 else pixels


def _smooth(begun: Plane, hole: Mask, network: FillCorrection | None) -> Plane:
    """One window, (H, W, C), filled without grain."""
    plane = diffusion_fill(begun, hole)
    wide = wide_part(hole)
    if network is None or not wide.any():
        return plane
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * WIDE_PIXELS + 1,) * 2)
    share = cv2.GaussianBlur(cv2.dilate(wide.astype(np.float32), disc), (0, 0), WIDE_PIXELS / 3)[:, :, None]
    try:
        corrected = correct(network, plane, hole)
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory("out_of_memory", NO_ROOM) from None  # without the traceback, which keeps tensors alive
        raise
    return np.asarray(plane + share * (corrected - plane), dtype=np.float32)


def _plane(pixels: Pixels, hole: Mask, unseen: Mask) -> Plane:
    """(H, W, 3) uint8 or uint16 to float32 in [0, 1]; one channel where everything that is seen is grey."""
    red, green, blue = (pixels[:, :, channel] for channel in range(3))
    colored = (red != green) | (green != blue)
    chosen = pixels if (colored & ~(hole | unseen)).any() else pixels[:, :, :1]
    return carried_on(chosen.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max), hole, unseen)


def _write(target: Pixels, inner: Window, outer: Window, mask: Mask, plane: Plane) -> None:
    """The masked pixels of one window's core, rounded."""
    core = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    where = mask[inner]
    peak = np.iinfo(target.dtype).max
    target[inner][where] = np.rint(np.clip(plane[core][where], 0.0, 1.0) * peak)


def _go_on(on_fraction: OnFraction, fraction: float) -> None:
    if not on_fraction(fraction):
        raise Cancelled
