"""Figures that need packages or files of others: NIQE through basicsr, LPIPS through lpips, each only if it is at hand.

Nothing is ever downloaded for them; what is missing is said in one sentence.
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.restoration.reference import packages

Rgb = NDArray[np.uint8]  # (H, W, 3) RGB in [0, 255]

NIQE_BLOCK_PIXELS, NIQE_LEAST_BLOCKS = 96, 4
NIQE_MOST_MEGAPIXELS = 50.0
_LPIPS_TRUNK = "alexnet-owt-7be5be79.pth"  # torchvision's AlexNet, which lpips 0.1 fetches if it is not there
_LPIPS_MOST_MEGAPIXELS = 4.0


def niqe_refusal() -> str | None:
    """None when NIQE can be computed here, else why not."""
    if packages.is_available():
        return None
    return "NIQE is left out: basicsr, whose function computes it, is not installed here (Python 3.11 or 3.12 only)."


def niqe(rgb: Rgb) -> float | None:
    """NIQE by basicsr's own function (its MATLAB luma, 96x96 blocks, border 0); lower is more natural.

    Source: Mittal, Soundararajan and Bovik 2013; `basicsr/metrics/niqe.py`.

    Args:
        rgb: (H, W, 3) uint8 RGB.

    Returns:
        The figure, or None for a picture of fewer than four blocks, one of over 50 megapixels (it takes half a second
        for each), or a flat one, of which the statistics do not exist.
    """
    height, width = rgb.shape[:2]
    blocks = (height // NIQE_BLOCK_PIXELS) * (width // NIQE_BLOCK_PIXELS)
    if blocks < NIQE_LEAST_BLOCKS or height * width > NIQE_MOST_MEGAPIXELS * 1e6:
        return None
    packages.add_shim()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # basicsr still imports SciPy by an old name, and divides by zero on flat blocks
        from basicsr.metrics.niqe import calculate_niqe

        try:
            value = float(calculate_niqe(np.ascontiguousarray(rgb[:, :, ::-1]), crop_border=0))
        except (np.linalg.LinAlgError, ValueError, IndexError):
            return None
    return value if math.isfinite(value) else None


def find_lpips() -> tuple[Callable[[Rgb, Rgb], float | None] | None, str | None]:
    """A function (a, b) to LPIPS, and None; or None, and the sentence why it is left out.

    LPIPS is the version 0.1 over AlexNet (Zhang et al. 2018), on RGB in [-1, 1], border 0; lower is more alike. It
    needs the package `lpips` and torchvision's AlexNet file in torch's own cache.
    """
    if importlib.util.find_spec("lpips") is None:
        return None, "LPIPS is left out: its package and its weights are not here (pip install lpips)."
    import torch

    if not (Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS_TRUNK).is_file():
        return None, f"LPIPS is left out: its weights are not here (the file {_LPIPS_TRUNK} in torch's cache)."
    return _open_lpips(torch), None


def _open_lpips(torch: Any) -> Callable[[Rgb, Rgb], float | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it loads AlexNet by an argument that torchvision has renamed
        import lpips

        network = lpips.LPIPS(net="alex", verbose=False).eval()

    def as_tensor(rgb: Rgb) -> Any:
        return torch.from_numpy(rgb.astype(np.float32) / 127.5 - 1.0).permute(2, 0, 1)[None]  # (1, 3, H, W)

    def measure(a: Rgb, b: Rgb) -> float | None:
        if a.shape[0] * a.shape[1] > _LPIPS_MOST_MEGAPIXELS * 1e6:
            return None
        with torch.inference_mode():
            return float(network(as_tensor(a), as_tensor(b)).item())

    return measure
