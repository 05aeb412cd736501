"""Presets: named sets of options for kinds of photos, and what each sets with what is installed just now.

A preset decides the options about the picture, all of them, so that choosing another one leaves nothing behind; those
about the file (format, metadata, pages) stay as they are. It never names a model that is not installed.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

from app.errors import Unprocessable
from app.options import BackendName, ColorCorrection, Quality, RestoreOptions

# What a preset decides, and what it leaves alone: together every option there is.
DECIDED = (
    "backend",
    "quality",
    "model",
    "scale",
    "face_enhance",
    "face_strength",
    "face_model",
    "denoise",
    "repair",
    "color_correction",
    "color_strength",
)
LEFT_ALONE = (
    *("rotate", "output_format", "pages", "output_quality", "metadata", "partial"),
    *("fallback", "prompt", "num_inference_steps", "guidance_scale", "seed"),
)
DENOISING_MODEL, DENOISE_PARTNER = "realesr-general-x4v3", "realesr-general-wdn-x4v3"
DRAWING_MODELS = ("RealESRGAN_x4plus_anime_6B", "realesr-animevideov3")  # the better one first
FACES_SET = "faces"  # what installs all that faces need
# An option that decides what another one of a preset was meant for: given by hand, the other is left out.
_OVERRULES = {"quality": ("model", "denoise"), "model": ("denoise",)}


class PresetName(enum.StrEnum):
    """Kinds of photos."""

    OLD_SCAN = "old_scan"
    PHONE_PHOTO = "phone_photo"
    DRAWING = "drawing"
    CLEAN = "clean"  # as large as it was


@dataclasses.dataclass(frozen=True)
class Missing:
    """What is not installed and would serve an option of the preset better: a model, or a set of them."""

    option: str
    install: str


@dataclasses.dataclass(frozen=True)
class Preset:
    """`options` holds every name of `DECIDED`; with a `model` the `quality` is None, since a model overrides it."""

    name: PresetName
    options: dict[str, Any]
    missing: tuple[Missing, ...]

    def fields(self, given: Mapping[str, object]) -> dict[str, object]:
        """The preset's options under those that were given; a given one that is empty counts as not given."""
        chosen = {name: value for name, value in given.items() if value is not None and str(value).strip()}
        overruled = {other for name in chosen for other in _OVERRULES.get(name, ())}
        return {**{name: value for name, value in self.options.items() if name not in overruled}, **chosen}


# Beside these, each option of `DECIDED` stands at its default. Old scans are seldom small, and photos of telephones
# never, so twice is enough; what telephones have smoothed once needs no strong hand again.
_SETS: dict[PresetName, dict[str, Any]] = {
    PresetName.OLD_SCAN: {"quality": Quality.BEST.value, "scale": 2.0, "color_correction": ColorCorrection.AUTO.value},
    PresetName.PHONE_PHOTO: {"scale": 2.0, "face_strength": 0.5, "denoise": 0.5},
    PresetName.DRAWING: {"face_enhance": False},
    PresetName.CLEAN: {"scale": 1.0, "face_enhance": False},
}


def presets_of(described: Mapping[str, Any]) -> list[Preset]:
    """Every preset with what is installed; none while nothing is known to be.

    Args:
        described: what this machine (or the workers) restores with, as a local backend describes it.
    """
    return [_preset(name, described) for name in PresetName] if _installed(described, "models") else []


def find_preset(name: object, described: Mapping[str, Any]) -> Preset:
    """One preset by its name. Raises `Unprocessable` `invalid_option`."""
    if name not in tuple(PresetName):
        raise Unprocessable("invalid_option", f"Option 'preset' must be one of {', '.join(PresetName)}.")
    return _preset(PresetName(str(name)), described)


def _preset(name: PresetName, described: Mapping[str, Any]) -> Preset:
    defaults = vars(RestoreOptions(backend=BackendName.LOCAL.value))
    options = {option: defaults[option] for option in DECIDED} | _SETS[name]
    missing: list[Missing] = []
    if name is PresetName.DRAWING:
        missing += _choose_model(options, DRAWING_MODELS, described)
    if options["model"] is None:
        options["quality"] = options["quality"] or described.get("default_quality")
        lacking = _check_quality(options, described)
        missing += [] if missing else lacking  # with the model that is wanted the quality's own would not run
    if options["face_enhance"]:
        missing += _check_faces(options, described)
    return Preset(name, options, tuple(missing))


def _choose_model(options: dict[str, Any], wanted: Sequence[str], described: Mapping[str, Any]) -> list[Missing]:
    """Set the first of these models that is installed, if any."""
    installed = _installed(described, "models")
    options["model"] = next((name for name in wanted if name in installed), None)
    return [] if options["model"] == wanted[0] else [Missing("model", wanted[0])]


def _check_quality(options: dict[str, Any], described: Mapping[str, Any]) -> list[Missing]:
    """Keep `denoise` only where the model that runs follows it; names the model that another one stands in for."""
    rows = {row["quality"]: row for row in described.get("qualities", ())}
    row = rows.get(options["quality"], {})
    meant = row.get("stands_in_for")
    missing = [Missing("quality", meant)] if meant else []
    if options["denoise"] is not None:
        follows = row.get("model") == DENOISING_MODEL
        if not follows or DENOISE_PARTNER not in _installed(described, "partner_models"):
            options["denoise"] = None
            missing += [Missing("denoise", DENOISE_PARTNER)] if follows else []
    return missing


def _check_faces(options: dict[str, Any], described: Mapping[str, Any]) -> list[Missing]:
    """Ask for faces only where their networks are; a machine that says nothing of faces is asked for them."""
    faces = described.get("faces")
    if not faces or faces.get("model") is not None:
        return []
    options.update(face_enhance=False, face_strength=1.0)
    return [Missing("face_enhance", FACES_SET)]


def _installed(described: Mapping[str, Any], table: str) -> set[str]:
    return {row["name"] for row in described.get(table, ()) if row["installed"]}
