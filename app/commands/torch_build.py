"""Which build of torch the set-up installs: the plain wheels with CUDA, or torch's own CPU builds, gigabytes smaller.

Standard library only, since nothing is installed yet. An NVIDIA card is looked for without any driver package.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.metadata
import os
import platform
import re
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CPU_INDEX_URL = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 5.0
_PACKAGES = ("torch", "torchvision")
_DEVICE_LINE = re.compile(r"^\s*(?:export\s+)?DEVICE\s*=\s*[\"']?([\w:]*)", re.MULTILINE | re.IGNORECASE)
# WSL2 keeps the driver's library in a folder of its own, which the loader does not always search.
_NVML_NAMES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")

OpenUrl = Callable[..., Any]


class TorchBuild(enum.StrEnum):
    """`plain` is what the package index gives: on Linux with CUDA, which also runs on a CPU."""

    CPU = "cpu"
    PLAIN = "plain"


def wanted_build(root: Path, device_folder: Path = Path("/dev")) -> TorchBuild:
    """CPU on a Linux machine without an NVIDIA card where nobody asks for one, else plain.

    Elsewhere the plain wheels are CPU builds already.
    """
    if not pins(root) or sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return TorchBuild.PLAIN
    if asked_device(root).startswith("cuda") or has_nvidia_card(device_folder):
        return TorchBuild.PLAIN
    return TorchBuild.CPU


def pins(root: Path) -> list[str]:
    """The lines of requirements.txt that come from torch's index: torch==..., torchvision==..."""
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.partition("==")[0].strip() in _PACKAGES]


def installed_version(folder: Path) -> str:
    """Torch's version in a virtual environment, such as "2.15.0+cpu", read from its metadata; empty when absent.

    What is there counts, not what a set-up meant to do: it may have been interrupted.
    """
    packages = [str(path) for path in folder.glob("lib/python*/site-packages")]
    found = list(importlib.metadata.distributions(name="torch", path=packages)) if packages else []
    return found[0].version if found else ""


def is_cpu_build(version: str) -> bool:
    """Whether a version of torch is that of a build without CUDA from torch's own index."""
    return version.endswith("+cpu")


def leaves_card_unused(device: str, version: str) -> bool:
    """Whether this version of torch cannot use an NVIDIA card that is there, where the setting DEVICE allows one."""
    return device != "cpu" and is_cpu_build(version) and has_nvidia_card()


def may_use_card(device: str) -> bool:
    """Whether a service with this setting DEVICE may run on a graphics card."""
    return device.startswith("cuda") or (device != "cpu" and has_nvidia_card())


def serves(build: str, root: Path) -> bool:
    """Whether an installed build may stay: the plain one always, the CPU build unless DEVICE asks for a card."""
    if build == TorchBuild.CPU:
        return not asked_device(root).startswith("cuda")
    return build == TorchBuild.PLAIN


def asked_device(root: Path) -> str:
    """What DEVICE says, in the environment or in .env; empty when it says nothing."""
    named = os.environ.get("DEVICE", "")
    if named:
        return named
    try:
        found = _DEVICE_LINE.findall((root / ".env").read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return ""
    return str(found[-1]) if found else ""


def has_nvidia_card(device_folder: Path = Path("/dev")) -> bool:
    """Whether a card or its driver is seen: a device file, WSL2's bridge with NVIDIA's library, or NVML's own count."""
    if any(device_folder.glob("nvidia[0-9]*")) or (device_folder / "nvidiactl").exists():
        return True
    return _nvml_count() > 0


def _nvml_count() -> int:
    return max(_cards_seen_by(name) for name in _NVML_NAMES)


def _cards_seen_by(library: str) -> int:
    try:
        nvml = ctypes.CDLL(library)
        count = ctypes.c_uint(0)
        if nvml.nvmlInit_v2() != 0 or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def index_answers(open_url: OpenUrl = urllib.request.urlopen, seconds: float = PROBE_SECONDS) -> bool:
    """Whether torch's CPU index answers at all: one request without retries, given up after so many seconds.

    In a thread of its own, since looking up a name knows no timeout.
    """
    answered = threading.Event()

    def probe() -> None:
        try:
            with open_url(f"{CPU_INDEX_URL}/torch/", timeout=seconds):
                answered.set()
        except Exception:  # noqa: BLE001 - whatever it is, the index does not answer
            return

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
