"""The figures of repair as tables, which JSON, CSV, the page and the console all show alike."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from app.evaluation.damage.kinds import DamageKind
from app.evaluation.damage.measuring import PARTS, DamageMeasurement, Example, gain, together
from app.evaluation.damage.trials import GROUPS, KINDS
from app.options import Repair
from app.restoration.repair.mask import THRESHOLDS

SCHEMA = 1
DIGITS = 4

Value = str | float | int


@dataclasses.dataclass(frozen=True)
class FigureTable:
    """One table: a stable `key`, a title, what it says, headings, and rows whose first value names them."""

    key: str
    title: str
    words: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


@dataclasses.dataclass(frozen=True)
class DamageReport:
    """A whole run: when, on which machine, on how many photos, with which networks, and what was found."""

    created: str
    machine: dict[str, Any]
    photos: int
    samples: int
    has_inpainting_network: bool
    tables: tuple[FigureTable, ...]
    examples: tuple[Example, ...]


def make_tables(measured: DamageMeasurement) -> tuple[FigureTable, ...]:
    """Everything that was measured."""
    return (
        *(_detection(measured, mode) for mode in THRESHOLDS),
        _fills(measured),
        _repaired(measured),
        _undamaged(measured),
    )


def as_json(report: DamageReport) -> str:
    """Strict JSON: rows are objects by heading; a figure that does not exist is null."""
    tables = {
        table.key: [{key: _strict(value) for key, value in zip(table.columns, row, strict=True)} for row in table.rows]
        for table in report.tables
    }
    facts: dict[str, Any] = {
        "schema": SCHEMA,
        "mode": "damage",
        "created": report.created,
        "machine": report.machine,
        "photos": report.photos,
        "samples_a_kind": report.samples,
        "has_inpainting_network": report.has_inpainting_network,
    }
    return json.dumps(facts | tables, indent=1, allow_nan=False) + "\n"


def as_csv(report: DamageReport) -> str:
    """One line for each figure: table, row, figure, value."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["table", "row", "figure", "value"])
    for table in report.tables:
        for row in table.rows:
            for figure, value in zip(table.columns[1:], row[1:], strict=True):
                writer.writerow([table.key, row[0], figure, shown(value)])
    return file.getvalue()


def shown(value: Value) -> str:
    """A value for people."""
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "–"
    return str(value)


def _strict(value: Value) -> Value | None:
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    return value


def _detection(measured: DamageMeasurement, mode: Repair) -> FigureTable:
    parts: dict[str, Sequence[DamageKind]] = {**{kind.value: (kind,) for kind in KINDS}, **GROUPS}
    rows = []
    for name, kinds in parts.items():
        found = together(measured.found[mode], kinds)
        rows.append((name, found.precision, found.recall, found.f1))
    words = "Marked pixels against drawn damage that can be seen (over 6 % of the range), 2 pixels of tolerance."
    title = f"Found at {mode.value} (threshold {THRESHOLDS[mode]:g})"
    return FigureTable(f"found_{mode.value}", title, words, ("damage", "precision", "recall", "f1"), tuple(rows))


def _fills(measured: DamageMeasurement) -> FigureTable:
    decibels = {part: measured.psnr[part].decibels() for part in PARTS}
    ssim = {part: measured.ssim[part].means() for part in PARTS}
    rows: list[tuple[Value, ...]] = [
        (
            name,
            *(decibels[part].get(name, math.nan) for part in PARTS),
            *(ssim[part].get(name, math.nan) for part in PARTS),
        )
        for name in decibels["all"]
    ]
    words = (
        "Pooled inside exactly known holes, against what stood there without grain; wide: over 6 pixels. Grain cannot "
        f"be guessed, so putting it back costs PSNR. Pixels changed outside the masks: {measured.changed_outside}."
    )
    columns = ("fill", *(f"psnr_{part}_db" for part in PARTS), *(f"ssim_{part}" for part in PARTS))
    return FigureTable("fills", "Filled", words, columns, tuple(rows))


def _repaired(measured: DamageMeasurement) -> FigureTable:
    pooled = {
        **{kind.value: each for kind, each in measured.repaired.items()},
        "all": measured.repaired_all,
        "all, where damage was drawn": measured.repaired_where_drawn,
    }
    rows: list[tuple[Value, ...]] = []
    for name, each in pooled.items():
        figures = each.decibels()
        rows.append((name, *(figures.get(key, math.nan) for key in ("before", "after")), gain(figures)))
    words = (
        "The damaged scan and the repaired one (auto) against the scan of the same print without damage, with the same "
        "noise and compression: PSNR, pooled over whole pictures."
    )
    return FigureTable(
        "repaired", "Found and filled", words, ("damage", "before_db", "after_db", "gain_db"), tuple(rows)
    )


def _undamaged(measured: DamageMeasurement) -> FigureTable:
    rows = []
    for mode, shares in measured.undamaged.items():
        worst = max(shares, key=lambda name: shares[name])
        mean = sum(shares.values()) / len(shares)
        untouched = sum(share == 0.0 for share in shares.values())
        filled = 100 * sum(measured.filled[mode].values()) / len(shares)
        rows.append((mode.value, 100 * mean, 100 * shares[worst], worst, untouched, filled))
    words = (
        "What is marked on the photos as they are, and what is filled, which takes the rims of marks along. A photo "
        "without marks comes back byte for byte."
    )
    columns = ("repair", "mean_percent", "worst_percent", "worst", "untouched_photos", "mean_filled_percent")
    return FigureTable("undamaged", "Undamaged photos", words, columns, tuple(rows))
