"""Limits of processor time for tests of hostile files. The figures themselves come from commands in `benchmarks/`."""

from __future__ import annotations

import sys

import pytest

from app.restoration.device import choose_precision

_TRACED_FACTOR = 5  # coverage's tracer makes loops in Python so much slower


def allowed(seconds: float) -> float:
    """So many seconds of one thread's processor time, and more where each line is traced."""
    return seconds if sys.gettrace() is None else seconds * _TRACED_FACTOR


# torch emulates bf16 where the processor lacks it, at a hundredth of the speed; no photo runs in it there either.
needs_bf16 = pytest.mark.skipif(
    choose_precision("auto", "cpu").value != "bf16", reason="this processor has no bf16 instructions"
)
