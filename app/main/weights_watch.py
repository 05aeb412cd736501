"""Models that are put into the weights folder, or taken out of it, while the service runs are seen within seconds.

They are opened and judged as at the start; when the default model is another one then, it is loaded and its pace
measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from app.restoration.models.folder_watch import FolderWatch
from app.threads import PeriodicThread

log = logging.getLogger(__name__)

WATCH_SECONDS = 1.5  # a change is acted upon at the second look that sees it


class WeightsWatch:
    """One look at the folder, and what follows from it.

    Args:
        folder: whose changes are followed.
        look_again: describes the local backend anew.
        load: loads and runs the default model.
        default_model: its name before the first look; None: nothing was loaded yet.
    """

    def __init__(
        self,
        folder: FolderWatch,
        look_again: Callable[[], Mapping[str, Any]],
        load: Callable[[], object],
        default_model: str | None,
    ) -> None:
        self._folder, self._look_again, self._load = folder, look_again, load
        self._default = default_model

    def make_pass(self) -> None:
        """Look once. Raises `RestoreError` when the new default model cannot be used, which health says too."""
        if not self._folder.has_changed():
            return
        default = self._look_again().get("default_model")
        log.info("the weights folder has changed; the default model is %s", default or "none")
        if default is not None and default != self._default:
            self._load()
            default = self._look_again().get("default_model")
        self._default = default
        self._folder.compare_again()


def make_watch_thread(watch: WeightsWatch, on_restart: Callable[[str], None]) -> PeriodicThread:
    """The thread that looks again and again, not started."""
    trouble = "the new default model could not be loaded"
    return PeriodicThread("weights-watch", watch.make_pass, WATCH_SECONDS, trouble=trouble, on_restart=on_restart)
