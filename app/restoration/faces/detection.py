"""Finds faces: facexlib's RetinaFace network (arXiv:1905.00641) with our own preparation and reading of its answer.

Big photos are looked at on a copy with a capped side, and positions are mapped back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.errors import OutOfMemory
from app.images import Pixels
from app.restoration.device import profile_of
from app.restoration.device_errors import is_out_of_memory
from app.restoration.device_memory import release_memory

log = logging.getLogger(__name__)

# The largest anchors are 512 pixels. Measured on photos enlarged to 4000 pixels: at 1280 landmarks stay within a
# tenth of the face's width, at 2048 within a sixth, and at full size, as upstream looks, large faces are lost.
LONGEST_SIDE_PIXELS = 1280
_SMALLEST_SIDE_PIXELS = 320  # of the copy, when memory runs out
SCORE_THRESHOLD = 0.97  # upstream's
_OVERLAP_THRESHOLD = 0.4  # upstream's
_MAX_CANDIDATES = 2000
_MEAN_RGB = (123.0, 117.0, 104.0)
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
_STEPS_AND_SIZES = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))  # of the three feature maps, pixels


@dataclasses.dataclass(frozen=True)
class DetectedFace:
    """One face, in the photo's own pixels.

    Attributes:
        box: (x0, y0, x1, y1); may reach beyond the photo when its border cuts the face.
        score: 0..1, how sure the network is.
        landmarks: (5, 2) float64, x and y of left eye, right eye, nose, left and right corner of the mouth, as seen.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: NDArray[np.float64]


Detect = Callable[[Pixels], list[DetectedFace]]  # (H, W, 3) uint8 or uint16 RGB; see `Detector`


class Detector:
    """Finds all faces of a photo; keeps nothing of it, so several threads may share one.

    Args:
        network: facexlib's RetinaFace, taking RGB.
        device: torch device name.
        longest_side: cap of the copy that is looked at, pixels; out of memory halves it for good.
        step: see `DeviceProfile.detector_step`.
    """

    def __init__(self, network: nn.Module, device: str, longest_side: int = LONGEST_SIDE_PIXELS, step: int = 0) -> None:
        self._network, self._device, self._longest_side, self._step = network, device, longest_side, step

    def __call__(self, rgb: Pixels) -> list[DetectedFace]:
        """Faces with a score above the threshold, best first, each at its place in `rgb`.

        Args:
            rgb: (H, W, 3) uint8 in [0, 255] or uint16 in [0, 65535], RGB.

        Raises:
            OutOfMemory: not even a small copy fits the device. RuntimeError: what else torch raises.
        """
        while True:
            try:
                return self._find(rgb)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                log.warning("out of memory while faces were looked for at %d pixels", self._longest_side)
            # Outside the handler, whose traceback would keep the tensors alive.
            release_memory(self._device)
            if self._longest_side <= _SMALLEST_SIDE_PIXELS:
                text = "The device has too little memory to look for faces; free some, or set face_enhance to false."
                raise OutOfMemory("out_of_memory", text)
            self._longest_side //= 2

    def _find(self, rgb: Pixels) -> list[DetectedFace]:
        small = _cap_side(rgb, self._longest_side)
        with torch.inference_mode():
            offsets, scores, landmarks = self._run(small)
        chosen = np.flatnonzero(scores > SCORE_THRESHOLD)
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:_MAX_CANDIDATES]
        priors = make_priors(*seen_size(small.shape[0], small.shape[1], self._longest_side, self._step))[chosen]
        to_photo = np.array([rgb.shape[1] / small.shape[1], rgb.shape[0] / small.shape[0]])
        boxes = decode_boxes(offsets[chosen], priors) * np.tile(to_photo, 2)  # (N, 4)
        points = decode_landmarks(landmarks[chosen], priors) * to_photo  # (N, 5, 2)
        kept = non_max_suppression(boxes, _OVERLAP_THRESHOLD)
        return [DetectedFace(tuple(boxes[i].tolist()), float(scores[chosen[i]]), points[i]) for i in kept]

    def _run(self, small: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """The network's raw answer for every prior: (P, 4) box offsets, (P,) scores, (P, 10) landmark offsets."""
        centred = small.astype(np.float32) - np.array(_MEAN_RGB, np.float32)
        seen = seen_size(small.shape[0], small.shape[1], self._longest_side, self._step)
        if seen != small.shape[:2]:
            centred = np.pad(centred, ((0, seen[0] - small.shape[0]), (0, seen[1] - small.shape[1]), (0, 0)))
        x = torch.from_numpy(centred).to(self._device).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W), NHWC in memory
        boxes, scores, landmarks = self._network(x)  # (1, P, 4), (1, P, 2) of background and face, (1, P, 10)
        return boxes[0].cpu().numpy(), scores[0, :, 1].cpu().numpy(), landmarks[0].cpu().numpy()


