"""Damage: found in tiles that cannot be seen, masked with a higher threshold in faces, filled, and what is said."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.errors import Cancelled
from app.images import Picture
from app.images.damage_layer import DamageLayer
from app.images.metadata import xmp_parsing
from app.images.metadata.edit_history import MEDIA_MANAGEMENT, RESOURCE_EVENT
from app.jobs.memory_need import REPAIR_BYTES_PER_PIXEL
from app.notices import NoticeKind
from app.options import Repair, damage_reduction
from app.restoration.faces.detection import DetectedFace
from app.restoration.repair.detection import DamageNetwork, find_damage, spans
from app.restoration.repair.inference import BORDER_PIXELS, MIRRORS
from app.restoration.repair.mask import LOW_SHARE, THRESHOLDS, count_regions, make_mask, share_in
from app.restoration.repair.repair import RepairedPhoto, RepairNetworks, marked_share, repair_photo
from app.restoration.repair.segmentation_network import MULTIPLE, load_segmentation, make_segmentation
from app.results import RestorationResult
from tests.damage_network import white_is_damage

NETWORKS = RepairNetworks(DamageNetwork(white_is_damage()))


def photo(height: int = 120, width: int = 160, dtype: type = np.uint8) -> NDArray[Any]:
    rows, columns = np.mgrid[0:height, 0:width]
    grey = 90 + 40 * np.sin(rows / 17) + 30 * np.cos(columns / 11)
    rgb = np.stack([grey, grey * 0.9, grey * 0.8], axis=2)
    return (rgb * (257 if dtype is np.uint16 else 1)).astype(dtype)


def scratched(dtype: type = np.uint8) -> NDArray[Any]:
    rgb = photo(dtype=dtype)
    rgb[10:100, 70:73] = np.iinfo(dtype).max
    return rgb


def always(_fraction: float) -> bool:
    return True


# Finding.


def test_damage_is_found_at_its_pixels() -> None:
    found = find_damage(NETWORKS.segmentation, scratched(), always)
    assert found.dtype == np.uint8
    assert found[10:100, 70:73].min() > 0.9 * 255
    found[10:100, 70:73] = 0
    assert found.max() < 5


@pytest.mark.parametrize("length", [1, 31, 32, 100, 224, 225, 500, 999])
def test_tiles_cover_a_side_and_their_weights_sum_to_one(length: int) -> None:
    total = np.zeros(length)
    tiles = spans(length, 224, 64)
    for tile in tiles:
        total[tile.begin : tile.end] += tile.weights
    assert np.abs(total - 1).max() < 1e-6
    assert len({tile.end - tile.begin for tile in tiles[:-1]}) <= 1, "of one shape"
    assert all(tile.begin % MULTIPLE == 0 for tile in tiles), "pooled as in the whole photo"
    assert max(tile.end - tile.begin for tile in tiles) <= 224
    assert all(before.end > after.begin for before, after in itertools.pairwise(tiles))


class WindowBrightness(torch.nn.Module):
    """The worst that context can do: what it says of a pixel hangs on the whole of its tile."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 20 * (x.mean(dim=(1, 2, 3), keepdim=True) - 0.5) + torch.zeros_like(x[:, :1])


def test_tiles_cannot_be_seen() -> None:
    ramp = np.linspace(40, 215, 800).astype(np.uint8)
    rgb = np.broadcast_to((ramp[None, :] / 2 + ramp[:480, None])[:, :, None], (480, 800, 3)).astype(np.uint8)
    found = find_damage(DamageNetwork(WindowBrightness()), rgb, always, tile=352, overlap=128).astype(int)
    assert np.ptp(found) > 100, "tiles that differ much"
    assert np.abs(np.diff(found, axis=0)).max() <= 3
    assert np.abs(np.diff(found, axis=1)).max() <= 3


@pytest.mark.parametrize(("height", "width", "tiles"), [(900, 180, 4), (180, 900, 4), (192, 320, 1), (900, 10, 2)])
def test_a_narrow_photo_is_searched_in_long_tiles_of_no_more_pixels(height: int, width: int, tiles: int) -> None:
    seen: list[tuple[int, ...]] = []

    class Watched(WindowBrightness):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[2:]))
            return super().forward(x)

    find_damage(DamageNetwork(Watched()), photo(height, width), always, tile=256, overlap=64)
    assert sum(BORDER_PIXELS not in shape for shape in seen) == tiles * len(MIRRORS)
    assert all(rows * columns <= 256 * 256 for rows, columns in seen)


