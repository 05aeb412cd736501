"""`evaluate.py --damage`: figures of finding and filling, their report, and the command from folder to page."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from app.commands import evaluate
from app.errors import Cancelled
from app.evaluation.damage import measuring, page, report, trials
from app.evaluation.damage.kinds import DamageKind
from app.evaluation.damage.measuring import NOTHING, WITHOUT_GRAIN, DamageMeasurement
from app.evaluation.damage.pooled import PooledPsnr, PooledSsim
from app.evaluation.damage.report import DamageReport
from app.evaluation.machine import describe_machine
from app.exit_codes import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from app.options import Repair
from app.restoration.models import weights
from app.restoration.repair.detection import DamageNetwork
from app.restoration.repair.repair import RepairNetworks
from tests import damage_network

KINDS = {kind: trials.KINDS[kind] for kind in (DamageKind.SCRATCH, DamageKind.BLOTCH)}


def a_photo(seed: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(60, 180, (10, 14, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((196, 140), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "KINDS", KINDS)
        patch.setattr(measuring, "HOLES_A_SAMPLE", 3)
        patch.setattr(trials, "SIDE", 96)
        patch.setattr(trials, "HOLES_SIDE", 96)
        yield


@pytest.fixture(scope="module")
def networks() -> RepairNetworks:
    return RepairNetworks(DamageNetwork(damage_network.white_is_damage()))


def measured(networks: RepairNetworks) -> DamageMeasurement:
    white = a_photo(2).copy()
    white[40:44, 10:110] = 255  # which this network takes for damage
    run = DamageMeasurement(networks, {"one": a_photo(1), "white<b>": white}, 2, lambda share, words: 0 <= share <= 1)
    run.run()
    return run


@pytest.fixture(scope="module")
def run(networks: RepairNetworks) -> DamageMeasurement:
    return measured(networks)


def made(run: DamageMeasurement) -> DamageReport:
    tables = report.make_tables(run)
    return DamageReport("2026-01-01T00:00:00+00:00", describe_machine(), 2, 2, False, tables, tuple(run.examples))


def test_everything_is_measured_and_equal_runs_give_equal_figures(
    networks: RepairNetworks, run: DamageMeasurement
) -> None:
    assert run.changed_outside == 0
    assert set(run.found[Repair.AUTO]) == set(KINDS)
    fills = run.psnr["all"].decibels()
    assert fills[WITHOUT_GRAIN] > max(fills["navier_stokes"], fills["telea"], fills[NOTHING] + 3)
    assert run.ssim["all"].means()[WITHOUT_GRAIN] > run.ssim["all"].means()[NOTHING]
    assert run.undamaged[Repair.AUTO]["one"] == 0.0
    assert run.undamaged[Repair.AUTO]["white<b>"] == pytest.approx(400 / (140 * 196), rel=0.3)
    assert run.filled[Repair.AUTO]["one"] == 0.0
    assert run.filled[Repair.AUTO]["white<b>"] >= run.undamaged[Repair.AUTO]["white<b>"]
    assert {example.kind for example in run.examples} == set(KINDS)
    again = measured(networks)
    assert report.as_json(made(again)) == report.as_json(made(run))


def test_a_fill_that_changes_what_is_outside_the_mask_is_counted(
    networks: RepairNetworks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "fill", lambda rgb, mask, network, **ways: rgb ^ np.uint8(1))
    assert measured(networks).changed_outside > 1000


def test_a_run_stops_when_told_to(networks: RepairNetworks) -> None:
    with pytest.raises(Cancelled):
        DamageMeasurement(networks, {"one": a_photo(1)}, 1, lambda share, words: False).run()


def test_the_report_says_the_same_in_json_csv_and_on_the_page(run: DamageMeasurement) -> None:
    whole = made(run)
    facts = json.loads(report.as_json(whole))
    assert facts["mode"] == "damage"
    assert {row["fill"] for row in facts["fills"]} >= {"repair", "navier_stokes", "telea", "nothing"}
    rows = {row["damage"]: row for row in facts["found_auto"]}
    assert 0 <= rows["scratch"]["f1"] <= 1
    assert rows["all"].keys() == {"damage", "precision", "recall", "f1"}
    lines = list(csv.DictReader(io.StringIO(report.as_csv(whole))))
    repair = next(row for row in facts["fills"] if row["fill"] == "repair")
    line = next(each for each in lines if (each["row"], each["figure"]) == ("repair", "psnr_wide_db"))
    assert float(line["value"]) == pytest.approx(repair["psnr_wide_db"], abs=1e-3)
    html = page.as_html(whole)
    assert f"{repair['psnr_wide_db']:.3f}" in html
    assert "white&lt;b&gt;" in html
    assert "white<b>" not in html
    assert html.count("data:image/webp") == 4 * len(KINDS)


def test_a_figure_that_does_not_exist_is_null_and_a_dash(
    run: DamageMeasurement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run.psnr, "wide", PooledPsnr())
    monkeypatch.setitem(run.ssim, "wide", PooledSsim())
    whole = made(run)
    assert json.loads(report.as_json(whole))["fills"][0]["psnr_wide_db"] is None
    assert "<td>–</td>" in page.as_html(whole)


def test_found_missed_and_wrong_marks_have_a_colour_each(run: DamageMeasurement) -> None:
    example = run.examples[0]
    drawn, marked = np.zeros((2, *example.drawn.shape), np.bool_)
    drawn[0, :2] = marked[0, 1:3] = True
    colors = page.overlay(dataclasses.replace(example, drawn=drawn, marked=marked))[0, :3].tolist()
    assert colors == [list(page.MISSED), list(page.MARKED), list(page.DRAWN)]


def test_the_command_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_network.install(tmp_path / "weights")
    monkeypatch.setenv("WEIGHTS_FOLDER", str(tmp_path / "weights"))
    (tmp_path / "in").mkdir()
    Image.fromarray(a_photo(1)).save(tmp_path / "in" / "one.png")
    (tmp_path / "in" / "broken.png").write_bytes(b"none")
    asked = [str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--damage", "--damage-samples", "1"]
    assert evaluate.main([*asked, "--device", "cpu"], root=tmp_path) == EXIT_FAILED  # for the one that was left out
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"report.json", "report.csv", "report.html"}
    assert json.loads((tmp_path / "out" / "report.json").read_text())["photos"] == 1
    assert "broken.png" in capsys.readouterr().err
    assert evaluate.main([*asked[:-1], "0"], root=tmp_path) == EXIT_USAGE
    (tmp_path / "in" / "broken.png").unlink()
    assert evaluate.main([*asked, "--device", "cpu"], root=tmp_path) == EXIT_OK


def test_options_that_would_change_nothing_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [str(tmp_path), "--output", str(tmp_path / "out"), "--damage", "--noise", "5", "--face-strength", "0.5"]
    assert evaluate.main(asked, root=tmp_path) == EXIT_USAGE
    assert "--damage does not use --noise, --face-strength" in capsys.readouterr().err


def test_without_the_network_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "SHIPPED_FOLDER", tmp_path)
    monkeypatch.setenv("WEIGHTS_FOLDER", str(tmp_path))
    Image.fromarray(a_photo(1)).save(tmp_path / "one.png")
    asked = [str(tmp_path), "--output", str(tmp_path / "out"), "--damage", "--device", "cpu"]
    assert evaluate.main(asked, root=tmp_path) == EXIT_USAGE
    assert "Nothing can be repaired" in capsys.readouterr().err
