"""Restores one `Picture`: colour, grey, alpha, 8 or 16 bits, to the asked size, with the model that the options mean.

It joins the choice of a model, upscaling and faces. One `Restorer` serves all photos.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import Cancelled, Unavailable
from app.images import Box, Overview, PatchWindow, Picture
from app.notices import Notice, NoticeKind, notice
from app.options import RestoreOptions, output_size
from app.restoration import patches
from app.restoration.device import profile_of
from app.restoration.engine import Engine, Tiling
from app.restoration.faces import Face, FacesResult, LoadedFaceModels, find_faces, restore_faces
from app.restoration.host_engine import HostEngine
from app.restoration.models.table import ModelRow
from app.restoration.setup import Setup
from app.restoration.upscale import UpscalePlan, UpscaleReport, upscale
from app.results import FaceReason, RestorationResult
from app.stages import OnProgress, Stage
from app.time_estimate import ENSEMBLE_PASSES, FACE_GIGAMACS, PARSING_GIGAMACS

WARM_UP_SIDE_PIXELS = 64


class PhotoRestorer(Protocol):
    """What restores pictures on this machine; safe to share, for one restoration at a time."""

    @property
    def setup(self) -> Setup:
        """Device, precision and models."""
        ...

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture.

        Args:
            picture: any decoded photo.
            options: what was asked; scale, quality or model, denoise and the face options count here.
            on_progress: told (fraction, stage) in the calling thread, after each run of a network (a few tiles or
                faces) or oftener; False stops.

        Returns:
            The picture with dtype, colour profile and metadata of the source, (round(H * scale), round(W * scale)),
            the model that really ran, and a warning for every fallback. Nothing of the photo is kept.

        Raises:
            Cancelled: `on_progress` said stop.
            RestoreError: why the photo cannot be restored; no partial result is ever given.
        """
        ...

    def restore_patch(self, patch: PatchWindow, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """The same for a patch of a photo, at the place and with the numbers of the whole result.

        Equal as far as the network sees: exactly for compact networks, whose reach is known.
        """
        ...

    def find_faces(self, overview: Overview, options: RestoreOptions) -> list[Box]:
        """Where faces would be restored, the largest first, in the photo's pixels."""
        ...

    def release(self) -> None:
        """Forget every loaded network and give its memory back; each is loaded again when a photo needs it."""
        ...


@dataclasses.dataclass(frozen=True)
class _PreparedRun:
    """One restoration, ready to compute: what was chosen for it, and the warnings so far."""

    row: ModelRow
    denoise: float | None
    engine: Engine
    plan: UpscalePlan
    faces: LoadedFaceModels | None
    warnings: tuple[Notice, ...]


class Restorer:
    """The local restoration by our own networks; see `PhotoRestorer`. Arguments are those of `Setup`."""

    def __init__(self, weights_folder: Path, **choices: Any) -> None:
        self.setup = Setup(weights_folder, **choices)
        self._tilings: dict[tuple[str, str], Tiling] = {}  # by model and precision, where the device keeps them

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `PhotoRestorer`. A photo without colours stays without, also where its file keeps it as RGB."""
        photo = dataclasses.replace(picture, grey=picture.is_colourless())
        run = self._prepare(photo, options, on_progress)
        if not on_progress(0.0, Stage.UPSCALING):  # loading ends here: from now on progress goes by work
            raise Cancelled
        started = time.monotonic()
        found = find_faces(run.faces, photo.rgb) if run.faces is not None else ()
        share = _share_of_faces(run, found, photo)
        upscaled, reports = _upscale_planes(
            run.engine, photo, run.plan, lambda f, stage: on_progress(f * (1 - share), stage)
        )
        self._remember_tiling(run)
        done = _restore_faces(run, photo, upscaled, found, options, share, on_progress)
        return RestorationResult(
            picture=dataclasses.replace(upscaled, grey=picture.grey),
            model=run.row.name,
            seconds=time.monotonic() - started,
            params=self._params(run, options, reports, done),
            faces=done.rows,
            warnings=(*run.warnings, *_face_notices(done)),
            face_layers=done.layers,
        )

    def restore_patch(self, patch: PatchWindow, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `PhotoRestorer`. What memory decided beside a photo at work is not remembered for later photos."""
        window = dataclasses.replace(patch.window, grey=patch.overview.colourless)
        run = self._prepare(window, options, on_progress)
        started = time.monotonic()
        found = find_faces(run.faces, window.rgb) if run.faces is not None else ()
        share = _share_of_faces(run, found, window)
        core = patches.core_of(patch, run.engine.facts)
        photo = patches.cut(window, core)
        plan = dataclasses.replace(run.plan, size_out=_size_out(photo, options.scale))
        upscaled, reports = _upscale_planes(
            run.engine, photo, plan, lambda f, stage: on_progress(f * (1 - share), stage)
        )
        canvas = dataclasses.replace(window, rgb=patches.canvas_around(window, core, upscaled.rgb, options.scale))
        done = _restore_faces(run, window, canvas, found, options, share, on_progress)
        return RestorationResult(
            picture=patches.cut(canvas, patches.scaled(patch.inner, options.scale)),
            model=run.row.name,
            seconds=time.monotonic() - started,
            params=self._params(run, options, reports, done),
            faces=done.rows,
            warnings=run.warnings,
        )

    def find_faces(self, overview: Overview, options: RestoreOptions) -> list[Box]:
        """See `PhotoRestorer`."""
        models, _ = self._open_faces(options, exact=False)
        if models is None:
            return []
        boxes = [face.found.box for face in find_faces(models, overview.small.rgb) if face.reason is None]
        factor = overview.factor
        frames = [
            patches.frame_of((x0 * factor, y0 * factor, x1 * factor, y1 * factor), overview.width, overview.height)
            for x0, y0, x1, y1 in boxes
        ]
        return sorted(frames, key=lambda frame: frame.width * frame.height, reverse=True)

    def release(self) -> None:
        """See `PhotoRestorer`. What memory had decided is forgotten too: what held it may have gone."""
        self._tilings.clear()
        self.setup.release()

    def _prepare(self, photo: Picture, options: RestoreOptions, on_progress: OnProgress) -> _PreparedRun:
        """Choose and load everything that the photo needs."""
        setup = self.setup
        row, stand_in = setup.choose(options)
        on_progress(0.0, Stage.LOADING)
        is_best = setup.is_best(options)
        denoise, ignored = setup.denoise_of(row, options)
        precision = "fp32" if is_best else setup.precision.value
        network = setup.registry.load(row, denoise, setup.device.value, precision)
        faces, missing = self._open_faces(options, exact=is_best)
        plan = UpscalePlan(_size_out(photo, options.scale), setup.tile, ensemble=is_best)
        engine = HostEngine(network, self._tilings.get((row.name, precision)))
        return _PreparedRun(row, denoise, engine, plan, faces, (*stand_in, *ignored, *missing))

    def _remember_tiling(self, run: _PreparedRun) -> None:
        """Cut the next photo as this one: what has fitted once is not tried larger again until `release`."""
        if profile_of(self.setup.device.value).fixed_tiling:
            self._tilings[run.row.name, run.engine.precision] = run.engine.tiling

    def _open_faces(
        self, options: RestoreOptions, *, exact: bool
    ) -> tuple[LoadedFaceModels | None, tuple[Notice, ...]]:
        """The face networks when faces are asked for and can be restored, and what must be said."""
        if not options.face_enhance:
            return None, ()
        parse = self.setup.parses_faces(options)
        return self.setup.face_models.open(options.face_model, parse=parse, exact=exact)

    def _params(
        self, run: _PreparedRun, options: RestoreOptions, reports: tuple[UpscaleReport, ...], done: FacesResult
    ) -> dict[str, Any]:
        """The facts for the record."""
        return {
            "device": self.setup.device.value,
            "precision": run.engine.precision,
            "ensemble": run.plan.ensemble,
            "scale": options.scale,
            "network_scale": run.engine.facts.scale,
            "denoise": run.denoise,
            "tile_size": reports[0].tile,
            "planes": len(reports),
            "tiles": sum(report.tiles for report in reports),
            "tiles_redone_in_fp32": sum(report.redone_in_fp32 for report in reports),
            "out_of_memory_restarts": sum(report.restarts for report in reports),
            "faces": None if run.faces is None else {**run.faces.facts, "redone_in_fp32": done.redone_in_fp32},
        }


def warm_up(restorer: PhotoRestorer, side: int = WARM_UP_SIDE_PIXELS) -> str | None:
    """Load the default model and run it once on a small square; returns its name, None with nothing installed."""
    try:
        row, _ = restorer.setup.choose(RestoreOptions())
    except Unavailable:
        return None
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    rgb = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], ramp[::-1][None, :]), axis=2)
    square = Picture(np.ascontiguousarray(rgb))
    restorer.restore(square, RestoreOptions(model=row.name), lambda fraction, stage: True)
    return row.name


