"""The stages of one attempt, as rows, WebSocket messages and the dashboard name them, and the progress callback.

The order is that of a run; the dashboard's table of words is held against this enum by a test.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

OnFraction = Callable[[float], bool]  # fraction of one part of the work done, in [0, 1]; False: stop


class Stage(enum.StrEnum):
    """Where an attempt stands.

    `SENDING` is a promise: a backend names it once, before a call that costs money and cannot be taken back. True from
    the callback then means that the caller has it on record, so that the call is never made twice unnoticed.
    """

    WAITING = "waiting"  # in the queue
    DECODING = "decoding"
    LOADING = "loading"  # the network
    REPAIRING = "repairing"  # damage is found and filled
    UPSCALING = "upscaling"
    FACES = "faces"
    PREPARING = "preparing"  # the photo for a provider
    SENDING = "sending"
    PROVIDER = "provider"  # the provider works
    DOWNLOADING = "downloading"
    FITTING = "fitting"  # the provider's picture to the asked size
    ENCODING = "encoding"
    DONE = "done"
    CANCELLED = "cancelled"


class OnProgress(Protocol):
    """Called at least once a tile, and whenever the stage changes, from the thread that runs the restoration."""

    def __call__(self, fraction: float, stage: Stage) -> bool:
        """Take `fraction` done in [0, 1] and the stage; for `Stage.SENDING` it may also raise a `RestoreError`.

        Returns False to ask the backend to stop; it then raises `errors.Cancelled` within one tile.
        """
        ...


IsWanted = Callable[[], bool]  # asked between two steps: False as soon as nobody waits for the answer any more


def always_wanted() -> bool:
    """Of what somebody waits for until it is done."""
    return True
