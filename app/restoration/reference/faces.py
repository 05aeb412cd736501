"""Faces through the untouched `GFPGANer` of the gfpgan package, fed with our verified files: the yardstick for faces.

Upstream fetches its detector and parser by itself, unverified, and knows only one of each; while its object is built,
those two makers answer with the same upstream classes loaded from the weights folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from app.errors import Conflict, Unavailable
from app.restoration.faces.detection import suppress_warnings
from app.restoration.faces.gfpgan import make_noise
from app.restoration.faces.models import DETECTORS, KINDS, PARSER, FaceModelChoice
from app.restoration.models.registry import ModelRegistry
from app.restoration.reference.packages import MISSING, is_available


def make_face_enhancer(
    registry: ModelRegistry, choice: FaceModelChoice, device: str, scale: float, upsampler: Any
) -> Any:
    """Upstream's `GFPGANer` in fp32, with our noise for every face, so that results can be compared on any device.

    Upstream draws new noise with the device's own generator, which gives other numbers on a card for the same seed.

    Args:
        registry: the weights folder.
        choice: which files; without a parser upstream's square mask is used.
        device: torch device name.
        scale: factor of the result.
        upsampler: something with upstream's `enhance(bgr, outscale=...)`, for the background.

    Raises:
        Unavailable: `reference_unavailable` when gfpgan is not installed.
        Conflict: `model_not_installed`.
    """
    if not is_available() or choice.restorer is None or choice.detector is None:
        raise Unavailable("reference_unavailable", MISSING)
    from gfpgan import GFPGANer

    path = registry.path(f"{choice.restorer}.pth")
    refused = registry.load_error(path.name)
    if refused is not None:
        raise Conflict("model_not_installed", refused)
    with _files_from(registry, choice.detector, parses=choice.parses), suppress_warnings():
        enhancer = GFPGANer(str(path), upscale=scale, bg_upsampler=upsampler, device=torch.device(device))
    enhancer.face_helper.use_parse = choice.parses
    kept = list(enhancer.gfpgan.stylegan_decoder.noises.buffers())
    for noise, ours in zip(kept, make_noise([int(noise.shape[-1]) for noise in kept]), strict=True):
        noise.copy_(ours)
    enhancer.gfpgan.register_forward_pre_hook(_with_kept_noise, with_kwargs=True)
    return enhancer


def _with_kept_noise(_: Any, words: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Upstream's own switch for the noise that the network keeps, instead of new noise for each face."""
    return words, {**named, "randomize_noise": False}


@contextlib.contextmanager
def _files_from(registry: ModelRegistry, detector: str, *, parses: bool) -> Iterator[None]:
    """Meanwhile facexlib's helper gets its detector and parser from the weights folder."""
    from facexlib.utils import face_restoration_helper as helper

    kept = helper.init_detection_model, helper.init_parsing_model
    helper.init_detection_model = lambda *_, device, **__: load_detector(registry, detector, device)
    helper.init_parsing_model = lambda *_, device, **__: load_parser(registry, device) if parses else None
    try:
        yield
    finally:
        helper.init_detection_model, helper.init_parsing_model = kept


def load_detector(registry: ModelRegistry, name: str, device: torch.device) -> Any:
    """facexlib's RetinaFace as it is, with the file of that name (`resnet50`, `mobilenet`).

    It takes (H, W, 3) BGR in [0, 255]. Raises `Conflict` `model_not_installed`, `Unavailable` `weights_unreadable`.
    """
    from facexlib.detection.retinaface import RetinaFace

    network = RetinaFace(network_name=KINDS[name], device=device)
    state = registry.read(DETECTORS[name])
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return network.eval()


def load_parser(registry: ModelRegistry, device: torch.device) -> Any:
    """facexlib's ParseNet as it is: (N, 3, 512, 512) fp32 RGB in [-1, 1] to (N, 19, 512, 512) logits and a picture.

    Raises `Conflict` `model_not_installed`, `Unavailable` `weights_unreadable`.
    """
    from facexlib.parsing.parsenet import ParseNet

    network = ParseNet(in_size=512, out_size=512, parsing_ch=19)
    network.load_state_dict(dict(registry.read(PARSER)))
    return network.eval().to(device)


def face_rows(enhancer: Any, width: int, height: int) -> tuple[dict[str, Any], ...]:
    """What upstream found in its last photo, as rows from left to right (see `RestorationResult`)."""
    rows = []
    for index, face in enumerate(sorted(enhancer.face_helper.det_faces, key=lambda face: (face[0] + face[2], face[1]))):
        x0, y0, x1, y1, score = (float(value) for value in face[:5])
        box = (max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1))
        row = {"index": index, "box": [round(value, 1) for value in box], "score": round(score, 3)}
        row |= {"size": round(max(x1 - x0, y1 - y0)), "restored": True, "reason": None, "strength": 1.0}
        rows.append(row)
    return tuple(rows)