def test_sixteen_bits_are_seen_as_eight() -> None:
    deep = scratched().astype(np.uint16) * 257
    shallow = find_damage(NETWORKS.segmentation, scratched(), always)
    assert np.array_equal(find_damage(NETWORKS.segmentation, deep, always), shallow)


def test_equal_photos_give_equal_marks() -> None:
    network = DamageNetwork(make_segmentation(3).eval().to(torch.bfloat16), dtype=torch.bfloat16)
    assert np.array_equal(find_damage(network, scratched(), always), find_damage(network, scratched(), always))


def test_finding_stops_within_a_tile() -> None:
    told: list[float] = []

    def stop(fraction: float) -> bool:
        told.append(fraction)
        return len(told) < 2

    with pytest.raises(Cancelled):
        find_damage(NETWORKS.segmentation, photo(300, 300), stop, tile=128, overlap=32)
    assert len(told) == 2


class ThinLight(torch.nn.Module):
    """Light lines of up to five pixels are damage, as narrow as those that a network is trained on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = torch.nn.functional.pad(x.mean(dim=1, keepdim=True), (5, 5, 0, 0), mode="replicate")
        opened = -torch.nn.functional.max_pool2d(-padded, (1, 6), 1)
        opened = torch.nn.functional.max_pool2d(opened, (1, 6), 1)
        return 100 * (x.mean(dim=1, keepdim=True) - opened - 0.3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(601, 443), (443, 601), (600, 300)])
def test_wide_damage_on_a_large_photo_is_found_where_it_lies(size: tuple[int, int], dtype: type) -> None:
    rgb: NDArray[Any] = np.full((*size, 3), np.iinfo(dtype).max // 4, dtype)
    rgb[:, 100:110] = rgb[:, 200:202] = np.iinfo(dtype).max
    rgb[-10:, :] = np.iinfo(dtype).max // 4
    at_its_size = find_damage(DamageNetwork(ThinLight()), rgb, always) > 128
    assert not at_its_size[:, 95:115].any()
    assert at_its_size[:-10, 200:202].all()
    reduced = find_damage(DamageNetwork(ThinLight()), rgb, always, reduction=3) > 128
    assert reduced.shape == size
    assert reduced[:-13, 101:109].all()
    assert not reduced[-7:].any()
    assert not reduced[:, :97].any()
    assert not reduced[:, 114:196].any()
    assert not reduced[:, 206:].any()


def test_a_photo_is_searched_reduced_to_what_the_network_knows() -> None:
    sizes = [(10, 20), (1200, 900), (1790, 900), (900, 1810), (3500, 2400), (12000, 9000)]
    assert [damage_reduction(*size) for size in sizes] == [1, 1, 1, 2, 3, 10]


def test_a_part_of_a_large_photo_is_searched_as_the_whole() -> None:
    rgb = np.full((100, 300, 3), 60, np.uint8)
    rgb[:, 100:110] = 255
    networks = RepairNetworks(DamageNetwork(ThinLight()))
    part = Picture(rgb)
    assert repair_photo(networks, part, Repair.AUTO).damage.share == 0
    assert repair_photo(networks, part, Repair.AUTO, reduction=3).damage.share > 0.02


def test_a_large_photo_is_told_as_one_piece_of_work() -> None:
    told: list[float] = []

    def tell(fraction: float) -> bool:
        told.append(fraction)
        return True

    find_damage(NETWORKS.segmentation, photo(400, 300), tell, tile=128, overlap=32, reduction=4)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


class Brightness(torch.nn.Module):
    """A network for what has nothing to do with one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1, keepdim=True)


