"""Finds out by a small kernel whether a card works here, and says in plain words why it does not.

`torch.cuda.is_available()` alone is no answer: it is True for cards that the installed build of torch has no machine
code for, and for cards that are full or busy.
"""

from __future__ import annotations

import dataclasses
import time
import warnings

import torch
from torch.nn import functional

from app.restoration.device_errors import first_line, is_out_of_memory
from app.restoration.device_memory import free_memory_bytes

NEEDED_BYTES = 512 * 1024 * 1024  # less free memory holds no network with its smallest tile
_DRIVERS = {"12": 525, "13": 580}  # the oldest driver for each CUDA, by NVIDIA's table of minor version compatibility
_TIMED_RUNS = 5
_TEST_SUM = 8 * 6 * 6 * 54.0  # of the convolution below: 8 channels of 6 x 6 pixels, each 27 times 2


@dataclasses.dataclass(frozen=True)
class CardFault:
    """Why a card does not serve.

    Attributes:
        reason: a clause for people, such as "no CUDA device found".
        is_present: a card is there all the same, so that its user must be told.
        may_pass: another program holds the card; it is worth trying again.
    """

    reason: str
    is_present: bool = True
    may_pass: bool = False


def find_card_fault(device: str) -> CardFault | None:
    """None when the card of that name (`cuda:N`) computes and has room, else why not; never raises."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            is_available = torch.cuda.is_available()
        return _tested(device) if is_available else _no_card(" ".join(str(warning.message) for warning in said))
    except Exception as error:  # noqa: BLE001 - whatever it is, this card does not serve
        return _fault_of(error, device)


def run_test_kernel(device: str) -> None:
    """Run a small convolution and read its sum. Raises what torch raises; RuntimeError for a wrong sum."""
    twos = torch.ones(1, 3, 8, 8, device=device) + 1.0
    made = functional.conv2d(twos, torch.ones(8, 3, 3, 3, device=device))  # (1, 8, 6, 6)
    if float(made.sum().item()) != _TEST_SUM:
        raise RuntimeError("a test convolution gave a wrong sum")


def measure_full_precision_ratio(device: str, dtype: torch.dtype) -> float:
    """How many times longer a convolution takes in fp32 than in `dtype` on this device: the median of a few runs."""
    if dtype is torch.float32:
        return 1.0
    return _convolution_seconds(device, torch.float32) / _convolution_seconds(device, dtype)


def _convolution_seconds(device: str, dtype: torch.dtype) -> float:
    """One convolution as the networks have them, the first runs left out."""
    x = torch.zeros(1, 64, 128, 128, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.zeros(64, 64, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    seconds = []
    with torch.inference_mode():
        for _ in range(_TIMED_RUNS):
            began = time.perf_counter()
            functional.conv2d(x, weight, padding=1).flatten()[0].item()  # the reading waits for a card
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)[_TIMED_RUNS // 2]


def _tested(device: str) -> CardFault | None:
    index = torch.device(device).index or 0
    if index >= torch.cuda.device_count():
        return CardFault(f"there is no {device}", is_present=False)
    run_test_kernel(device)
    free = free_memory_bytes(device)
    if free < NEEDED_BYTES:
        name = torch.cuda.get_device_name(index)
        return CardFault(f"{name} is full: {free / 1e6:.0f} MB of its memory are free", may_pass=True)
    return None


def _fault_of(error: Exception, device: str) -> CardFault:
    """An error of the test kernel in words that say what to do."""
    name, text = _name_of(device), str(error).lower()
    if is_out_of_memory(error):
        return CardFault(f"{name} is full: other programs hold its memory", may_pass=True)
    if "busy" in text or "already in use" in text:
        return CardFault(f"{name} is busy: another program uses it alone", may_pass=True)
    if "no kernel image" in text or "invalid device function" in text:
        return CardFault(f"{name} is not supported by the installed build of torch, which has no kernels for it")
    if "driver" in text or "unsupported toolchain" in text:
        return CardFault(_old_driver(name))
    return CardFault(f"{name} failed a test: {first_line(error)}")


def _no_card(said: str) -> CardFault:
    """Why torch finds no card. NVML, which `device_count` asks, also counts those with a driver that is too old."""
    try:
        counted = torch.cuda.device_count()
    except Exception:  # noqa: BLE001 - a broken driver library is no card
        counted = 0
    if counted == 0:
        return CardFault(f"no CUDA device found{_other_accelerator()}", is_present=False)
    if said and "too old" not in said:
        return CardFault(f"a card is there, but CUDA does not start: {said.partition('.')[0]}")
    return CardFault(_old_driver("a card"))


def _old_driver(name: str) -> str:
    cuda = torch.version.cuda or ""
    driver = _DRIVERS.get(cuda.partition(".")[0])
    wanted = f"install driver {driver} or newer" if driver else "install a newer driver"
    return f"{name} is there, but its driver is too old for CUDA {cuda}; {wanted}"


def _other_accelerator() -> str:
    """What is said of an accelerator that this service does not use."""
    try:
        if torch.backends.mps.is_available():
            return "; the Apple GPU (MPS) is not used"
        if torch.xpu.is_available():
            return "; the Intel GPU (XPU) is not used"
    except Exception:  # noqa: BLE001 - a question to a driver must not end the start
        return ""
    return ""


def _name_of(device: str) -> str:
    try:
        return torch.cuda.get_device_name(torch.device(device))
    except Exception:  # noqa: BLE001 - a card that fails may not even tell its name
        return device
