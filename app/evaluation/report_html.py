"""A report as one self-contained page: summary, plots, and every photo before and after, worst first.

Pictures stand in the page; nothing is fetched, and the page's own policy forbids it. File names, models and sentences
are texts: all are escaped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Iterator
from html import escape
from urllib.parse import quote

from app.evaluation import figures, plots
from app.evaluation.columns import BASELINE
from app.evaluation.figures import Figure
from app.evaluation.machine import in_words
from app.evaluation.records import Cell, PhotoRow, Report
from app.evaluation.report_style import SCRIPT, STYLE

_MOST_PLOTTED_PHOTOS = 60
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_TITLES = {
    "fidelity": "How true the results stay to the photos",
    "reference": "Results against references",
    "degrade": "Photos made small and restored, against themselves",
}


def as_html(report: Report) -> str:
    """The whole page."""
    body = "\n".join(
        [
            _intro(report),
            _summary(report),
            _meanings(report),
            _failures(report),
            _plots(report),
            _photos(report),
            _end(report),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(_TITLES[report.mode])}</title><style>{STYLE}</style></head>\n<body><main>\n{body}\n</main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _intro(report: Report) -> str:
    photos = len(report.photos)
    failed = sum(photo.failed for photo in report.photos)
    words = [
        f"{photos} photo{'s' * (photos != 1)}",
        f"{failed} with trouble" if failed else "no trouble",
        report.created,
    ]
    made = report.degradation
    lines = [f"<h1>{escape(_TITLES[report.mode])}</h1><p>{escape(', '.join(words))}</p>"]
    if made is not None:
        noise = f", noise of sigma {made['noise_sigma']:g}" if made["noise_sigma"] else ""
        jpeg = f", JPEG of quality {made['jpeg_quality']}" if made["jpeg_quality"] else ""
        text = f"Inputs were made of the photos: MATLAB's bicubic, {made['factor']} times smaller{noise}{jpeg}."
        lines.append(f"<p>{escape(text)}</p>")
    if report.interrupted:
        lines.append("<p><strong>The run was interrupted; this is what was done by then.</strong></p>")
    return "".join(lines)


def _summary(report: Report) -> str:
    """Means: one line per column, the best of each figure marked; then what holds for every result."""
    head = "".join(f"<th>{_heading(figure)}</th>" for figure in report.figures)
    rows = []
    for number, name in enumerate(report.column_names):
        cells = "".join(_mean_cell(report, name, figure) for figure in report.figures)
        speed = report.seconds_per_megapixel(name)
        time = "–" if speed is None else f"{speed:.2f}"
        dot = f'<i class="dot c{number % plots.COLOURS}"></i>'
        rows.append(f"<tr><th>{dot}{escape(name)}{_models(report, name)}</th>{cells}<td>{time}</td></tr>")
    heading = f"<tr><th>Mean</th>{head}<th>s per megapixel of input</th></tr>"
    notes = "".join(f"<p>Every result: {escape(text)}</p>" for text in sorted(_common_warnings(report)))
    words = "Each mean is over the photos that have the figure in all columns, so that columns can be compared."
    table = f'<div class="scroll"><table>{heading}{"".join(rows)}</table></div>'
    return f"<h2>Summary</h2>{table}<p>{words}</p>{notes}"


def _meanings(report: Report) -> str:
    """What each figure says, in plain words."""
    rows = "".join(
        f"<tr><th>{_heading(figure)}</th><td>{'More' if figure.more_is_better else 'Less'} is better. "
        f"{escape(figure.meaning)}</td></tr>"
        for figure in report.figures
    )
    words = "No figure alone says which picture is the better one; look at the photos below too."
    return f'<h2>What the figures mean</h2><div class="scroll"><table class="words">{rows}</table></div><p>{words}</p>'


def _common_warnings(report: Report) -> set[str]:
    """Warnings that all results carry; they are told once."""
    said = [set(cell.warnings) for photo in report.photos for cell in photo.cells if cell.backend]
    return set.intersection(*said) if said else set()


def _models(report: Report, name: str) -> str:
    cells = [cell for photo in report.photos if (cell := photo.cell(name))]
    ran = sorted({cell.model for cell in cells if cell.model and cell.model != name})
    return f"<small>{escape(', '.join(ran))}</small>" if ran else ""


def _mean_cell(report: Report, name: str, figure: Figure) -> str:
    value = report.mean(name, figure.key)
    means = [m for column in report.columns if (m := report.mean(column, figure.key)) is not None]
    is_best = len(set(means)) > 1 and name != BASELINE and value == (max if figure.more_is_better else min)(means)
    return f"<td{' class=best' if is_best else ''}>{escape(figures.shown(figure, value))}</td>"


def _heading(figure: Figure) -> str:
    unit = f" {figure.unit}" if figure.unit else ""
    arrow = "↑" if figure.more_is_better else "↓"
    return f"{escape(figure.title)}<small>{escape(unit)} {arrow}</small>"


def _failures(report: Report) -> str:
    if not report.failures:
        return ""
    rows = "".join(
        f"<tr><td>{escape(photo)}</td><td>{escape(column or 'all')}</td><td>{escape(trouble.code)}</td>"
        f"<td>{escape(trouble.message)}</td></tr>"
        for photo, column, trouble in report.failures
    )
    head = "<tr><th>Photo</th><th>Column</th><th>Code</th><th>What happened, and what to do</th></tr>"
    return f'<h2>Trouble</h2><div class="scroll"><table class="words">{head}{rows}</table></div>'


def _plots(report: Report) -> str:
    photos = [photo for photo in report.photos if photo.cells][:_MOST_PLOTTED_PHOTOS]
    names = [photo.label for photo in photos]
    columns = report.column_names
    legend = "".join(
        f'<span><i class="dot c{number % plots.COLOURS}"></i>{escape(name)}</span>'
        for number, name in enumerate(columns)
    )
    drawn = []
    for figure in report.figures:
        if figure.key in ("niqe_input", "psnr_rgb", "ssim_rgb"):
            continue
        series = [(name, [_value(photo, name, figure.key) for photo in photos]) for name in columns]
        unit = f", {figure.unit}" if figure.unit else ""
        better = "more is better" if figure.more_is_better else "less is better"
        plot = plots.dot_plot(f"{figure.title}{unit}", names, series, figure.decimals)
        if plot:
            drawn.append(f"<figure><figcaption>{escape(figure.title + unit)} ({better})</figcaption>{plot}</figure>")
    if not drawn:
        return ""
    return f'<h2>Plots</h2><p class="legend">{legend}</p><div class="plots">{"".join(drawn)}</div>'


def _value(photo: PhotoRow, column: str, key: str) -> float | None:
    cell = photo.cell(column)
    return None if cell is None else cell.figures.get(key)


def _photos(report: Report) -> str:
    cards = "".join(_card(photo, report) for photo in report.photos)
    pictured = sum(photo.before is not None for photo in report.photos)
    rest = "" if pictured >= len(report.photos) else f" Pictures are shown for {pictured} of them."
    return f"<h2>Photos, worst first</h2><p>Drag the handle to compare.{rest}</p>{cards}"


def _card(photo: PhotoRow, report: Report) -> str:
    size = f"{photo.width} × {photo.height}" if photo.width else ""
    parts = [f"<h3>{escape(photo.label)} <small>{size}</small></h3>"]
    if photo.trouble:
        parts.append(f'<p class="bad">{escape(photo.trouble.message)}</p>')
    parts += [f"<p>{escape(note)}</p>" for note in photo.notes]
    if photo.cells:
        parts.append(_photo_table(photo, report, _common_warnings(report)))
    if photo.before is not None:
        parts += [_comparison(photo, cell) for cell in photo.cells if cell.views and cell.column != BASELINE]
        parts.append(_details(photo))
    return f'<section class="card">{"".join(parts)}</section>'


def _photo_table(photo: PhotoRow, report: Report, told: Collection[str]) -> str:
    head = "".join(f"<th>{_heading(figure)}</th>" for figure in report.figures)
    rows = []
    for cell in photo.cells:
        values = "".join(f"<td>{escape(figures.shown(f, cell.figures.get(f.key)))}</td>" for f in report.figures)
        ran = f"<td>{cell.seconds:.2f}</td>" if cell.backend else "<td>–</td>"
        rows.append(f"<tr><th>{_linked(cell)}<small>{escape(_facts(cell))}</small></th>{values}{ran}</tr>")
        rows += [
            f'<tr class="note"><td colspan="{len(report.figures) + 2}">{line}</td></tr>' for line in _notes(cell, told)
        ]
    return f'<div class="scroll"><table><tr><th></th>{head}<th>s</th></tr>{"".join(rows)}</table></div>'


def _linked(cell: Cell) -> str:
    """The column's name, linked to the result beside the page."""
    name = escape(cell.column)
    return f'<a href="{escape(quote(os.fsencode(cell.result)), quote=True)}">{name}</a>' if cell.result else name