def _share_of_faces(run: _PreparedRun, faces: tuple[Face, ...], photo: Picture) -> float:
    """Which part of the whole work the faces are, 0..1, by multiply-adds; it paces the progress."""
    wanted = sum(face.reason is None for face in faces)
    if run.faces is None or not wanted:
        return 0.0
    each = 1000 * (FACE_GIGAMACS + (PARSING_GIGAMACS if run.faces.parse is not None else 0.0))
    passes = ENSEMBLE_PASSES if run.plan.ensemble else 1
    upscaling = run.engine.facts.work * photo.width * photo.height * passes
    return wanted * each / (wanted * each + upscaling)


def _restore_faces(
    run: _PreparedRun,
    photo: Picture,
    upscaled: Picture,
    faces: tuple[Face, ...],
    options: RestoreOptions,
    share: float,
    on_progress: OnProgress,
) -> FacesResult:
    """Restore and paste the faces that were found into the upscaled picture, in place."""
    if run.faces is None or not faces:
        return FacesResult((), ())

    def tell(fraction: float) -> bool:
        return on_progress(1 - share + fraction * share, Stage.FACES)

    return restore_faces(run.faces, photo, upscaled.rgb, faces, options.face_strength, tell)


def _face_notices(done: FacesResult) -> list[Notice]:
    """What must be said of faces that were found, and not treated as the others."""
    notices = []
    left_out = sum(row["reason"] in (FaceReason.TOO_MANY, FaceReason.FAILED) for row in done.rows)
    if left_out:
        words = "{left_out} of {faces} faces were only upscaled; the list of faces says why."
        notices.append(notice(NoticeKind.FACES_LEFT_OUT, words, left_out=left_out, faces=len(done.rows)))
    if done.layers_too_large:
        text = "The faces of this result are too large to be kept, so their strength cannot be changed afterwards."
        notices.append(notice(NoticeKind.FACES_NOT_KEPT, text))
    return notices


