"""Which face networks a restoration gets, what is said when one is missing, and faces inside a restoration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.backends.local import open_local_backend
from app.errors import Cancelled, OutOfMemory, Unavailable
from app.images import Picture
from app.images.face_layers import blend_layers
from app.options import RestoreOptions
from app.restoration.faces import FaceModels, LoadedFaceModels, models
from app.restoration.faces.models import DETECTORS, PARSER
from app.restoration.models import weights
from app.restoration.models.registry import ModelRegistry
from app.restoration.pipeline import Restorer
from app.restoration.reference.packages import is_available
from benchmarks.random_weights import random_gfpgan
from tests.face_harness import at, found_at, grey_scene, inverted, noted, round_mask, scene

V13, V14, RESNET, MOBILENET = "GFPGANv1.3.pth", "GFPGANv1.4.pth", *DETECTORS.values()
ALL = (V13, V14, RESNET, MOBILENET, PARSER)


def face_models(folder: Path, *files: str, detector: str = "auto", precision: str = "fp32") -> FaceModels:
    """A folder with files of those names (and no sense in them)."""
    for file in files:
        (folder / file).write_bytes(b"no network")
    return FaceModels(ModelRegistry(folder, allow_unverified=True), "cpu", precision, detector)


def chosen(box: FaceModels, face_model: str | None = None, *, parse: bool = True) -> tuple[Any, list[str]]:
    choice, notices = box.choose(face_model, parse=parse)
    return (choice.restorer, choice.detector, choice.parses), [notice.code for notice in notices]


@pytest.mark.parametrize(
    ("files", "expected", "codes"),
    [
        (ALL, ("GFPGANv1.3", "resnet50", True), []),
        ((V14, RESNET, PARSER), ("GFPGANv1.4", "resnet50", True), ["face_model_fallback"]),
        ((V13, MOBILENET, PARSER), ("GFPGANv1.3", "mobilenet", True), ["face_detector_fallback"]),
        ((V13, RESNET), ("GFPGANv1.3", "resnet50", False), ["face_parsing_missing"]),
        ((V13, PARSER), ("GFPGANv1.3", None, True), ["face_detector_missing"]),
        ((RESNET, MOBILENET, PARSER), (None, None, False), ["face_model_missing"]),
    ],
)
def test_what_is_missing_is_said_and_stood_in_for(
    files: tuple[str, ...], expected: tuple[Any, ...], codes: list[str], tmp_path: Path
) -> None:
    assert chosen(face_models(tmp_path, *files)) == (expected, codes)


def test_the_detector_and_the_model_can_be_chosen(tmp_path: Path) -> None:
    assert chosen(face_models(tmp_path, *ALL, detector="mobilenet")) == (("GFPGANv1.3", "mobilenet", True), [])
    assert chosen(face_models(tmp_path), "GFPGANv1.4") == (("GFPGANv1.4", "resnet50", True), [])
    assert chosen(face_models(tmp_path), parse=False) == (("GFPGANv1.3", "resnet50", False), [])
    (tmp_path / RESNET).unlink()
    asked = face_models(tmp_path, detector="resnet50")
    assert chosen(asked) == (("GFPGANv1.3", "mobilenet", True), ["face_detector_fallback"])


def test_a_file_that_is_not_the_official_one_is_missing(tmp_path: Path) -> None:
    box = face_models(tmp_path, *ALL)
    strict = FaceModels(ModelRegistry(tmp_path, allow_unverified=False), "cpu", "fp32")
    assert chosen(box)[1] == []
    (said,) = strict.choose(None)[1]
    assert said.code == "face_model_missing"
    assert f"{V13} is not whole" in said.message


def test_a_file_with_nothing_in_it_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        face_models(tmp_path, *ALL).open(None)
    assert raised.value.code == "weights_unreadable"


def test_a_file_with_another_network_in_it_is_refused(tmp_path: Path) -> None:
    torch.save({"params": {"body.0.weight": torch.zeros(3)}}, tmp_path / MOBILENET)
    box = face_models(tmp_path, V13, detector="mobilenet")
    with pytest.raises(Unavailable, match=MOBILENET):
        box.open(None)


@pytest.mark.parametrize("part", ["detector", "restorer", "parser"])
def test_out_of_memory_at_load_makes_room_and_never_blames_a_good_file(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = face_models(tmp_path, *ALL)
    errors: list[Exception] = [torch.OutOfMemoryError("CUDA out of memory")]

    def maker(name: str) -> Callable[..., str]:
        def make(*_: Any, **__: Any) -> str:
            if errors and name == part:
                raise errors.pop()
            return f"{name} {len(errors)}"

        return make

    monkeypatch.setattr(ModelRegistry, "read", lambda self, file: {})
    monkeypatch.setattr(FaceModels, "_build_gfpgan", maker("restorer"))
    monkeypatch.setattr(models, "build_detector", maker("detector"))
    monkeypatch.setattr(models, "build_parser", maker("parser"))
    loaded, _ = box.open(None)
    assert loaded is not None
    made: dict[str, Any] = {"detector": loaded.detect, "restorer": loaded.restore, "parser": loaded.parse}
    assert made[part] == f"{part} 0"
    box = face_models(tmp_path)
    errors += [RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")] * 2
    with pytest.raises(OutOfMemory) as refused:
        box.open(None)
    assert "remove" not in refused.value.detail
    errors.append(torch.AcceleratorError("CUDA error: an illegal memory access was encountered"))
    with pytest.raises(torch.AcceleratorError):
        box.open(None)


@pytest.mark.parametrize(("total_gb", "batch"), [(80, 4), (8, 2), (4, 1)])
def test_the_batch_of_a_card_follows_all_its_memory_and_is_remembered(
    total_gb: int, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    face_models(tmp_path, *ALL)
    monkeypatch.setattr(ModelRegistry, "read", lambda self, file: {})
    monkeypatch.setattr(models, "total_memory_bytes", lambda device: total_gb * 10**9)
    for maker in ("build_detector", "build_parser"):
        monkeypatch.setattr(models, maker, lambda *_: None)
    monkeypatch.setattr(FaceModels, "_build_gfpgan", lambda *_: None)
    box = FaceModels(ModelRegistry(tmp_path, allow_unverified=True), "cuda:0", "fp32")

    def opened() -> LoadedFaceModels:
        loaded, _ = box.open(None)
        assert loaded is not None
        return loaded

    assert (opened().batch, opened().fills_batch, opened().device) == (batch, True, "cuda:0")
    opened().remember_batch(1)
    assert opened().batch == 1
    box.forget_batch()
    assert opened().batch == batch


def test_faces_never_run_in_fp16(tmp_path: Path) -> None:
    assert face_models(tmp_path, precision="fp16").precision == "fp32"
    assert face_models(tmp_path, precision="bf16").precision == "bf16"


def test_every_face_file_is_listed_with_size_and_licence(tmp_path: Path) -> None:
    rows = face_models(tmp_path, V13).rows()
    assert [row["file"] for row in rows] == [V13, V14, RESNET, MOBILENET, PARSER]
    assert [row["present"] for row in rows] == [True, False, False, False, False]
    for row in rows:
        official = weights.official(row["file"])
        assert official is not None
        assert row["licence"] == official.licence
        assert row["bytes"] == (10 if row["present"] else official.bytes)
    assert all(word in rows[0]["licence"] for word in ("StyleGAN2", "non-commercial", "DFDNet"))


@pytest.mark.skipif(not is_available(), reason="gfpgan and basicsr are not installed here")
def test_spandrels_gfpgan_is_the_one_that_official_files_hold() -> None:
    """Upstream's own class takes what ours was made from, key by key."""
    from gfpgan.archs.gfpganv1_clean_arch import GFPGANv1Clean

    ways = {"fix_decoder": False, "input_is_latent": True, "different_w": True, "sft_half": True}
    theirs = GFPGANv1Clean(64, channel_multiplier=2, narrow=0.25, **ways)
    taken = theirs.load_state_dict(random_gfpgan(64, 0.25).state_dict(), strict=False)
    assert (taken.missing_keys, taken.unexpected_keys) == ([], [])


