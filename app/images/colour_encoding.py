"""What a file without an ICC profile says its numbers mean (gAMA and cHRM, cICP, nclx), and the way from there to sRGB.

HDR is brought to the range of an ordinary picture. 8 and 16 bits keep their depth.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from app.images.icc_writing import matrix_profile
from app.images.picture import NormalizedColor, Pixels
from app.images.primaries import (
    BY_CODE,
    LUMINANCE,
    SRGB_PRIMARIES,
    WIDE_PRIMARIES,
    Light,
    Primaries,
    srgb_light,
    srgb_values,
)
from app.images.samples import row_slices

_REFERENCE_WHITE_NITS = 203.0  # ITU-R BT.2408: where paper white lies in PQ and HLG
_PQ_PEAK_NITS, _HLG_PEAK_NITS, _HLG_SYSTEM_GAMMA = 10_000.0, 1_000.0, 1.2
_BARELY_BRIGHTER = 1.02
_KNEE = 0.75  # linear light up to which HDR is left as it is
_SAMPLED_PIXELS = 250_000
_PEAK_PERCENTILE = 99.9
_IN_GAMUT = 0.002
_FAITHFUL_SHARE = 0.999
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_UNSPECIFIED = 2


class Transfer(enum.StrEnum):
    """The curve between numbers and light."""

    SRGB = "sRGB"
    GAMMA = "gamma"
    PQ = "PQ"
    HLG = "HLG"


# Code points of ITU-T H.273, table 3. Those of television (1, 6, 7, 11, 12, 14, 15) are shown as sRGB by browsers and
# photo viewers, and are taken so here.
_BY_CODE = dict.fromkeys((1, 2, 6, 7, 11, 12, 13, 14, 15), (Transfer.SRGB, 1.0))
_BY_CODE |= {4: (Transfer.GAMMA, 2.2), 5: (Transfer.GAMMA, 2.8), 8: (Transfer.GAMMA, 1.0), 17: (Transfer.GAMMA, 2.6)}
_BY_CODE |= {16: (Transfer.PQ, 1.0), 18: (Transfer.HLG, 1.0)}


@dataclasses.dataclass(frozen=True)
class ColourEncoding:
    """Primaries, transfer curve (`gamma` is the exponent from numbers to light) and whether all numbers are used."""

    primaries: Primaries = SRGB_PRIMARIES
    transfer: Transfer = Transfer.SRGB
    gamma: float = 1.0
    full_range: bool = True

    @property
    def is_hdr(self) -> bool:
        """Whether whites brighter than paper can be in it."""
        return self.transfer in (Transfer.PQ, Transfer.HLG)

    def is_srgb(self, *, grey: bool = False) -> bool:
        """Whether nothing has to be done; a grey photo has no primaries."""
        same = grey or self.primaries.is_near(SRGB_PRIMARIES)
        return self.transfer is Transfer.SRGB and self.full_range and same

    def light(self, values: Light) -> Light:
        """Numbers 0..1 to linear light, 1 at paper white, float32 of any shape; of HLG the light of the scene."""
        if self.transfer is Transfer.PQ:
            return _pq_light(values)
        if self.transfer is Transfer.HLG:
            return _hlg_light(values)
        if self.transfer is Transfer.GAMMA:
            return np.power(values, self.gamma, dtype=np.float32)
        return srgb_light(values)


def from_code_points(primaries: int, transfer: int, *, full_range: bool = True) -> ColourEncoding | None:
    """The encoding that three numbers of ITU-T H.273 name, or None where they say nothing or nothing we know."""
    known = _BY_CODE.get(transfer)
    if known is None or (primaries != _UNSPECIFIED and primaries not in BY_CODE):
        return None
    curve, gamma = known
    usual = WIDE_PRIMARIES if curve in (Transfer.PQ, Transfer.HLG) else SRGB_PRIMARIES
    return ColourEncoding(BY_CODE.get(primaries, usual), curve, gamma, full_range)


def to_srgb(pixels: Pixels, encoding: ColourEncoding) -> NormalizedColor:
    """Bring (H, W) grey or (H, W, 3) RGB, uint8 or uint16, to sRGB; the depth stays.

    Where sRGB would clip more than a thousandth of the pixels, the primaries stay and are named by a profile.
    """
    grey = pixels.ndim == 2
    if encoding.is_srgb(grey=grey):
        return NormalizedColor(pixels)
    table = _light_table(encoding, pixels.dtype)
    if encoding.is_hdr:
        note = f"The photo's HDR brightness ({encoding.transfer}) was brought to the range of an ordinary picture."
        return NormalizedColor(_tone_mapped(pixels, table, encoding), None, (note,))
    matrix = None
    if not grey and not encoding.primaries.is_near(SRGB_PRIMARIES):
        matrix = encoding.primaries.matrix_to(SRGB_PRIMARIES).astype(np.float32)
        if not _fits(table[_sample(pixels)] @ matrix.T):
            name = "The photo's own primaries with the sRGB curve"
            return NormalizedColor(_recoded(pixels, table), matrix_profile(encoding.primaries, name))
    if matrix is None:
        return NormalizedColor(_recoded(pixels, table))
    return NormalizedColor(_mapped(pixels, lambda band: table[band] @ matrix.T))


def _light_table(encoding: ColourEncoding, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> Light:
    """Linear light of every number that the depth has."""
    count = np.iinfo(dtype).max + 1
    values = np.linspace(0, 1, count, dtype=np.float32)
    if not encoding.full_range:  # 16 to 235 of 255, or the same part of 16 bits
        scale = count / 256
        values = ((np.arange(count, dtype=np.float32) - 16 * scale) / (219 * scale)).clip(0, 1)
    return encoding.light(values)


def _sample(pixels: Pixels) -> Pixels:
    """About a quarter million pixels from all over a picture."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / _SAMPLED_PIXELS) ** 0.5))
    return pixels[::step, ::step]