def _size_out(picture: Picture, scale: float) -> tuple[int, int]:
    """(height, width) of the result."""
    width, height = output_size(picture.width, picture.height, scale)
    return height, width


def _upscale_planes(
    engine: Engine, picture: Picture, plan: UpscalePlan, on_progress: OnProgress
) -> tuple[Picture, tuple[UpscaleReport, ...]]:
    """Colour (or grey) through the network, then alpha likewise, as upstream's `RealESRGANer.enhance` does."""
    has_alpha = picture.alpha is not None and not _is_constant(picture.alpha)
    share = 0.5 if has_alpha else 1.0
    colour_plan = dataclasses.replace(plan, grey=picture.grey)
    rgb, colour_report = upscale(engine, picture.rgb, colour_plan, lambda f: on_progress(f * share, Stage.UPSCALING))
    if picture.grey:
        rgb = np.repeat(rgb, 3, axis=2)  # (H, W, 1) to (H, W, 3)
    if picture.alpha is None:
        return dataclasses.replace(picture, rgb=rgb), (colour_report,)
    if not has_alpha:
        flat = np.full(plan.size_out, picture.alpha.flat[0], picture.alpha.dtype)
        return dataclasses.replace(picture, rgb=rgb, alpha=flat), (colour_report,)
    as_colour: NDArray[Any] = np.broadcast_to(picture.alpha[:, :, None], (*picture.alpha.shape, 3))
    alpha_plan = dataclasses.replace(plan, grey=True)

    def tell(fraction: float) -> bool:
        return on_progress(share + fraction * share, Stage.UPSCALING)

    alpha, alpha_report = upscale(engine, as_colour, alpha_plan, tell)  # (H', W', 1)
    return dataclasses.replace(picture, rgb=rgb, alpha=alpha[:, :, 0]), (colour_report, alpha_report)


def _is_constant(plane: NDArray[Any]) -> bool:
    return bool(plane.min() == plane.max())
