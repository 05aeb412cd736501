"""Sends native Windows away with one sentence, before anything that exists on Linux and macOS only is imported.

Standard library only, and written so that the entrances can call it first.
"""

from __future__ import annotations

import sys

WINDOWS = (
    "Neural Image Restore runs on Linux and macOS, not on Windows itself. Use WSL2 (run the same commands inside it) "
    "or Docker Desktop (docker compose up); docs/quickstart.md has both."
)


def refuse_windows(platform: str = sys.platform) -> None:
    """End the process with one sentence on native Windows; WSL2 is Linux and passes."""
    if platform == "win32":
        sys.exit(WINDOWS)
