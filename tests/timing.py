"""Limits of processor time for tests of hostile files. The figures themselves come from commands in `benchmarks/`."""

from __future__ import annotations

import os
import sys

import pytest

from app.restoration.device import choose_precision

_SLOWED_FACTOR = 5  # coverage's tracer, or tests beside this one on the same cores, make loops in Python so much slower


def allowed(seconds: float) -> float:
    """So many seconds of one thread's processor time, and more where each line is traced or other tests run beside."""
    slowed = sys.gettrace() is not None or "PYTEST_XDIST_WORKER" in os.environ
    return seconds * _SLOWED_FACTOR if slowed else seconds


# torch emulates bf16 where the processor lacks it, at a hundredth of the speed; no photo runs in it there either.
needs_bf16 = pytest.mark.skipif(
    choose_precision("auto", "cpu").value != "bf16", reason="this processor has no bf16 instructions"
)
