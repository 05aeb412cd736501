"""Repair behind the backend's border: its place in the order, what is recorded, previews, and nothing when off."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.backends.local import LocalBackend, open_local_backend
from app.backends.pages import restore_pages
from app.backends.protocol import Repairing
from app.errors import Cancelled, Conflict, Unavailable
from app.images import Box, Overview, PagesEncoder, PatchWindow, Picture
from app.notices import NoticeKind
from app.options import RestoreOptions
from app.restoration.device import DTYPES
from app.restoration.models import weights
from app.restoration.models.registry import ModelRegistry
from app.restoration.models.weights import SEGMENTATION_FILE, SHIPPED_FOLDER
from app.restoration.repair.weights import RepairModels
from app.stages import Stage
from tests import damage_network
from tests.test_repair import photo, scratched

OPTIONS = RestoreOptions(scale=1, face_enhance=False, repair="auto")


def always(fraction: float, stage: Stage) -> bool:
    return 0 <= fraction <= 1 and stage in Stage


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    folder = tmp_path_factory.mktemp("weights")
    damage_network.install(folder)
    return open_local_backend(folder, device="cpu")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBackend:
    """Without the networks of repair, wherever they may lie."""
    monkeypatch.setattr(weights, "REPAIR_FILES", (SEGMENTATION_FILE, "absent.safetensors"))
    monkeypatch.setattr(weights, "SHIPPED_FOLDER", tmp_path)
    return open_local_backend(tmp_path, device="cpu")


def test_the_local_backend_repairs(backend: LocalBackend) -> None:
    assert isinstance(backend, Repairing)


@pytest.mark.parametrize(("precision", "computes_in"), [("bf16", "bf16"), ("fp32", "fp32"), ("fp16", "fp32")])
def test_both_networks_of_repair_compute_in_the_precision_that_was_tried(precision: str, computes_in: str) -> None:
    networks = RepairModels(
        SHIPPED_FOLDER, "cpu", precision, ModelRegistry(SHIPPED_FOLDER, allow_unverified=False)
    ).open()
    assert networks.inpainting is not None
    for network in (networks.segmentation.module, networks.inpainting):
        assert {parameter.dtype for parameter in network.parameters()} == {DTYPES[computes_in]}


def test_damage_is_filled_before_the_photo_is_enlarged_and_recorded(backend: LocalBackend) -> None:
    off = backend.restore(Picture(scratched()), dataclasses.replace(OPTIONS, repair="off"), always)
    done = backend.restore(Picture(scratched()), OPTIONS, always)
    clean = backend.restore(Picture(photo()), OPTIONS, always)

    def error(rgb: NDArray[Any]) -> float:
        return float(np.abs(rgb[20:90, 68:75].astype(int) - clean.picture.rgb[20:90, 68:75]).mean())

    assert error(done.picture.rgb) < 0.2 * error(off.picture.rgb)
    assert "repair" not in off.params
    assert off.damage is None
    assert done.params["repair"]["share"] == pytest.approx(270 / 19200, abs=1e-6)
    assert done.damage is not None
    assert done.damage.mask[10:100, 70:73].all()
    assert clean.params["repair"]["regions"] == 0
    assert clean.picture.xmp is None


def test_a_photo_without_damage_is_restored_as_if_nothing_had_been_asked(backend: LocalBackend) -> None:
    off = backend.restore(Picture(photo()), dataclasses.replace(OPTIONS, repair="off"), always)
    assert np.array_equal(backend.restore(Picture(photo()), OPTIONS, always).picture.rgb, off.picture.rgb)


def test_a_drawn_mask_takes_the_place_of_detection(backend: LocalBackend) -> None:
    mask = np.ones((120, 160), np.bool_)
    mask[:, :100] = False
    result = backend.restore_with_mask(Picture(scratched()), mask, OPTIONS, always)
    assert result.params["repair"]["own_mask"] is True
    assert result.damage is not None
    assert np.array_equal(result.damage.mask, mask)
    (warning,) = [one for one in result.warnings if one.code == NoticeKind.MUCH_DAMAGE]
    assert warning.as_facts()["values"] == {"percent": 38}


def test_the_stages_come_in_their_order_and_progress_grows(backend: LocalBackend) -> None:
    told: list[tuple[float, Stage]] = []

    def tell(fraction: float, stage: Stage) -> bool:
        told.append((fraction, stage))
        return True

    backend.restore(Picture(scratched()), OPTIONS, tell)
    stages = list(dict.fromkeys(stage for _, stage in told))
    assert stages == [Stage.LOADING, Stage.REPAIRING, Stage.UPSCALING]
    fractions = [fraction for fraction, stage in told if stage is not Stage.LOADING]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)


def test_a_repair_is_cancelled(backend: LocalBackend) -> None:
    with pytest.raises(Cancelled):
        backend.restore(Picture(scratched()), OPTIONS, lambda fraction, stage: stage is not Stage.REPAIRING)


def test_a_preview_shows_the_repaired_patch(backend: LocalBackend) -> None:
    window = Picture(scratched())
    box = Box(0, 0, 160, 120)
    patch = PatchWindow(window, box, box, Overview(window, 160, 120, False))
    shown = backend.restore_patch(patch, OPTIONS, 5)
    whole = backend.restore(window, OPTIONS, always)
    assert shown.params == {name: value for name, value in whole.params.items() if name not in ("engine", "repair")}
    assert np.abs(shown.picture.rgb.astype(int) - whole.picture.rgb).max() <= 1


def test_a_preview_of_a_damaged_part_does_not_warn_of_the_whole_photo(backend: LocalBackend) -> None:
    white = scratched()
    white[:, :80] = 255
    box = Box(0, 0, 160, 120)
    patch = PatchWindow(Picture(white), box, box, Overview(Picture(photo()), 160, 120, False))
    codes = [warning.code for warning in backend.restore_patch(patch, OPTIONS, 5).warnings]
    assert NoticeKind.MUCH_DAMAGE not in codes
    assert NoticeKind.MUCH_DAMAGE in [one.code for one in backend.restore(Picture(white), OPTIONS, always).warnings]


def test_each_page_is_repaired_and_its_share_told(backend: LocalBackend, tmp_path: Path) -> None:
    first = Picture(scratched(), pages=2, source_format="TIFF")
    encoder = PagesEncoder(tmp_path / "album.tif", 2, "keep")
    told, _ = restore_pages(backend, first, lambda index: Picture(photo()), OPTIONS, encoder, always)
    encoder.close()
    assert told.params["repair"]["page_shares"] == [pytest.approx(270 / 19200, abs=1e-6), 0.0]
    assert told.params["repair"]["share"] == pytest.approx(135 / 19200, abs=1e-6)
    assert told.damage is None


def test_the_quick_look_says_the_share(backend: LocalBackend) -> None:
    assert backend.damage_share(Picture(scratched()), 5) == pytest.approx(270 / 19200)
    assert backend.damage_share(Picture(photo()), 5) == 0


def test_what_repairs_is_described_and_decides_the_result(backend: LocalBackend) -> None:
    described = backend.describe()["repair"]
    assert (described["available"], described["inpainting"]) in ((True, False), (True, True))
    assert 0 < described["thresholds"]["strong"] < described["thresholds"]["auto"] < 1
    off, auto = (backend.result_facts(dataclasses.replace(OPTIONS, repair=mode)) for mode in ("off", "auto"))
    assert off is not None
    assert auto is not None
    assert SEGMENTATION_FILE in auto["files"]
    assert SEGMENTATION_FILE not in off["files"]


def test_the_networks_are_no_models_that_enlarge(backend: LocalBackend) -> None:
    assert not [row["name"] for row in backend.describe()["models"] if "damage" in row["name"]]


def test_without_the_network_a_repair_is_refused_and_nothing_else(bare: LocalBackend) -> None:
    assert bare.describe()["repair"]["available"] is False
    with pytest.raises(Conflict, match="nir-damage-segmentation") as refused:
        bare.restore(Picture(photo()), dataclasses.replace(OPTIONS, model="RealESRGAN_x4plus"), always)
    assert refused.value.code == "repair_unavailable"


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / SEGMENTATION_FILE).write_bytes(b"nothing")
    with pytest.raises(Unavailable, match=SEGMENTATION_FILE):
        open_local_backend(tmp_path, device="cpu").damage_share(Picture(photo()), 5)


def test_a_file_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = damage_network.install(tmp_path)
    backend = open_local_backend(tmp_path, device="cpu")
    assert backend.damage_share(Picture(scratched()), 5) > 0
    state = load_file(file)
    state["head.bias"] = state["head.bias"] - 1000
    save_file({**state, "context.layers.1.bias": state["context.layers.1.bias"] + 1}, file)
    assert backend.damage_share(Picture(scratched()), 5) == 0


def test_off_imports_nothing_and_costs_nothing(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from pathlib import Path
from app.backends.local import open_local_backend
from app.images import Picture
from app.options import RestoreOptions
backend = open_local_backend(Path(sys.argv[1]), device="cpu")
backend.describe()
backend.restore(Picture(np.zeros((32, 32, 3), np.uint8)), RestoreOptions(scale=1), lambda f, stage: True)
heavy = ("detection", "filling", "repair", "weights", "segmentation_network", "inpainting_network")
sys.exit(any(f"app.restoration.repair.{name}" in sys.modules for name in heavy))
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
