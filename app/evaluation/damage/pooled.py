"""Figures of several fills of the same holes, pooled over all pixels of all holes: a small hole weighs little."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.scans import Mask


class PooledPsnr:
    """PSNR of several fills of the same holes, pooled over all pixels of all holes."""

    def __init__(self) -> None:
        self._squares: dict[str, float] = {}
        self._values = 0

    def add(self, fills: Mapping[str, NDArray[np.uint8]], target: NDArray[np.uint8], where: Mask) -> None:
        """Fills by name and the target, (H, W, 3) uint8, compared where (H, W) is true."""
        self._values += 3 * int(where.sum())
        for name, fill in fills.items():
            difference = fill[where].astype(np.float64) - target[where]
            self._squares[name] = self._squares.get(name, 0.0) + float((difference**2).sum())

    def decibels(self) -> dict[str, float]:
        """By name; 99 where nothing differs, empty where no pixel was compared."""
        if not self._values:
            return {}
        return {
            name: 10.0 * math.log10(255.0**2 * self._values / squares) if squares else 99.0
            for name, squares in self._squares.items()
        }


class PooledSsim:
    """Mean SSIM of several fills of the same holes over all pixels of all holes."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._pixels = 0

    def add(self, maps: Mapping[str, NDArray[np.float64]], where: Mask) -> None:
        """SSIM at each pixel by name, (H, W), counted where (H, W) is true."""
        self._pixels += int(where.sum())
        for name, each in maps.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(each[where].sum())

    def means(self) -> dict[str, float]:
        """By name; empty where no pixel was counted."""
        return {name: total / self._pixels for name, total in self._sums.items()} if self._pixels else {}