class Ready:
    """A toolbox with cheap networks in it."""

    def __init__(self, tools: LoadedFaceModels) -> None:
        self.tools = tools
        self.asked: list[tuple[str | None, bool, bool]] = []

    def open(self, face_model: str | None, *, parse: bool, exact: bool) -> tuple[LoadedFaceModels, tuple[()]]:
        self.asked.append((face_model, parse, exact))
        return dataclasses.replace(self.tools, parse=self.tools.parse if parse else None), ()


@pytest.fixture
def restorer(real_weights: Path) -> Any:
    made: Any = Restorer(real_weights, device="cpu", precision="fp32", allow_unverified=True)
    tools = LoadedFaceModels(
        at(found_at(20, 24, 30), found_at(50, 24, 26)), inverted, parse=round_mask, facts={"model": "x"}
    )
    made.setup.face_models = Ready(tools)
    return made


def options(**more: Any) -> RestoreOptions:
    return RestoreOptions(**{"model": "realesr-animevideov3", "scale": 2, **more})


def photo() -> Picture:
    return Picture(scene(48, 70), alpha=np.full((48, 70), 200, np.uint8))


def go_on(fraction: float, stage: str) -> bool:
    return True


def test_a_restoration_tells_of_its_faces_and_its_layers_repeat_it(restorer: Any) -> None:
    told: list[tuple[float, str]] = []
    outcome = restorer.restore(photo(), options(), lambda f, stage: noted(told, (f, stage)))
    plain = restorer.restore(photo(), options(face_enhance=False), go_on)
    assert [row["index"] for row in outcome.faces if row["restored"]] == [0, 1]
    assert outcome.params["faces"] == {"model": "x", "redone_in_fp32": 0}
    assert (plain.faces, plain.face_layers, plain.params["faces"]) == ((), (), None)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert list(dict.fromkeys(stage for _, stage in told)) == ["loading", "upscaling", "faces"]
    np.testing.assert_array_equal(blend_layers(outcome.picture.rgb, outcome.face_layers, {}), plain.picture.rgb)
    half = restorer.restore(photo(), options(face_strength=0.5), go_on)
    again = blend_layers(outcome.picture.rgb, outcome.face_layers, {0: 0.5, 1: 0.5})
    np.testing.assert_array_equal(again, half.picture.rgb)
    np.testing.assert_array_equal(outcome.picture.alpha, plain.picture.alpha)


