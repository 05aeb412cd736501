"""The three files of a report, of results and of repair alike: for programs, for spreadsheets and for people."""

from __future__ import annotations

from pathlib import Path

from app.atomic_files import part_beside, publish
from app.errors import BadRequest


def make_report_folder(folder: Path) -> None:
    """Make the folder of a report and write into it, so that no long run ends without a place for its report.

    Raises:
        BadRequest: `unwritable_folder`.
    """
    try:
        with part_beside(folder / "report.json") as part:
            part.touch()
    except OSError as error:
        raise BadRequest(
            "unwritable_folder",
            f"The report cannot be written to {folder.name or folder} ({error.strerror}); choose another --output.",
        ) from error


def write_report_files(folder: Path, *, as_json: str, as_csv: str, as_html: str) -> list[Path]:
    """report.json, report.csv (with a byte order mark, so that spreadsheets see UTF-8) and report.html; their paths.

    Each appears whole or not at all. Raises `OSError` when the folder cannot be written.
    """
    written = []
    for name, text, encoding in (
        ("report.json", as_json, "utf-8"),
        ("report.csv", as_csv, "utf-8-sig"),
        ("report.html", as_html, "utf-8"),
    ):
        with part_beside(folder / name) as part:
            part.write_text(text, encoding=encoding, newline="")
            publish(part, folder / name)
        written.append(folder / name)
    return written
