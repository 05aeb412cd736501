"""A report as JSON for machines and as CSV for spreadsheets.

Both hold the same rows. A text that a spreadsheet would take for a formula is disarmed.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from typing import Any

from app.evaluation import figures
from app.evaluation.columns import BASELINE
from app.evaluation.records import Cell, PhotoRow, Report
from app.result_names import printable

SCHEMA = 1
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_ROUNDED_TO = 6


def as_json(report: Report) -> str:
    """The whole report but its pictures, as strict JSON: a figure that does not exist, or is infinite, is null."""
    return json.dumps(to_data(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_data(report: Report) -> dict[str, Any]:
    """The report as plain lists and dictionaries."""
    return {
        "schema": SCHEMA,
        "mode": report.mode,
        "created": report.created,
        "interrupted": report.interrupted,
        "machine": report.machine,
        "border": report.border,
        "degradation": report.degradation,
        "figures": [
            {
                "key": figure.key,
                "title": figure.title,
                "unit": figure.unit,
                "better": "more" if figure.more_is_better else "less",
                "meaning": figure.meaning,
                "convention": figures.convention(figure, report.border),
            }
            for figure in report.figures
        ],
        "left_out": list(report.left_out),
        "columns": [
            {
                "name": name,
                "options": report.columns.get(name, {}),
                "mean": {f.key: _number(report.mean(name, f.key)) for f in report.figures},
                "seconds_per_megapixel": _number(report.seconds_per_megapixel(name)),
            }
            for name in report.column_names
        ],
        "photos": [_photo(photo, report) for photo in report.photos],
        "failures": [
            {"photo": photo, "column": column, **dataclasses.asdict(trouble)}
            for photo, column, trouble in report.failures
        ],
    }


def as_csv(report: Report) -> str:
    """One line per photo and column, with a heading line; comma, quoted where needed, lines end with CR LF."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    heads = (
        "photo",
        "column",
        "backend",
        "model",
        "width",
        "height",
        "result_width",
        "result_height",
        "seconds",
        "faces",
    )
    writer.writerow([*heads, *(figure.key for figure in report.figures), "result", "warnings", "error_code", "error"])
    for photo in report.photos:
        for cell in photo.cells or (Cell("", trouble=photo.trouble),):
            writer.writerow(_line(photo, cell, report))
    return file.getvalue()


def disarmed(text: str) -> str:
    """A text that no spreadsheet takes for a formula (OWASP, CSV injection): an apostrophe goes before such a start."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _line(photo: PhotoRow, cell: Cell, report: Report) -> list[object]:
    trouble = cell.trouble
    size = (cell.width or "", cell.height or "")
    ran = cell.backend != ""
    numbers = [_cell_text(cell.figures.get(figure.key)) for figure in report.figures]
    texts = (disarmed(cell.column), cell.backend, disarmed(cell.model))
    timing = (round(cell.seconds, 3) if ran else "", cell.faces if ran else "")
    ends = (disarmed(printable(cell.result)), disarmed(" ".join(cell.warnings)))
    troubles = (trouble.code, disarmed(trouble.message)) if trouble else ("", "")
    return [disarmed(photo.label), *texts, photo.width, photo.height, *size, *timing, *numbers, *ends, *troubles]


def _cell_text(value: float | None) -> object:
    """A number, an empty text for none, or `inf`."""
    if value is None:
        return ""
    return "inf" if math.isinf(value) else round(value, _ROUNDED_TO)


def _photo(photo: PhotoRow, report: Report) -> dict[str, Any]:
    return {
        "photo": photo.label,
        "width": photo.width,
        "height": photo.height,
        "notes": list(photo.notes),
        "error": dataclasses.asdict(photo.trouble) if photo.trouble else None,
        "results": [_result(cell, report) for cell in photo.cells],
    }


def _result(cell: Cell, report: Report) -> dict[str, Any]:
    row: dict[str, Any] = {
        "column": cell.column,
        "width": cell.width,
        "height": cell.height,
        "figures": {figure.key: _number(cell.figures.get(figure.key)) for figure in report.figures},
        "error": dataclasses.asdict(cell.trouble) if cell.trouble else None,
    }
    if cell.column != BASELINE:
        row |= {
            "backend": cell.backend,
            "model": cell.model,
            "seconds": round(cell.seconds, 3),
            "faces": cell.faces,
            "result": printable(cell.result),
            "warnings": list(cell.warnings),
        }
    return row


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, _ROUNDED_TO)
