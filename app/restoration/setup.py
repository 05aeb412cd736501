"""What every local restorer starts from: device, precision, models and faces, chosen once, and the choice of a model.

Nothing of a photo is kept here; one `Setup` serves all photos.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import Unavailable
from app.notices import Notice, NoticeKind, notice
from app.options import Quality, Repair, RestoreOptions
from app.restoration import device as devices
from app.restoration.device_memory import release_memory
from app.restoration.faces import FaceModels
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.table import EMBEDDED_MODEL, QUALITY_MODELS, TABLE, ModelRow, find_installed
from app.restoration.models.weights import REPAIR_FILES, SEGMENTATION_FILE, known_sha256

if TYPE_CHECKING:
    from app.restoration.repair.weights import RepairModels

EMBEDDED_RESTORES = (
    f"The small model that ships with the project ({EMBEDDED_MODEL}) restores, since {{wanted}} is not installed; "
    "get the larger ones with: python3 run.py models download"
)


class Setup:
    """A device, a precision and a registry of models, with the reasons of their choice.

    Attributes:
        registry: the upscaling models of the weights folder.
        face_models: the face networks of the same folder.
        device, precision: chosen values with their reasons.
        tile: side of a tile in pixels; 0: chosen for each plane.
        default_quality: what a photo gets when its options name neither quality nor model.
    """

    def __init__(
        self,
        weights_folder: Path,
        *,
        device: str | devices.Choice = "auto",
        precision: str = "auto",
        tile: int = 0,
        default_quality: str = "auto",
        allow_unverified: bool = False,
        face_detector: str = "auto",
    ) -> None:
        self._weights_folder = weights_folder
        self.registry = ModelRegistry(weights_folder, allow_unverified=allow_unverified)
        self.device = devices.choose_device(device) if isinstance(device, str) else device
        devices.fix_kernels(self.device.value)
        self.precision = devices.choose_precision(precision, self.device.value)
        self.tile = tile
        self.face_models = FaceModels(self.registry, self.device.value, self.precision.value, face_detector)
        chosen = devices.default_quality_of(self.device.value).value
        self.default_quality = chosen if default_quality == "auto" else default_quality

    @functools.cached_property
    def repair_models(self) -> RepairModels:
        """The networks that repair damage; nothing of them is imported before this is asked for."""
        from app.restoration.repair.weights import RepairModels

        return RepairModels(self._weights_folder, self.device.value, self.precision.value, self.registry)

    def release(self) -> None:
        """Forget every loaded network, and give back the memory of the device."""
        self.registry.release()
        self.face_models.forget_batch()
        release_memory(self.device.value)

    def choose(self, options: RestoreOptions) -> tuple[ModelRow, tuple[Notice, ...]]:
        """The model that these options mean, or the best installed one with a warning.

        Raises:
            Unprocessable: `unknown_model`. Conflict: `model_not_installed` for a model asked for by name.
            Unavailable: `no_model` when nothing is installed.
        """
        if options.model is not None:
            return self.registry.find(options.model), ()
        wanted = QUALITY_MODELS[options.quality or self.default_quality]
        known = [row.name for row in TABLE]
        dropped_in = [row.name for row in self.registry.rows() if row.name not in known]
        name = find_installed(wanted, dropped_in, self.registry.installed)
        if name is not None:
            return self.registry.find(name), () if name == wanted else (_stand_in(name, wanted),)
        raise Unavailable("no_model", "No model is installed; run: python3 run.py models download")

    def result_facts(self, options: RestoreOptions) -> dict[str, Any]:
        """What of this machine decides the result of a photo with these options, JSON-ready.

        Raises `OSError` for a file that has gone, and as `choose` does.
        """
        files = {file: known_sha256(self.registry.path(file)) for file in self.weight_files(options)}
        return {
            "device": devices.describe_kind(self.device.value),
            "precision": self.precision.value,
            "tile": self.tile,
            "default_quality": self.default_quality,
            "files": files,
        }

    def weight_files(self, options: RestoreOptions) -> list[str]:
        """The names of all weight files that these options use. Raises as `choose` does."""
        row, _ = self.choose(options)
        denoise, _ = self.denoise_of(row, options)
        mixed = denoise is not None and row.denoise_partner is not None
        files = [row.file, *([row.denoise_partner] if mixed and row.denoise_partner else [])]
        if options.repair != Repair.OFF:
            files += [SEGMENTATION_FILE, *(file for file in REPAIR_FILES[1:] if self.registry.path(file).is_file())]
            files += self.face_models.detector_files()
        if options.face_enhance:
            files += self.face_models.files(options.face_model, parse=self.parses_faces(options))
        return files

    def quality_of(self, options: RestoreOptions) -> str | None:
        """The quality that these options mean: the default one where they name neither quality nor model."""
        return options.quality or (self.default_quality if options.model is None else None)

    def parses_faces(self, options: RestoreOptions) -> bool:
        """Whether restored faces get a segmentation mask: that costs more than restoring them, so not for `fast`."""
        return self.quality_of(options) != Quality.FAST

    def is_best(self, options: RestoreOptions) -> bool:
        """Whether the photo gets full precision and the eight views: quality best, asked for or by default."""
        return options.model is None and self.quality_of(options) == Quality.BEST

    def denoise_of(self, row: ModelRow, options: RestoreOptions) -> tuple[float | None, tuple[Notice, ...]]:
        """The denoise strength that the model can follow, and the warning when it cannot follow the asked one."""
        if options.denoise is None:
            return None, ()
        if row.denoise_partner is None:
            words = "{model} has no denoise setting, so it was ignored; use realesr-general-x4v3."
            return None, (notice(NoticeKind.DENOISE_IGNORED, words, model=row.name),)
        load_error = self.registry.load_error(row.denoise_partner)
        if options.denoise < 1.0 and load_error is not None:
            words = "The denoise setting was ignored: {why}"
            return None, (notice(NoticeKind.DENOISE_UNAVAILABLE, words, why=load_error, file=row.denoise_partner),)
        return options.denoise, ()


def _stand_in(name: str, wanted: str) -> Notice:
    """The warning that another model ran than the one that was meant."""
    command = f"python3 run.py models download {wanted}"
    if name == EMBEDDED_MODEL:
        words = (
            "The small model that ships with the project ({found}) ran, since {wanted} is not installed; "
            "get it with: {command}"
        )
        return notice(NoticeKind.EMBEDDED_MODEL, words, found=name, wanted=wanted, command=command)
    words = "{wanted} is not installed, so {found} ran; get it with: {command}"
    return notice(NoticeKind.MODEL_FALLBACK, words, wanted=wanted, found=name, command=command)
