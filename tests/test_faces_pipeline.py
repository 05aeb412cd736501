"""The faces pipeline around cheap networks: what is changed, what is not, in which order, and what is said about it."""

from __future__ import annotations

import dataclasses
import itertools
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from app.errors import Cancelled, OutOfMemory
from app.images import Picture, Pixels
from app.images.face_layers import blend_layers
from app.restoration.faces import LoadedFaceModels, find_faces, restore_faces
from app.restoration.faces.alignment import align_face, estimate_similarity, inverse_affine
from app.restoration.faces.detection import DetectedFace
from app.restoration.faces.pipeline import MAX_FACES, to_faces
from tests.face_harness import (
    at,
    enlarge,
    found_at,
    grey_scene,
    inverted,
    noted,
    restore,
    round_mask,
    same,
    scene,
    spot,
    spotted,
    tinted,
)


def tools(*found: DetectedFace, **more: Any) -> LoadedFaceModels:
    return LoadedFaceModels(**{"detect": at(*found), "restore": inverted, "parse": round_mask, **more})


def changed(plain: Pixels, result: Pixels) -> Any:
    return (plain != result).any(axis=2)


def test_only_the_faces_own_rectangle_changes() -> None:
    plain, result, done = restore(tools(found_at(60, 60, 70)), Picture(scene()))
    (layer,) = done.layers
    outside = changed(plain, result)
    outside[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width] = False
    assert not outside.any()
    assert changed(plain, result).any()
    for edge in (layer.mask[0], layer.mask[-1], layer.mask[:, 0], layer.mask[:, -1]):
        assert not edge.any()
    assert layer.width <= 2 * 70 + 6
    np.testing.assert_array_equal(
        layer.before, plain[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width]
    )


def test_the_rectangle_grows_with_the_face_and_not_with_the_photo() -> None:
    small = restore(tools(found_at(60, 60, 40)), Picture(scene()))[2].layers[0]
    larger_photo = restore(tools(found_at(60, 60, 40)), Picture(scene(600, 800)))[2].layers[0]
    assert (small.width, small.height) == (larger_photo.width, larger_photo.height)


@pytest.mark.parametrize("degrees", [0, 30, -75, 180])
@pytest.mark.parametrize("scale", [1, 2, 3.7])
def test_a_face_comes_back_to_where_it_was(degrees: float, scale: float) -> None:
    """With a network that changes nothing, the paste must change nothing: a shift or turn would show."""
    rgb = scene(200, 240)
    one = tools(found_at(110, 100, 130, degrees), restore=same, match_surroundings=False)
    plain, result, _ = restore(one, Picture(rgb), scale)
    difference = np.abs(plain.astype(int) - result)
    assert difference.max() <= 8  # two more interpolations, and upstream's shift of half a pixel
    assert difference.mean() < 0.6


def test_faces_are_ordered_from_left_to_right_and_rows_say_what_was_done() -> None:
    three = [found_at(130, 60, 60), found_at(20, 60, 60, score=0.98), found_at(75, 60, 8)]
    _, _, done = restore(tools(*three), Picture(scene()), strength=0.7)
    assert [row["index"] for row in done.rows] == [0, 1, 2]
    assert [row["box"][0] for row in done.rows] == [2.0, 72.6, 112.0]
    assert [row["reason"] for row in done.rows] == [None, "too_small", None]
    assert [row["restored"] for row in done.rows] == [True, False, True]
    assert [row["strength"] for row in done.rows] == [0.7, 0.0, 0.7]
    assert [row["size"] for row in done.rows] == [36, 5, 36]
    assert done.rows[0]["score"] == 0.98
    assert [layer.index for layer in done.layers] == [0, 2]


def test_the_border_of_the_photo_may_cut_a_face() -> None:
    rgb = scene()
    for x, y in itertools.product((0, 80, 159), (0, 60, 119)):
        plain, result, done = restore(tools(found_at(x, y, 90)), Picture(rgb))
        assert changed(plain, result).any()
        x0, y0, x1, y1 = done.rows[0]["box"]
        assert 0 <= x0 <= x1 <= 160
        assert 0 <= y0 <= y1 <= 120


