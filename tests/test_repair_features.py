"""Eyes, noses and mouths: what is marked in one of them alone is left, what crosses it is not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from app.images import Picture
from app.options import Repair
from app.restoration.faces.detection import DetectedFace
from app.restoration.repair.detection import DamageNetwork
from app.restoration.repair.facial_features import features_of, without_features
from app.restoration.repair.repair import RepairNetworks, repair_photo
from tests.damage_network import white_is_damage

EYES_APART = 40.0
LANDMARKS = np.array([[-20.0, -15.0], [20.0, -15.0], [0.0, 5.0], [-15.0, 28.0], [15.0, 28.0]])  # around the nose's root


def face(x: float = 100.0, y: float = 90.0, turn: float = 0.0) -> DetectedFace:
    """A face 90 pixels wide, turned clockwise by radians."""
    cosine, sine = math.cos(turn), math.sin(turn)
    landmarks = LANDMARKS @ np.array([[cosine, sine], [-sine, cosine]]) + [x, y]
    return DetectedFace((x - 45, y - 60, x + 45, y + 55), 1.0, landmarks)


def probability(*blocks: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """240 in blocks (x0, y0, x1, y1) of a photo of 200 by 200 pixels."""
    values = np.zeros((200, 200), np.uint8)
    for x0, y0, x1, y1 in blocks:
        values[y0:y1, x0:x1] = 240
    return values


@pytest.mark.parametrize(
    "block",
    [(75, 70, 85, 80), (115, 72, 124, 78), (72, 60, 90, 64), (96, 90, 104, 98), (84, 112, 118, 122)],
    ids=["left eye", "right eye", "brow", "nose", "mouth"],
)
def test_a_mark_in_a_feature_is_left_alone(block: tuple[int, int, int, int]) -> None:
    assert not without_features(probability(block), [face()]).any()


def test_a_crack_through_an_eye_and_a_speck_on_the_cheek_stay() -> None:
    marked = probability((78, 20, 82, 180), (60, 100, 66, 106))
    assert without_features(marked, [face()]) is marked  # the same object, nothing is copied


def test_only_the_mark_in_the_feature_goes() -> None:
    both = probability((75, 70, 85, 80), (60, 100, 66, 106))
    kept = without_features(both, [face()])
    assert np.array_equal(kept, probability((60, 100, 66, 106)))
    assert both[75, 80] == 240  # what was found is not changed


def test_what_no_threshold_reaches_is_not_looked_at() -> None:
    faint = np.minimum(probability((75, 70, 85, 80)), 20)
    assert without_features(faint, [face()]) is faint


def test_an_eye_in_the_soft_rim_of_a_crack_is_told_apart_from_it() -> None:
    marked = probability((78, 73, 86, 78), (60, 20, 66, 180))
    soft = np.where((np.arange(200)[:, None] > 70) & (np.arange(200) < 95) & (np.arange(200) > 60), 40, 0)
    kept = without_features(np.maximum(marked, soft).astype(np.uint8), [face()])
    assert not kept[73:78, 78:86].any()  # at a level over the soft rim it lies by itself
    assert (kept[20:180, 60:66] == 240).all()


@pytest.mark.parametrize("turn", [0.0, 0.4, math.pi / 2, math.pi, -2.0])
def test_features_turn_with_the_face(turn: float) -> None:
    turned = face(turn=turn)
    x, y = turned.landmarks[0]
    block = (round(x) - 6, round(y) - 2, round(x) + 6, round(y) + 3)
    assert not without_features(probability(block), [turned]).any()
    eye, _, _, mouth = features_of(turned)
    assert (eye.x - x) * math.sin(turn) - (eye.y - y) * math.cos(turn) == pytest.approx(0.1 * EYES_APART)  # up
    assert mouth.along == pytest.approx(0.62 * EYES_APART)


def test_a_profile_has_features_of_some_size() -> None:
    profile = DetectedFace((0.0, 0.0, 100.0, 100.0), 1.0, np.tile([[50.0, 50.0]], (5, 1)))
    assert features_of(profile)[0].along == pytest.approx(0.4 * 30.0)


def test_a_face_at_the_border_is_cut() -> None:
    marked = probability((0, 0, 8, 6))
    assert not without_features(marked, [face(22.0, 18.0)]).any()
    assert without_features(marked, [face(-300.0, -300.0)]) is marked


def test_a_light_in_an_eye_is_not_filled_and_a_speck_on_the_cheek_is() -> None:
    rng = np.random.default_rng(3)
    rgb = rng.integers(90, 110, (200, 200, 3)).astype(np.uint8)
    rgb[74:78, 78:82] = rgb[102:106, 60:64] = 255
    networks = RepairNetworks(DamageNetwork(white_is_damage()))
    done = repair_photo(networks, Picture(rgb), Repair.STRONG, detect=lambda _: [face()])
    assert (done.picture.rgb[74:78, 78:82] == 255).all()
    assert (done.picture.rgb[102:106, 60:64] < 150).all()
    assert not done.damage.probability[60:90, 60:100].any()  # what the page shows and a slider moves over
    without = repair_photo(networks, Picture(rgb), Repair.STRONG)
    assert (without.picture.rgb[74:78, 78:82] < 150).all()


def test_faces_are_looked_for_where_a_lower_threshold_would_mark_something() -> None:
    rgb = np.full((200, 200, 3), 100, np.uint8)
    rgb[74:78, 78:82] = 246  # 0.3 of the network: no mark, but the page's slider would make one
    networks = RepairNetworks(DamageNetwork(white_is_damage()))
    done = repair_photo(networks, Picture(rgb), Repair.AUTO, detect=lambda _: [face()])
    assert not done.damage.mask.any()
    assert done.report["faces"]
    assert not done.damage.probability[60:90, 60:100].any()
