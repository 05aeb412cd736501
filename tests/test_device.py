"""The choice of device and precision, each with its reason, and what errors of torch mean. No card is needed.

Torch's answers are put in its place: a card's own faults are shown by a card alone (`benchmarks.cuda_check`).
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from app.errors import DeviceLost, OutOfMemory, Unavailable
from app.options import CARD_FAILED, HUNG_OFTEN
from app.restoration import device, device_errors, device_memory, device_probe
from app.restoration.setup import Setup


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d=None: name)
    monkeypatch.setattr(device_probe, "run_test_kernel", lambda d: None)
    pretend_memory(monkeypatch, free=20_000_000_000)


def pretend_memory(monkeypatch: pytest.MonkeyPatch, *, free: int, reserved: int = 0, allocated: int = 0) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda d=None: (free, 24_000_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda d=None: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda d=None: allocated)


def raising(error: Exception) -> Callable[[str], None]:
    def run(_device: str) -> None:
        raise error

    return run


def test_auto_without_cuda_is_the_cpu_and_says_why(no_cuda: None) -> None:
    assert device.choose_device("auto") == device.Choice("cpu", "no CUDA device found")


@pytest.mark.parametrize("asked", ["cuda", "cuda:3"])
def test_a_cuda_device_asked_for_and_absent_is_an_error(asked: str, no_cuda: None) -> None:
    with pytest.raises(Unavailable) as caught:
        device.choose_device(asked)
    assert caught.value.code == "device_unavailable"


def test_a_second_card_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, (9, 0), "NVIDIA H200")
    assert device.choose_device("auto") == device.Choice("cuda:0", "NVIDIA H200 found")
    with pytest.raises(Unavailable):
        device.choose_device("cuda:1")


# What a card answers to the test kernel, in torch's words, and what is made of it: part of the reason, worth a retry.
FAULTS = {
    "no kernels": (
        torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device\nSearch for ..."),
        "not supported by the installed build of torch",
        False,
    ),
    "busy": (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "is busy", True),
    "full": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), "is full", True),
    "full, as cuDNN says it": (RuntimeError("FIND was unable to find an engine to execute this"), "is full", True),
    "old driver": (
        RuntimeError("CUDA driver version is insufficient for CUDA runtime version"),
        "driver is too old",
        False,
    ),
    "broken": (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "uncorrectable ECC error", False),
}


@pytest.mark.parametrize(("error", "part", "may_pass"), FAULTS.values(), ids=list(FAULTS))
def test_a_card_is_taken_only_after_a_test_kernel(
    error: Exception, part: str, may_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, (6, 1), "NVIDIA GeForce GTX 1080")
    monkeypatch.setattr(device_probe, "run_test_kernel", raising(error))
    choice = device.choose_device("auto")
    assert choice.value == "cpu"
    assert part in choice.reason
    assert "\n" not in choice.reason
    assert (choice.is_fallback, choice.may_pass) == (True, may_pass)
    if may_pass:
        assert device.choose_device("cuda:0").value == "cpu"
    else:
        with pytest.raises(Unavailable, match=part):
            device.choose_device("cuda:0")


def test_the_test_kernel_finds_a_device_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    device_probe.run_test_kernel("cpu")
    monkeypatch.setattr(functional, "conv2d", lambda x, w: torch.zeros(1, 8, 6, 6))
    with pytest.raises(RuntimeError, match="wrong sum"):
        device_probe.run_test_kernel("cpu")


def test_a_card_without_free_memory_is_full_and_torchs_own_cache_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cuda(monkeypatch, (8, 6), "NVIDIA RTX A4000")
    pretend_memory(monkeypatch, free=100_000_000)
    assert device.choose_device("auto") == device.Choice(
        "cpu", "NVIDIA RTX A4000 is full: 100 MB of its memory are free", True, True
    )
    pretend_memory(monkeypatch, free=100_000_000, reserved=9_000_000_000, allocated=1_000_000_000)
    assert device_memory.free_memory_bytes("cuda:0") == 8_100_000_000
    assert device.choose_device("auto").value == "cuda:0"


def test_a_driver_that_is_too_old_is_told_from_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (found version 12040).", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # NVML's count
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    choice = device.choose_device("auto")
    assert choice == device.Choice(
        "cpu", "a card is there, but its driver is too old for CUDA 13.2; install driver 580 or newer", True
    )
    with pytest.raises(Unavailable, match="install driver 580"):
        device.choose_device("cuda")


def test_a_driver_that_does_not_start_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("CUDA initialization: CUDA unknown error. Setting the devices to zero", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "CUDA does not start: CUDA initialization: CUDA unknown error" in device.choose_device("auto").reason


@pytest.mark.parametrize(("module", "word"), [("mps", "MPS"), ("xpu", "XPU")])
def test_an_accelerator_of_another_maker_is_named_and_left(
    module: str, word: str, no_cuda: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mps if module == "mps" else torch.xpu, "is_available", lambda: True)
    choice = device.choose_device("auto")
    assert (choice.value, choice.is_fallback) == ("cpu", False)
    assert word in choice.reason


def test_auto_never_fails_whatever_a_driver_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> bool:
        raise OSError("libamdhip64.so: cannot open shared object file")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", broken)
    monkeypatch.setattr(torch.xpu, "is_available", broken)
    assert device.choose_device("auto").value == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.choose_device("auto").value == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", broken)
    assert device.choose_device("auto").value == "cpu"


@pytest.mark.parametrize(("asked", "reason"), [(CARD_FAILED, "lost its card twice"), (HUNG_OFTEN, "hung twice")])
def test_a_card_that_failed_too_often_is_not_even_asked(
    asked: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("asked"))
    choice = device.choose_device(asked)
    assert reason in choice.reason
    assert (choice.value, choice.is_fallback, choice.may_pass) == ("cpu", True, False)


@pytest.mark.parametrize(
    ("capability", "name", "asked", "chosen"),
    [
        ((9, 0), "NVIDIA H200", "auto", "bf16"),
        ((8, 6), "NVIDIA RTX A4000", "auto", "bf16"),
        ((7, 5), "Tesla T4", "auto", "fp16"),
        ((7, 5), "NVIDIA GeForce GTX 1660", "auto", "fp32"),
        ((7, 5), "NVIDIA GeForce GTX 1650 Ti with Max-Q Design", "auto", "fp32"),
        ((7, 5), "NVIDIA T400 4GB", "auto", "fp32"),
        ((7, 5), "NVIDIA T500", "auto", "fp32"),
        ((7, 5), "NVIDIA T550 Laptop GPU", "auto", "fp32"),
        ((7, 5), "NVIDIA T600", "auto", "fp32"),
        ((7, 5), "NVIDIA T1000 8GB", "auto", "fp32"),
        ((7, 5), "NVIDIA T1200 Laptop GPU", "auto", "fp32"),
        ((7, 5), "Quadro T2000", "auto", "fp32"),
        ((7, 5), "NVIDIA GeForce MX450", "auto", "fp32"),
        ((7, 5), "NVIDIA GeForce MX550", "auto", "fp32"),
        ((7, 5), "NVIDIA CMP 30HX", "auto", "fp32"),
        ((7, 5), "NVIDIA GeForce RTX 2080 Ti", "auto", "fp16"),
        ((7, 5), "Quadro RTX 4000", "auto", "fp16"),
        ((8, 9), "NVIDIA RTX 2000 Ada Generation", "auto", "bf16"),
        ((6, 1), "NVIDIA GeForce GTX 1080", "auto", "fp32"),
        ((7, 5), "Tesla T4", "bf16", "fp32"),
        ((9, 0), "NVIDIA H200", "fp32", "fp32"),
        ((9, 0), "NVIDIA H200", "fp16", "fp16"),
    ],
)
def test_cuda_precision_by_card(
    capability: tuple[int, int], name: str, asked: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_cuda(monkeypatch, capability, name)
    choice = device.choose_precision(asked, "cuda:0")
    assert choice.value == chosen
    assert choice.reason


@pytest.mark.parametrize(
    ("flags", "asked", "chosen"),
    [
        ({"avx2"}, "auto", "fp32"),
        ({"avx512_bf16"}, "auto", "bf16"),
        ({"amx_bf16", "avx512f"}, "auto", "bf16"),
        ({"avx512_bf16"}, "fp32", "fp32"),
        ({"avx512_bf16"}, "fp16", "fp32"),
        (set(), "bf16", "bf16"),
    ],
)
def test_cpu_precision_by_instructions_and_never_fp16(
    flags: set[str], asked: str, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    assert device.choose_precision(asked, "cpu").value == chosen


@pytest.mark.parametrize(
    ("flags", "asked", "slow"),
    [
        ({"avx2"}, "bf16", True),
        ({"avx2"}, "auto", False),
        ({"avx512_bf16"}, "bf16", False),
        (set(), "bf16", False),  # a system that does not name its instructions
    ],
)
def test_bf16_without_instructions_for_it_is_called_slow(
    flags: set[str], asked: str, slow: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(flags))
    choice = device.choose_precision(asked, "cpu")
    assert choice.is_slow == slow
    assert ("many times slower" in choice.reason) == slow


OUT_OF_MEMORY_WORDS = [
    "CUDA error: out of memory",
    "DefaultCPUAllocator: can't allocate memory: you tried",
    "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
    "FIND was unable to find an engine to execute this computation",
    "GET was unable to find an engine to execute this computation",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
]


@pytest.mark.parametrize("words", OUT_OF_MEMORY_WORDS)
def test_out_of_memory_is_known_in_all_its_words(words: str) -> None:
    assert device_errors.is_out_of_memory(RuntimeError(words))
    assert device_errors.is_device_error(RuntimeError(words))


def test_only_memory_errors_count_as_out_of_memory() -> None:
    assert device_errors.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert device_errors.is_out_of_memory(torch.AcceleratorError("CUDA error: out of memory"))
    assert device_errors.is_out_of_memory(MemoryError())
    assert not device_errors.is_out_of_memory(RuntimeError("shape mismatch"))
    assert not device_errors.is_out_of_memory(ValueError("out of memory"))


def test_a_fault_of_the_device_is_told_from_a_bad_weight_file() -> None:
    assert device_errors.is_device_error(torch.AcceleratorError("an illegal memory access was encountered"))
    assert device_errors.is_device_error(RuntimeError("CUDA error: device-side assert triggered"))
    assert not device_errors.is_device_error(RuntimeError("Error(s) in loading state_dict: size mismatch for conv1"))
    assert not device_errors.is_device_error(KeyError("conv_first.weight"))


def test_a_device_that_computes_no_more_is_lost_and_a_working_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fault = RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be ...")
    device_errors.raise_if_lost("cpu", fault)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: torch.ones(1))
    assert not device_errors.answers("cuda:0")  # it counts wrongly
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: raising(torch.AcceleratorError(str(fault)))(""))
    with pytest.raises(DeviceLost, match=r"illegal memory access was encountered$") as lost:
        device_errors.raise_if_lost("cuda:0", fault)
    assert lost.value.__cause__ is fault
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: raising(torch.OutOfMemoryError("CUDA out of memory"))(""))
    device_errors.raise_if_lost("cuda:0", fault)  # full is not lost


def test_loading_makes_room_once_and_blames_no_file() -> None:
    tries: list[str] = []

    def load() -> str:
        tries.append("load")
        if tries.count("load") == 1:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return "network"

    assert device_errors.load_with_room(load, lambda: tries.append("room"), "cpu") == "network"
    assert tries == ["load", "room", "load"]
    with pytest.raises(OutOfMemory) as refused:
        device_errors.load_with_room(raising(torch.OutOfMemoryError("x")).__get__("d"), lambda: None, "cpu")
    assert "remove" not in refused.value.detail
    with pytest.raises(ValueError, match="broken"):
        device_errors.load_with_room(raising(ValueError("broken")).__get__("d"), lambda: None, "cpu")


def test_free_memory_is_a_positive_number() -> None:
    assert device_memory.free_memory_bytes("cpu") > 1_000_000


def test_a_device_has_one_profile_whatever_its_number() -> None:
    assert device.profile_of("cuda") is device.profile_of("cuda:1") is not device.profile_of("cpu")
    assert device.profile_of("cpu").batch == 1 < device.profile_of("cuda").batch


def test_a_card_is_described_by_its_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = types.SimpleNamespace(name="NVIDIA H200", total_memory=150_754_820_096)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: properties)
    assert device.describe_card("cuda:0") == {"card": "NVIDIA H200", "card_memory_gb": 151, "cuda": torch.version.cuda}
    assert device.describe_card("cpu") == {}


def test_a_card_computes_in_a_repeatable_way_and_fp32_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = types.SimpleNamespace(benchmark=True, deterministic=False, allow_tf32=True)
    kept: list[str] = []
    monkeypatch.setattr(torch.backends, "cudnn", flags)
    monkeypatch.setattr(torch.cuda, "set_device", lambda d: kept.append(f"current {d}"))
    monkeypatch.setattr(device, "keep_freed_memory", lambda: not kept.append("memory"))  # type: ignore[func-returns-value]
    device.prepare("cpu")
    assert (flags.benchmark, flags.deterministic, flags.allow_tf32) == (True, False, True)
    device.prepare("cuda:1")
    assert (flags.benchmark, flags.deterministic, flags.allow_tf32) == (False, True, False)
    assert kept == ["memory", "memory", "current cuda:1"]


def test_whoever_opens_a_card_without_tuning_the_process_gets_repeatable_kernels_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor and the tools restore without `prepare`."""
    pretend_cuda(monkeypatch, (9, 0), "NVIDIA H200")
    fixed: list[str] = []
    monkeypatch.setattr(device, "fix_kernels", fixed.append)
    assert Setup(tmp_path, device="auto").device.value == "cuda:0"
    assert fixed == ["cuda:0"]


def test_a_thread_works_on_the_card_that_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[torch.device] = []

    class Current:
        def __init__(self, card: torch.device) -> None:
            chosen.append(card)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(torch.cuda, "device", Current)
    with device.current_device("cpu"), device.current_device("cuda:1"):
        assert chosen == [torch.device("cuda:1")]
