"""The restoration of whole pictures: which model runs, sizes, kinds, warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.backends.local import open_local_backend
from app.errors import Cancelled, Conflict, Unavailable
from app.images import Picture
from app.options import RestoreOptions
from app.restoration.faces import LoadedFaceModels
from app.restoration.models import weights
from app.restoration.pipeline import Restorer
from benchmarks.random_weights import random_state
from tests.face_harness import at, found_at, grey_scene, tinted


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one quick network under a name of the user's own."""
    folder = tmp_path_factory.mktemp("small")
    torch.save({"params": random_state("realesr-animevideov3")}, folder / "own.pth")
    return folder


def go_on(fraction: float, stage: str) -> bool:
    return True


def photo(height: int = 20, width: int = 30) -> Picture:
    return Picture(np.random.default_rng(3).integers(0, 256, (height, width, 3)).astype(np.uint8), dpi=(300.0, 300.0))


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.0, 4.0, 5.5, 8.0])
def test_any_scale_gives_exactly_the_asked_size(scale: float, small: Path) -> None:
    restorer = Restorer(small, device="cpu")
    result = restorer.restore(photo(), RestoreOptions(model="own", scale=scale), go_on).picture
    assert (result.height, result.width) == (round(20 * scale), round(30 * scale))
    assert result.dpi == (300.0, 300.0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (3, 2), (50, 1)])
def test_tiny_pictures_are_restored_too(height: int, width: int, small: Path) -> None:
    result = Restorer(small, device="cpu").restore(photo(height, width), RestoreOptions(model="own"), go_on).picture
    assert result.rgb.shape == (4 * height, 4 * width, 3)


@pytest.mark.parametrize("grey_file", [True, False])
def test_a_photo_without_colours_stays_without(grey_file: bool, small: Path) -> None:
    """Also where the file keeps it as RGB, as many scans of old photos are; it is written as it came."""
    rgb = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    picture = Picture(rgb, grey=grey_file)
    result = Restorer(small, device="cpu").restore(picture, RestoreOptions(model="own"), go_on).picture
    assert result.grey is grey_file
    assert (result.rgb[:, :, 0] == result.rgb[:, :, 1]).all()
    assert (result.rgb[:, :, 0] == result.rgb[:, :, 2]).all()


