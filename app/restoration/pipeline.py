"""Restores one `Picture`: colour, grey, alpha, 8 or 16 bits, to the asked size, with the model that the options mean.

It joins device, models, upscaling and faces; it knows nothing of HTTP, rows, files of users or settings. One `Restorer`
serves all photos; nothing of a photo is kept on it.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import Unavailable
from app.images import Picture
from app.notices import Notice
from app.options import Quality, RestoreOptions
from app.restoration import device as devices
from app.restoration.faces import Face, FaceModels, FacesDone, LoadedFaceModels, find, restore_faces
from app.restoration.models.networks import Network
from app.restoration.models.registry import EMBEDDED_MODEL, FALLBACKS, QUALITY_MODELS, TABLE, ModelRegistry, ModelRow
from app.restoration.upscale import Plan, Report, upscale
from app.results import FaceReason, RestorationResult
from app.stages import OnProgress, Stage

log = logging.getLogger(__name__)

_GFPGAN_WORK, _PARSER_WORK = 198_000.0, 234_000.0  # multiply-adds for one face, in millions

WARM_UP_SIDE_PIXELS = 64


class Restorer:
    """The local restoration: a device, a precision and a shelf of models, chosen once, with their reasons."""

    def __init__(
        self,
        weights_folder: Path,
        *,
        device: str = "auto",
        precision: str = "auto",
        tile: int = 0,
        default_quality: str = "auto",
        allow_unverified: bool = False,
        face_detector: str = "auto",
    ) -> None:
        self.registry = ModelRegistry(weights_folder, allow_unverified=allow_unverified)
        self.device = devices.choose_device(device)
        self.precision = devices.choose_precision(precision, self.device.value)
        self.tile = tile
        self.face_models = FaceModels(self.registry, self.device.value, self.precision.value, face_detector)
        is_cpu = self.device.value == "cpu"
        self.default_quality = (
            (Quality.FAST.value if is_cpu else Quality.BALANCED.value) if default_quality == "auto" else default_quality
        )

    def choose(self, options: RestoreOptions) -> tuple[ModelRow, tuple[Notice, ...]]:
        """The model that these options mean, or the best installed one with a warning.

        Raises:
            Unprocessable: `unknown_model`. Conflict: `model_not_installed` for a model asked for by name.
            Unavailable: `no_model` when nothing is installed.
        """
        if options.model is not None:
            return self.registry.find(options.model), ()
        wanted = QUALITY_MODELS[options.quality or self.default_quality]
        if self.registry.installed(wanted):
            return self.registry.find(wanted), ()
        known = [row.name for row in TABLE]
        dropped_in = [row.name for row in self.registry.rows() if row.name not in known]
        for name in (*FALLBACKS, *dropped_in, EMBEDDED_MODEL, *known):
            if self.registry.installed(name):
                return self.registry.find(name), (_stand_in(name, wanted),)
        raise Unavailable("no_model", "No model is installed; run: python3 run.py models download")

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture. A photo without colours stays without, also where its file keeps it as RGB.

        Args:
            picture: any decoded photo.
            options: what was asked; scale, quality or model, denoise and the face options count here.
            on_progress: told (fraction, stage) at least once a tile and a face; False stops with `Cancelled`.
        """
        row, warnings = self.choose(options)
        is_grey_file, picture = picture.grey, dataclasses.replace(picture, grey=picture.is_colourless())
        on_progress(0.0, Stage.LOADING)
        is_best = options.model is None and options.quality == Quality.BEST
        precision = "fp32" if is_best else self.precision.value
        warnings += self._denoise_warnings(row, options)
        denoise = None if any(w.code.startswith("denoise") for w in warnings) else options.denoise
        network = self.registry.load(row, denoise, self.device.value, precision)
        tools, said = self._open_faces(options, exact=is_best)
        started = time.monotonic()
        plan = Plan(_size_out(picture, options.scale), self.tile, ensemble=is_best)
        faces = find(tools, picture.rgb) if tools is not None else ()
        share = _share_of_faces(tools, faces, network, picture, plan)
        result, reports = _planes(network, picture, plan, lambda f, stage: on_progress(f * (1 - share), stage))
        done = FacesDone((), ())
        if tools is not None and faces:
            done = restore_faces(
                tools,
                picture,
                result.rgb,
                faces,
                options.face_strength,
                lambda f: on_progress(1 - share + f * share, Stage.FACES),
            )
        params = {
            "device": self.device.value,
            "precision": network.precision,
            "ensemble": is_best,
            "scale": options.scale,
            "network_scale": network.facts.scale,
            "denoise": denoise,
            "tile_size": reports[0].tile,
            "tiles": sum(report.tiles for report in reports),
            "tiles_redone_in_fp32": sum(report.redone_in_fp32 for report in reports),
            "out_of_memory_restarts": sum(report.restarts for report in reports),
            "faces": None if tools is None else {**tools.facts, "redone_in_fp32": done.redone_in_fp32},
        }
        warnings += (*said, *_face_notices(done))
        seconds = time.monotonic() - started
        result = dataclasses.replace(result, grey=is_grey_file)
        return RestorationResult(result, row.name, seconds, params, done.rows, warnings, done.layers)

    def _open_faces(
        self, options: RestoreOptions, *, exact: bool
    ) -> tuple[LoadedFaceModels | None, tuple[Notice, ...]]:
        """The face networks when faces are asked for and can be restored, and what must be said.

        Outlining a face costs more than restoring it, so the fast quality goes without.
        """
        if not options.face_enhance:
            return None, ()
        quality = options.quality or (self.default_quality if options.model is None else None)
        return self.face_models.open(options.face_model, parse=quality != Quality.FAST, exact=exact)

    def _denoise_warnings(self, row: ModelRow, options: RestoreOptions) -> tuple[Notice, ...]:
        if options.denoise is None:
            return ()
        if row.denoise_partner is None:
            text = f"{row.name} has no denoise setting, so it was ignored; use realesr-general-x4v3."
            return (Notice("denoise_ignored", text),)
        load_error = self.registry.load_error(row.denoise_partner)
        if options.denoise < 1.0 and load_error is not None:
            return (Notice("denoise_unavailable", f"The denoise setting was ignored: {load_error}"),)
        return ()

    def warm_up(self, side: int = WARM_UP_SIDE_PIXELS) -> str | None:
        """Load the default model and run it once on a small square; returns its name, None with nothing installed."""
        try:
            row, _ = self.choose(RestoreOptions())
        except Unavailable:
            return None
        ramp = np.linspace(0, 255, side, dtype=np.uint8)
        rgb = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], ramp[::-1][None, :]), axis=2)
        self.restore(Picture(np.ascontiguousarray(rgb)), RestoreOptions(model=row.name), lambda fraction, stage: True)
        return row.name


