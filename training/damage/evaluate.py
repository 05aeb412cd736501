"""`python -m training.damage.evaluate CHECKPOINT --photos FOLDER`: how much damage a network finds.

Held-out photos with drawn damage of other seeds, the two kinds kept out of training among them: precision, recall and
F1 by kind, over thresholds. Undamaged photos, pages and drawings: the share of pixels marked. Sheets to look at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from app.evaluation.damage.agreement import Agreement, agreement
from app.evaluation.damage.kinds import DamageKind
from app.evaluation.damage.layers import clipped
from app.evaluation.damage.scans import VISIBLE_CONTRAST, Sample, crop, scan_sample
from app.evaluation.damage.trials import GROUPS, KINDS, SEED, SIDE, damaged_samples
from app.restoration.device import choose_device, choose_precision
from training.damage import sheets
from training.damage.finder import Finder
from training.damage.negative_pages import draw_line_drawing, draw_page
from training.damage.negative_patterns import draw_lace
from training.damage.negatives import draw_collars, draw_jewellery
from training.damage.segmentation_task import SegmentationTask
from training.damage.trainer import averaged_network
from training.photos import read_rgb, scikit_photos, split

SAMPLES_A_KIND = 24
DRAWN_A_KIND = 12
SHEET_ROWS = 6
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.94, 0.98)
CONTRASTS = (VISIBLE_CONTRAST, 0.12, 0.25, 1.0)  # borders of the classes by which recall is told apart

ByThreshold = dict[float, Agreement]


def undamaged_pictures(
    photos: Mapping[str, NDArray[np.uint8]], drawn_a_kind: int
) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """(group, name, picture (H, W, 3) uint8): photos as they are, and drawn pages and scenes without damage."""
    for name, photo in photos.items():
        yield "held-out photos", name, photo
    for name, photo in scikit_photos():
        yield "scikit-image", name, photo
    pictures = list(photos.values())
    drawn = {
        "text pages": draw_page,
        "line drawings": draw_line_drawing,
        "collars": draw_collars,
        "jewellery": draw_jewellery,
        "lace": draw_lace,
    }
    for number, (group, draw) in enumerate(drawn.items()):
        for index in range(min(DRAWN_A_KIND, drawn_a_kind)):
            rng = np.random.default_rng([SEED, 1000 + number, index])
            scene = draw(crop(pictures[rng.integers(len(pictures))], SIDE, rng), rng)
            scene = clipped(scene)
            yield group, f"{group} {index}", scan_sample(scene, (), rng).scan


class Evaluation:
    """What one network finds: agreement by kind, recall by contrast, and marks on undamaged pictures."""

    def __init__(self, finder: Finder, samples_a_kind: int = SAMPLES_A_KIND) -> None:
        self._finder, self._samples_a_kind = finder, samples_a_kind
        self.by_kind: dict[DamageKind, ByThreshold] = {}
        self.found_by_contrast = np.zeros((len(THRESHOLDS), len(CONTRASTS) - 1))
        self.damaged_by_contrast = np.zeros(len(CONTRASTS) - 1)
        self.marked: dict[str, dict[str, list[float]]] = {}  # group -> picture -> percent at each threshold

    def measure_damaged(self, photos: Sequence[NDArray[np.uint8]]) -> None:
        """All kinds on held-out photos, (H, W, 3) uint8."""
        for kind in track(KINDS, "damaged"):
            self.by_kind[kind] = dict.fromkeys(THRESHOLDS, Agreement())
            for sample in damaged_samples(photos, kind, self._samples_a_kind):
                self._count(kind, sample)

    def _count(self, kind: DamageKind, sample: Sample) -> None:
        probability = self._finder(sample.scan)
        damaged, unsure = sample.mask, sample.unsure
        classes = np.digitize(sample.contrast[damaged], CONTRASTS[1:-1])
        self.damaged_by_contrast += np.bincount(classes, minlength=len(CONTRASTS) - 1)
        for row, threshold in enumerate(THRESHOLDS):
            marked = self._finder.mark(probability, threshold)
            self.by_kind[kind][threshold] += agreement(marked, damaged, unsure)
            found = marked[damaged]
            self.found_by_contrast[row] += np.bincount(classes[found], minlength=len(CONTRASTS) - 1)

    def measure_undamaged(self, photos: Mapping[str, NDArray[np.uint8]]) -> None:
        """Held-out photos by name, (H, W, 3) uint8, scikit-image's and the drawn ones."""
        for group, name, picture in track(list(undamaged_pictures(photos, self._samples_a_kind)), "undamaged"):
            probability = self._finder(picture)
            shares = [100.0 * float(self._finder.mark(probability, limit).mean()) for limit in THRESHOLDS]
            self.marked.setdefault(group, {})[name] = shares

    def group(self, kinds: Sequence[DamageKind], threshold: float) -> Agreement:
        """The kinds together."""
        return sum((self.by_kind[kind][threshold] for kind in kinds), Agreement())

    def undamaged(self, group: str | None, threshold: float) -> tuple[float, float, str]:
        """(mean percent marked, worst percent, the worst picture) of a group, or of all pictures."""
        column = THRESHOLDS.index(threshold)
        chosen = [group] if group is not None else list(self.marked)
        shares = {name: row[column] for each in chosen for name, row in self.marked[each].items()}
        worst = max(shares, key=lambda name: shares[name])
        return float(np.mean(list(shares.values()))), shares[worst], worst

    def most_marked(self, threshold: float) -> list[str]:
        """Undamaged pictures by name, the one with most marks first."""
        column = THRESHOLDS.index(threshold)
        shares = {name: row[column] for pictures in self.marked.values() for name, row in pictures.items()}
        return sorted(shares, key=lambda name: -shares[name])

    def facts(self) -> dict[str, Any]:
        """Everything, JSON-ready, by threshold."""
        return {str(threshold): self._facts_at(threshold) for threshold in THRESHOLDS}

    def _facts_at(self, threshold: float) -> dict[str, Any]:
        parts = {**{kind.value: (kind,) for kind in KINDS}, **GROUPS}
        found = {name: self.group(kinds, threshold) for name, kinds in parts.items()}
        recalls = self.found_by_contrast[THRESHOLDS.index(threshold)] / np.maximum(1, self.damaged_by_contrast)
        return {
            "damaged": {
                name: {
                    "precision": round(each.precision, 4),
                    "recall": round(each.recall, 4),
                    "f1": round(each.f1, 4),
                }
                for name, each in found.items()
            },
            "pixels_found_by_contrast": {
                f"{low:.2f} to {high:.2f}": round(float(recall), 4)
                for low, high, recall in zip(CONTRASTS, CONTRASTS[1:], recalls, strict=False)
            },
            "undamaged": {group: self._undamaged_facts(group, threshold) for group in self.marked}
            | {"all": self._undamaged_facts(None, threshold)},
        }

    def _undamaged_facts(self, group: str | None, threshold: float) -> dict[str, Any]:
        mean, worst, name = self.undamaged(group, threshold)
        return {"mean_percent": round(mean, 4), "worst_percent": round(worst, 4), "worst": name}


