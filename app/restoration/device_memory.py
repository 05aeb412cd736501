"""How much memory a device has and has left, and what is done with memory that was freed.

A card's memory that torch's allocator keeps for later counts as free: the next tensor takes it from there.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

import torch

from app.memory_limit import available_bytes, budget_bytes

# glibc's mallopt parameters, from malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_PAD_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks instead of handing them back to the kernel at every tensor.

    A fresh mapping costs a page fault per 4 KiB; measured 1.45 to 2.25 times on upstream's fp32 path, 1.05 to 1.1
    times on ours. The heap keeps at most what the largest tile needed. Returns False where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    limit = 2**31 - 1
    # One arena for all threads: in any other than the main one glibc maps large blocks afresh, whatever the thresholds.
    values = ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, limit), (_M_TRIM_THRESHOLD, limit), (_M_TOP_PAD, _PAD_BYTES))
    taken = [mallopt(name, value) == 1 for name, value in values]
    return all(taken)


def free_memory_bytes(device: str) -> int:
    """Memory that a restoration may still take on `device`; on a card what torch keeps unused is part of it."""
    if device == "cpu":
        return available_bytes()
    card = torch.device(device)
    free, _ = torch.cuda.mem_get_info(card)
    return int(free + torch.cuda.memory_reserved(card) - torch.cuda.memory_allocated(card))


def total_memory_bytes(device: str) -> int:
    """All memory of a card, or of the slice of one (MIG) that this process sees: the same at every start."""
    if device == "cpu":
        return budget_bytes()
    _, total = torch.cuda.mem_get_info(torch.device(device))
    return int(total)


def release_memory(device: str) -> None:
    """Give back what torch's allocator keeps for later; nothing on a CPU, whose heap keeps freed blocks by choice."""
    if device != "cpu":
        with contextlib.suppress(RuntimeError):  # a card that is lost has nothing to give back
            torch.cuda.empty_cache()
