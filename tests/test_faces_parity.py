"""Our faces against the untouched `GFPGANer`: same networks, the real detector, strength 1, upstream's way of pasting.

Figures of the issue: boxes within 2 pixels, 40 dB over each face's rectangle, identical outside. One photo runs through
the networks in full size; the others through arithmetic in their place, inside upstream's own objects.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.images import Picture, Pixels
from app.options import RestoreOptions
from app.restoration.faces import FaceModels, LoadedFaceModels, find_faces, restore_faces
from app.restoration.faces.alignment import frame_corners, inverse_affine
from app.restoration.faces.models import FaceModelChoice
from app.restoration.faces.parsing import Mask
from app.restoration.models.registry import ModelRegistry
from app.restoration.reference.faces import make_face_enhancer
from app.restoration.reference.packages import is_available
from app.restoration.reference.upscaling import ReferenceRestorer
from benchmarks.random_weights import DETECTOR_FILE, put_face_weights
from tests.face_harness import enlarge, read
from tests.timing import needs_bf16

needs_upstream = pytest.mark.skipif(not is_available(), reason="realesrgan, gfpgan and basicsr are not installed here")
CHOICE = FaceModelChoice("GFPGANv1.3", "mobilenet", parses=True)


@pytest.fixture(scope="module")
def weights(real_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real detector, and seeded random weights of full size for the restorer and the parser."""
    folder = tmp_path_factory.mktemp("faces")
    put_face_weights(folder, real_weights, ("GFPGANv1.3.pth", "parsing_parsenet.pth", DETECTOR_FILE))
    return folder


@pytest.fixture(scope="module")
def face_models(weights: Path) -> FaceModels:
    return FaceModels(ModelRegistry(weights, allow_unverified=True), "cpu", "fp32", "mobilenet")


class Background:
    """Stands where upstream calls its upsampler."""

    scale: float = 4

    def enhance(self, bgr: NDArray[Any], outscale: float) -> tuple[NDArray[Any], None]:
        return enlarge(bgr, self.scale), None


@pytest.fixture(scope="module")
def enhancer(weights: Path) -> Any:
    return make_face_enhancer(ModelRegistry(weights, allow_unverified=True), CHOICE, "cpu", 4, Background())


def upstream(enhancer: Any, picture: Picture) -> Pixels:
    with contextlib.redirect_stdout(io.StringIO()):
        *_, bgr = enhancer.enhance(np.ascontiguousarray(picture.rgb[:, :, ::-1]))
    rgb: Pixels = np.ascontiguousarray(bgr[:, :, ::-1])
    return rgb


def ours(tools: LoadedFaceModels, picture: Picture, scale: float) -> tuple[Pixels, Any]:
    tools = dataclasses.replace(tools, match_surroundings=False)
    result = enlarge(picture.rgb, scale)
    faces = find_faces(tools, picture.rgb)
    restore_faces(tools, picture, result, faces, 1.0, lambda fraction: True)
    return result, faces


def assert_parity(enhancer: Any, tools: LoadedFaceModels, picture: Picture, scale: float, faces: int) -> None:
    expected = upstream(enhancer, picture)
    result, found = ours(tools, picture, scale)
    theirs = sorted(enhancer.face_helper.det_faces, key=lambda face: face[0] + face[2])
    assert len(found) == len(theirs) == faces
    outside = np.ones(result.shape[:2], bool)
    plain = enlarge(picture.rgb, scale)
    for face, row in zip(found, theirs, strict=True):
        assert np.abs(np.array(face.found.box) - row[:4]).max() <= 2.0
        corners = frame_corners(inverse_affine(face.matrix, scale, scale), -1, -1, 512, 512)
        (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int) + 1
        rectangle = (slice(max(0, y0), y1), slice(max(0, x0), x1))
        outside[rectangle] = False
        assert psnr(result[rectangle], expected[rectangle]) >= 40.0
        assert psnr(plain[rectangle], expected[rectangle]) < 36.0, "upstream changed nothing, so this proves nothing"
    np.testing.assert_array_equal(result[outside], expected[outside])


def psnr(a: Pixels, b: Pixels) -> float:
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255.0**2 / error)


@needs_upstream
def test_faces_are_upstreams_with_networks_of_full_size(
    enhancer: Any, face_models: FaceModels, real_photos: Path
) -> None:
    enhancer.upscale = enhancer.face_helper.upscale_factor = Background.scale = 4
    tools, notices = face_models.open(None)
    assert tools is not None
    assert not notices
    whole: Any = read(real_photos / "one_face.jpg").rgb
    assert_parity(enhancer, tools, Picture(np.ascontiguousarray(whole[:300])), 4, 1)


