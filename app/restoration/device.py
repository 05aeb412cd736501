"""Chooses device and precision, each with the reason, and tunes the process for restoration on it.

How the torch code differs from device to device stands in its `DeviceProfile`, and nowhere else. Nothing happens at
import time; the entrances call these functions once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from app.errors import Unavailable
from app.options import CARD_FAILED, HUNG_OFTEN, Quality
from app.restoration.device_memory import keep_freed_memory
from app.restoration.device_probe import find_card_fault

log = logging.getLogger(__name__)

# The chips TU116 and TU117, which give NaN or black in fp16: torch tells their names, not their numbers.
_BROKEN_FP16 = re.compile(r"GTX 16\d\d|\bT(400|500|550|600|1000|1200|2000)\b|\bMX(450|550)\b|\bCMP 30HX\b")
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 names, then Arm's
SLOW_BF16 = (
    "asked for by PRECISION, but this CPU has no bf16 instructions, so it is many times slower than fp32; "
    "set PRECISION=auto"
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Choice:
    """A value chosen for the user, and why; the reason is logged once and shown in health.

    Attributes:
        value: what was chosen.
        reason: a clause for people.
        is_fallback: a card is there, or was asked for, and is not used: its user must be told.
        may_pass: the reason may pass (another program holds the card), so it is worth choosing again.
        is_slow: it was asked for, and another value is many times faster here: its user must be told.
    """

    value: str
    reason: str
    is_fallback: bool = False
    may_pass: bool = False
    is_slow: bool = False


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    """What the torch code does differently on one kind of device than on another.

    Attributes:
        tile_pixels: tile side by architecture, when memory allows it.
        fixed_tiling: tiles and batches follow all the memory that the device has, and are kept from photo to photo, so
            that equal photos give equal bytes; else what is free counts, photo by photo.
        window_step: windows measure multiples of so many pixels: each new shape costs a card new plans of its kernels.
        batch: small windows that go through an upscaling network at once.
        reports_parts: one run takes seconds and can say how far it is; elsewhere nobody knows before it ends.
        fuses_layers: the trunk without concatenations and the fused upsampling convolutions are faster.
        tail_band_rows: ESRGAN's enlarging end runs over bands of so many rows, in an eighth of the memory; 0: whole.
        pixel_band_rows: results become integers in bands of so many rows, which stay in the cache; 0: whole.
        faces_one_by_one: one face after another is faster than a batch of them. Else batches have one size and are
            filled up, so that a face comes out the same in any company.
        detector_step: faces are looked for in few shapes: the longer side filled up to its cap, the shorter to a
            multiple of so many pixels; 0: in the photo's own.
        plans_by_shape: the first run of each shape is slow, for it plans its kernels.
        has_fallback: the CPU can do the work instead, where the device fails.
        released_when_idle: memory goes back to other programs after IDLE_RELEASE_MINUTES without work.
    """

    tile_pixels: Mapping[str, int]
    fixed_tiling: bool
    window_step: int
    batch: int
    reports_parts: bool
    fuses_layers: bool
    tail_band_rows: int
    pixel_band_rows: int
    faces_one_by_one: bool
    detector_step: int
    plans_by_shape: bool
    has_fallback: bool
    released_when_idle: bool


# Two CPU cores compute at the same rate at any tile from 230 to 1,090 pixels, so a larger tile only saves context;
# these sides bound the memory. ESRGAN: 192 -> 127, 256 -> 116, 384 -> 107 us a pixel; compact: 384 -> 8.0, 640 -> 7.2,
# 1024 -> 6.5.
_CPU = DeviceProfile(
    tile_pixels={"esrgan": 384, "compact": 640},
    fixed_tiling=False,
    window_step=1,
    batch=1,
    reports_parts=True,
    fuses_layers=True,
    tail_band_rows=64,
    pixel_band_rows=64,
    faces_one_by_one=True,
    detector_step=0,
    plans_by_shape=False,
    has_fallback=False,
    released_when_idle=False,
)
_CUDA = DeviceProfile(
    tile_pixels={"esrgan": 512, "compact": 1024},
    fixed_tiling=True,
    window_step=32,
    batch=4,
    reports_parts=False,
    fuses_layers=False,
    tail_band_rows=0,
    pixel_band_rows=0,
    faces_one_by_one=False,
    detector_step=64,
    plans_by_shape=True,
    has_fallback=True,
    released_when_idle=True,
)


def profile_of(device: str) -> DeviceProfile:
    """The profile of a torch device, by its name: the networks that are built for it keep it."""
    return _CPU if torch.device(device).type == "cpu" else _CUDA


def default_quality_of(device: str) -> Quality:
    """The quality that a photo gets on a device when nobody asks for one: what ends within seconds there."""
    return Quality.FAST if device == "cpu" else Quality.BALANCED


_SAID_BY_SUPERVISOR = {
    CARD_FAILED: "the service lost its card twice in ten minutes, or once and then hung",
    HUNG_OFTEN: "the service hung twice in ten minutes, which a card may cause",
}


def choose_device(asked: str) -> Choice:
    """`auto`, `cpu`, `cuda` or `cuda:N` to a torch device name; a card is taken only after it has run a test kernel.

    A card that is full or busy leaves the work to the CPU for now, also where it was asked for by name.

    Raises:
        Unavailable: `device_unavailable` when a CUDA device was asked for by name and is not there, or cannot work.
    """
    if asked == "cpu":
        return Choice("cpu", "asked for by DEVICE")
    if asked in _SAID_BY_SUPERVISOR:
        return Choice("cpu", f"{_SAID_BY_SUPERVISOR[asked]}; check it, then start the service again", True)
    name = "cuda:0" if asked in ("auto", "cuda") else asked
    fault = find_card_fault(name)
    if fault is None:
        return Choice(name, f"{torch.cuda.get_device_name(torch.device(name))} found")
    if asked != "auto" and not fault.may_pass:
        why = f"cannot be used: {fault.reason}" if fault.is_present else "is not there"
        raise Unavailable("device_unavailable", f"DEVICE={asked} was asked for but {why}; use DEVICE=auto or cpu.")
    return Choice("cpu", fault.reason, fault.is_present, fault.may_pass)


def choose_precision(asked: str, device: str) -> Choice:
    """`auto`, `fp32`, `bf16` or `fp16` to the precision the networks run in on `device`.

    fp16 on a CPU is refused in favour of fp32: torch has no fast kernels for it there. On CUDA it is taken where there
    is no bf16, but for the chips that give NaN or black in it.
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
    name = torch.cuda.get_device_name(torch.device(device))
    if _BROKEN_FP16.search(name):
        return Choice("fp32", f"{name} gives NaN or black in fp16, and has no bf16")
    if (major, minor) >= (7, 0):
        return Choice("fp16", f"compute capability {major}.{minor} has fast fp16 and no bf16")
    return Choice("fp32", f"compute capability {major}.{minor} has no reliable half precision")