def show(facts: dict[str, Any], threshold: float) -> None:
    """Tables for people: by kind at one threshold, and all together over thresholds."""
    at = facts[str(threshold)]
    kinds = Table("damage", "precision", "recall", "F1", title=f"threshold {threshold}")
    for name, row in at["damaged"].items():
        kinds.add_row(name, *(f"{row[figure]:.3f}" for figure in ("precision", "recall", "f1")))
    clean = Table("undamaged", "marked, mean", "marked, worst", "worst picture")
    for group, row in at["undamaged"].items():
        clean.add_row(group, f"{row['mean_percent']:.3f} %", f"{row['worst_percent']:.3f} %", row["worst"])
    over = Table("threshold", "F1 thin, cracks, dust", "F1 all", "undamaged, mean", "undamaged, worst")
    for limit, row in facts.items():
        f1 = [f"{row['damaged'][name]['f1']:.3f}" for name in ("thin, cracks and dust", "all")]
        marked = row["undamaged"]["all"]
        over.add_row(limit, *f1, f"{marked['mean_percent']:.3f} %", f"{marked['worst_percent']:.3f} %")
    for table in (kinds, clean, over):
        Console().print(table)
    Console().print(f"share of damaged pixels found, by contrast: {at['pixels_found_by_contrast']}")