class Mixing(nn.Module):
    """A restorer that mixes channels unevenly and shows the crop: swapped colours or a shifted crop would be seen."""

    def forward(self, x: Tensor, **_: Any) -> tuple[Tensor, list[Tensor]]:
        return mixed(x), []


def mixed(x: Tensor) -> Tensor:
    weights = torch.tensor([[0.7, -0.4, 0.1], [0.2, -0.5, 0.3], [-0.6, 0.1, 0.5]])
    return torch.einsum("oi,nihw->nohw", weights, x.float()).tanh()


class ByBrightness(nn.Module):
    """A parser whose mask follows the brightness of the restored face."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = torch.zeros(len(x), 19, *x.shape[2:])
        logits[:, 1] = is_face(x).float()
        logits[:, 0] = 0.5
        return logits, x


def is_face(x: Tensor) -> Tensor:
    smooth = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 31, 1, 15)[:, 0]
    return smooth > smooth.mean()


def brightness_mask(faces: Tensor) -> list[Mask]:
    return list(is_face(faces).to(torch.uint8).mul(255).numpy())


@needs_upstream
@pytest.mark.parametrize(
    ("name", "faces", "scale"),
    [("Blake_Lively.jpg", 2, 4), ("Blake_Lively.jpg", 2, 2), ("10045.png", 3, 4), ("children-alpha.png", 5, 4)],
)
def test_alignment_and_pasting_are_upstreams_on_every_face_photo(
    name: str, faces: int, scale: int, enhancer: Any, face_models: FaceModels, real_photos: Path
) -> None:
    kept = enhancer.gfpgan, enhancer.face_helper.face_parse
    enhancer.upscale = enhancer.face_helper.upscale_factor = Background.scale = scale
    enhancer.gfpgan, enhancer.face_helper.face_parse = Mixing(), ByBrightness()
    tools = LoadedFaceModels(face_models._detect("mobilenet"), mixed, parse=brightness_mask)
    try:
        assert_parity(enhancer, tools, read(real_photos / name), scale, faces)
    finally:
        enhancer.gfpgan, enhancer.face_helper.face_parse = kept


@needs_bf16
def test_two_runs_of_the_full_network_in_bf16_give_equal_bytes(weights: Path, real_photos: Path) -> None:
    box = FaceModels(ModelRegistry(weights, allow_unverified=True), "cpu", "bf16", "mobilenet")
    tools, _ = box.open(None, parse=False)
    assert tools is not None
    picture = read(real_photos / "one_face.jpg")
    first, second = (ours(tools, picture, 1)[0].tobytes() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("colour", [(1.0, 0.06, 0.06), (0.06, 0.06, 1.0)])
def test_a_red_and_a_blue_face_are_found_and_keep_their_colour(
    colour: tuple[float, ...], face_models: FaceModels, real_photos: Path
) -> None:
    rgb = (read(real_photos / "one_face.jpg").rgb * np.array(colour)).astype(np.uint8)
    picture = Picture(rgb)
    tools = LoadedFaceModels(face_models._detect("mobilenet"), lambda x: x * 0.9, parse=None)
    faces = find_faces(tools, rgb)
    assert len(faces) == 1
    plain = enlarge(rgb)
    result = plain.copy()
    done = restore_faces(tools, picture, result, faces, 1.0, lambda fraction: True)
    layer = done.layers[0]
    face = result[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width]
    assert np.abs(face.mean((0, 1)) - layer.before.mean((0, 1))).max() < 4
    strong = int(np.argmax(colour))
    assert face[..., strong].mean() > 4 * max(face[..., other].mean() for other in {0, 1, 2} - {strong})


@needs_upstream
def test_the_reference_engine_restores_faces_through_gfpganer(
    weights: Path, real_weights: Path, real_photos: Path
) -> None:
    (weights / "realesr-animevideov3.pth").symlink_to(real_weights / "realesr-animevideov3.pth")
    engine = ReferenceRestorer(weights, device="cpu", allow_unverified=True, face_detector="mobilenet")
    rgb = np.ascontiguousarray(cv2.resize(read(real_photos / "one_face.jpg").rgb, None, fx=0.4, fy=0.4))
    options = RestoreOptions(model="realesr-animevideov3", scale=2)
    outcome = engine.restore(Picture(rgb), options, lambda fraction, stage: True)
    assert [row["restored"] for row in outcome.faces] == [True]
    assert not outcome.warnings
    deep = engine.restore(Picture(rgb.astype(np.uint16) * 257), options, lambda fraction, stage: True)
    assert [notice.code for notice in deep.warnings] == ["reference_faces_depth"]