def test_a_face_outside_the_photo_is_said_to_have_nothing_to_paste() -> None:
    plain, result, done = restore(tools(found_at(500, 500, 50)), Picture(scene()))
    np.testing.assert_array_equal(plain, result)
    assert done.rows[0]["reason"] == "nothing_to_paste"
    assert not done.layers_too_large


def test_landmarks_on_one_point_are_no_face() -> None:
    flat = DetectedFace((1, 1, 9, 9), 0.99, np.array([[5.0, 5], [15, 5], [5, 5], [15, 5], [5, 5]]))
    lost = dataclasses.replace(flat, landmarks=np.full((5, 2), 7.0))
    plain, result, done = restore(tools(lost), Picture(scene()))
    np.testing.assert_array_equal(plain, result)
    assert done.rows[0]["reason"] == "too_small"
    restore(tools(flat), Picture(scene()))  # whatever it is, it does not fail


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_strength_is_a_real_blend_that_the_layers_can_repeat(dtype: Any, strength: float) -> None:
    overlapping = tools(found_at(60, 60, 70), found_at(85, 65, 60))
    picture = Picture(scene(dtype=dtype))
    plain, full, done = restore(overlapping, picture)
    _, part, _ = restore(overlapping, picture, strength=strength)
    assert (done.layers[0].before.dtype, full.dtype) == (dtype, dtype)
    np.testing.assert_array_equal(blend_layers(full, done.layers, {0: strength, 1: strength}), part)
    np.testing.assert_array_equal(blend_layers(full, done.layers, {0: 0, 1: 0}), plain)
    if strength == 0.4:
        alone_plain, alone, _ = restore(tools(found_at(60, 60, 70)), picture)
        _, alone_part, _ = restore(tools(found_at(60, 60, 70)), picture, strength=strength)
        expected = alone_plain + 0.4 * (alone.astype(float) - alone_plain)
        assert np.abs(alone_part - expected).max() <= 1.0


def test_a_16_bit_photo_is_restored_in_16_bits() -> None:
    _, eight, _ = restore(tools(found_at(80, 60, 90)), Picture(scene()))
    _, sixteen, _ = restore(tools(found_at(80, 60, 90)), Picture(scene(dtype=np.uint16)))
    assert np.abs(sixteen / 257 - eight).max() <= 2.0
    assert len(np.unique(sixteen % 257)) > 50, "it holds no more than 8 bits"


def test_a_grey_photo_stays_grey() -> None:
    plain, result, _ = restore(tools(found_at(80, 60, 90), restore=tinted), grey_scene())
    assert (result == result[:, :, :1]).all()
    assert changed(plain, restore(tools(found_at(80, 60, 90)), grey_scene())[1]).any()


@pytest.mark.parametrize("colour", [(230, 0, 0), (0, 0, 230), (0, 230, 0)])
def test_a_pure_red_and_a_pure_blue_face_keep_their_colour(colour: tuple[int, int, int]) -> None:
    rgb = np.zeros((120, 160, 3), np.uint8)
    rgb[:] = colour
    for found, matches in ((found_at(80, 60, 90), True), (found_at(80, 60, 90, 20), False)):
        one = tools(found, restore=same, match_surroundings=matches)
        _, result, _ = restore(one, Picture(rgb))
        assert np.abs(result.astype(int) - np.array(colour)).max() <= 1


def test_a_cast_of_the_network_is_matched_to_the_surroundings() -> None:
    picture = Picture(scene())
    one = tools(found_at(80, 60, 90), restore=tinted)
    plain, matched, done = restore(one, picture)
    _, unmatched, _ = restore(dataclasses.replace(one, match_surroundings=False), picture)
    layer = done.layers[0]
    inside = np.zeros(plain.shape[:2], bool)
    inside[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width] = layer.mask > 250

    def cast(rgb: Pixels) -> float:
        return float(np.abs((rgb[inside].astype(float) - plain[inside]).mean(axis=0)).max())

    assert cast(unmatched) > 12
    assert cast(matched) < 3


