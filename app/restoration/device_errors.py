"""What an error of torch means: out of memory in all its words, a fault of the device, or a device that is lost.

After a fault in a kernel (an illegal access, a device assert, an ECC error, a card that fell off the bus) every later
call of the same process fails too; only a new process helps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from app.errors import DeviceLost, OutOfMemory
from app.restoration.device_memory import release_memory

log = logging.getLogger(__name__)

Made = TypeVar("Made")

# In lower case. cuDNN swallows the allocator's error and says that no engine was found; handles of cuBLAS and cuDNN are
# made outside of torch's allocator.
_OUT_OF_MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "unable to find an engine",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",
    "cudnn_status_alloc_failed",
    "cudnn_status_not_initialized",
    "device_allocation_failed",
    "host_allocation_failed",
    "hipblas_status_alloc_failed",
    "miopenstatusallocfailed",
)
_DEVICE_WORDS = ("cuda", "cudnn", "cublas", "hip error", "miopen", "nvrtc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch (its allocators, cuDNN or cuBLAS under it) or Python said that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY_WORDS)


def is_device_error(error: BaseException) -> bool:
    """Whether the device failed, not what was given to it: a weight file is not to blame for it."""
    if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _DEVICE_WORDS)


def answers(device: str) -> bool:
    """Whether a device still computes: 1 is added to a small tensor, and the sum is read."""
    if device == "cpu":
        return True
    try:
        return float((torch.zeros(1, device=device) + 1.0).item()) == 1.0
    except Exception as error:  # noqa: BLE001 - what a lost device raises differs by fault and version
        return is_out_of_memory(error)  # a full card computes, it only has no room for the test


def raise_if_lost(device: str, error: Exception) -> None:
    """After an unknown error: raise `DeviceLost` when the device computes no more in this process."""
    if not answers(device):
        log.critical("the device %s is lost for this process", device, exc_info=error)
        raise DeviceLost(f"{device} is lost: {first_line(error)}") from error


def load_with_room(load: Callable[[], Made], make_room: Callable[[], None], device: str) -> Made:
    """What `load` makes; when memory runs out, `make_room` drops what can be made again, and it is tried once more.

    Raises:
        OutOfMemory: it does not fit even so. What else `load` raises.
    """
    try:
        return load()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        log.warning("out of memory while a network was loaded on %s", device)
    # Outside the handler, whose traceback would keep the tensors alive.
    make_room()
    release_memory(device)
    try:
        return load()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release_memory(device)
    raise OutOfMemory(
        "out_of_memory",
        "The device has too little free memory to load the network; end other programs that use it, or set DEVICE=cpu.",
    )


def first_line(error: BaseException) -> str:
    """An error's own words without what torch adds about debugging."""
    return str(error).partition("\n")[0].strip() or type(error).__name__
