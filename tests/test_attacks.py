"""The attacks of `benchmarks/attacks`: all rows of the review are there, and late or refused others count as broken."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.attacks.__main__ import attacks
from benchmarks.attacks.hostile import black_png, noise, odd_exif
from benchmarks.attacks.responsiveness import Waits, holds, quantile, spread

REVIEW_ROWS = 18


def waits(health: list[float], submits: list[float], **ends: int) -> Waits:
    return Waits(health, submits, Counter({"health 200": len(health), "submit 202": len(submits), **ends}))


def test_every_row_of_the_review_has_an_attack_and_every_attack_a_name_of_its_own() -> None:
    found = attacks(1.0)
    assert {row for row, _, _ in found} == set(range(1, REVIEW_ROWS + 1))
    names = [name for _, name, _ in found]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("measured", "in_time"),
    [
        (waits([0.01] * 1000, [0.1] * 60), True),
        (waits([0.01] * 995 + [5.0] * 5, [0.1] * 60), True),
        (waits([0.01] * 989 + [0.25] * 11, [0.1] * 60), False),
        (waits([0.01] * 1000, [0.1] * 59 + [0.6]), False),
        (waits([0.01] * 1000, [0.1] * 60, **{"submit 503": 1}), False),
        (waits([0.01] * 1000, [0.1] * 60, **{"health unanswered": 1}), False),
    ],
)
def test_others_are_served_only_where_all_are_answered_in_time(measured: Waits, in_time: bool) -> None:
    assert holds(measured) is in_time


def test_quantiles_are_values_that_were_measured() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]
    assert (quantile(hundred, 0.5), quantile(hundred, 0.99), quantile([7.0], 0.99)) == (50.0, 99.0, 7.0)
    assert spread([0.001, 0.002, 0.5]) == "median 2 p99 500 max 500 ms (n=3)"


@pytest.mark.filterwarnings("ignore::UserWarning")  # that is what Pillow says of odd tags
def test_hostile_files_are_the_photos_that_they_say(tmp_path: Path) -> None:
    black_png(tmp_path / "deep.png", 300, 700, 0, 16)
    black_png(tmp_path / "clear.png", 300, 700, 6, 8)
    with Image.open(tmp_path / "deep.png") as deep, Image.open(tmp_path / "clear.png") as clear:
        deep.load()
        clear.load()
        assert (deep.mode, deep.size, clear.mode) == ("I;16", (300, 700), "RGBA")
    assert len(noise(50, 40)) > 50 * 40 * 3
    for data in odd_exif().values():
        with Image.open(io.BytesIO(data)) as image:
            image.load()