def test_without_a_parser_the_whole_frame_is_pasted_with_a_soft_edge() -> None:
    _, _, done = restore(tools(found_at(80, 60, 60), parse=None), Picture(scene()))
    mask = done.layers[0].mask.astype(int)
    assert mask.max() == 255
    assert (mask > 250).mean() > 0.6
    assert np.abs(np.diff(mask, axis=1)).max() < 60


def test_a_large_face_is_averaged_down_into_its_frame() -> None:
    """A fine chequered pattern becomes grey; reading single pixels, as upstream does, would leave noise."""
    pattern = (np.indices((2000, 2000)).sum(0) % 2 * 255).astype(np.uint8)
    rgb = np.repeat(pattern[:, :, None], 3, axis=2)
    matrix = estimate_similarity(found_at(1000, 1000, 1700).landmarks)
    assert matrix is not None
    assert align_face(rgb, matrix).std() < 12
    smooth = scene(1500, 1500)
    turned = estimate_similarity(found_at(700, 800, 1300, 25).landmarks)
    assert turned is not None
    import cv2

    exact = cv2.warpAffine(smooth, turned, (512, 512), borderValue=(132, 133, 135))
    inner = np.abs(align_face(smooth, turned).astype(int) - exact)[20:-20, 20:-20]
    assert np.percentile(inner, 99) <= 2


def test_a_face_that_is_small_in_the_result_is_averaged_down_into_it() -> None:
    pattern = (torch.from_numpy(np.indices((512, 512)).sum(0) % 2) * 2 - 1).float()
    chequered = tools(found_at(60, 60, 70), restore=lambda x: pattern.expand_as(x), match_surroundings=False)
    _, _, done = restore(chequered, Picture(scene()), scale=1)
    layer = done.layers[0]
    full = layer.mask == 255
    assert full.sum() > 500
    assert layer.restored[full].std() < 12
    assert abs(layer.restored[full].mean() - 127.5) < 4


def test_what_lies_beyond_the_photo_does_not_count_when_colours_are_matched() -> None:
    def darkens_the_left(x: Tensor) -> Tensor:
        out = x.clone()
        out[:, :, :, :256] = -1.0
        return out

    cut = tools(found_at(0, 60, 90), restore=darkens_the_left)  # all of the left half is beyond the border
    plain, result, _ = restore(cut, Picture(scene()))
    assert np.abs(result[:, 6:].astype(int) - plain[:, 6:]).max() < 12


def test_the_way_back_is_upstreams_with_its_shift_of_half_a_pixel() -> None:
    matrix = estimate_similarity(found_at(80, 60, 90, 10).landmarks)
    assert matrix is not None
    point = np.array([80.0, 60.0])
    frame = matrix[:, :2] @ point + matrix[:, 2]
    for scale, expected in ((1, point), (2, point * 2 + 1), (4, point * 4 + 2)):
        back = inverse_affine(matrix, scale, scale)
        np.testing.assert_allclose(back[:, :2] @ frame + back[:, 2], expected, atol=1e-6)


