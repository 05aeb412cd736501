"""The figures of a report: what each is called, in which convention it is measured, and how a photo gets them.

Facts about figures are rows of a table here; tables, pages and plots read them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from app.evaluation import metrics
from app.evaluation.degradation import bicubic_to
from app.evaluation.metrics import Rgb
from app.evaluation.naturalness import niqe

Values = dict[str, float | None]  # None: there is no such figure for this picture; infinite: equal pictures


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure: its key in JSON and CSV, its heading, unit, decimals, direction, convention, and plain meaning."""

    key: str
    title: str
    unit: str
    decimals: int
    more_is_better: bool
    convention: str
    meaning: str


_SSIM = "SSIM with an 11x11 Gaussian window of sigma 1.5 over whole windows"
FIDELITY = (
    Figure(
        "fidelity_psnr",
        "Fidelity PSNR",
        "dB",
        2,
        True,
        "{back}: PSNR on RGB, border 0",
        "How little of the photo was changed, pixel by pixel. Removed noise and JPEG blocks lower it too.",
    ),
    Figure(
        "fidelity_ssim",
        "Fidelity SSIM",
        "",
        4,
        True,
        "{back}: {ssim}, mean over RGB, border 0",
        "How well edges and structures of the photo were kept. 1 means that none was changed.",
    ),
    Figure(
        "fidelity_ciede2000",
        "Colour difference",
        "ΔE",
        2,
        False,
        "{back}: mean CIEDE2000, sRGB under D65, border 0",
        "How far the colours moved, as the eye sees it. About 1 is the least that people notice side by side.",
    ),
)
NIQE_INPUT = Figure(
    "niqe_input",
    "NIQE before",
    "",
    2,
    False,
    "{niqe}, of the input",
    "How unnatural the photo looked before: noise, blur and JPEG blocks raise it. It needs no reference.",
)
NIQE_RESULT = Figure(
    "niqe",
    "NIQE after",
    "",
    2,
    False,
    "{niqe}, of the result",
    "The same of the result. Lower than before: it looks more natural. It cannot tell whether the details are true.",
)
REFERENCE = (
    Figure(
        "psnr_y",
        "PSNR (Y)",
        "dB",
        2,
        True,
        "Result against reference: PSNR on luma ({luma}), border {border}",
        "How near the brightness of each pixel is to the reference. 6 dB more halve the difference.",
    ),
    Figure(
        "ssim_y",
        "SSIM (Y)",
        "",
        4,
        True,
        "Result against reference: {ssim}, on luma ({luma}), border {border}",
        "How like the reference edges and structures are, in brightness. 1 means that they are the same.",
    ),
    Figure(
        "psnr_rgb",
        "PSNR (RGB)",
        "dB",
        2,
        True,
        "Result against reference: PSNR on RGB, border {border}",
        "How near each pixel is to the reference, colours included.",
    ),
    Figure(
        "ssim_rgb",
        "SSIM (RGB)",
        "",
        4,
        True,
        "Result against reference: {ssim}, mean over RGB, border {border}",
        "How like the reference edges and structures are, colours included. 1 means that they are the same.",
    ),
    Figure(
        "gain_psnr_y",
        "Gain",
        "dB",
        2,
        True,
        "PSNR on luma less that of MATLAB's bicubic of the same input",
        "How much nearer to the reference than plain enlarging. Below 0: plain enlarging was nearer.",
    ),
)
LPIPS = Figure(
    "lpips",
    "LPIPS",
    "",
    4,
    False,
    "Result against reference: LPIPS 0.1 over AlexNet, RGB, border 0",
    "How different from the reference it looks to a network that was taught by people's judgements. 0: the same.",
)
_WORDS = {
    "back": "Original against the result brought back to its size by MATLAB's bicubic",
    "ssim": _SSIM,
    "luma": "Y of YCbCr, BT.601, 16 to 235",
    "niqe": "basicsr's NIQE on luma, 96x96 blocks, border 0",
}

Lpips = Callable[[Rgb, Rgb], float | None]


def table(*, with_reference: bool, with_niqe: bool, with_lpips: bool) -> tuple[Figure, ...]:
    """The figures that a run measures, the one that photos are sorted by first."""
    chosen: Sequence[Figure] = (*REFERENCE, *((LPIPS,) if with_lpips else ())) if with_reference else ()
    return (*chosen, *FIDELITY, *((NIQE_INPUT, NIQE_RESULT) if with_niqe else ()))


def convention(figure: Figure, border: int) -> str:
    """The sentence that names channel, border and window."""
    return figure.convention.format(**_WORDS, border=border)


def fidelity(original: Rgb, restored: Rgb) -> Values:
    """How true a result stays to what it was made of: both (H, W, 3) uint8 RGB, the result of any size."""
    back = bicubic_to(restored, (original.shape[0], original.shape[1]))
    least = metrics.WINDOW_PIXELS
    return {
        "fidelity_psnr": metrics.rgb_psnr(original, back),
        "fidelity_ssim": metrics.rgb_ssim(original, back) if min(original.shape[:2]) >= least else None,
        "fidelity_ciede2000": metrics.mean_ciede2000(original, back),
    }


def against_reference(truth: Rgb, restored: Rgb, border: int, lpips: Lpips | None = None) -> Values:
    """How near a result comes to what it should be: both (H, W, 3) uint8 RGB.

    Raises:
        Unprocessable: `sizes_differ`, `too_small_to_compare`.
    """
    values: Values = {
        "psnr_y": metrics.luma_psnr(truth, restored, border),
        "ssim_y": metrics.luma_ssim(truth, restored, border),
        "psnr_rgb": metrics.rgb_psnr(truth, restored, border),
        "ssim_rgb": metrics.rgb_ssim(truth, restored, border),
    }
    if lpips is not None:
        values["lpips"] = lpips(truth, restored)
    return values


def gain(values: Mapping[str, float | None], baseline: Mapping[str, float | None]) -> float | None:
    """PSNR on luma over the baseline's, where both are finite."""
    ours, plain = values.get("psnr_y"), baseline.get("psnr_y")
    if ours is None or plain is None or not math.isfinite(ours) or not math.isfinite(plain):
        return None
    return ours - plain


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the finite ones, None where there is none."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else None


def shown(figure: Figure, value: float | None) -> str:
    """The figure as a text of its decimals: a dash for none, ∞ for equal pictures."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else f"{value:.{figure.decimals}f}"


def naturalness(rgb: Rgb, *, wanted: bool) -> float | None:
    """NIQE, or None when it is not wanted (its package is missing)."""
    return niqe(rgb) if wanted else None