def _cpu_precision(asked: str) -> Choice:
    if asked == "fp32":
        return Choice("fp32", "asked for by PRECISION")
    if asked == "fp16":
        return Choice("fp32", "fp16 is not usable on a CPU")
    flags = cpu_flags()
    found = sorted(_BF16_FLAGS & flags)
    if asked == "bf16":
        if flags and not found:
            return Choice("bf16", SLOW_BF16, is_slow=True)
        return Choice("bf16", "asked for by PRECISION")
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


def describe_card(device: str) -> dict[str, Any]:
    """The graphics card behind `device`, JSON-ready: `card`, `card_memory_gb`, `cuda`; empty without one."""
    if device == "cpu":
        return {}
    card = torch.cuda.get_device_properties(torch.device(device))
    return {"card": card.name, "card_memory_gb": round(card.total_memory / 1e9), "cuda": torch.version.cuda}


def prepare(device: str) -> None:
    """Tune this process for `device`, once: freed host memory is kept, and a card computes in a repeatable way."""
    kept = keep_freed_memory()
    log.info("freed memory is %s", "kept" if kept else "handed back, there is no mallopt here")
    if device != "cpu":
        torch.cuda.set_device(torch.device(device))
        fix_kernels(device)


def fix_kernels(device: str) -> None:
    """On a card: equal input gives equal bytes, and fp32 means fp32. Nothing on a CPU.

    A search (`benchmark`) picks kernels by time and by the memory that is free, and costs seconds for each new size;
    without `deterministic` a plan may add in any order; cuDNN's default for fp32 is TF32, with a mantissa of 10 bits.
    """
    if device != "cpu":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        # Not `cudnn.conv.fp32_precision`: once that is set, reading `allow_tf32` raises (seen with torch 2.15).
        torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def current_device(device: str) -> Iterator[None]:
    """Meanwhile `device` is this thread's current card: streams and pinned memory follow that, not the tensors."""
    if device == "cpu":
        yield
        return
    with torch.cuda.device(torch.device(device)):
        yield


def describe_kind(device: str) -> str:
    """The kind of a device and the version of torch, which together decide the last bits of a result."""
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(torch.device(device))
    return f"{name}, torch {torch.__version__}"