def _stand_in(name: str, wanted: str) -> Notice:
    """The warning that another model ran than the one that was meant."""
    how = f"get it with: python3 run.py models download {wanted}"
    if name == EMBEDDED_MODEL:
        text = f"The small model that ships with the project ({name}) ran, since {wanted} is not installed; {how}"
        return Notice("embedded_model", text)
    return Notice("model_fallback", f"{wanted} is not installed, so {name} ran; {how}")


def _share_of_faces(
    tools: LoadedFaceModels | None, faces: tuple[Face, ...], network: Network, picture: Picture, plan: Plan
) -> float:
    """Which part of the whole work the faces are, 0..1, by multiply-adds; it paces the progress."""
    wanted = sum(face.reason is None for face in faces)
    if tools is None or not wanted:
        return 0.0
    each = _GFPGAN_WORK + (_PARSER_WORK if tools.parse is not None else 0.0)
    upscaling = network.facts.work * picture.width * picture.height * (8 if plan.ensemble else 1)
    return wanted * each / (wanted * each + upscaling)


def _face_notices(done: FacesDone) -> list[Notice]:
    """What must be said of faces that were found, and not treated as the others."""
    notices = []
    left_out = sum(row["reason"] in (FaceReason.TOO_MANY, FaceReason.FAILED) for row in done.rows)
    if left_out:
        text = f"{left_out} of {len(done.rows)} faces were only upscaled; the list of faces says why."
        notices.append(Notice("faces_left_out", text))
    if done.layers_too_large:
        text = "The faces of this result are too large to be kept, so their strength cannot be changed afterwards."
        notices.append(Notice("faces_not_kept", text))
    return notices


def _size_out(picture: Picture, scale: float) -> tuple[int, int]:
    """(height, width) of the result, rounded, at least one pixel."""
    return max(1, round(picture.height * scale)), max(1, round(picture.width * scale))


def _planes(
    network: Network, picture: Picture, plan: Plan, on_progress: OnProgress
) -> tuple[Picture, tuple[Report, ...]]:
    """Colour (or grey) through the network, then alpha likewise, as upstream does."""
    has_alpha = picture.alpha is not None and not _is_constant(picture.alpha)
    share = 0.5 if has_alpha else 1.0
    colour_plan = dataclasses.replace(plan, grey=picture.grey)
    rgb, colour_report = upscale(network, picture.rgb, colour_plan, lambda f: on_progress(f * share, Stage.UPSCALING))
    if picture.grey:
        rgb = np.repeat(rgb, 3, axis=2)
    if picture.alpha is None:
        return dataclasses.replace(picture, rgb=rgb), (colour_report,)
    if not has_alpha:
        flat = np.full(plan.size_out, picture.alpha.flat[0], picture.alpha.dtype)
        return dataclasses.replace(picture, rgb=rgb, alpha=flat), (colour_report,)
    as_colour: NDArray[Any] = np.broadcast_to(picture.alpha[:, :, None], (*picture.alpha.shape, 3))
    alpha_plan = dataclasses.replace(plan, grey=True)
    alpha, alpha_report = upscale(
        network, as_colour, alpha_plan, lambda f: on_progress(share + f * share, Stage.UPSCALING)
    )
    return dataclasses.replace(picture, rgb=rgb, alpha=alpha[:, :, 0]), (colour_report, alpha_report)


def _is_constant(plane: NDArray[Any]) -> bool:
    return bool(plane.min() == plane.max())
