"""`python -m training.evaluate NETWORK --photos FOLDER`: what a network gains over bicubic, as a table and JSON.

Photos it never saw: the held-out tenth of the folder and the photographs that come with scikit-image; also what it does
to flat and text crops. Networks run through the service's own engine. It knows nothing of training.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file

from app.evaluation.degradation import bicubic_up
from app.restoration.device import choose_device, choose_precision
from app.restoration.host_engine import HostEngine
from app.restoration.models import networks
from app.restoration.models.networks import Network
from app.restoration.models.registry import load_module
from app.restoration.upscale import UpscalePlan, upscale
from training.check import KINDS, Gain, Rgb, cropped, make_input, measure
from training.degradation import SCALE
from training.photos import read_rgb, scikit_photos, split

TEXTS = ("page", "text")
FLAT_COLOURS = (
    (0, 0, 0),
    (255, 255, 255),
    (128, 128, 128),
    (200, 30, 30),
    (30, 160, 60),
    (20, 40, 190),
    (235, 205, 170),
)
FLAT_SIDE = 64


class Enlarger:
    """One network through the service's tiles and precision: (H, W, 3) uint8 RGB to (4H, 4W, 3)."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def __call__(self, small: Rgb) -> Rgb:
        """Enlarge one picture."""
        size = (small.shape[0] * SCALE, small.shape[1] * SCALE)
        result, _ = upscale(HostEngine(self._network), small, UpscalePlan(size), lambda fraction: True)
        return result.astype(np.uint8)


def open_network(path: Path, device: str, precision: str) -> Network:
    """A compact or ESRGAN file as a ready network."""
    import torch

    state = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    )
    for wrapper in ("params_ema", "params"):
        state = state.get(wrapper, state)
    module, facts = load_module(state, path.name)
    return networks.build(path.stem, module, facts, device, precision)


def colour_shifts(enlarge: Enlarger) -> dict[str, float]:
    """Largest mean shift of a channel, in 1/255, on flat fields and on the pages of text."""
    shifts = {}
    for colour in FLAT_COLOURS:
        flat = np.broadcast_to(np.asarray(colour, np.uint8), (FLAT_SIDE, FLAT_SIDE, 3))
        shifts[f"flat {colour}"] = _shift(np.ascontiguousarray(flat), enlarge)
    for name, photo in scikit_photos():
        if name in TEXTS:
            shifts[name] = _shift(make_input(cropped(photo), "clean"), enlarge)
    return shifts


def _shift(small: Rgb, enlarge: Enlarger) -> float:
    before, after = small.mean(axis=(0, 1)), enlarge(small).mean(axis=(0, 1))
    return float(np.abs(after - before).max())


def evaluate(photos: list[tuple[str, Rgb]], enlarge: Enlarger) -> dict[str, dict[str, Gain]]:
    """Kind -> photo -> figures."""
    jobs = [(kind, name, photo) for kind in KINDS for name, photo in photos]
    found: dict[str, dict[str, Gain]] = {kind: {} for kind in KINDS}
    for kind, name, photo in track(jobs, "measuring"):
        found[kind][name] = measure(photo, kind, enlarge)
    return found


def summary(found: dict[str, dict[str, Gain]], shifts: dict[str, float]) -> dict[str, Any]:
    """Means, the worst photo of each kind, and the largest colour shift, JSON-ready."""
    kinds = {}
    for kind, gains in found.items():
        worst = min(gains, key=lambda name: gains[name].gain_db)
        kinds[kind] = {
            "photos": len(gains),
            "psnr_db": _mean(gains, "psnr_db"),
            "ssim": _mean(gains, "ssim"),
            "gain_db": _mean(gains, "gain_db"),
            "gain_ssim": _mean(gains, "gain_ssim"),
            "worst_photo": worst,
            "worst_gain_db": round(gains[worst].gain_db, 4),
        }
    return {"kinds": kinds, "largest_colour_shift_of_255": round(max(shifts.values()), 3)}


def _mean(gains: dict[str, Gain], what: str) -> float:
    return round(float(np.mean([getattr(gain, what) for gain in gains.values()])), 4)


def write_sheets(photos: list[tuple[str, Rgb]], enlargers: dict[str, Enlarger], folder: Path) -> None:
    """For the eye: a row of 100 % crops for each photo and kind: bicubic, each network, the original."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        for name, photo in photos:
            photo = cropped(photo)
            small = make_input(photo, kind)
            pictures = [bicubic_up(small, SCALE), *(enlarge(small) for enlarge in enlargers.values()), photo]
            crops = [_middle(picture) for picture in pictures]
            Image.fromarray(np.concatenate(crops, axis=1)).save(folder / f"{kind}-{name}.png")


def _middle(picture: NDArray[np.uint8], side: int = 320) -> NDArray[np.uint8]:
    y, x = max(0, (picture.shape[0] - side) // 2), max(0, (picture.shape[1] - side) // 2)
    return picture[y : y + side, x : x + side]


def show(name: str, facts: dict[str, Any]) -> None:
    """The table for people."""
    table = Table("input", "photos", "PSNR", "over bicubic", "SSIM", "over bicubic", "worst photo", title=name)
    for kind, row in facts["kinds"].items():
        table.add_row(
            kind,
            str(row["photos"]),
            f"{row['psnr_db']:.2f} dB",
            f"{row['gain_db']:+.2f} dB",
            f"{row['ssim']:.4f}",
            f"{row['gain_ssim']:+.4f}",
            f"{row['worst_photo']} {row['worst_gain_db']:+.2f} dB",
        )
    Console().print(table)
    Console().print(f"largest mean colour shift on flat fields and text: {facts['largest_colour_shift_of_255']} of 255")


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("networks", type=Path, nargs="+", help="weight files, the first is the one judged")
    parser.add_argument("--photos", type=Path, help="the folder that was trained on; its held-out tenth is measured")
    parser.add_argument("--json", type=Path, help="write the first network's figures here")
    parser.add_argument("--sheets", type=Path, help="write 100 %% crops here: bicubic, each network, original")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    device = choose_device(asked.device).value
    precision = choose_precision(asked.precision, device).value
    photos = list(scikit_photos())
    if asked.photos is not None:
        photos += [(path.stem, read_rgb(path)) for path in split(asked.photos)[1]]
    enlargers = {str(path): Enlarger(open_network(path, device, precision)) for path in asked.networks}
    figures = {name: summary(evaluate(photos, each), colour_shifts(each)) for name, each in enlargers.items()}
    for name, facts in figures.items():
        show(name, facts)
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures[str(asked.networks[0])], indent=1))
    if asked.sheets is not None:
        write_sheets(photos, enlargers, asked.sheets)


if __name__ == "__main__":
    main()
