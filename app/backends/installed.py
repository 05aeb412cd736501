"""What is installed for the local backend, JSON-ready: models, their partners, faces, and what each quality gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.options import RestoreOptions
from app.restoration.faces import FaceModels
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.table import QUALITY_MODELS, ModelRow
from app.restoration.models.weights import INPAINTING_FILE, SEGMENTATION_FILE
from app.restoration.setup import Setup


def describe_model(registry: ModelRegistry, row: ModelRow) -> dict[str, Any]:
    """A model: its name, its file, and what it costs to run."""
    architecture, megamacs = registry.cost(row)
    described = registry.describe_file(row.file)
    return {"name": row.name, **described, "architecture": architecture, "megamacs_per_pixel": megamacs}


def describe_partners(registry: ModelRegistry) -> list[dict[str, Any]]:
    """The files that only serve another model's options; no photo is restored with them alone."""
    files = [row.denoise_partner for row in registry.rows() if row.denoise_partner is not None]
    return [{"name": Path(file).stem, **registry.describe_file(file)} for file in files]


def describe_faces(face_models: FaceModels, notes: list[str]) -> dict[str, Any]:
    """The face files, and which of them a restoration would get; adds to `notes` what must be said of them."""
    choice, notices = face_models.choose(None)
    said = [notice.message for notice in notices]
    notes += said
    faces = {
        "model": choice.restorer,
        "detector": choice.detector,
        "parsing": choice.parses,
        "files": face_models.files(None, parse=True),
        "notes": said,
    }
    return {"face_models": face_models.rows(), "faces": faces}


def describe_qualities(setup: Setup) -> list[dict[str, str | None]]:
    """Which model runs for each quality, as things are installed now, and for which missing one if it stands in."""
    rows: list[dict[str, str | None]] = []
    for quality, meant in QUALITY_MODELS.items():
        model = setup.choose(RestoreOptions(quality=quality))[0].name
        rows.append({"quality": quality, "model": model, "stands_in_for": None if model == meant else meant})
    return rows


def describe_repair(setup: Setup) -> dict[str, Any]:
    """Whether damage can be repaired here, from which probability on, and whether a network fills wide holes."""
    from app.restoration.repair.mask import FACE_THRESHOLDS, THRESHOLDS  # the networks stay where they are

    found, fills = (setup.registry.path(file).is_file() for file in (SEGMENTATION_FILE, INPAINTING_FILE))
    return {
        "available": found,
        "inpainting": found and fills,
        "thresholds": {mode.value: threshold for mode, threshold in THRESHOLDS.items()},
        "face_thresholds": {mode.value: threshold for mode, threshold in FACE_THRESHOLDS.items()},
    }
