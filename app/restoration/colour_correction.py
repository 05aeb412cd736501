"""Faded and yellowed colours brought back: a density model of three dyes, its numbers read from the photo's statistics.

A print fades as its dyes lose density, each at its own rate, and yellows as its paper takes on a stain, so the faded
density of a channel is `contrast * density + stain` (after Gschwind and Frey, "Electronic imaging, a tool for the
reconstruction of faded color photographs", 1994). A linear regression on percentiles and correlations of the densities
predicts the values that the photo had; `training/fading.py` fits it.

Tried before it, on held-out photos: stretching each channel makes undamaged photos worse (13 of Lab's units on average)
and yellowed ones too; principal axes of the densities alone do the same. A rule that stops where pixels leave the hues
of skin or sky does harm: in a reddened photo everything looks like skin (9.2 units are left of magenta instead of 7.3).
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from app.images import Picture

COEFFICIENTS_FILE = Path(__file__).with_name("fading.safetensors")
QUANTILES_PERCENT = (5, 20, 50, 80, 95)  # the values of each channel that are predicted
SIDE_PIXELS = 160  # of the small copy that is looked at
_STATISTIC_PERCENT = (0.5, 2, 10, 25, 50, 75, 90, 98, 99.5)
_EXTREMES_SHARE = 0.02
_FEWEST_PIXELS = 256  # fewer say nothing
_MOST_DENSITY = 2.6  # of the statistics: below lies noise
_DARKEST = 1e-5
_OUTLIER_DEVIATIONS = 3.0
# Root mean square of the predicted change, of 1: undamaged photos lie below, so nothing is done up to the first.
_NO_FADING, _FULL_FADING = 0.04, 0.10
_CONTRAST_BOUNDS, _STAIN_BOUNDS = (0.4, 1.05), (-0.03, 0.45)
_PRIOR = np.diag([0.02, 0.002])  # weight of "not faded" when contrast and stain are solved for
_TONE_BINS, _TONE_RESIDUAL = 32, 6.0  # Lab units: 95 % of a toned monochrome photo lie so close to its tone curve

Values = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Fading:
    """How a photo faded, for red, green and blue: contrast left (1: all) and stain (density, 0: none)."""

    contrast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stain: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def is_none(self) -> bool:
        """Whether there is nothing to correct."""
        return self == Fading()


@dataclasses.dataclass(frozen=True)
class _Regression:
    """The fitted numbers: (S,) mean and deviation of the statistics, (S + 1, 15) weights, the constant first."""

    mean: Values
    deviation: Values
    weights: Values


def correct_colours(picture: Picture, strength: float) -> tuple[Picture, Fading]:
    """Bring a faded photo's colours back; a photo that is not faded comes back as it is, the same object.

    Args:
        picture: (H, W, 3) uint8 or uint16; a monochrome one, toned or not, stays monochrome in its tone.
        strength: 0 (nothing) to 1 (all that is predicted), a blend of the two values of each pixel.

    Returns:
        The picture, and the fading that was found (`is_none`: nothing was done).
    """
    small = _small_copy(picture)
    fading = find_fading(small) if len(small) >= _FEWEST_PIXELS else Fading()
    if fading.is_none or strength == 0:
        return picture, fading
    return dataclasses.replace(picture, rgb=_through_tables(picture.rgb, fading, strength)), fading


def correct_window(small: Picture, window: Picture, strength: float) -> Picture:
    """A part of a photo with the correction of the whole one, whose fading is read from its reduced copy."""
    values = _small_copy(small)
    fading = find_fading(values) if len(values) >= _FEWEST_PIXELS else Fading()
    if fading.is_none or strength == 0:
        return window
    return dataclasses.replace(window, rgb=_through_tables(window.rgb, fading, strength))


def correct_and_describe(picture: Picture, strength: float) -> tuple[Picture, dict[str, Any]]:
    """The same with the fading as facts for the record, JSON-ready."""
    corrected, fading = correct_colours(picture, strength)
    return corrected, {"faded": not fading.is_none, "strength": strength, **dataclasses.asdict(fading)}


def find_fading(values: Values) -> Fading:
    """The fading of a photo from its pixels (N, 3), RGB in [0, 1] encoded as sRGB is."""
    grey = _is_monochrome(values)
    seen = np.repeat(values.mean(axis=1, keepdims=True), 3, axis=1) if grey else values
    change = _predicted_change(seen)
    size = float(np.sqrt((change**2).mean()))
    ramp = float(np.clip((size - _NO_FADING) / (_FULL_FADING - _NO_FADING), 0, 1))
    weight = ramp * ramp * (3 - 2 * ramp)
    return _solve(seen, change * weight, common=grey)


def statistics(values: Values) -> Values:
    """(S,): percentiles, spreads, principal axis and correlations of the densities of pixels (N, 3) in [0, 1]."""
    density = np.minimum(to_density(values), _MOST_DENSITY)
    quantiles = np.percentile(density, _STATISTIC_PERCENT, axis=0)  # (9, 3)
    spread = np.log(density.std(axis=0) + 0.02)
    noise = 1e-8 * np.eye(3)
    covariance = np.cov(density.T) + noise
    axes, vectors = np.linalg.eigh(covariance)
    axis = vectors[:, -1] * np.sign(vectors[:, -1].sum() or 1.0)
    share = axes[-1] / axes.sum()
    deviations = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviations, deviations)
    light, dark = _extremes(density)
    parts = (quantiles, spread[None], light[None], dark[None])
    centred = [part - part.mean(axis=1, keepdims=True) for part in parts]
    pairs = (correlation[0, 1], correlation[0, 2], correlation[1, 2])
    return np.concatenate([*(part.ravel() for part in (*parts, *centred)), axis * share, (share, *pairs)])


def quantiles_of(values: Values) -> Values:
    """(15,): what is predicted, the percentiles of red, green and blue of pixels (N, 3), percentile by percentile."""
    return np.percentile(values, QUANTILES_PERCENT, axis=0).ravel()


def to_density(values: Values) -> Values:
    """(...) float64 in [0, 1], encoded as sRGB is, to (...) densities: minus the logarithm of the light, at most 5."""
    light = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    density: Values = -np.log10(np.maximum(light, _DARKEST))
    return density


def to_values(density: Values) -> Values:
    """(...) float64 densities to (...) values, clipped to [0, 1]; the inverse of `to_density`."""
    light = np.clip(10.0**-density, 0, 1)
    values: Values = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return values


@functools.cache
def _regression() -> _Regression:
    numbers = load_file(COEFFICIENTS_FILE)
    return _Regression(*(numbers[name].astype(np.float64) for name in ("mean", "deviation", "weights")))


def _small_copy(picture: Picture) -> Values:
    """(N, 3) in [0, 1]: the pixels of a small copy; of a transparent photo single pixels, those that are seen."""
    height, width = picture.rgb.shape[:2]
    peak = float(np.iinfo(picture.rgb.dtype).max)
    longest = max(height, width)
    if picture.alpha is not None:
        step = -(-longest // SIDE_PIXELS)
        seen = picture.alpha[::step, ::step] > peak / 2
        return picture.rgb[::step, ::step][seen].astype(np.float64) / peak
    factor = min(1.0, SIDE_PIXELS / longest)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small: NDArray[Any] = cv2.resize(picture.rgb, size, interpolation=cv2.INTER_AREA)  # (h, w, 3)
    return small.reshape(-1, 3).astype(np.float64) / peak


def _extremes(density: Values) -> tuple[Values, Values]:
    """Mean densities (3,) of the lightest and of the darkest fiftieth."""
    count = max(1, round(len(density) * _EXTREMES_SHARE))
    order = density.mean(axis=1).argsort(kind="stable")
    return density[order[:count]].mean(axis=0), density[order[-count:]].mean(axis=0)


def _predicted_change(values: Values) -> Values:
    """(5, 3): how far each percentile was from where it is now."""
    fitted = _regression()
    deviations = (statistics(values) - fitted.mean) / fitted.deviation
    bounded = np.clip(deviations, -_OUTLIER_DEVIATIONS, _OUTLIER_DEVIATIONS)
    change: Values = fitted.weights[0] + bounded @ fitted.weights[1:]
    return change.reshape(len(QUANTILES_PERCENT), 3)


def _solve(values: Values, change: Values, *, common: bool) -> Fading:
    """Contrast and stain that explain a change of the percentiles best, drawn a little towards "not faded"."""
    if not change.any():
        return Fading()
    now = quantiles_of(values).reshape(-1, 3)
    faded, meant = to_density(now), to_density(np.clip(now + change, 0.004, 0.996))
    if common:
        faded, meant = faded.mean(axis=1, keepdims=True), meant.mean(axis=1, keepdims=True)
    solved = []
    for channel in range(faded.shape[1]):
        system = np.stack([meant[:, channel], np.ones(len(meant))], axis=1)
        right = system.T @ faded[:, channel] + _PRIOR @ (1.0, 0.0)
        contrast, stain = np.linalg.solve(system.T @ system + _PRIOR, right)
        solved.append((float(np.clip(contrast, *_CONTRAST_BOUNDS)), float(np.clip(stain, *_STAIN_BOUNDS))))
    red, green, blue = solved * 3 if common else solved
    return Fading((red[0], green[0], blue[0]), (red[1], green[1], blue[1]))


def _through_tables(rgb: NDArray[Any], fading: Fading, strength: float) -> NDArray[Any]:
    """(H, W, 3) uint8 or uint16 through one table a channel; a new array."""
    peak = np.iinfo(rgb.dtype).max
    steps = np.arange(peak + 1) / peak
    result = np.empty_like(rgb)
    for channel in range(3):
        meant = to_values((to_density(steps) - fading.stain[channel]) / fading.contrast[channel])
        table = (steps + strength * (meant - steps)).clip(0, 1) * peak
        result[..., channel] = np.take(table.round().astype(rgb.dtype), rgb[..., channel])
    return result


def _lab(values: Values) -> NDArray[np.float32]:
    """(N, 3) RGB in [0, 1] to Lab: lightness in [0, 100], a and b in their own units."""
    lab: NDArray[np.float32] = cv2.cvtColor(values.astype(np.float32)[None], cv2.COLOR_RGB2LAB)[0]
    return lab


def _is_monochrome(values: Values) -> bool:
    """Whether colour is a function of lightness alone: grey, sepia, or any other tone."""
    lab = _lab(values)
    bins = np.minimum(lab[:, 0] * _TONE_BINS / 100, _TONE_BINS - 1).astype(int)
    counts = np.maximum(np.bincount(bins, minlength=_TONE_BINS), 1)
    residuals = []
    for axis in (1, 2):
        curve = np.bincount(bins, lab[:, axis], _TONE_BINS) / counts
        residuals.append(lab[:, axis] - curve[bins])
    return float(np.percentile(np.hypot(*residuals), 95)) <= _TONE_RESIDUAL
