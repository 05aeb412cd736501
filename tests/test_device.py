"""The choice of device and precision, each with its reason."""

from __future__ import annotations

import types

import pytest
import torch

from app.errors import Unavailable
from app.restoration import device


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d=None: name)


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


@pytest.mark.parametrize(
    ("capability", "name", "asked", "chosen"),
    [
        ((9, 0), "NVIDIA H200", "auto", "bf16"),
        ((8, 6), "NVIDIA RTX A4000", "auto", "bf16"),
        ((7, 5), "Tesla T4", "auto", "fp16"),
        ((7, 5), "NVIDIA GeForce GTX 1660", "auto", "fp32"),
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


def test_only_memory_errors_count_as_out_of_memory() -> None:
    assert device.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert device.is_out_of_memory(MemoryError())
    assert device.is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not device.is_out_of_memory(RuntimeError("shape mismatch"))
    assert not device.is_out_of_memory(ValueError("out of memory"))


def test_free_memory_is_a_positive_number() -> None:
    assert device.free_memory_bytes("cpu") > 1_000_000


def test_a_device_has_one_profile_whatever_its_number() -> None:
    assert device.profile_of("cuda") is device.profile_of("cuda:1") is not device.profile_of("cpu")
    assert device.profile_of("cpu").batch == 1 < device.profile_of("cuda").batch


def test_a_card_is_described_by_its_properties(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = types.SimpleNamespace(name="NVIDIA H200", total_memory=150_754_820_096)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda d: properties)
    assert device.describe_card("cuda:0") == {"card": "NVIDIA H200", "card_memory_gb": 151, "cuda": torch.version.cuda}
    assert device.describe_card("cpu") == {}
