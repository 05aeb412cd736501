"""The three files of a report: strict JSON, CSV that no spreadsheet runs, a page that holds all and fetches nothing."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.evaluation import figures, plots, views
from app.evaluation.records import Cell, PhotoRow, Report, Trouble, Views, worst_first
from app.evaluation.report_files import write_report_files
from app.evaluation.report_html import as_html
from app.evaluation.report_tables import as_csv, as_json, disarmed

HOSTILE = "=cmd|' /C calc'!A0<script>alert(1)</script>\"'&.jpg"
PICTURED = 20


def cell(column: str, psnr: float | None, **changes: Any) -> Cell:
    values: figures.Values = {"psnr_y": psnr, "ssim_y": 0.9, "niqe": 4.5, "gain_psnr_y": 1.0, "fidelity_psnr": 30.0}
    return Cell(column, values, "local", "some-model", 1.5, 400, 300, 1, f"{column}/x y#.png", **changes)


def report_of(photos: list[PhotoRow], mode: str = "degrade") -> Report:
    chosen = figures.table(with_reference=mode != "fidelity", with_niqe=True, with_lpips=False)
    return Report(
        mode=mode,
        created="2026-01-01T00:00:00+00:00",
        machine={"processor": "P", "instructions": [], "cores": 2, "threads": 2, "memory_gb": 8, "system": "S"}
        | {"python": "3", "torch": "2", "device": "cpu"},
        columns={"one": {"scale": 4}, "two": {"scale": 4}},
        figures=chosen,
        border=4,
        degradation={"factor": 4, "noise_sigma": 2.0, "jpeg_quality": 60, "seed": 0},
        left_out=("LPIPS is left out.",),
        photos=worst_first(photos, chosen[0]),
    )


def pictures(seed: int) -> Views:
    smooth = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    large = np.kron(smooth, np.ones((50, 50, 1), np.uint8))
    return views.make_views(large, views.whole_size((300, 400)), (0, 0, 264, 264), (264, 264))


def photo(label: str, psnr: float | None, **changes: Any) -> PhotoRow:
    cells = (Cell("bicubic", {"psnr_y": 20.0, "gain_psnr_y": 0.0}), cell("one", psnr), cell("two", 25.0))
    return PhotoRow(label, 100, 75, cells, **changes)


def test_the_worst_photo_comes_first_and_trouble_before_it() -> None:
    broken = PhotoRow("broken", trouble=Trouble("undecodable_image", "It is damaged."))
    half = photo("half", 40.0)
    half = dataclasses.replace(half, cells=(*half.cells[:2], Cell("two", trouble=Trouble("x", "y"))))
    rows = report_of([photo("good", 30.0), photo("bad", 10.0), broken, half, photo("equal", math.inf)]).photos
    assert [row.label for row in rows][:2] in (["half", "broken"], ["broken", "half"])
    assert [row.label for row in rows][2:] == ["bad", "equal", "good"]


def test_for_figures_where_less_is_better_the_largest_is_worst() -> None:
    figure = figures.NIQE_RESULT
    rows = [PhotoRow(str(value), cells=(Cell("one", {"niqe": value}),)) for value in (3.0, 9.0, 5.0)]
    assert [row.label for row in worst_first(rows, figure)] == ["9.0", "5.0", "3.0"]


@pytest.mark.parametrize("mode", ["fidelity", "degrade"])
def test_the_page_says_what_each_figure_means_with_naturalness_before_beside_after(mode: str) -> None:
    report = report_of([photo("a", 30.0)], mode)
    page = as_html(report)
    summary, meanings = page.split("<h2>What the figures mean</h2>")[0], page.split("<h2>What the figures mean</h2>")[1]
    assert re.search(r"<th>NIQE before<small>.{0,5}</small></th><th>NIQE after<", summary)
    for figure in report.figures:
        assert f"{'More' if figure.more_is_better else 'Less'} is better. {html.escape(figure.meaning)}" in meanings
        assert figure.meaning.endswith(".")
    told = {row["key"]: row["meaning"] for row in json.loads(as_json(report))["figures"]}
    assert told == {figure.key: figure.meaning for figure in report.figures}


def test_the_baseline_neither_sorts_nor_counts_as_asked_for() -> None:
    report = report_of([photo("a", 30.0)])
    assert report.column_names == ("bicubic", "one", "two")
    assert report.mean("one", "psnr_y") == 30.0
    assert report.seconds_per_megapixel("one") == pytest.approx(1.5 / 0.0075)
    assert report.seconds_per_megapixel("bicubic") is None


@pytest.mark.parametrize("lacking", [None, math.inf])
def test_no_column_gains_by_a_photo_that_it_has_no_figure_of(lacking: float | None) -> None:
    hard = photo("hard", 12.0)
    hard = dataclasses.replace(hard, cells=(*hard.cells[:2], cell("two", lacking)))
    broken = PhotoRow("broken", trouble=Trouble("undecodable_image", "It is damaged."))
    report = report_of([photo("easy", 30.0), hard, broken])
    assert [report.mean(name, "psnr_y") for name in report.column_names] == [20.0, 30.0, 25.0]
    alone = report_of([photo("easy", 30.0), photo("hard", 12.0)])
    assert alone.mean("one", "psnr_y") == 21.0
    failed = [dataclasses.replace(row, cells=(*row.cells[:2], cell("two", None))) for row in alone.photos]
    assert report_of(failed).mean("one", "psnr_y") == 21.0, "a column without any figure takes none from the others"


def test_json_is_strict_even_for_figures_that_do_not_exist() -> None:
    text = as_json(report_of([photo("a", math.inf), photo("b", None)]))
    assert "Infinity" not in text
    assert "NaN" not in text
    rows = {row["photo"]: row["results"][1]["figures"]["psnr_y"] for row in json.loads(text)["photos"]}
    assert rows == {"a": None, "b": None}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_spreadsheet_takes_a_file_name_for_a_formula(start: str) -> None:
    text = as_csv(report_of([photo(f"{start}1+1.jpg", 30.0)]))
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {row["photo"] for row in rows} == {f"'{start}1+1.jpg"}
    assert disarmed("a=1.jpg") == "a=1.jpg"


def test_csv_holds_infinity_and_nothing_for_nothing() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(report_of([photo("a", math.inf)])), newline="")))
    assert [row["psnr_y"] for row in rows] == ["20.0", "inf", "25.0"]
    assert rows[0]["niqe"] == rows[0]["seconds"] == rows[0]["backend"] == ""
    broken = PhotoRow("b", trouble=Trouble("undecodable_image", "It is damaged."))
    (line,) = csv.DictReader(io.StringIO(as_csv(report_of([broken])), newline=""))
    assert (line["error_code"], line["error"]) == ("undecodable_image", "It is damaged.")


def test_names_and_sentences_are_texts_on_the_page() -> None:
    row = photo(HOSTILE, 30.0, notes=("<b>note</b>",), before=pictures(0))
    row = dataclasses.replace(row, cells=(*row.cells[:2], cell("two", 1.0, warnings=("<i>warning</i>",))))
    page = as_html(report_of([row, PhotoRow("<u>b", trouble=Trouble("c", "<s>what</s>"))]))
    for tag in ("<script>alert", "<b>note", "<i>warning", "<u>b", "<s>what"):
        assert tag not in page
    assert "&lt;script&gt;alert" in page
    assert 'href="two/x%20y%23.png"' in page  # a result's own name is quoted in its address


def test_the_page_holds_everything_and_may_fetch_nothing() -> None:
    page = as_html(report_of([photo("a", 30.0, before=pictures(1), truth=pictures(2))]))
    assert "default-src 'none'" in page
    assert not re.findall(r'(?:src|href)="(?!data:|one/|two/)', page)
    assert "url(" not in page
    assert "@import" not in page


def test_plots_have_round_ticks_and_leave_out_what_is_not_finite() -> None:
    assert plots.nice_ticks(17.2, 43.5) == [15, 20, 25, 30, 35, 40, 45]
    assert plots.nice_ticks(0.33, 0.99) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert len(plots.nice_ticks(5.0, 5.0)) >= 2
    svg = plots.dot_plot("t", ["a", "b<"], [("x", [1.0, None]), ("y", [math.inf, 3.0])], 2)
    assert svg.count("<circle") == 2
    assert "b&lt;" in svg
    assert plots.dot_plot("t", ["a"], [("x", [None])], 2) == ""


def test_a_detail_is_where_most_happens_and_all_views_share_their_size() -> None:
    flat = np.full((200, 300, 3), 90, np.uint8)
    flat[120:160, 220:260] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    left, top, width, height = views.telling_detail(flat, 4.0)
    assert (width, height) == (66, 66)
    assert left <= 220 <= 260 <= left + width
    assert top <= 120 <= 160 <= top + height
    assert views.telling_detail(flat[:3, :2], 4.0) == (0, 0, 2, 3)
    assert views.scaled_box((10, 20, 30, 40), (100, 200), (400, 800)) == (40, 80, 120, 160)


def test_a_page_of_twenty_photos_renders_without_an_error(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed here")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here (apt install chromium)")
    rows = []
    for number in range(PICTURED):
        shown = [cell(name, 20.0 + number, views=pictures(number + 50)) for name in ("one", "two")]
        base = photo(f"photo {number}{HOSTILE}", 1.0, before=pictures(number), truth=pictures(number))
        rows.append(dataclasses.replace(base, cells=(base.cells[0], *shown)))
    report = report_of(rows)
    page_file = write_report_files(tmp_path, as_json=as_json(report), as_csv=as_csv(report), as_html=as_html(report))[2]
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme, width in (("light", 1280), ("dark", 390)):
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))  # noqa: B023 - read within the turn
            page.on("pageerror", lambda error: said.append(str(error)))  # noqa: B023
            page.on("dialog", lambda dialog: said.append("a dialog"))  # noqa: B023
            page.goto(page_file.as_uri())
            assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
            assert page.locator(".card").count() == PICTURED
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            handle = page.locator(".stage input").first
            handle.fill("80")
            assert handle.evaluate("e => e.parentElement.style.getPropertyValue('--cut')") == "80%"
            assert not said
        browser.close()
