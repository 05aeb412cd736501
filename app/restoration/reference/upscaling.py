"""The same restoration through the untouched upstream classes: the yardstick of parity tests and benchmarks.

`ENGINE=reference` serves with it. Photos go in and out as `Picture`s.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from app.errors import Cancelled, Conflict, Unavailable
from app.images import Box, Overview, PatchWindow, Picture
from app.notices import Notice, NoticeKind, notice
from app.options import RestoreOptions
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.table import ModelRow
from app.restoration.patches import cut, scaled
from app.restoration.reference.faces import face_rows, make_face_enhancer
from app.restoration.reference.packages import MISSING, is_available
from app.restoration.setup import Setup
from app.results import RestorationResult
from app.stages import OnProgress, Stage


def make_network(row: ModelRow) -> tuple[Any, int]:
    """Upstream's own network class for a row of the table, (N, 3, H, W) RGB in [0, 1], and its scale.

    Raises:
        Unavailable: `reference_unavailable` when upstream's packages are missing or do not know the model.
    """
    if not is_available():
        raise Unavailable("reference_unavailable", MISSING)
    from basicsr.archs.rrdbnet_arch import RRDBNet
    from basicsr.archs.srvgg_arch import SRVGGNetCompact

    def rrdb(blocks: int, scale: int) -> tuple[Any, int]:
        return RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=64, num_block=blocks, num_grow_ch=32, scale=scale), scale

    def compact(convolutions: int) -> tuple[Any, int]:
        network = SRVGGNetCompact(
            num_in_ch=3, num_out_ch=3, num_feat=64, num_conv=convolutions, upscale=4, act_type="prelu"
        )
        return network, 4

    makers = {
        "RealESRGAN_x4plus": lambda: rrdb(23, 4),
        "RealESRGAN_x2plus": lambda: rrdb(23, 2),
        "RealESRGAN_x4plus_anime_6B": lambda: rrdb(6, 4),
        "realesr-general-x4v3": lambda: compact(32),
        "realesr-animevideov3": lambda: compact(16),
    }
    if row.name not in makers:
        text = f"ENGINE=reference does not know the model {row.name}; use ENGINE=fast."
        raise Unavailable("reference_unavailable", text)
    return makers[row.name]()


def make_upsampler(registry: ModelRegistry, row: ModelRow, denoise: float | None, device: str, tile: int) -> Any:
    """Upstream's `RealESRGANer` with pre_pad=0 (the command line's default) in fp32, weights checked as ever.

    Its `enhance` takes what `to_upstream` gives, BGR.

    Args:
        registry: the weights folder.
        row: which model.
        denoise: 0..1, how much of the model itself; None or 1: without its partner.
        device: torch device name.
        tile: side of a tile in pixels; 0: no tiles.

    Raises:
        Unavailable: `reference_unavailable`. Conflict: `model_not_installed`.
    """
    network, scale = make_network(row)
    from realesrgan import RealESRGANer

    files = [row.file]
    if denoise is not None and denoise < 1.0 and row.denoise_partner is not None:
        files.append(row.denoise_partner)
    for file in files:
        refused = registry.load_error(file)
        if refused is not None:
            raise Conflict("model_not_installed", refused)
    paths = [str(registry.path(file)) for file in files]
    blended = len(paths) == 2
    return RealESRGANer(
        scale=scale,
        model_path=paths if blended else paths[0],
        dni_weight=[denoise, 1.0 - (denoise or 0.0)] if blended else None,
        model=network,
        tile=tile,
        tile_pad=10,
        pre_pad=0,
        half=False,
        device=torch.device(device),
    )


def to_upstream(picture: Picture) -> NDArray[Any]:
    """A picture as upstream takes it: grey (H, W), BGR (H, W, 3) or BGRA (H, W, 4), same dtype."""
    if picture.alpha is not None:
        return np.dstack([picture.rgb[:, :, ::-1], picture.alpha])
    if picture.grey:
        return np.ascontiguousarray(picture.rgb[:, :, 0])
    return np.ascontiguousarray(picture.rgb[:, :, ::-1])


def from_upstream(pixels: NDArray[Any], source: Picture) -> Picture:
    """Upstream's result as a picture with the source's dtype, colour profile and metadata.

    Args:
        pixels: (H, W) grey, (H, W, 3) BGR or (H, W, 4) BGRA, integers in the source's range.
        source: the photo it was made from.
    """
    pixels = pixels.astype(source.rgb.dtype)
    if pixels.ndim == 2:
        return dataclasses.replace(source, rgb=np.repeat(pixels[:, :, None], 3, axis=2))
    rgb = np.ascontiguousarray(pixels[:, :, 2::-1])
    alpha = np.ascontiguousarray(pixels[:, :, 3]) if pixels.shape[2] == 4 else None
    if source.grey:
        rgb = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    return dataclasses.replace(source, rgb=rgb, alpha=alpha)


class ReferenceRestorer:
    """A `PhotoRestorer` whose work upstream's classes do; they keep the photo on themselves, so each gets a fresh one.

    Arguments are those of `Setup`; precision and default tile are upstream's own.
    """

    def __init__(self, weights_folder: Path, **choices: Any) -> None:
        if not is_available():
            raise Unavailable("reference_unavailable", MISSING)
        self.setup = Setup(weights_folder, **choices)

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `PhotoRestorer`; in one step, since upstream tells no progress and cannot be stopped midway."""
        setup = self.setup
        row, stand_in = setup.choose(options)
        denoise, ignored = setup.denoise_of(row, options)
        if not on_progress(0.0, Stage.LOADING):
            raise Cancelled
        upsampler = make_upsampler(setup.registry, row, denoise, setup.device.value, setup.tile)
        enhancer, missing = self._enhancer(picture, options, upsampler)
        started = time.monotonic()
        if not on_progress(0.0, Stage.UPSCALING):
            raise Cancelled
        pixels = _enhance(picture, options, upsampler, enhancer)
        seconds = time.monotonic() - started
        if not on_progress(1.0, Stage.UPSCALING):
            raise Cancelled
        return RestorationResult(
            picture=from_upstream(pixels, picture),
            model=row.name,
            seconds=seconds,
            params={
                "device": setup.device.value,
                "precision": "fp32",
                "engine": "reference",
                "scale": options.scale,
            },
            faces=() if enhancer is None else face_rows(enhancer, picture.width, picture.height),
            warnings=(*stand_in, *ignored, *missing, *_tiny_notice(picture)),
        )

    def restore_patch(self, patch: PatchWindow, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """See `PhotoRestorer`; upstream restores the whole window."""
        window = dataclasses.replace(patch.window, grey=patch.overview.colourless)
        done = self.restore(window, options, on_progress)
        return dataclasses.replace(done, picture=cut(done.picture, scaled(patch.inner, options.scale)))

    def find_faces(self, overview: Overview, options: RestoreOptions) -> list[Box]:
        """See `PhotoRestorer`; upstream's own packages look for them in the window only."""
        return []

    def release(self) -> None:
        """See `PhotoRestorer`; upstream's networks go with each photo."""
        self.setup.release()

    def _enhancer(
        self, picture: Picture, options: RestoreOptions, upsampler: Any
    ) -> tuple[Any | None, tuple[Notice, ...]]:
        """Upstream's GFPGANer where faces are asked for and it can do them, and what must be said."""
        if not options.face_enhance:
            return None, ()
        choice, notices = self.setup.face_models.choose(options.face_model)
        if choice.restorer is None or choice.detector is None:
            return None, notices
        if picture.rgb.dtype == np.uint16:
            text = "Upstream pastes faces of 8 bits, nearly black in a 16-bit photo, so it did none; use ENGINE=fast."
            return None, (*notices, notice(NoticeKind.REFERENCE_FACES_DEPTH, text))
        if options.face_strength < 1:
            text = "Upstream cannot blend faces, so it pasted them in full; use ENGINE=fast for face_strength."
            notices += (notice(NoticeKind.REFERENCE_FACE_STRENGTH, text),)
        enhancer = make_face_enhancer(self.setup.registry, choice, self.setup.device.value, options.scale, upsampler)
        return enhancer, notices


def _enhance(picture: Picture, options: RestoreOptions, upsampler: Any, enhancer: Any | None) -> NDArray[Any]:
    """Upstream's own call; gives its pixels, (H, W), (H, W, 3) or (H, W, 4) in BGR order."""
    with contextlib.redirect_stdout(io.StringIO()):  # upstream prints
        if enhancer is None:
            pixels, _ = upsampler.enhance(to_upstream(picture), outscale=options.scale)
        else:  # upstream fails on grey photos here, so it gets three channels
            *_, pixels = enhancer.enhance(to_upstream(dataclasses.replace(picture, grey=False)))
    upstreams: NDArray[Any] = pixels
    return upstreams


def _tiny_notice(picture: Picture) -> list[Notice]:
    """Upstream guesses 16 bits from the brightest pixel, so it takes a very dark 16-bit photo for an 8-bit one."""
    if picture.rgb.dtype == np.uint16 and picture.rgb.max() <= 256:
        words = "Upstream takes this dark 16-bit photo for an 8-bit one; use ENGINE=fast."
        return [notice(NoticeKind.REFERENCE_DEPTH, words)]
    return []
