"""Writes the three files of a report into a folder; each gets its name only when it is whole."""

from __future__ import annotations

from pathlib import Path

from app.evaluation.records import Report
from app.evaluation.report_html import as_html
from app.evaluation.report_tables import as_csv, as_json


def write_report(report: Report, folder: Path) -> list[Path]:
    """report.json, report.csv (with a byte order mark, so that spreadsheets see UTF-8) and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text, encoding in (
        ("report.json", as_json(report), "utf-8"),
        ("report.csv", as_csv(report), "utf-8-sig"),
        ("report.html", as_html(report), "utf-8"),
    ):
        part = folder / f".{name}.part"
        part.write_text(text, encoding=encoding, newline="")
        written.append(part.replace(folder / name))
    return written
