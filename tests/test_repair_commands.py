"""Repair as a user types it: `restore --repair`, `models list`, the doctor's words; and a training's export."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from app.commands import doctor, evaluate
from app.commands.doctor_machine import FINE, WARNING
from app.exit_codes import EXIT_OK
from app.images.metadata import xmp_parsing
from app.restoration.models.weights import SEGMENTATION_FILE
from app.restoration.repair.inpainting_network import load_inpainting
from app.restoration.repair.segmentation_network import load_segmentation
from benchmarks.random_weights import put_weights
from tests import damage_network
from tests.command_line import MODEL, run
from tests.test_repair import scratched
from training.damage import export
from training.damage.inpainting_task import InpaintingTask
from training.damage.segmentation_task import SegmentationTask
from training.damage.trainer import Task, Trainer


def test_a_photo_is_repaired_from_the_command_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "weights").mkdir()
    put_weights(project / "weights", None, (MODEL,))
    damage_network.install(project / "weights")
    monkeypatch.setenv("WEIGHTS_FOLDER", "weights")
    Image.fromarray(scratched()).save(project / "print.png")
    common = ("restore", "print.png", "--scale", "1", "--no-face-enhance")
    assert run(project, *common[:2], "off.png", *common[2:]) == EXIT_OK
    assert run(project, *common[:2], "auto.png", *common[2:], "--repair", "auto") == EXIT_OK
    off, auto = (np.asarray(Image.open(project / name)).astype(int) for name in ("off.png", "auto.png"))
    assert (off - auto)[30:80, 71].mean() > 60, "the white scratch is gone"
    assert run(project, "models", "list") == EXIT_OK
    assert "finds damage, ships with" in " ".join(capsys.readouterr().out.split())
    with Image.open(project / "auto.png") as image:
        packet = image.info["xmp"] if "xmp" in image.info else image.info["XML:com.adobe.xmp"].encode()
    assert "History" in {name for _, name in xmp_parsing.parse(packet).properties}


def test_the_report_passes_repair_on() -> None:
    assert evaluate.make_parser().parse_args(["in", "--repair", "strong"]).repair == "strong"


def test_the_doctor_says_whether_damage_can_be_repaired() -> None:
    told = doctor.check_repair({"available": True, "inpainting": True})
    assert (told.word, "a network fills" in told.text) == (FINE, True)
    assert "the library fills" in doctor.check_repair({"available": True, "inpainting": False}).text
    missing = doctor.check_repair({"available": False, "inpainting": False})
    assert (missing.word, SEGMENTATION_FILE in missing.text) == (WARNING, True)


def test_the_mean_of_several_trainings_is_exported(tmp_path: Path) -> None:
    task, states = SegmentationTask(), []
    narrow = (8, 8, 8, 8, 8)
    for seed, widths in ((1, narrow), (2, narrow), (3, narrow), (4, (8, 16, 8, 8, 8))):
        trainer = Trainer(task, dataclasses.replace(task.recipe, widths=widths, seed=seed), "cpu", "fp32")
        trainer.save(tmp_path / f"{seed}.pt")
        states.append(trainer.average.module.state_dict())
    one, two, three, other = (tmp_path / f"{seed}.pt" for seed in (1, 2, 3, 4))
    target = export.export(one, tmp_path / "mean.safetensors", "two photos", None, [two, three])
    with safe_open(target, "pt") as file:
        mean = file.get_tensor("down.1.layers.0.weight")
    name = "down.1.layers.0.weight"
    expected = sum(state[name] for state in states[:3]) / 3.0
    torch.testing.assert_close(mean.float(), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(RuntimeError):
        export.export(one, target, "two photos", None, [two, other])


@pytest.mark.parametrize("task", [SegmentationTask(), InpaintingTask()])
def test_what_is_exported_is_what_was_trained(task: Task, tmp_path: Path) -> None:
    trainer = Trainer(task, dataclasses.replace(task.recipe, widths=(8, 8, 8, 8, 8)), "cpu", "fp32")
    trainer.save(tmp_path / "checkpoint.pt")
    figures = tmp_path / "figures.json"
    figures.write_text('{"f1": 0.5}')
    target = export.export(tmp_path / "checkpoint.pt", tmp_path / "network.safetensors", "two photos", figures)
    with safe_open(target, "pt") as file:
        facts, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert json.loads(facts["metrics"]) == {"f1": 0.5}
    assert (facts["data"], facts["steps"]) == ("two photos", "0")
    assert "U-Net" in facts["architecture"]
    load = load_segmentation if isinstance(task, SegmentationTask) else load_inpainting
    again, trained = load(state).state_dict(), trainer.average.module.state_dict()
    assert all(torch.equal(again[name].half(), value.half()) for name, value in trained.items())
    assert {value.dtype for value in state.values() if value.ndim == 4} == {torch.float16}
    assert all(value.dtype == trained[name].dtype for name, value in state.items() if value.ndim != 4)
