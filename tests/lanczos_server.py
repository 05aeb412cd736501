"""A server process for tests: `serve` as `run.py` calls it, with the Lanczos backend held back for a while per strip.

Run as `python -m tests.lanczos_server FOLDER PORT DASHBOARD_PORT SECONDS_PER_STRIP DRAIN_SECONDS [KEY [SETTINGS]]`,
with `--after-death` at the end as a supervisor says it. SETTINGS is a JSON object of further settings. A photo that is
`DEADLY_WIDTH` wide kills the process.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

from app.images import Picture
from app.main import create_app, serve, serving
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress, Stage
from tests.http_service import GatedBackend, describe, settings_for

DEADLY_WIDTH = 13


class SlowBackend(GatedBackend):
    """Takes its time before each strip, and says nothing meanwhile but progress."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `Backend`."""
        if picture.width == DEADLY_WIDTH:
            os.kill(os.getpid(), signal.SIGKILL)

        def slowly(fraction: float, stage: Stage) -> bool:
            ends = time.monotonic() + self.seconds
            while time.monotonic() < ends:
                if not on_progress(fraction, stage):
                    return False
                time.sleep(0.02)
            return on_progress(fraction, stage)

        return super().restore(picture, options, slowly)


def main() -> None:
    """Serve until a signal."""
    folder, port, dashboard_port, seconds, drain, *words = sys.argv[1:]
    more = [word for word in words if word != "--after-death"]
    backend = SlowBackend(float(seconds))
    serving.create_app = functools.partial(create_app, backends={"local": backend}, describe=describe)  # type: ignore[attr-defined]
    changes = {
        "port": int(port),
        "dashboard_port": int(dashboard_port),
        "drain_seconds": float(drain),
        "key": more[0] if more else "",
        **(json.loads(more[1]) if len(more) > 1 else {}),
    }
    serve(
        settings_for(Path(folder), **changes),
        banner=lambda facts: print("loaded", facts["device"], flush=True),
        after_death="--after-death" in words,
    )


if __name__ == "__main__":
    main()
