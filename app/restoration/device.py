"""Chooses device and precision, each with the reason, and tunes the process for restoration on it.

The only module that asks which kind of device a name is: all others read the facts of its `DeviceProfile`. Nothing
happens at import time; the entrances call these functions once.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from app.errors import Unavailable
from app.options import Quality

log = logging.getLogger(__name__)

# glibc's mallopt parameters, from malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_PAD_BYTES = 64 * 1024 * 1024
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 names, then Arm's
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value chosen for the user, and why; the reason is logged once and shown in health."""

    value: str
    reason: str


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    """What the torch code does differently on one kind of device than on another.

    Attributes:
        tile_pixels: tile side by architecture, when memory allows it.
        batch: windows that go through an upscaling network at once.
        reports_parts: one run takes seconds and can say how far it is; elsewhere nobody knows before it ends.
        fuses_layers: the trunk without concatenations and the fused upsampling convolutions are faster.
        tail_band_rows: ESRGAN's enlarging end runs over bands of so many rows, in an eighth of the memory; 0: whole.
        pixel_band_rows: results become integers in bands of so many rows, which stay in the cache; 0: whole.
        faces_one_by_one: one face after another is faster than a batch of them.
    """

    tile_pixels: Mapping[str, int]
    batch: int
    reports_parts: bool
    fuses_layers: bool
    tail_band_rows: int
    pixel_band_rows: int
    faces_one_by_one: bool


# Two CPU cores compute at the same rate at any tile from 230 to 1,090 pixels, so a larger tile only saves context;
# these sides bound the memory. ESRGAN: 192 -> 127, 256 -> 116, 384 -> 107 us a pixel; compact: 384 -> 8.0, 640 -> 7.2,
# 1024 -> 6.5.
_CPU = DeviceProfile({"esrgan": 384, "compact": 640}, 1, True, True, 64, 64, True)
_CUDA = DeviceProfile({"esrgan": 512, "compact": 1024}, 4, False, False, 0, 0, False)


def profile_of(device: str) -> DeviceProfile:
    """The profile of a torch device, by its name: the networks that are built for it keep it."""
    return _CPU if torch.device(device).type == "cpu" else _CUDA


def default_quality_of(device: str) -> Quality:
    """The quality that a photo gets on a device when nobody asks for one: what ends within seconds there."""
    return Quality.FAST if device == "cpu" else Quality.BALANCED


def choose_device(asked: str) -> Choice:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a torch device name.

    Raises:
        Unavailable: `device_unavailable` when a CUDA device was asked for by name and is not there.
    """
    if asked == "cpu":
        return Choice("cpu", "asked for by DEVICE")
    if torch.cuda.is_available():
        value = "cuda:0" if asked in ("auto", "cuda") else asked
        index = int(value.partition(":")[2])
        if index < torch.cuda.device_count():
            return Choice(value, f"{torch.cuda.get_device_name(index)} found")
    if asked != "auto":
        raise Unavailable(
            "device_unavailable", f"DEVICE={asked} was asked for but is not there; use DEVICE=auto or cpu."
        )
    return Choice("cpu", "no CUDA device found")


def choose_precision(asked: str, device: str) -> Choice:
    """`auto`, `fp32`, `bf16` or `fp16` to the precision the networks run in on `device`.

    fp16 on a CPU is refused in favour of fp32: torch has no fast kernels for it there. On CUDA fp16 is only taken when
    asked for, because some cards give NaN or black in it.
    """
    if device == "cpu":
        return _cpu_precision(asked)
    major, minor = torch.cuda.get_device_capability(torch.device(device))
    has_bf16 = major >= 8
    if asked == "bf16" and not has_bf16:
        return Choice("fp32", f"bf16 was asked for, but compute capability {major}.{minor} lacks it")
    if asked != "auto":
        return Choice(asked, "asked for by PRECISION")
    if has_bf16:
        return Choice("bf16", f"compute capability {major}.{minor} has fast bf16")
    if (major, minor) >= (7, 0) and "GTX 16" not in torch.cuda.get_device_name(torch.device(device)):
        return Choice("fp16", f"compute capability {major}.{minor} has fast fp16 and no bf16")
    return Choice("fp32", f"compute capability {major}.{minor} has no reliable half precision")


def _cpu_precision(asked: str) -> Choice:
    if asked == "fp32":
        return Choice("fp32", "asked for by PRECISION")
    if asked == "fp16":
        return Choice("fp32", "fp16 is not usable on a CPU")
    if asked == "bf16":
        return Choice("bf16", "asked for by PRECISION")
    found = sorted(_BF16_FLAGS & cpu_flags())
    if found:
        return Choice("bf16", f"this CPU has {found[0]}")
    return Choice("fp32", "this CPU has no bf16 instructions")


def cpu_flags() -> frozenset[str]:
    """The CPU's feature words as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


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
    """Memory that a restoration may still take on `device`."""
    if device == "cpu":
        return _available_bytes()
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return int(free)


def _available_bytes() -> int:
    """Main memory that can be had without swapping; what is free at once where psutil is not installed."""
    try:
        import psutil
    except ImportError:  # a machine with torch and the model packages alone
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(psutil.virtual_memory().available)


def describe_card(device: str) -> dict[str, Any]:
    """The graphics card behind `device`, JSON-ready: `card`, `card_memory_gb`, `cuda`; empty without one."""
    if device == "cpu":
        return {}
    card = torch.cuda.get_device_properties(torch.device(device))
    return {"card": card.name, "card_memory_gb": round(card.total_memory / 1e9), "cuda": torch.version.cuda}


def release_memory(device: str) -> None:
    """Give back what torch's allocator keeps for later; nothing on a CPU, whose heap keeps freed blocks by choice."""
    if device != "cpu":
        torch.cuda.empty_cache()


def prepare(device: str) -> None:
    """Tune torch for `device` once per process: cuDNN may search for the best kernel since tile shapes are fixed."""
    if device == "cpu":
        kept = keep_freed_memory()
        log.info("freed memory is %s", "kept" if kept else "handed back, there is no mallopt here")
    else:
        torch.backends.cudnn.benchmark = True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch (CUDA or CPU allocator) or Python said that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
