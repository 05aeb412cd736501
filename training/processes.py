"""Several processes that train one network: each takes a share of the batch; gradients are averaged.

Started by `torchrun`, which sets the environment read here; alone, everything is a no-op. It knows nothing of data.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import distributed, nn


def count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this one saves, measures and speaks."""
    return rank() == 0


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """The group of all processes, while training lasts. On a CPU each runs one thread and no more."""
    if count() == 1:
        yield
        return
    if device == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count()))
    else:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def average_gradients(network: nn.Module) -> None:
    """Replace every gradient by its mean over all processes."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(together)
    together.div_(count())
    start = 0
    for gradient in gradients:
        gradient.copy_(together[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