def _facts(cell: Cell) -> str:
    size = f"{cell.width} × {cell.height}" if cell.width else ""
    faces = f"{cell.faces} face{'s' * (cell.faces != 1)}" if cell.faces else ""
    return ", ".join(part for part in (cell.model if cell.model != cell.column else "", size, faces) if part)


def _notes(cell: Cell, told: Collection[str]) -> Iterator[str]:
    if cell.trouble:
        yield f'<span class="bad">{escape(cell.trouble.message)}</span>'
    yield from (escape(warning) for warning in cell.warnings if warning not in told)


def _comparison(photo: PhotoRow, cell: Cell) -> str:
    """The whole photo, before and after under one handle."""
    assert photo.before is not None
    assert cell.views is not None
    before = image(photo.before.whole, f"{photo.label} before")
    after = image(cell.views.whole, f"{photo.label} restored by {cell.column}")
    handle = f'<input type="range" value="50" aria-label="before and after of {escape(photo.label, quote=True)}">'
    words = f"<figcaption>before | {escape(cell.column)}</figcaption>"
    return (
        f'<figure class="pair"><div class="stage">{after}<div class="over">{before}</div>{handle}</div>{words}</figure>'
    )


def _details(photo: PhotoRow) -> str:
    """The same detail side by side at full size: before, each column, and the reference."""
    assert photo.before is not None
    left, top, width, height = photo.detail_box
    shown = [("before, bicubic", photo.before)]
    shown += [(cell.column, cell.views) for cell in photo.cells if cell.views and cell.column != BASELINE]
    shown += [("reference", photo.truth)] if photo.truth else []
    pictures = "".join(
        f"<figure>{image(views.detail, f'{photo.label}, detail, {name}')}"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, views in shown
    )
    words = f"Detail at full size: {width} × {height} pixels of the input, from {left}, {top}."
    return f'<p class="caption">{words}</p><div class="details">{pictures}</div>'


def image(webp: bytes, alt: str) -> str:
    """A picture within the page."""
    data = base64.b64encode(webp).decode("ascii")
    return f'<img alt="{escape(alt, quote=True)}" src="data:image/webp;base64,{data}">'


def _end(report: Report) -> str:
    conventions = "".join(
        f"<tr><th>{escape(figure.title)}</th><td>{escape(figures.convention(figure, report.border))}.</td></tr>"
        for figure in report.figures
    )
    left_out = "".join(f"<p>{escape(sentence)}</p>" for sentence in report.left_out)
    machine = f"<h2>Machine</h2><p>{escape(in_words(report.machine))}.</p>"
    table = f'<table class="words">{conventions}</table>'
    return f'<h2>How it was measured</h2><div class="scroll">{table}</div>{left_out}{machine}'