def build_detector(kind: str, state: Mapping[str, Tensor], device: str) -> Detector:
    """facexlib's RetinaFace with the weights of `state`, ready to run in fp32.

    Args:
        kind: `resnet50` or `mobile0.25`, facexlib's names.
        state: state dict of one of facexlib's `detection_*.pth` files; trained on BGR, turned to RGB here.
        device: torch device name.

    Raises:
        RuntimeError: the state's keys or shapes belong to another network.
    """
    from facexlib.detection.retinaface import RetinaFace

    with suppress_warnings():  # torchvision warns of the words that facexlib uses
        network = RetinaFace(kind, device=torch.device("cpu"))
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    fuse_batch_norms(network)
    first = next(layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    first.weight.data = first.weight.data.flip(1)  # trained on BGR; from here on it takes RGB
    network.requires_grad_(False).to(device, memory_format=torch.channels_last)
    return Detector(network, device, step=profile_of(device).detector_step)


def _cap_side(rgb: Pixels, longest_side: int) -> NDArray[Any]:
    """(H, W, 3) to (h, w, 3), its longer side capped, in [0, 255]: uint8, or float32 where it was 16-bit."""
    height, width = rgb.shape[:2]
    factor = longest_side / max(height, width)
    small: Any = rgb
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    if small.dtype == np.uint16:
        small = small.astype(np.float32) * np.float32(255 / 65535)
    return np.asarray(small)


def seen_size(height: int, width: int, longest_side: int, step: int) -> tuple[int, int]:
    """(height, width) that the network sees of a copy of this size: its own (`step` 0), or filled up to one of few."""
    if not step:
        return height, width
    shorter = -(-min(height, width) // step) * step
    longer = max(longest_side, shorter)
    return (longer, shorter) if height > width else (shorter, longer)


def make_priors(height: int, width: int) -> NDArray[np.float32]:
    """The network's anchors for a picture of that size: (P, 4) float32 centre x, y, width, height in pixels.

    In the network's own order: feature maps from fine to coarse, rows, columns, two sizes at each place.
    """
    blocks = []
    for step, sizes in _STEPS_AND_SIZES:
        rows, columns = -(-height // step), -(-width // step)
        y, x, side = np.meshgrid(
            (np.arange(rows, dtype=np.float32) + 0.5) * step,
            (np.arange(columns, dtype=np.float32) + 0.5) * step,
            np.array(sizes, np.float32),
            indexing="ij",
        )
        blocks.append(np.stack([x, y, side, side], axis=3).reshape(-1, 4))
    return np.concatenate(blocks)


def decode_boxes(offsets: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, 4) offsets to (N, 4) corners x0, y0, x1, y1 in pixels, as SSD encodes them (arXiv:1512.02325)."""
    centres = priors[:, :2].astype(np.float64) + offsets[:, :2] * _CENTRE_VARIANCE * priors[:, 2:]
    halves = priors[:, 2:].astype(np.float64) * np.exp(offsets[:, 2:] * _SIZE_VARIANCE) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def decode_landmarks(offsets: NDArray[np.float32], priors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, 10) offsets to (N, 5, 2) points x, y in pixels, as facexlib's `decode_landm`."""
    points = offsets.reshape(-1, 5, 2).astype(np.float64) * _CENTRE_VARIANCE
    return points * priors[:, None, 2:] + priors[:, None, :2]


def non_max_suppression(boxes: NDArray[np.float64], threshold: float) -> list[int]:
    """Greedy non-maximum suppression: each box drops those after it that overlap it by more than `threshold`.

    Args:
        boxes: (N, 4) corners x0, y0, x1, y1, best first.
        threshold: of intersection over union, 0..1.

    Returns:
        Indices of the boxes that stay, best first.
    """
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    waiting, kept = np.arange(len(boxes)), []
    while len(waiting):
        best, waiting = int(waiting[0]), waiting[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[waiting, :2])
        high = np.minimum(boxes[best, 2:], boxes[waiting, 2:])
        shared = np.clip(high - low, 0, None).prod(axis=1)
        waiting = waiting[shared <= threshold * (areas[best] + areas[waiting] - shared)]
    return kept


def fuse_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm that follows a convolution among the children of one parent, at any depth, in place.

    The same function up to rounding, without a pass over memory for each norm. The module must be in eval mode and
    its children must run in the order in which they are registered (true of facexlib's and torchvision's networks).
    """
    module.eval()
    before: tuple[str, nn.Conv2d] | None = None
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d) and before is not None:
            setattr(module, before[0], fuse_conv_bn_eval(before[1], child))
            setattr(module, name, nn.Identity())
        elif not isinstance(child, nn.Conv2d):
            fuse_batch_norms(child)
        before = (name, child) if isinstance(child, nn.Conv2d) else None


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """No warnings of Python meanwhile; used only while a network is loaded, never while photos are restored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
