"""The face networks in their running form against the modules they were made from, and the detector's arithmetic."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import OutOfMemory
from app.images import Pixels
from app.restoration.device import profile_of
from app.restoration.faces import detection
from app.restoration.faces.detection import (
    Detector,
    build_detector,
    decode_boxes,
    decode_landmarks,
    make_priors,
    suppress_warnings,
)
from app.restoration.faces.gfpgan import NOISE_SEED, build_gfpgan, make_noise
from app.restoration.faces.parsing import parser_of, plain_mask, soft_mask
from app.restoration.models.registry import ModelRegistry
from benchmarks.random_weights import DETECTOR_FILE, random_detector, random_gfpgan, random_parser
from tests.face_harness import noted
from tests.timing import needs_bf16

FACE_PHOTOS = {"one_face.jpg": 1, "Blake_Lively.jpg": 2, "10045.png": 3, "children-alpha.png": 5}


@pytest.fixture(scope="module")
def small_gfpgan() -> Any:
    """GFPGAN of 64 pixels with a quarter of the channels: all kinds of layers, little work."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return random_gfpgan(64, 0.25)


def faces(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


def upstream(network: Any, batch: torch.Tensor) -> torch.Tensor:
    """The module's own pictures, each face's noise from the same seed."""
    made = []
    with torch.random.fork_rng(), torch.inference_mode():
        for face in [batch[i : i + 1] for i in range(len(batch))]:
            torch.manual_seed(NOISE_SEED)
            made.append(network(face)[0])
    return torch.cat(made)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4.0 / float((a - b).square().mean()))


@pytest.mark.parametrize("face_by_face", [True, False])
def test_the_running_form_of_gfpgan_is_the_same_function(small_gfpgan: Any, face_by_face: bool) -> None:
    restore = build_gfpgan(small_gfpgan, "cpu", torch.float32, face_by_face=face_by_face)
    expected = upstream(small_gfpgan, faces())
    assert expected.std() > 0.1, "a flat picture proves nothing"
    torch.testing.assert_close(restore(faces()), expected, atol=1e-5, rtol=1e-4)


@needs_bf16
@pytest.mark.parametrize("face_by_face", [True, False])
def test_gfpgan_in_bf16_stays_45_db_close(small_gfpgan: Any, face_by_face: bool) -> None:
    restore = build_gfpgan(small_gfpgan, "cpu", torch.bfloat16, face_by_face=face_by_face)
    assert psnr(restore(faces()), upstream(small_gfpgan, faces())) >= 45.0


def test_the_noise_matters_and_a_wrong_seed_would_be_seen(small_gfpgan: Any) -> None:
    expected = upstream(small_gfpgan, faces())
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(NOISE_SEED + 1)
        other = small_gfpgan(faces()[:1])[0]
    assert (other - expected[:1]).abs().max() > 0.01


def test_a_face_is_restored_the_same_alone_in_any_company_and_any_order(small_gfpgan: Any) -> None:
    restore = build_gfpgan(small_gfpgan, "cpu", torch.bfloat16)
    batch = faces(3)
    together = restore(batch)
    torch.rand(5)  # somebody else draws numbers
    for index in (2, 0, 1):
        torch.testing.assert_close(restore(batch[index : index + 1]), together[index : index + 1], atol=0, rtol=0)


def test_gfpgan_never_runs_in_fp16(small_gfpgan: Any) -> None:
    with pytest.raises(ValueError, match="float16"):
        build_gfpgan(small_gfpgan, "cpu", torch.float16)


def test_the_source_module_is_left_as_it_was(small_gfpgan: Any) -> None:
    before = {key: value.clone() for key, value in small_gfpgan.state_dict().items()}
    build_gfpgan(small_gfpgan, "cpu", torch.bfloat16)(faces(1))
    after = small_gfpgan.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_noise_does_not_touch_the_common_generator() -> None:
    state = torch.random.get_rng_state()
    first, second = make_noise([4, 8])
    assert first.shape == (1, 1, 4, 4)
    assert second.shape == (1, 1, 8, 8)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.0005), (torch.bfloat16, 0.02)])
