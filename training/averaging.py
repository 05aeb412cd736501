"""The exponential mean of a network's weights (EMA), which is what is measured and exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def exponential_mean(decay: float) -> Callable[[Any, Any, Any], None]:
    """For `AveragedModel`: a mean that begins short, so that it soon forgets the untrained network.

    Counters among the buffers, which are whole numbers, are copied.
    """

    def average(means: list[Tensor], values: list[Tensor], updates: Tensor | int) -> None:
        if not means[0].is_floating_point():
            torch._foreach_copy_(means, values)
            return
        share = 1.0 - min(decay, (1.0 + int(updates)) / (10.0 + int(updates)))
        torch._foreach_lerp_(means, values, share)

    return average
