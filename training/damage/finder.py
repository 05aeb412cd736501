"""A trained segmentation network on whole pictures: probabilities, and the marks made from them."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.restoration.repair.inference import probabilities
from app.restoration.repair.mask import LOW_SHARE

Mask = NDArray[np.bool_]


class Finder:
    """(H, W, 3) uint8 RGB to damage probabilities (H, W) float32 in [0, 1]."""

    def __init__(self, network: nn.Module, autocast: torch.autocast, scales: int = 1) -> None:
        self._network, self._autocast, self._scales = network, autocast, scales

    def __call__(self, scan: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of one picture; with two scales the greater one, for damage wider than a crop of training."""
        found = self._at_one_scale(scan)
        if self._scales == 1:
            return found
        half = np.asarray(cv2.resize(scan, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        size = (scan.shape[1], scan.shape[0])
        wide = np.asarray(cv2.resize(self._at_one_scale(half), size, interpolation=cv2.INTER_LINEAR), dtype=np.float32)
        return np.maximum(found, wide)

    def _at_one_scale(self, scan: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = torch.from_numpy(np.ascontiguousarray(scan.transpose(2, 0, 1)))[None]  # (1, 3, H, W)
        x = x.to(self._autocast.device).float().div_(255.0).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), self._autocast:
            found: NDArray[np.float32] = probabilities(self._network, x).cpu().numpy()
        return found

    def mark(self, probability: NDArray[np.float32], threshold: float) -> Mask:
        """What is damage, (H, W) bool: islands over most of the threshold that reach the threshold somewhere."""
        low = (probability > LOW_SHARE * threshold).astype(np.uint8)
        count, islands = cv2.connectedComponents(low, connectivity=8)
        reaches = np.zeros(count, np.bool_)
        reaches[np.unique(islands[probability > threshold])] = True
        reaches[0] = False
        return np.asarray(reaches[islands], dtype=np.bool_)