def test_the_running_form_of_the_parser_gives_the_same_mask(dtype: torch.dtype, share: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = random_parser(64)
    x = torch.nn.functional.interpolate(faces(2, 8), size=(64, 64), mode="bilinear")
    with torch.inference_mode():
        classes = network(x)[0].argmax(1).numpy()
    kept = np.isin(classes, [*range(1, 14), 15])
    assert 0.1 < kept.mean() < 0.9, "an even mask proves nothing"
    masks = np.stack(parser_of(network, "cpu", dtype)(x))
    assert set(np.unique(masks)) == {0, 255}
    assert ((masks == 255) != kept).mean() <= share


def test_a_soft_mask_is_near_upstreams_and_fades_before_the_frame_when_asked() -> None:
    hard = np.zeros((512, 512), np.uint8)
    hard[:400, 100:420] = 255  # hair up to the upper border
    upstreams = cv2.GaussianBlur(cv2.GaussianBlur(hard.astype(np.float64), (101, 101), 11), (101, 101), 11)
    upstreams[:10] = upstreams[-10:] = 0
    upstreams[:, :10] = upstreams[:, -10:] = 0
    same = soft_mask(hard, soft_border=False)
    assert np.abs(same - upstreams).max() <= 1.0
    assert np.abs(np.diff(same[:, 256].astype(int))).max() > 200, "upstream's hard line has gone?"
    faded = soft_mask(hard, soft_border=True)
    assert np.abs(np.diff(faded[:, 256].astype(int))).max() < 12
    assert (faded[80:] == same[80:])[:, 80:-80].all()


def test_the_plain_mask_is_full_inside_nothing_at_the_border_and_smooth_between() -> None:
    mask = plain_mask()
    assert (mask[64:-64, 64:-64] == 255).all()
    assert not mask[0].any()
    assert not mask[:, -1].any()
    assert np.abs(np.diff(mask.astype(int), axis=0)).max() < 16


@pytest.fixture(scope="module")
def detector(real_weights: Path) -> tuple[Detector, Any]:
    """Ours, and facexlib's as it is."""
    state = ModelRegistry(real_weights, allow_unverified=True).read(DETECTOR_FILE)
    network = random_detector(DETECTOR_FILE)
    network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return build_detector("mobile0.25", state, "cpu"), network


def read(path: Path) -> Pixels:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert pixels is not None
    rgb: Pixels = np.ascontiguousarray(pixels[:, :, ::-1])
    return rgb


@pytest.mark.parametrize(("name", "count"), [*FACE_PHOTOS.items(), ("OST_009.png", 0), ("wolf_gray.jpg", 0)])
def test_boxes_and_landmarks_are_within_two_pixels_of_upstreams(
    name: str, count: int, detector: tuple[Detector, Any], real_photos: Path
) -> None:
    ours, upstreams = detector
    rgb = read(real_photos / name)
    found = ours(rgb)
    with torch.inference_mode():
        expected = upstreams.detect_faces(np.ascontiguousarray(rgb[:, :, ::-1]), 0.97)
    assert len(found) == len(expected) == count
    for face, row in zip(found, expected, strict=True):  # both best first
        assert np.abs(np.array(face.box) - row[:4]).max() <= 0.1  # asked for: 2
        assert np.abs(face.landmarks.ravel() - row[5:]).max() <= 0.1
        assert face.score == pytest.approx(row[4], abs=1e-4)


def overlap(a: Any, b: Any) -> float:
    """Intersection over union."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.clip(high - low, 0, None).prod()
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


@pytest.mark.parametrize("name", ["Blake_Lively.jpg", "10045.png"])
def test_a_large_photo_is_looked_at_small_and_faces_come_back_where_they_are(
    name: str, detector: tuple[Detector, Any], real_photos: Path
) -> None:
    ours, _ = detector
    rgb = read(real_photos / name)
    factor = 3500 / max(rgb.shape)
    large = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    near = sorted(ours(rgb), key=lambda face: face.box)
    far = sorted(ours(large), key=lambda face: face.box)
    for a, b in zip(near, far, strict=True):
        assert overlap(np.array(b.box) / factor, np.array(a.box)) > 0.7
        assert np.abs(b.landmarks / factor - a.landmarks).max() < 0.12 * (a.box[2] - a.box[0])


def test_the_copy_that_is_looked_at_is_capped(detector: tuple[Detector, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    sides: list[tuple[int, int]] = []
    monkeypatch.setattr(detection, "make_priors", lambda *size: noted(sides, size) and make_priors(*size))
    detector[0](np.zeros((300, 6000, 3), np.uint8))
    assert sides == [(64, 1280)]


@pytest.mark.parametrize("name", ["Blake_Lively.jpg", "10045.png"])
def test_a_card_looks_at_few_shapes_and_sees_the_same_faces(
    name: str, detector: tuple[Detector, Any], real_weights: Path, real_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection, "profile_of", lambda device: profile_of("cuda:0"))
    state = ModelRegistry(real_weights, allow_unverified=True).read(DETECTOR_FILE)
    on_card = build_detector("mobile0.25", state, "cpu")
    sides: list[tuple[int, int]] = []
    monkeypatch.setattr(detection, "make_priors", lambda *size: noted(sides, size) and make_priors(*size))
    rgb = read(real_photos / name)
    faces, same = detector[0](rgb), on_card(rgb)
    assert max(sides[1]) == 1280
    assert min(sides[1]) % 64 == 0
    assert len(faces) == len(same) > 0
    for a, b in zip(faces, same, strict=True):
        assert overlap(np.array(a.box), np.array(b.box)) > 0.98
        assert np.abs(a.landmarks - b.landmarks).max() < 1


def test_few_shapes_hold_every_photo() -> None:
    sizes = [(600, 400), (601, 444), (448, 9), (1280, 447), (444, 601), (1280, 1279)]
    seen = [detection.seen_size(*size, 1280, 64) for size in sizes]
    assert seen == [(1280, 448), (1280, 448), (1280, 64), (1280, 448), (448, 1280), (1280, 1280)]
    assert detection.seen_size(601, 444, 1280, 0) == (601, 444)


def test_out_of_memory_while_looking_halves_the_copy_remembers_it_and_ends_in_a_named_error(
    real_weights: Path, real_photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from facexlib.detection.retinaface import RetinaFace

    seen: list[int] = []
    forward, limit = RetinaFace.forward, [700]

    def tight(self: Any, x: torch.Tensor) -> Any:
        seen.append(max(x.shape[2:]))
        if seen[-1] > limit[0]:
            raise RuntimeError("FIND was unable to find an engine to execute this computation")
        return forward(self, x)

    state = ModelRegistry(real_weights, allow_unverified=True).read(DETECTOR_FILE)
    ours = build_detector("mobile0.25", state, "cpu")
    monkeypatch.setattr(RetinaFace, "forward", tight)
    rgb = read(real_photos / "one_face.jpg")
    large = cv2.resize(rgb, None, fx=1280 / max(rgb.shape), fy=1280 / max(rgb.shape))
    assert len(ours(large)) == len(ours(large)) == 1
    assert seen == [1280, 640, 640]
    limit[0] = 0
    with pytest.raises(OutOfMemory) as refused:
        ours(large)
    assert refused.value.code == "out_of_memory"


def test_a_16_bit_photo_shows_the_same_faces(detector: tuple[Detector, Any], real_photos: Path) -> None:
    ours, _ = detector
    rgb = read(real_photos / "one_face.jpg")
    (eight,), (sixteen,) = ours(rgb), ours(rgb.astype(np.uint16) * 257)
    assert np.abs(np.array(eight.box) - sixteen.box).max() < 0.01


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2)])
def test_the_smallest_photos_have_no_faces(size: tuple[int, int], detector: tuple[Detector, Any]) -> None:
    assert detector[0](np.full((*size, 3), 90, np.uint8)) == []


def test_the_larger_detector_is_built_and_runs_as_facexlibs() -> None:
    with torch.random.fork_rng(), suppress_warnings():
        torch.manual_seed(4)
        network = random_detector("detection_Resnet50_Final.pth")
    ours = build_detector("resnet50", network.state_dict(), "cpu")
    rgb = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    boxes, scores, marks = ours._run(rgb)
    x = torch.from_numpy(rgb[:, :, ::-1].astype(np.float32) - np.array((104, 117, 123), np.float32))
    with torch.inference_mode():
        expected = network(x.permute(2, 0, 1)[None])
    for got, wanted in zip((boxes, scores, marks), (expected[0], expected[1][..., 1], expected[2]), strict=True):
        np.testing.assert_allclose(got, wanted[0].numpy(), atol=2e-3 * max(1.0, float(wanted.abs().max())))


@pytest.mark.parametrize("size", [(64, 64), (179, 250), (31, 33)])
def test_priors_and_their_decoding_are_facexlibs(size: tuple[int, int]) -> None:
    from facexlib.detection.retinaface import generate_config
    from facexlib.detection.retinaface_utils import PriorBox, decode, decode_landm

    height, width = size
    theirs = PriorBox(generate_config("mobile0.25"), image_size=size).forward()
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    np.testing.assert_allclose(make_priors(height, width), (theirs * scale).numpy(), rtol=1e-5)
    random = np.random.default_rng(1)
    loc = random.normal(0, 1, (len(theirs), 4)).astype(np.float32)
    marks = random.normal(0, 1, (len(theirs), 10)).astype(np.float32)
    boxes = decode(torch.from_numpy(loc), theirs, [0.1, 0.2]) * scale
    np.testing.assert_allclose(decode_boxes(loc, make_priors(height, width)), boxes.numpy(), atol=0.02)
    points = decode_landm(torch.from_numpy(marks), theirs, [0.1, 0.2]).reshape(-1, 5, 2) * scale[:2]
    np.testing.assert_allclose(decode_landmarks(marks, make_priors(height, width)), points.numpy(), atol=0.02)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.floats(0, 50), st.floats(0, 50), st.floats(1, 40), st.floats(1, 40)]), max_size=25))
def test_overlapping_boxes_are_dropped_as_torchvision_does(corners: list[tuple[float, ...]]) -> None:
    from torchvision.ops import nms

    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.float64).reshape(-1, 4)
    scores = torch.linspace(1, 0.5, len(boxes), dtype=torch.float64)
    expected = nms(torch.from_numpy(boxes), scores, 0.4).tolist()
    assert detection.non_max_suppression(boxes, 0.4) == expected
