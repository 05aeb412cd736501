"""Drawn damage: masks that are exact, kinds that can be seen, undamaged pictures that stay so, seeds that repeat."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from app.evaluation.damage.ageing import Scan, make_print
from app.evaluation.damage.held_out_kinds import HELD_OUT
from app.evaluation.damage.kinds import SHARES, TRAINED, DamageKind
from app.evaluation.damage.layers import Layer, Stroke, paste, rasterize
from app.evaluation.damage.scans import VISIBLE_CONTRAST, apply_damage, contrast, crop, scan_sample
from training.damage.faces import LARGEST_FACTOR, LIST, Face, crop_face, names, read_faces
from training.damage.negative_faces import draw_faces
from training.damage.negative_hands import draw_hands
from training.damage.negative_pages import PAGES, draw_caption
from training.damage.negative_patterns import PATTERNS
from training.damage.negatives import SCENES, DrawScene
from training.damage.samples import UNDAMAGED_SHARE, Samples, draw_scene, make_damaged, make_undamaged
from training.photos import is_held_out

SIDE = 128
KINDS = {**TRAINED, **HELD_OUT}


def a_photo(seed: int, height: int = 150, width: int = 190) -> np.ndarray:
    """Smooth structure in middle tones, (height, width, 3) uint8, on which light and dark damage can be seen."""
    coarse = np.random.default_rng(seed).integers(70, 170, (height // 15, width // 15, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def a_scene(seed: int) -> np.ndarray:
    return crop(a_photo(seed), SIDE, np.random.default_rng(seed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        Image.fromarray(a_photo(number)).save(tmp_path / f"photo{number}.png")
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_outside_what_was_drawn_no_pixel_of_the_print_changes(kind: DamageKind) -> None:
    for seed in range(4):
        rng = np.random.default_rng([seed, 1])
        undamaged, canvas = make_print(a_scene(seed), rng)
        damaged, drawn = apply_damage(undamaged, KINDS[kind](canvas, rng))
        np.testing.assert_array_equal(damaged[~drawn], undamaged[~drawn])
        assert (contrast(undamaged, damaged)[drawn] > VISIBLE_CONTRAST).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_seen_and_leaves_most_of_the_print(kind: DamageKind) -> None:
    shares = []
    for seed in range(12):
        rng = np.random.default_rng([seed, 2])
        sample = scan_sample(a_scene(seed), [KINDS[kind]], rng, with_undamaged=True)
        assert sample.undamaged is not None
        shares.append(float(sample.mask.mean()))
        off = np.abs(sample.scan / 255.0 - sample.undamaged / 255.0).max(axis=2)
        if sample.mask.sum() > 40:  # JPEG comes on top of the damage, so single pixels may differ
            assert np.median(off[sample.mask]) > 0.4 * VISIBLE_CONTRAST
            assert np.median(off[~sample.mask]) < 0.7 * np.median(off[sample.mask])
    assert np.mean([share > 0 for share in shares]) > 0.6
    assert 0.0005 < np.mean(shares) < 0.4
    assert max(shares) < 0.8


@pytest.mark.parametrize("seed", range(6))
def test_the_scan_without_damage_has_the_same_noise_and_compression(seed: int) -> None:
    without = scan_sample(a_scene(seed), (), np.random.default_rng([seed, 6]), with_undamaged=True)
    np.testing.assert_array_equal(without.undamaged, without.scan)
    draws = [KINDS[DamageKind.CRACK]]
    sample = scan_sample(a_scene(seed), draws, np.random.default_rng([seed, 6]), with_undamaged=True)
    np.testing.assert_array_equal(sample.scan, scan_sample(a_scene(seed), draws, np.random.default_rng([seed, 6])).scan)
    assert sample.undamaged is not None
    far = cv2.dilate((sample.contrast > 0).astype(np.uint8), np.ones((49, 49), np.uint8)) == 0  # over blocks of 16
    np.testing.assert_array_equal(sample.undamaged[far], sample.scan[far])
    assert not np.array_equal(sample.undamaged, sample.scan)


@pytest.mark.parametrize("kind", [DamageKind.CRACK, DamageKind.STAIN, DamageKind.BORDER])
def test_a_scan_may_resolve_more_than_the_print_holds(kind: DamageKind) -> None:
    sample = scan_sample(a_scene(1), [KINDS[kind]], np.random.default_rng(7), 2 * SIDE + 5)
    assert sample.scan.shape == (2 * SIDE + 5, 2 * SIDE + 5, 3)
    assert sample.mask.shape == sample.unsure.shape == sample.scan.shape[:2]
    assert sample.mask.any()
    as_is = scan_sample(a_scene(1), [KINDS[kind]], np.random.default_rng(7))
    assert sample.mask.mean() == pytest.approx(as_is.mask.mean(), rel=0.35)


def test_the_kinds_kept_out_are_not_trained_and_all_the_others_are() -> None:
    assert set(HELD_OUT) == {DamageKind.PERCOLATION_CRACK, DamageKind.LINT}
    assert set(TRAINED) == set(SHARES) == set(DamageKind) - set(HELD_OUT)
    assert sum(SHARES.values()) == pytest.approx(1.0)


def test_what_comes_in_from_the_border_begins_there() -> None:
    draw = KINDS[DamageKind.EDGE_TEAR]
    samples = [scan_sample(a_scene(seed), [draw], np.random.default_rng([seed, 6])) for seed in range(16)]
    seen = [sample.mask for sample in samples if sample.mask.any()]
    assert len(seen) >= 12
    rim = np.ones(seen[0].shape, np.bool_)
    rim[3:-3, 3:-3] = False
    assert np.mean([bool((largest_island(mask) & rim).any()) for mask in seen]) >= 0.8


def largest_island(mask: np.ndarray) -> np.ndarray:
    count, islands = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    sizes = np.bincount(islands.ravel(), minlength=count)[1:]
    return np.asarray(islands == 1 + sizes.argmax())


@pytest.mark.parametrize(
    "draw", [*SCENES, *PATTERNS, draw_faces, draw_hands, draw_caption, *PAGES], ids=lambda draw: draw.__name__
)
def test_a_hard_negative_changes_the_scene_and_marks_nothing(draw: DrawScene) -> None:
    changed = 0
    for seed in range(6):
        rng = np.random.default_rng([seed, 3])
        scene = a_scene(seed)
        before = scene.copy()
        drawn = np.clip(draw(scene, rng), 0.0, 1.0, dtype=np.float32)
        np.testing.assert_array_equal(scene, before)
        assert drawn.shape == scene.shape
        changed += int((np.abs(drawn - scene).max(axis=2) > VISIBLE_CONTRAST).mean() > 0.0005)
        sample = scan_sample(drawn, (), rng)
        assert not sample.mask.any()
        assert not sample.unsure.any()
    assert changed >= 4


def test_samples_are_damaged_and_undamaged_as_they_say() -> None:
    for seed in range(20):
        undamaged = make_undamaged(a_scene(seed), np.random.default_rng([seed, 4]), SIDE)
        assert not undamaged.mask.any()
        assert not undamaged.unsure.any()
    damaged = [make_damaged(a_scene(seed), np.random.default_rng([seed, 5]), SIDE) for seed in range(20)]
    assert np.mean([sample.mask.any() for sample in damaged]) > 0.8
    assert not any((sample.mask & sample.unsure).any() for sample in damaged)


def test_equal_seeds_and_numbers_give_equal_samples_in_any_order(folder: Path) -> None:
    paths = sorted(folder.glob("*.png"))
    forward, backward, other = Samples(paths, 96, 1), Samples(paths, 96, 1), Samples(paths, 96, 2)
    first = [forward[index] for index in range(6)]
    again = [backward[index] for index in reversed(range(6))][::-1]
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(first[0][0], other[0][0])
    assert not torch.equal(first[0][0], first[1][0])
    scan, mask, unsure = first[0]
    assert (scan.shape, scan.dtype) == ((3, 96, 96), torch.uint8)
    assert (mask.shape, mask.dtype, unsure.shape) == ((1, 96, 96), torch.bool, (1, 96, 96))


def test_about_as_many_samples_are_undamaged_as_the_recipe_says(folder: Path) -> None:
    samples = Samples(sorted(folder.glob("*.png")), 64, 3)
    undamaged = np.mean([not samples[index][1].any() for index in range(150)])
    assert UNDAMAGED_SHARE - 0.1 < undamaged < UNDAMAGED_SHARE + 0.2  # some drawn damage cannot be seen


def test_known_faces_are_read_for_the_photos_there_are_and_held_out_ones_are_never_shown() -> None:
    paths = [Path("15011.jpg"), Path("other.png"), Path("230063.jpg")]
    known = read_faces(names(paths))
    assert {number for number, _ in known} == {0, 2}
    assert all(paths[number].stem == face.photo for number, face in known)
    with LIST.open() as file:
        assert not any(is_held_out(Path(line.split(",")[0])) for line in file.readlines()[1:])


@pytest.mark.parametrize(("x", "y"), [(95, 75), (2, 3), (188, 147)])
def test_a_crop_around_a_face_holds_its_middle(x: int, y: int) -> None:
    photo = np.zeros((150, 190, 3), np.uint8)
    photo[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4] = 255
    for seed in range(30):
        square = crop_face(photo, Face("photo", x, y, 40), 64, np.random.default_rng(seed))
        assert square.shape == (64, 64, 3)
        assert square.dtype == np.float32
        assert 0.0 <= square.min() <= square.max() <= 1.0
        assert square.max() > 0.4
        rows = np.flatnonzero(square.max(axis=(1, 2)) > 0.4)
        assert len(rows) <= math.ceil(8 * max(LARGEST_FACTOR, 64 / 150)) + 2


def test_samples_show_known_faces(tmp_path: Path) -> None:
    Image.fromarray(a_photo(1)).save(tmp_path / "15011.png")  # a photo that the list knows
    samples, seen = Samples([tmp_path / "15011.png"], 64, 3), list[Face]()

    def note(photo: np.ndarray, face: Face, side: int, rng: np.random.Generator) -> np.ndarray:
        seen.append(face)
        return crop_face(photo, face, side, rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.damage.samples.crop_face", note)
        for number in range(100):
            samples.sample(number)
    assert 15 <= len(seen) <= 45  # of 100 and a share of 0.3


def test_layers_are_pasted_in_order_by_their_coverage() -> None:
    ground = np.full((2, 2, 3), 0.5, np.float32)
    half = np.array([[0.0, 1.0], [0.5, 0.0]], np.float32)
    white, black = np.ones(3, np.float32), np.zeros(3, np.float32)
    below = Layer(np.ones((2, 2), np.float32), black)
    np.testing.assert_allclose(paste(ground, [below, Layer(half, white)])[:, :, 0], [[0.0, 1.0], [0.5, 0.0]])
    np.testing.assert_allclose(paste(ground, [Layer(half, white)])[:, :, 2], [[0.5, 1.0], [0.75, 0.5]])


@pytest.mark.parametrize("width", [1.0, 3.0, 8.0])
def test_a_stroke_is_as_wide_as_asked(width: float) -> None:
    points = np.array([[10.0, 32.0], [54.0, 32.0]], np.float32)
    coverage = rasterize([Stroke(points, np.full(2, width, np.float32))], (64, 64))
    assert coverage[:, 30].sum() == pytest.approx(width, abs=0.7)
    assert coverage[:, 60].sum() == 0.0 or width > 6.0


def test_a_scanner_shows_equal_prints_equally_and_adds_noise_only_when_it_stores() -> None:
    scene = a_scene(1)
    scan = Scan(blur=0.6, sharpening=0.5, is_grey=False, noise=0.02, quality=70)
    np.testing.assert_array_equal(scan.see(scene), scan.see(scene.copy()))
    stored = scan.store(scan.see(scene), np.random.default_rng(0))
    assert 0.2 < np.abs(stored - 255.0 * scan.see(scene)).mean() < 12.0
    squeezed = dataclasses.replace(scan, noise=0.0, quality=20).store(scene, np.random.default_rng(0))
    assert np.abs(squeezed - 255.0 * scene).mean() > 0.5, "JPEG leaves its marks"
    exact = Scan(blur=0.0, sharpening=0.0, is_grey=False, noise=0.0, quality=100)
    np.testing.assert_array_equal(exact.store(exact.see(scene), np.random.default_rng(0)), np.rint(scene * 255))


def test_two_hard_negatives_never_leave_the_range() -> None:
    for seed in range(10):
        drawn = draw_scene(a_scene(seed), np.random.default_rng([seed, 6]))
        assert drawn.dtype == np.float32
        assert 0.0 <= drawn.min() <= drawn.max() <= 1.0
