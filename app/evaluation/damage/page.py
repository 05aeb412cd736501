"""The page of the figures of repair: tables, and an example of each kind before, marked and after.

One file without a reference to any other; names of photos are foreign texts: all are escaped.
"""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

from app.evaluation.damage.measuring import Example
from app.evaluation.damage.report import DamageReport, FigureTable, shown
from app.evaluation.machine import in_words
from app.evaluation.report_html import POLICY, image
from app.evaluation.report_style import STYLE
from app.evaluation.views import webp

TITLE = "Repair of drawn damage"
MARKED, MISSED, DRAWN = (220, 40, 30), (30, 90, 220), (240, 200, 40)
QUALITY = 90


def as_html(report: DamageReport) -> str:
    """The whole page."""
    with_network = "with" if report.has_inpainting_network else "without"
    facts = f"{report.photos} photos, {report.samples} samples a kind, {with_network} the inpainting network"
    body = "\n".join(
        [
            f"<h1>{TITLE}</h1><p>{escape(facts)}, {escape(report.created)}</p>",
            *(_table(table) for table in report.tables),
            "<h2>Examples</h2><p>Damaged; drawn and found (red), missed (blue), marked for nothing (yellow); repaired; "
            "clean.</p>",
            *(_example(example) for example in report.examples),
            f"<h2>Machine</h2><p>{escape(in_words(report.machine))}.</p>",
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{TITLE}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def overlay(example: Example) -> NDArray[np.uint8]:
    """The scan with what was found, missed and marked for nothing in colour: (H, W, 3) uint8."""
    shown_scan = example.scan.copy()
    found, missed, extra = (
        example.drawn & example.marked,
        example.drawn & ~example.marked,
        example.marked & ~example.drawn,
    )
    for where, color in ((found, MARKED), (missed, MISSED), (extra, DRAWN)):
        shown_scan[where] = color
    return shown_scan


def _table(table: FigureTable) -> str:
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(shown(value).replace('_', ' '))}</td>" for value in row) + "</tr>"
        for row in table.rows
    )
    return (
        f'<h2>{escape(table.title)}</h2><p>{escape(table.words)}</p><div class="scroll"><table><tr>{head}</tr>'
        f"{rows}</table></div>"
    )


def _example(example: Example) -> str:
    name = example.kind.value.replace("_", " ")
    parts = {"damaged": example.scan, "marked": overlay(example), "repaired": example.filled, "clean": example.clean}
    figures = "".join(
        f"<figure>{image(webp(pixels, QUALITY), f'{name}, {what}')}<figcaption>{what}</figcaption></figure>"
        for what, pixels in parts.items()
    )
    return f'<section class="card"><h3>{escape(name)}</h3><div class="details">{figures}</div></section>'
