"""A server process for the browser's test of models: the real service, whose official files are small stand-ins.

Run as `python -m tests.models_server FOLDER DASHBOARD_PORT MIRROR`: the files below FOLDER/mirror become the official
ones of their names, and are downloaded from the address MIRROR.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from app.main import serve
from app.restoration.models import weights
from tests.http_service import free_port, settings_for


def main() -> None:
    """Serve until a signal."""
    folder, dashboard_port, mirror = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    found = {path.name: path for path in (folder / "mirror").iterdir()}
    rows = tuple(
        dataclasses.replace(row, bytes=path.stat().st_size, sha256=weights.sha256(path))
        for row in weights.MANIFEST
        if (path := found.get(row.file)) is not None
    )
    weights.MANIFEST = rows
    settings = settings_for(
        folder, port=free_port(), dashboard_port=dashboard_port, weights_base_url=mirror, device="cpu", precision="fp32"
    )
    serve(settings, banner=lambda facts: print("loaded", facts["device"], flush=True))


if __name__ == "__main__":
    main()
