"""Servers that tests start end with them, also when pytest is killed and no fixture runs its end (Linux)."""

from __future__ import annotations

import ctypes
import functools
import signal
import sys
from collections.abc import Callable

_SET_PARENT_DEATH_SIGNAL = 1


def ends_with_us(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """For `preexec_fn` of `subprocess.Popen`: the kernel sends the signal when the thread that starts the server ends.

    Start it from the main thread. None where the system has no such signal.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be
    return functools.partial(libc.prctl, _SET_PARENT_DEATH_SIGNAL, int(number), 0, 0, 0)
