"""Describes the machine that figures are measured on, so that they can be compared with others.

It needs torch alone, so that the benchmarks run where nothing else is installed; it names no host, user or folder.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from app.errors import Unavailable
from app.restoration.device import choose_device, describe_card

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def describe_machine(device: str = "cpu") -> dict[str, Any]:
    """Processor, cores, memory, versions and device, JSON-ready.

    Args:
        device: the torch device that was measured.
    """
    return {
        "processor": _cpu_value("model name") or platform.processor() or platform.machine(),
        "instructions": [
            flag for flag in _FLAGS if flag in _cpu_value("flags").split() + _cpu_value("Features").split()
        ],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "device": device,
        **describe_card(device),
    }


def in_words(facts: dict[str, Any]) -> str:
    """One line for people."""
    parts = [
        f"{facts['cores']} cores of {facts['processor']} ({', '.join(facts['instructions']) or 'no flags known'})",
        f"{facts['memory_gb']} GB" if facts["memory_gb"] else "",
        f"{facts['card']}, {facts['card_memory_gb']} GB" if "card" in facts else "no graphics card used",
        f"{facts['system']}, Python {facts['python']}, torch {facts['torch']}, {facts['threads']} threads",
    ]
    return "; ".join(part for part in parts if part)


def _cpu_value(name: str) -> str:
    """One value of Linux's description of the first processor; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _memory_gb() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)
    except (ValueError, OSError, AttributeError):
        return 0


def main() -> None:
    """The asked device in, JSON out: in a process of its own, so that another one holds no memory of a card."""
    try:
        chosen = choose_device(sys.argv[1])
    except Unavailable as error:
        sys.exit(error.detail)
    more = {"device_reason": chosen.reason, "device_is_fallback": chosen.is_fallback}
    sys.stdout.write(f"{json.dumps({**describe_machine(chosen.value), **more})}\n")


if __name__ == "__main__":
    main()