def write_sheets(
    finder: Finder, photos: Sequence[NDArray[np.uint8]], folder: Path, threshold: float, rows_a_kind: int
) -> None:
    """A sheet for each kind, on held-out photos, (H, W, 3) uint8: scan, drawn damage, what is marked."""
    for kind in KINDS:
        rows = []
        for sample in damaged_samples(photos, kind, rows_a_kind):
            marked = finder.mark(finder(sample.scan), threshold)
            truth = sheets.overlay(sample.scan, sample.mask, sample.unsure)
            rows.append([sample.scan, truth, sheets.overlay(sample.scan, marked)])
        sheets.write_sheet(folder / f"{kind}.png", rows)


def write_pictures(finder: Finder, pictures: Mapping[str, NDArray[np.uint8]], folder: Path, threshold: float) -> None:
    """A sheet for each picture by name, (H, W, 3) uint8: the picture, probabilities, what is marked."""
    for name, picture in pictures.items():
        probability = finder(picture)
        marked = sheets.overlay(picture, finder.mark(probability, threshold))
        sheets.write_sheet(folder / f"{name.replace(' ', '_')}.png", [[picture, sheets.as_grey(probability), marked]])


def main() -> None:
    """Read the command line, measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m training.damage.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--photos", type=Path, required=True, help="the folder trained on; its held-out tenth is used")
    parser.add_argument("--scans", type=Path, nargs="*", default=[], help="real scans to look at; needs --sheets")
    parser.add_argument("--sheets", type=Path, help="folder for pictures: scan, damage, what is marked")
    parser.add_argument("--only-sheets", action="store_true", help="leave out the figures")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--threshold", type=float, default=0.5, choices=THRESHOLDS)
    parser.add_argument("--samples", type=int, default=SAMPLES_A_KIND, help="damaged pictures of each kind")
    parser.add_argument("--scales", type=int, default=1, choices=(1, 2), help="2: also on the picture halved")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    device = choose_device(asked.device).value
    precision = choose_precision(asked.precision, device).value
    autocast = torch.autocast(device, DTYPES[precision], enabled=precision != "fp32")
    finder = Finder(averaged_network(SegmentationTask(), asked.checkpoint, device), autocast, asked.scales)
    photos = {path.stem: read_rgb(path) for path in split(asked.photos)[1]}
    if asked.sheets is not None:
        write_sheets(finder, list(photos.values()), asked.sheets, asked.threshold, min(SHEET_ROWS, asked.samples))
        scans = {f"scan {path.stem}": read_rgb(path) for path in asked.scans}
        write_pictures(finder, scans, asked.sheets, asked.threshold)
    if asked.only_sheets:
        return
    evaluation = Evaluation(finder, asked.samples)
    evaluation.measure_damaged(list(photos.values()))
    evaluation.measure_undamaged(photos)
    show(evaluation.facts(), asked.threshold)
    if asked.json is not None:
        asked.json.write_text(json.dumps(evaluation.facts(), indent=1))
    if asked.sheets is not None:
        worst = evaluation.most_marked(asked.threshold)[:SHEET_ROWS]
        pictures = {name: picture for _, name, picture in undamaged_pictures(photos, asked.samples) if name in worst}
        write_pictures(finder, pictures, asked.sheets / "undamaged", asked.threshold)


if __name__ == "__main__":
    main()