def test_faces_of_a_photo_without_colours_stay_without(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network for faces gives skin a colour, also to a black-and-white photo that its file keeps as RGB."""
    tools = LoadedFaceModels(detect=at(found_at(80, 60, 90)), restore=tinted, parse=None)
    restorer = Restorer(small, device="cpu")
    monkeypatch.setattr(restorer.setup.face_models, "open", lambda *asked, **ways: (tools, ()))
    outcome = restorer.restore(Picture(grey_scene().rgb), RestoreOptions(model="own", scale=2), go_on)
    assert [row["restored"] for row in outcome.faces] == [True]
    assert (outcome.picture.rgb == outcome.picture.rgb[:, :, :1]).all()


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_pixel_of_colour_makes_a_colour_photo(channel: int) -> None:
    rgb = np.full((600, 5, 3), 90, np.uint8)
    assert Picture(rgb).is_colourless()
    rgb[599, 4, channel] += 1
    assert not Picture(rgb).is_colourless()
    assert Picture(rgb, grey=True).is_colourless()


def test_a_missing_model_of_a_quality_falls_back_with_a_warning(small: Path) -> None:
    outcome = Restorer(small, device="cpu").restore(photo(), RestoreOptions(face_enhance=False), go_on)
    assert outcome.model == "own"
    assert [notice.code for notice in outcome.warnings] == ["model_fallback"]
    assert "own ran" in outcome.warnings[0].message


def test_a_model_asked_for_by_name_never_falls_back(small: Path) -> None:
    with pytest.raises(Conflict) as caught:
        Restorer(small, device="cpu").restore(photo(), RestoreOptions(model="RealESRGAN_x4plus"), go_on)
    assert caught.value.code == "model_not_installed"


def test_without_any_file_at_all_it_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHIPPED_FOLDER", tmp_path)
    with pytest.raises(Unavailable) as caught:
        Restorer(tmp_path / "none", device="cpu").restore(photo(), RestoreOptions(), go_on)
    assert caught.value.code == "no_model"


def test_quality_means_a_model_and_best_means_fp32_with_eight_views(random_weights: Path) -> None:
    restorer = Restorer(random_weights, device="cpu", precision="bf16", allow_unverified=True)
    assert restorer.setup.default_quality == "fast"
    fast = restorer.restore(photo(), RestoreOptions(), go_on)
    balanced = restorer.restore(photo(), RestoreOptions(quality="balanced"), go_on)
    best = restorer.restore(photo(8, 8), RestoreOptions(quality="best"), go_on)
    assert [outcome.model for outcome in (fast, balanced, best)] == [
        "realesr-general-x4v3",
        "RealESRGAN_x4plus",
        "RealESRGAN_x4plus",
    ]
    assert (balanced.params["precision"], balanced.params["ensemble"]) == ("bf16", False)
    assert (best.params["precision"], best.params["ensemble"]) == ("fp32", True)


def test_the_default_quality_is_a_setting(random_weights: Path) -> None:
    restorer = Restorer(random_weights, device="cpu", default_quality="balanced", allow_unverified=True)
    assert restorer.setup.choose(RestoreOptions())[0].name == "RealESRGAN_x4plus"


def test_best_by_default_is_the_best_that_is_asked_for(random_weights: Path) -> None:
    name = "realesr-general-x4v3"
    restorer = Restorer(random_weights, device="cpu", precision="bf16", default_quality="best", allow_unverified=True)
    for options, precision, ensemble in (
        (RestoreOptions(), "fp32", True),
        (RestoreOptions(quality="fast"), "bf16", False),
        (RestoreOptions(model=name), "bf16", False),
    ):
        params = restorer.restore(photo(8, 8), options, go_on).params
        assert (params["precision"], params["ensemble"]) == (precision, ensemble), options


def test_denoise_on_a_model_without_it_is_said(random_weights: Path) -> None:
    restorer = Restorer(random_weights, device="cpu", allow_unverified=True)
    options = RestoreOptions(model="realesr-animevideov3", denoise=0.5, face_enhance=False)
    assert [c.code for c in restorer.restore(photo(), options, go_on).warnings] == ["denoise_ignored"]


def test_denoise_without_its_partner_file_is_said(real_weights: Path) -> None:
    restorer = Restorer(real_weights, device="cpu", allow_unverified=True)
    outcome = restorer.restore(photo(), RestoreOptions(denoise=0.5, face_enhance=False), go_on)
    assert [c.code for c in outcome.warnings] == ["denoise_unavailable"]


def test_cancel_ends_a_restoration(small: Path) -> None:
    calls = 0

    def stop_at_third(fraction: float, stage: str) -> bool:
        nonlocal calls
        calls += 1
        return calls < 3

    with pytest.raises(Cancelled):
        Restorer(small, device="cpu", tile=32).restore(photo(200, 200), RestoreOptions(model="own"), stop_at_third)
    assert calls == 3


def test_progress_covers_colour_and_alpha_and_ends_at_one(small: Path) -> None:
    told: list[float] = []
    base = photo(40, 40)
    alpha = np.arange(1600, dtype=np.uint16).reshape(40, 40).astype(np.uint8)
    picture = Picture(base.rgb, alpha=alpha)

    def keep(fraction: float, stage: str) -> bool:
        told.append(fraction)
        return True

    Restorer(small, device="cpu").restore(picture, RestoreOptions(model="own"), keep)
    assert told == sorted(told)
    assert {0.0, 0.5, 1.0} <= set(told)


def test_nothing_of_a_photo_stays_on_the_restorer(small: Path) -> None:
    restorer = Restorer(small, device="cpu")
    restorer.restore(photo(), RestoreOptions(model="own"), go_on)
    kept = {name: value for name, value in vars(restorer).items() if isinstance(value, Picture | np.ndarray)}
    assert kept == {}


def test_the_backend_describes_what_it_runs_on(small: Path) -> None:
    backend = open_local_backend(small, device="cpu", precision="fp32")
    facts = backend.describe()
    assert (facts["device"], facts["precision"], facts["default_model"]) == ("cpu", "fp32", "own")
    assert facts["device_reason"]
    assert facts["precision_reason"]
    own = next(row for row in facts["models"] if row["name"] == "own")
    assert own["installed"]
    missing = next(row for row in facts["models"] if row["name"] == "RealESRGAN_x4plus")
    assert not missing["installed"]
    assert "models download" in missing["note"]


def test_the_backend_loads_and_runs_once_before_it_is_ready(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHIPPED_FOLDER", tmp_path)
    assert open_local_backend(small, device="cpu").load() == "own"
    empty = open_local_backend(tmp_path, device="cpu")
    assert empty.load() is None
    assert any("No model is installed" in problem for problem in empty.describe()["problems"])


def test_faces_left_alone_are_said_only_when_asked_for(small: Path) -> None:
    backend = open_local_backend(small, device="cpu")
    asked = backend.restore(photo(), RestoreOptions(model="own"), go_on)
    assert [notice.code for notice in asked.warnings] == ["face_model_missing"]
    assert backend.restore(photo(), RestoreOptions(model="own", face_enhance=False), go_on).warnings == ()
