"""The local backend: restores on this machine, behind the same border as every other backend.

It joins a `Restorer` to the border's types and describes what is installed.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.images import Picture
from app.options import BackendName, ColorCorrection, EngineName, RestoreOptions
from app.restoration import device as devices
from app.restoration.models.registry import EMBEDDED_MODEL, QUALITY_MODELS
from app.restoration.pipeline import PhotoRestorer, Restorer, warm_up
from app.results import RestorationResult
from app.stages import OnProgress

log = logging.getLogger(__name__)

PACE_SIDE_PIXELS = 192  # about one tile: a smaller picture would cost nearly as much and say little

_EMBEDDED = (
    f"The small model that ships with the project ({EMBEDDED_MODEL}) restores, since {{wanted}} is not installed; "
    "get the larger ones with: python3 run.py models download"
)


class LocalBackend:
    """Restores pictures with the networks in the weights folder; one restoration at a time."""

    name = BackendName.LOCAL.value

    def __init__(self, restorer: PhotoRestorer, engine: str) -> None:
        self._restorer, self._engine = restorer, engine
        self._lock = threading.Lock()
        self._warm_seconds: float | None = None

    def load(self) -> str | None:
        """Tune the process, load the default model and run it twice, the second time for its pace.

        Returns the model's name, None with nothing installed.
        """
        devices.prepare(self._restorer.setup.device.value)
        name = self.warm_up()
        if name is not None:
            began = time.monotonic()
            with self._lock:
                warm_up(self._restorer, PACE_SIDE_PIXELS)
            self._warm_seconds = time.monotonic() - began
        return name

    def warm_up(self) -> str | None:
        """Run the default model once on a small picture; returns its name, None with nothing installed."""
        with self._lock:
            return warm_up(self._restorer)

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture; see `Backend`. Faded colours come first, since networks and faces look at them."""
        facts: dict[str, Any] = {"engine": self._engine}
        if options.color_correction == ColorCorrection.AUTO:
            picture, facts["color_correction"] = _correct_colours(picture, options.color_strength)
        with self._lock:
            result = self._restorer.restore(picture, options, on_progress)
        return dataclasses.replace(result, params={**facts, **result.params})

    def describe(self) -> dict[str, Any]:
        """What this machine restores with, JSON-ready; hashes a weight file the first time it is seen."""
        setup = self._restorer.setup
        models = [{"name": row.name, **setup.registry.describe_file(row.file)} for row in setup.registry.rows()]
        usable = [row["name"] for row in models if row["installed"]]
        problems = [row["note"] for row in models if row["note"] and row["present"]]
        if not usable:
            problems.append("No model is installed; run: python3 run.py models download")
        wanted = QUALITY_MODELS[setup.default_quality]
        default = setup.choose(RestoreOptions())[0].name if usable else None
        notes = []
        if default == EMBEDDED_MODEL:
            notes.append(_EMBEDDED.format(wanted=wanted))
        elif usable and wanted not in usable:
            problems.append(f"{wanted} is not installed; get it with: python3 run.py models download {wanted}.pth")
        return {
            "engine": self._engine,
            "device": setup.device.value,
            "device_reason": setup.device.reason,
            "precision": setup.precision.value,
            "precision_reason": setup.precision.reason,
            "default_quality": setup.default_quality,
            "default_model": default,
            "embedded_model": default == EMBEDDED_MODEL,
            "qualities": self._qualities() if usable else [],
            "warm_seconds_per_input_megapixel": self._warm_pace(),
            "models": models,
            **self._describe_faces(notes),
            "problems": problems,
            "notes": notes,
        }

    def _describe_faces(self, notes: list[str]) -> dict[str, Any]:
        """The face files, and which of them a restoration would get; adds to `notes` what must be said of them."""
        face_models = self._restorer.setup.face_models
        choice, notices = face_models.choose(None)
        said = [notice.message for notice in notices]
        notes += said
        faces = {"model": choice.restorer, "detector": choice.detector, "parsing": choice.parses, "notes": said}
        return {"face_models": face_models.rows(), "faces": faces}

    def _qualities(self) -> list[dict[str, str | None]]:
        """Which model runs for each quality, as things are installed now, and for which missing one if it stands in."""
        rows: list[dict[str, str | None]] = []
        for quality, meant in QUALITY_MODELS.items():
            model = self._restorer.setup.choose(RestoreOptions(quality=quality))[0].name
            stands_in_for = None if model == meant else meant
            rows.append({"quality": quality, "model": model, "stands_in_for": stands_in_for})
        return rows

    def _warm_pace(self) -> float | None:
        """Seconds per megapixel of photo on the small warm-up picture: a first guess, until photos were restored."""
        return None if self._warm_seconds is None else self._warm_seconds / (PACE_SIDE_PIXELS**2 / 1e6)


def _correct_colours(picture: Picture, strength: float) -> tuple[Picture, dict[str, Any]]:
    """The corrected picture and the facts for the record."""
    # Here, so that whoever does not ask for it never loads its numbers.
    from app.restoration.colour_correction import correct_colours

    corrected, fading = correct_colours(picture, strength)
    return corrected, {"faded": not fading.is_none, "strength": strength, **dataclasses.asdict(fading)}


def open_local_backend(
    weights_folder: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile_size: int = 0,
    engine: str = EngineName.FAST,
    default_quality: str = "auto",
    allow_unverified: bool = False,
    face_detector: str = "auto",
) -> LocalBackend:
    """Choose device and precision and look at the weights folder; networks load at `load` or first use."""
    make: Callable[..., PhotoRestorer] = Restorer
    if engine == EngineName.REFERENCE:  # upstream's packages: slow, and not on every Python
        from app.restoration.reference.upscaling import ReferenceRestorer

        make = ReferenceRestorer
    restorer = make(
        weights_folder,
        device=device,
        precision=precision,
        tile=tile_size,
        default_quality=default_quality,
        allow_unverified=allow_unverified,
        face_detector=face_detector,
    )
    log.info("device %s (%s)", restorer.setup.device.value, restorer.setup.device.reason)
    log.info("precision %s (%s)", restorer.setup.precision.value, restorer.setup.precision.reason)
    return LocalBackend(restorer, engine)