def test_two_runs_give_equal_bytes() -> None:
    one = tools(found_at(60, 60, 70), found_at(100, 50, 40, 15))
    first, second = (restore(one, Picture(scene()))[1] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_a_photo_without_faces_is_left_alone() -> None:
    plain, result, done = restore(tools(), Picture(scene()))
    np.testing.assert_array_equal(plain, result)
    assert (done.rows, done.layers, done.layers_too_large) == ((), (), False)


def test_of_very_many_faces_the_largest_are_restored() -> None:
    many = [found_at(10 + 2 * i, 60, 30 + i / 2) for i in range(MAX_FACES + 3)]
    faces = find_faces(tools(*many), scene())
    assert [face.reason for face in faces][:3] == ["too_many"] * 3
    assert sum(face.reason is None for face in faces) == MAX_FACES


def broken_in(bad: set[int]) -> Callable[[Tensor], Tensor]:
    """A restorer that gives no numbers for these faces of the batch."""

    def run(faces: Tensor) -> Tensor:
        out = -faces
        for index in bad & set(range(len(faces))):
            out[index, 0, 5, 5] = float("nan")
        return out

    return run


def test_a_face_that_reduced_precision_spoils_is_done_again_in_fp32() -> None:
    two = (found_at(40, 60, 60), found_at(120, 60, 60))
    _, good, _ = restore(tools(*two, batch=2), Picture(scene()))
    _, mended, done = restore(tools(*two, batch=2, restore=broken_in({1}), exact=lambda: inverted), Picture(scene()))
    np.testing.assert_array_equal(good, mended)
    assert done.redone_in_fp32 == 1


def test_a_face_that_stays_spoiled_is_only_upscaled_and_its_neighbour_is_restored() -> None:
    two = (found_at(40, 60, 60), found_at(120, 60, 60))
    plain, result, done = restore(tools(*two, batch=2, restore=broken_in({1})), Picture(scene()))
    assert [row["reason"] for row in done.rows] == [None, "failed"]
    assert changed(plain, result)[:, :160].any()
    assert not changed(plain, result)[:, 170:].any()


def test_out_of_memory_makes_batches_smaller_and_the_last_resort_is_an_error() -> None:
    sizes = []

    def tight(limit: int) -> Callable[[Tensor], Tensor]:
        def run(faces: Tensor) -> Tensor:
            sizes.append(len(faces))
            if len(faces) > limit:
                raise torch.OutOfMemoryError("out of memory")
            return -faces

        return run

    five = [found_at(20 + 30 * i, 60, 28) for i in range(5)]
    _, expected, _ = restore(tools(*five), Picture(scene()))
    _, result, _ = restore(tools(*five, batch=4, restore=tight(2)), Picture(scene()))
    np.testing.assert_array_equal(result, expected)
    assert sizes == [4, 2, 2, 1]
    with pytest.raises(OutOfMemory):
        restore(tools(*five, batch=4, restore=tight(0)), Picture(scene()))


def test_a_batch_of_a_card_is_filled_up_so_that_a_face_has_always_the_same_company_in_number() -> None:
    sizes: list[int] = []

    def count(faces: Tensor) -> Tensor:
        sizes.append(len(faces))
        return broken_in({0})(faces) if len(sizes) == 1 else -faces

    def parse(faces: Tensor) -> list[Any]:
        sizes.append(len(faces))
        return round_mask(faces)

    five = [found_at(20 + 30 * i, 60, 28) for i in range(5)]
    filled = {"batch": 4, "fills_batch": True, "restore": count, "parse": parse, "exact": lambda: count}
    _, expected, _ = restore(tools(*five), Picture(scene()))
    _, result, done = restore(tools(*five, **filled), Picture(scene()))
    np.testing.assert_array_equal(result, expected)
    assert sizes == [4] * 5  # two batches of faces and of masks, and one face in fp32
    assert done.redone_in_fp32 == 1


def test_a_smaller_batch_is_remembered_and_a_full_one_is_halved_even_for_one_face() -> None:
    remembered: list[int] = []

    def tight(faces: Tensor) -> Tensor:
        if len(faces) > 1:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return -faces

    filled = {"batch": 4, "fills_batch": True, "remember_batch": remembered.append}
    _, expected, _ = restore(tools(found_at(60, 60, 60)), Picture(scene()))
    _, result, _ = restore(tools(found_at(60, 60, 60), restore=tight, **filled), Picture(scene()))
    np.testing.assert_array_equal(result, expected)
    assert remembered == [2, 1]


def test_a_parser_that_runs_out_of_memory_halves_the_batch_too() -> None:
    def tight(faces: Tensor) -> list[Any]:
        if len(faces) > 1:
            raise RuntimeError("FIND was unable to find an engine to execute this computation")
        return round_mask(faces)

    two = (found_at(40, 60, 60), found_at(120, 60, 60))
    _, expected, _ = restore(tools(*two), Picture(scene()))
    _, result, _ = restore(tools(*two, batch=2, parse=tight), Picture(scene()))
    np.testing.assert_array_equal(result, expected)


def test_progress_rises_with_every_network_and_a_stop_comes_within_one_face() -> None:
    three = tools(found_at(30, 60, 40), found_at(80, 60, 40), found_at(130, 60, 40))
    picture = Picture(scene())
    told: list[float] = []
    faces = find_faces(three, picture.rgb)
    restore_faces(three, picture, enlarge(picture.rgb), faces, 1.0, lambda f: noted(told, f))
    assert told == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1])
    runs: list[int] = []
    counted = dataclasses.replace(three, restore=lambda x: -x if noted(runs, 1) else x)
    with pytest.raises(Cancelled):
        restore_faces(counted, picture, enlarge(picture.rgb), faces, 1.0, lambda f: False)
    assert len(runs) == 1


