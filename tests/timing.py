"""Limits of processor time for tests of hostile files. The figures themselves come from commands in `benchmarks/`."""

from __future__ import annotations

import sys

_TRACED_FACTOR = 5  # coverage's tracer makes loops in Python so much slower


def allowed(seconds: float) -> float:
    """So many seconds of one thread's processor time, and more where each line is traced."""
    return seconds if sys.gettrace() is None else seconds * _TRACED_FACTOR