def _fits(light: Light) -> bool:
    inside = ((light >= -_IN_GAMUT) & (light <= 1 + _IN_GAMUT)).all(axis=-1)
    return float(inside.mean()) >= _FAITHFUL_SHARE


def _recoded(pixels: Pixels, table: Light) -> Pixels:
    """Every number by itself to the number that sRGB has for its light."""
    codes: Any = _encode(table, pixels.dtype)
    return codes[pixels]  # type: ignore[no-any-return]


def _mapped(pixels: Pixels, to_light: Callable[[Pixels], Light]) -> Pixels:
    result = np.empty_like(pixels)
    for band in row_slices(pixels):
        result[band] = _encode(to_light(pixels[band]), pixels.dtype)
    return result


def _encode(light: Light, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]) -> Pixels:
    """Linear light to sRGB numbers of a depth."""
    values = srgb_values(light.clip(0, 1)) * np.iinfo(dtype).max + 0.5
    return values.astype(np.uint8) if dtype == np.uint8 else values.astype(np.uint16)


def _tone_mapped(pixels: Pixels, table: Light, encoding: ColourEncoding) -> Pixels:
    """HDR to sRGB: paper white stays white, what is brighter is rolled off above a knee, all three colours alike."""
    grey = pixels.ndim == 2
    matrix = encoding.primaries.matrix_to(SRGB_PRIMARIES).astype(np.float32)
    sample = _shown(table[_sample(pixels)], encoding)
    peak = max(1.0, float(np.percentile(sample if grey else sample.max(axis=-1), _PEAK_PERCENTILE)))

    def to_light(band: Pixels) -> Light:
        rolled = _rolled_off(_shown(table[band], encoding), peak, grey=grey)
        return rolled if grey else rolled @ matrix.T

    return _mapped(pixels, to_light)


def _shown(light: Light, encoding: ColourEncoding) -> Light:
    """Light of a display; HLG tells that of the scene, and a display of 1,000 nits gives it more contrast."""
    if encoding.transfer is not Transfer.HLG:
        return light
    luma = _BT2020_LUMA if encoding.primaries == WIDE_PRIMARIES else LUMINANCE
    luminance = light if light.ndim == 2 else (light @ luma)[..., None]
    shown: Light = light * luminance ** (_HLG_SYSTEM_GAMMA - 1) * np.float32(_HLG_PEAK_NITS / _REFERENCE_WHITE_NITS)
    return shown


def _rolled_off(light: Light, peak: float, *, grey: bool) -> Light:
    """Scale each pixel so that its largest channel, up to `peak`, comes below 1; the slope has no step at the knee."""
    if peak <= _BARELY_BRIGHTER:
        return light
    largest = light if grey else light.max(axis=-1, keepdims=True)
    bend = _bend((peak - _KNEE) / (1 - _KNEE))
    part = ((largest - _KNEE) / (peak - _KNEE)).clip(0, 1)
    rolled = _KNEE + (1 - _KNEE) * np.log1p(bend * part) / math.log1p(bend)
    scale = np.where(largest > _KNEE, rolled / np.maximum(largest, _KNEE), 1.0)
    return (light * scale).astype(np.float32)


def _bend(slope: float) -> float:
    """The b for which log(1 + b x) / log(1 + b), which leads from 0 to 1, begins with this slope (above 1)."""
    low, high = 1e-6, 1e9
    for _ in range(60):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if middle / math.log1p(middle) < slope else (low, middle)
    return low


def _pq_light(values: Light) -> Light:
    """SMPTE ST 2084."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = values.astype(np.float64) ** (1 / m2)
    nits = _PQ_PEAK_NITS * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    return (nits / _REFERENCE_WHITE_NITS).astype(np.float32)


def _hlg_light(values: Light) -> Light:
    """ARIB STD-B67."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return light.astype(np.float32)