class AlmostWhite(torch.nn.Module):
    """Pure white is damage."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 100 * (x.amin(dim=1, keepdim=True) - 0.9)


def test_memory_is_flat_beside_the_result() -> None:
    def peak(height: int) -> int:
        rgb = np.zeros((height, 512, 3), np.uint8)
        tracemalloc.start()
        find_damage(DamageNetwork(Brightness()), rgb, always, tile=256, overlap=32)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most - height * 512

    assert peak(8192) < 1.2 * peak(1024) + 100_000


# The mask.


def islands() -> NDArray[np.uint8]:
    probability = np.zeros((1500, 40), np.uint8)
    probability[5:1490, 10] = 140  # one faint line through every band
    probability[1480, 10] = 220  # that is sure at its end
    probability[20:30, 30] = 140  # faint everywhere
    return probability


def test_an_island_is_taken_whole_where_it_is_sure_somewhere() -> None:
    mask = make_mask(islands(), 0.6)
    assert mask[5:1490, 10].all()
    assert not mask[:, 30].any()
    assert np.count_nonzero(mask) == 1485


def test_an_island_that_turns_back_through_the_bands_is_taken_whole() -> None:
    probability = np.zeros((1500, 40), np.uint8)
    for number, column in enumerate(range(2, 38, 4)):  # a snake
        probability[4:1496, column] = 140
        row = 4 if number % 2 else 1495
        probability[row, column : min(38, column + 5)] = 140
    probability[1000, 34] = 255
    assert np.array_equal(make_mask(probability, 0.6), probability > 0)


def test_the_threshold_in_faces_is_higher() -> None:
    probability = np.zeros((40, 40), np.uint8)
    probability[5, 5:10] = probability[25, 25:30] = 180  # 0.7
    mask = make_mask(probability, 0.6, [(20, 20, 40, 40)], 0.85)
    assert mask[5, 5:10].all()
    assert not mask[20:, 20:].any()
    assert make_mask(probability, 0.6, [(20, 20, 40, 40)], 0.6)[25, 25:30].all()


def test_regions_and_the_share_inside_faces_are_counted() -> None:
    mask = np.zeros((30, 30), np.bool_)
    mask[2:12, 2:12] = True
    mask[4:10, 4:10] = False  # a ring
    mask[6, 6] = True  # inside the ring
    mask[20, 20] = mask[21, 21] = True  # joined over a corner
    assert count_regions(mask) == 3
    assert count_regions(np.zeros((5, 5), np.bool_)) == 0
    assert share_in(mask, [(20, 20, 22, 22)]) == 0.5
    assert share_in(mask, []) == 0.0


def test_strong_marks_more_than_auto() -> None:
    assert 0 < THRESHOLDS[Repair.STRONG] < THRESHOLDS[Repair.AUTO] < 1
    assert LOW_SHARE < 1


# The photo.


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_scratch_is_filled_and_nothing_else_changes(dtype: type) -> None:
    before = scratched(dtype)
    done = repair_photo(NETWORKS, Picture(before), Repair.AUTO)
    after, undamaged = done.picture.rgb, photo(dtype=dtype)
    assert after.dtype == dtype
    assert not np.array_equal(after, before)
    far = np.ones(before.shape[:2], np.bool_)
    far[4:106, 64:79] = False
    assert np.array_equal(after[far], before[far])
    scale = 257 if dtype is np.uint16 else 1
    assert np.abs(after[10:100, 70:73].astype(int) - undamaged[10:100, 70:73]).mean() < 8 * scale
    assert done.report["share"] == pytest.approx(270 / 19200, abs=1e-6)
    assert done.report["regions"] == 1
    assert (done.report["mode"], done.report["own_mask"]) == ("auto", False)
    assert done.report["threshold"] == THRESHOLDS[Repair.AUTO]
    assert done.damage.share == pytest.approx(done.report["share"], abs=1e-6)


def test_where_nothing_is_marked_the_photo_is_the_same_object() -> None:
    picture = Picture(photo(), xmp=b"untouched")
    done = repair_photo(NETWORKS, picture, Repair.STRONG, detect=lambda rgb: pytest.fail("nothing to decide"))
    assert done.picture is picture
    assert done.report["share"] == 0
    assert not done.damage.mask.any()


def test_a_drawn_mask_is_filled_without_looking_for_damage() -> None:
    mask = np.zeros((120, 160), np.bool_)
    mask[50:60, 20:30] = True
    fails = RepairNetworks(DamageNetwork(torch.nn.Identity()))
    done = repair_photo(fails, Picture(scratched()), Repair.AUTO, mask=mask)
    assert np.array_equal(done.damage.mask, mask)
    assert set(np.unique(done.damage.probability)) == {0, 255}
    assert (done.report["own_mask"], done.report["threshold"]) == (True, None)
    assert np.array_equal(done.picture.rgb[10:40, 70:73], scratched()[10:40, 70:73]), "the scratch was not drawn"
    with pytest.raises(ValueError, match="a mask of"):
        repair_photo(fails, Picture(photo()), Repair.AUTO, mask=mask[:50])


def test_an_empty_drawn_mask_changes_nothing() -> None:
    picture = Picture(scratched())
    assert repair_photo(NETWORKS, picture, Repair.AUTO, mask=np.zeros((120, 160), np.bool_)).picture is picture


def test_faces_are_said_and_their_boxes_kept() -> None:
    asked: list[tuple[int, ...]] = []

    def detect(rgb: NDArray[Any]) -> list[DetectedFace]:
        asked.append(rgb.shape)
        return [DetectedFace((60.4, -3.0, 99.5, 39.7), 1.0, np.full((5, 2), 80.0))]

    done = repair_photo(NETWORKS, Picture(scratched()), Repair.AUTO, detect=detect)
    assert asked == [(120, 160, 3)]
    assert done.damage.faces == ((60, 0, 100, 40),)
    assert done.report["share_in_faces"] == pytest.approx(90 / 1600)
    assert repair_photo(NETWORKS, Picture(scratched()), Repair.AUTO).report["share_in_faces"] is None


def history(picture: Picture) -> str:
    assert picture.xmp is not None
    events = xmp_parsing.parse(picture.xmp).properties[MEDIA_MANAGEMENT, "History"].items or []
    return (events[-1].fields or {})[RESOURCE_EVENT, "parameters"].text


def test_the_file_s_history_says_what_was_invented() -> None:
    once = repair_photo(NETWORKS, Picture(scratched()), Repair.AUTO).picture
    assert "1.4 % of the photo was filled" in history(once)
    assert "invented" in history(once)
    twice = repair_photo(NETWORKS, Picture(scratched(), xmp=once.xmp), Repair.AUTO).picture
    assert twice.xmp is not None
    assert twice.xmp.count(b"1.4 %") == 2
    broken = repair_photo(NETWORKS, Picture(scratched(), xmp=b"<broken"), Repair.AUTO).picture
    assert broken.xmp == b"<broken", "whoever writes it says so"


def told(share_rows: int) -> RestorationResult:
    mask = np.zeros((100, 100), np.bool_)
    mask[:share_rows] = True
    layer = DamageLayer(mask.astype(np.uint8), mask)
    picture = Picture(photo())
    return RepairedPhoto(picture, layer, {}, 2.0).told_by(RestorationResult(picture, "model", 3.0, {}))


def test_much_damage_is_warned_of_and_the_time_is_that_of_both() -> None:
    (warning,) = told(26).warnings
    assert (warning.code, warning.as_facts()["values"]) == (NoticeKind.MUCH_DAMAGE, {"percent": 26})
    assert told(25).warnings == ()
    assert told(25).seconds == 5.0
    assert told(25).damage is not None


@pytest.mark.parametrize("steps", [1, 2])
def test_a_repair_stops_when_it_is_told_to(steps: int) -> None:
    calls = itertools.count(1)
    with pytest.raises(Cancelled):
        repair_photo(NETWORKS, Picture(scratched()), Repair.AUTO, on_fraction=lambda fraction: next(calls) < steps)


def test_progress_only_grows_to_one() -> None:
    seen: list[float] = []

    def tell(fraction: float) -> bool:
        seen.append(fraction)
        return True

    repair_photo(NETWORKS, Picture(scratched()), Repair.AUTO, on_fraction=tell)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)


def test_the_quick_look_gives_the_share_that_auto_fills() -> None:
    assert marked_share(NETWORKS, Picture(scratched()), always) == pytest.approx(270 / 19200)
    assert marked_share(NETWORKS, Picture(photo()), always) == 0.0


# The network's file.


def test_a_network_is_read_from_its_tensors_whatever_its_widths() -> None:
    module = make_segmentation(5, (8, 16, 8, 8, 16)).eval()
    again = load_segmentation({name: value.clone() for name, value in module.state_dict().items()})
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(module(x), again(x))
    with pytest.raises(RuntimeError):
        load_segmentation({"other.weight": torch.zeros(1)})


def test_the_memory_beside_the_photo_stays_within_what_is_reckoned() -> None:
    rgb = np.zeros((2048, 1024, 3), np.uint8)
    for top in range(0, 2048, 97):
        rgb[top : top + 4, 100:900] = 255
    networks = RepairNetworks(DamageNetwork(AlmostWhite()))
    tracemalloc.start()
    done = repair_photo(networks, Picture(rgb), Repair.AUTO)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tile = 16 * 1024 * 1024 * 4  # of floats, whatever the photo's size
    assert done.report["regions"] == 22
    assert most - tile < REPAIR_BYTES_PER_PIXEL * rgb.shape[0] * rgb.shape[1]
