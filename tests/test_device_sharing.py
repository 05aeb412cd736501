"""Two photos on one device: they take turns in the middle of each other, and each comes out as if it were alone."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from app.backends.local import open_local_backend
from app.images import Picture
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import Stage

WEIGHTS = Path(__file__).parents[1] / "weights"
SIDE_PIXELS = 160


def picture(seed: int) -> Picture:
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE_PIXELS, SIDE_PIXELS, 3), dtype=np.uint8)
    return Picture(rgb=noise)


def test_photos_that_take_turns_come_out_as_if_they_were_alone() -> None:
    backend = open_local_backend(WEIGHTS, device="cpu", precision="fp32")
    options, order = RestoreOptions(scale=4), list[str]()
    alone = [backend.restore(picture(seed), options, lambda fraction, stage: True) for seed in (1, 2)]
    beside: list[RestorationResult] = []

    def second_step(fraction: float, stage: Stage) -> bool:
        order.append("second")
        return True

    other = threading.Thread(target=lambda: beside.append(backend.restore(picture(2), options, second_step)))

    def first_step(fraction: float, stage: Stage) -> bool:
        order.append("first")
        if stage is Stage.UPSCALING and other.ident is None:
            other.start()
        return True

    began = backend.restore(picture(1), options, first_step)
    other.join(60)
    assert "second" in order[: len(order) - order[::-1].index("first")]
    for result, expected in zip((began, *beside), alone, strict=True):
        assert (result.picture.rgb == expected.picture.rgb).all()