class Careless:
    """A negative control: the same work with the photo's faces kept on the shared object, as upstream's helper does."""

    def __init__(self, shared: LoadedFaceModels) -> None:
        self.shared = shared

    def restore(self, picture: Picture) -> Pixels:
        self.picture, self.result = picture, enlarge(picture.rgb)
        self.faces = find_faces(self.shared, self.picture.rgb)
        restore_faces(self.shared, self.picture, self.result, self.faces, 1.0, lambda f: True)
        return self.result


COLOURS = [(r, g, b) for r in (0, 90, 180, 250) for g in (10, 120, 240) for b in (30, 200)]


def job(number: int) -> Picture:
    """The photo of a job: faces whose place and colours belong to that job alone, among 24; every fourth has two."""
    number %= len(COLOURS)
    spots = [(25 + number, 40 + number % 5, COLOURS[number])]
    if number % 4 == 0:
        spots.append((95, 70 - number, COLOURS[(number + 11) % len(COLOURS)]))
    return spotted(spots)


SPOTTERS = LoadedFaceModels(detect=spot, restore=inverted, match_surroundings=False)


def run_interleaved(restore_one: Callable[[Picture], Pixels], count: int) -> int:
    """How many of so many jobs, run by several threads, differ from the same job run alone."""
    alone = [restore(SPOTTERS, job(number))[1] for number in range(len(COLOURS))]
    start = threading.Barrier(4)
    numbers = iter(range(count))
    lock = threading.Lock()

    def work() -> int:
        start.wait()
        wrong = 0
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return wrong
            wrong += not np.array_equal(restore_one(job(number)), alone[number % len(alone)])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(4) as pool:
            return sum(future.result() for future in [pool.submit(work) for _ in range(4)])
    finally:
        sys.setswitchinterval(before)


def test_a_thousand_interleaved_jobs_never_mix() -> None:
    assert run_interleaved(lambda picture: restore(SPOTTERS, picture)[1], 1000) == 0


def test_the_check_for_mixing_sees_a_room_that_keeps_the_photo_on_itself() -> None:
    assert run_interleaved(Careless(SPOTTERS).restore, 100) > 0


@pytest.mark.parametrize("side", [300, 2200])
def test_thirty_faces_stay_within_a_gigabyte(side: int) -> None:
    """A result of 24 megapixels; with the larger faces the layers would take 1 GB, so none is kept."""
    places = itertools.product(range(6), range(5))
    thirty = [found_at(300 + 550 * i / 2, 300 + 500 * j / 2, side / 2) for i, j in places]
    picture = Picture(scene(1500, 2000))
    plain = enlarge(picture.rgb, 2)
    shared = tools(*thirty)
    faces = find_faces(shared, picture.rgb)
    tracemalloc.start()
    try:
        done = restore_faces(shared, picture, plain, faces, 1.0, lambda f: True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(row["restored"] for row in done.rows) == 30
    assert peak < 1e9
    assert done.layers_too_large == (not done.layers) == (side == 2200)


def test_a_crop_becomes_a_batch_in_rgb_between_minus_one_and_one() -> None:
    rgb = np.zeros((512, 512, 3), np.uint16)
    rgb[:, :, 0] = 65535
    batch = to_faces([rgb, rgb])
    assert batch.shape == (2, 3, 512, 512)
    assert batch[:, 0].min() == 1.0
    assert batch[:, 1:].max() == -1.0
