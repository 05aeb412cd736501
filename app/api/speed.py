"""What each quality costs on this machine, in seconds per megapixel of photo: measured, else scaled from what was.

Pure arithmetic on finished attempts and the description of the backend. A network's work for a pixel grows with its
number of weights, so the sizes of two files compare two networks well enough for a guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.options import BackendName, Quality, RestoreOptions
from app.store import Attempt

ENSEMBLE_PASSES = 8
FULL_PRECISION_FACTOR = 2.0  # fp32 against bf16, on processors and cards that have both
SMALLEST_PIXELS = 128 * 128  # a smaller photo fills no tile, and would say that all photos are slow
_MEGAPIXEL = 1_000_000


def speeds_of(attempts: Sequence[Attempt], described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each quality: the model that would run, its pace (None while nothing is known), and if it was measured.

    Args:
        attempts: completed ones, newest first.
        described: what the local backend says of itself (see `app.api.catalog`).
    """
    models = _models(described)
    default = described.get("default_quality")
    measured = {quality: _measured(attempts, quality, models.get(quality), default) for quality in Quality}
    known = [(pace, _work(quality, described)) for quality, pace in measured.items() if pace is not None]
    warm = described.get("warm_seconds_per_input_megapixel")
    if not known and warm is not None and default in tuple(Quality):
        known = [(float(warm), _work(str(default), described))]
    return [_row(quality, models.get(quality), measured[quality], known, described) for quality in Quality]


def _row(
    quality: str,
    model: str | None,
    measured: float | None,
    known: Sequence[tuple[float, float]],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    pace = measured
    if pace is None and known:
        seconds, work = known[0]
        pace = seconds / work * _work(quality, described)
    return {
        "quality": quality,
        "model": model,
        "seconds_per_input_megapixel": None if pace is None else round(pace, 3),
        "measured": measured is not None,
    }


def _measured(attempts: Sequence[Attempt], quality: str, model: str | None, default: object) -> float | None:
    """Seconds per megapixel over the attempts that ran this quality with the model that would run now."""
    seconds = pixels = 0.0
    for attempt in attempts:
        options = RestoreOptions.from_json(attempt.options_json)
        is_same = (options.quality or default) == quality and options.model is None and attempt.model == model
        if is_same and attempt.backend == BackendName.LOCAL and attempt.seconds is not None:
            seconds += attempt.seconds
            pixels += max(attempt.photo_width * attempt.photo_height, SMALLEST_PIXELS)
    return seconds / (pixels / _MEGAPIXEL) if pixels else None


def _models(described: Mapping[str, Any]) -> dict[str, str]:
    """The model that would run for each quality."""
    return {row["quality"]: row["model"] for row in described.get("qualities", ())}


def _work(quality: str, described: Mapping[str, Any]) -> float:
    """Relative work for a pixel of the photo; only ratios mean anything."""
    sizes = {row["name"]: float(row["bytes"]) for row in described.get("models", ())}
    weights = sizes.get(_models(described).get(quality, ""), 0.0) or 1.0
    if quality != Quality.BEST:
        return weights
    return weights * ENSEMBLE_PASSES * (1.0 if described.get("precision") == "fp32" else FULL_PRECISION_FACTOR)
