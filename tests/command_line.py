"""`run.py restore` as a user types it: a call in a project's folder, photos to put there, and what came out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from app.commands import dispatch
from app.commands.earlier_results import RECORDS_NAME

MODEL = "realesr-general-x4v3"


def run(project: Path, *words: str) -> int:
    """One command from the project's folder; its exit code."""
    return dispatch.main(words, root=project)


def put_photo(path: Path, width: int = 24, height: int = 16, kind: str | None = None) -> Path:
    """Noise, in the format of the ending or in `kind` (Pillow's name)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, kind)
    return path


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) by the header."""
    with Image.open(path, formats=("JPEG", "PNG", "WEBP", "TIFF")) as image:
        return image.size


def files_below(folder: Path) -> set[str]:
    """Paths of all files below a folder, but for the records of which of them are results."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORDS_NAME)
    return {str(path.relative_to(folder)) for path in files}
