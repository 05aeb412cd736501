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
        """By name; 99 where nothing differs."""
        return {
            name: 10.0 * math.log10(255.0**2 * self._values / squares) if squares else 99.0
            for name, squares in self._squares.items()
        }