def test_a_stop_in_the_faces_part_stops_within_one_face(restorer: Any) -> None:
    seen = []

    def stop(fraction: float, stage: str) -> bool:
        seen.append(stage)
        return stage != "faces"

    with pytest.raises(Cancelled):
        restorer.restore(photo(), options(), stop)
    assert seen.count("faces") == 1


def test_quality_decides_about_masks_and_precision(restorer: Any) -> None:
    for more in ({"quality": "fast"}, {"quality": "balanced"}, {}, {"face_model": "GFPGANv1.4"}):
        restorer.restore(photo(), options(**more), go_on)
    assert restorer.setup.face_models.asked == [
        (None, False, False),
        (None, True, False),
        (None, True, False),
        ("GFPGANv1.4", True, False),
    ]
    restorer.setup.face_models.asked.clear()
    restorer.restore(photo(), options(face_enhance=False), go_on)
    assert restorer.setup.face_models.asked == []
    assert restorer.setup.default_quality == "fast"
    restorer.restore(photo(), RestoreOptions(scale=1), go_on)  # the default quality on a CPU
    assert restorer.setup.face_models.asked == [(None, False, False)]


def test_grey_photos_keep_equal_channels_with_faces_in_them(restorer: Any) -> None:
    picture = restorer.restore(grey_scene(48, 70), options(), go_on).picture
    assert picture.grey
    assert (picture.rgb == picture.rgb[:, :, :1]).all()


def test_without_gfpgan_the_photo_is_restored_and_everybody_is_told(real_weights: Path) -> None:
    backend = open_local_backend(real_weights, device="cpu", allow_unverified=True)
    restored = backend.restore(Picture(scene(24, 24)), options(), go_on)
    codes = [notice.code for notice in restored.warnings]
    assert "face_model_missing" in codes
    assert restored.faces == ()
    message = next(notice.message for notice in restored.warnings if notice.code == "face_model_missing")
    assert "python3 run.py models download GFPGANv1.3.pth" in message
    facts = backend.describe()
    assert message in facts["notes"]
    assert facts["faces"] == {"model": None, "detector": None, "parsing": False, "notes": [message], "files": []}
    row = facts["face_models"][0]
    assert (row["file"], row["bytes"], row["installed"]) == ("GFPGANv1.3.pth", 348632874, False)
    assert "StyleGAN2" in row["licence"]
    silent = backend.restore(Picture(scene(24, 24)), options(face_enhance=False), go_on)
    assert "face_model_missing" not in [notice.code for notice in silent.warnings]
