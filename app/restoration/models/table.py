"""The table of upscaling models, which of them a quality means, and what runs in the place of a missing one.

Facts about models are rows here, not branches in code. Nothing here reads a file, so it is known without torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from app.options import Quality
from app.restoration.models import weights


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """One model: the name users say, its file, and the partner file that `denoise` blends with.

    `architecture` and `megamacs_per_pixel` are those of `Facts`, None for a user's file: they stand here because they
    are asked for before a file is read.
    """

    name: str
    file: str
    denoise_partner: str | None = None
    architecture: str | None = None
    megamacs_per_pixel: float | None = None


EMBEDDED_MODEL = "nir-embedded-x4"
TABLE: tuple[ModelRow, ...] = (
    ModelRow("RealESRGAN_x4plus", "RealESRGAN_x4plus.pth", None, "esrgan", 18.384),
    ModelRow("RealESRGAN_x2plus", "RealESRGAN_x2plus.pth", None, "esrgan", 4.597),
    ModelRow("RealESRGAN_x4plus_anime_6B", "RealESRGAN_x4plus_anime_6B.pth", None, "esrgan", 6.154),
    ModelRow("realesr-general-x4v3", "realesr-general-x4v3.pth", "realesr-general-wdn-x4v3.pth", "compact", 1.209),
    ModelRow("realesr-animevideov3", "realesr-animevideov3.pth", None, "compact", 0.619),
    ModelRow(EMBEDDED_MODEL, weights.EMBEDDED.file, None, "compact", 0.914),
)
QUALITY_MODELS: dict[str, str] = {
    Quality.FAST: "realesr-general-x4v3",
    Quality.BALANCED: "RealESRGAN_x4plus",
    Quality.BEST: "RealESRGAN_x4plus",
}
# What runs when the model of a quality is not installed, best match first; never without a warning.
# Files that a user dropped in come after these, and then the embedded model.
_FALLBACKS = ("realesr-general-x4v3", "RealESRGAN_x4plus", "RealESRGAN_x2plus")


def find_installed(wanted: str, dropped_in: Iterable[str], is_installed: Callable[[str], bool]) -> str | None:
    """The model that runs when `wanted` is meant: itself, or what comes next of what is installed; None: nothing is.

    Args:
        wanted: a name of `TABLE`.
        dropped_in: names of the user's own files.
        is_installed: whether the model of a name can be used.
    """
    known = [row.name for row in TABLE]
    names = (wanted, *_FALLBACKS, *dropped_in, EMBEDDED_MODEL, *known)
    return next((name for name in names if is_installed(name)), None)
