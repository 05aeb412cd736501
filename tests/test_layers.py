"""Face layers: blending again, and the file they are kept in."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Unprocessable
from app.images.face_layers import FaceLayer, blend_layers, load_layers, mix, save_layers


def make_layer(index: int, left: int, top: int, rgb: Any, seed: int = 0, size: tuple[int, int] = (30, 20)) -> FaceLayer:
    """A layer over `rgb` with random contents and a mask that is 0 on its border."""
    random = np.random.default_rng(seed + index)
    height, width = size
    before = rgb[top : top + height, left : left + width].copy()
    restored = random.integers(0, np.iinfo(rgb.dtype).max, (height, width, 3), rgb.dtype, endpoint=True)
    mask = np.zeros((height, width), np.uint8)
    mask[1:-1, 1:-1] = random.integers(0, 256, (height - 2, width - 2))
    return FaceLayer(index, left, top, before, restored, mask)


def canvas(dtype: Any = np.uint8) -> Any:
    return np.random.default_rng(9).integers(0, np.iinfo(dtype).max, (90, 120, 3), dtype, endpoint=True)


def pasted(rgb: Any, layers: list[FaceLayer], strength: float) -> Any:
    """The arithmetic of the contract, written once more in the plainest way."""
    out = rgb.astype(np.float64)
    for layer in layers:
        under = out[layer.top : layer.top + layer.height, layer.left : layer.left + layer.width]
        under += layer.mask[:, :, None] / 255.0 * strength * (layer.restored.astype(np.float64) - under)
        np.rint(under, out=under)
    return out.astype(rgb.dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_blending_again_gives_what_the_restoration_itself_would_have_given(dtype: Any, strength: float) -> None:
    rgb = canvas(dtype)
    layers = [make_layer(0, 5, 5, rgb), make_layer(1, 15, 20, rgb), make_layer(2, 80, 40, rgb)]  # 0 and 1 overlap
    finished = pasted(rgb, layers, 1.0)
    again = blend_layers(finished, layers, dict.fromkeys(range(3), strength))
    difference = np.abs(again.astype(int) - pasted(rgb, layers, strength).astype(int))
    assert difference.max() <= 1  # the plain arithmetic above runs in doubles
    assert (finished == pasted(rgb, layers, 1.0)).all(), "the picture that was given has changed"


def test_strength_0_gives_back_the_background_exactly() -> None:
    rgb = canvas()
    layers = [make_layer(0, 5, 5, rgb), make_layer(1, 15, 20, rgb)]
    finished = blend_layers(rgb, layers, {0: 1.0, 1: 1.0})
    assert (finished != rgb).any()
    np.testing.assert_array_equal(blend_layers(finished, layers, {}), rgb)


def test_faces_are_blended_in_the_order_of_their_index_and_not_of_the_list() -> None:
    rgb = canvas()
    layers = [make_layer(0, 5, 5, rgb), make_layer(1, 10, 10, rgb)]
    strengths = {0: 1.0, 1: 0.6}
    np.testing.assert_array_equal(blend_layers(rgb, layers, strengths), blend_layers(rgb, layers[::-1], strengths))


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 255), st.floats(0, 1))
def test_a_blend_never_leaves_the_span_of_its_two_ends(under: int, over: int, mask: int, strength: float) -> None:
    region = np.full((1, 1, 3), under, np.uint16)
    mix(region, np.full((1, 1, 3), over, np.uint16), np.full((1, 1), mask, np.uint8), strength)
    assert min(under, over) <= region[0, 0, 0] <= max(under, over)
    if mask == 255 and strength == 1:
        assert region[0, 0, 0] == over


def test_a_layer_of_another_picture_is_refused() -> None:
    rgb = canvas()
    layer = make_layer(0, 100, 60, rgb, size=(30, 20))
    with pytest.raises(Unprocessable, match="do not belong"):
        blend_layers(rgb[:80], [layer], {0: 1.0})
    with pytest.raises(Unprocessable, match="do not belong"):
        blend_layers(rgb.astype(np.uint16), [layer], {0: 1.0})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_layers_come_back_from_their_file_as_they_were(dtype: Any, tmp_path: Path) -> None:
    rgb = canvas(dtype)
    layers = [make_layer(0, 5, 5, rgb), make_layer(7, 15, 20, rgb, size=(11, 40))]
    save_layers(tmp_path / "faces.kept", layers)
    again = load_layers(tmp_path / "faces.kept")
    assert [path.name for path in tmp_path.iterdir()] == ["faces.kept"]
    assert [(x.index, x.left, x.top) for x in again] == [(0, 5, 5), (7, 15, 20)]
    for old, new in zip(layers, again, strict=True):
        for name in ("before", "restored", "mask"):
            np.testing.assert_array_equal(getattr(new, name), getattr(old, name))
            assert getattr(new, name).dtype == getattr(old, name).dtype


def test_no_layers_are_a_file_too(tmp_path: Path) -> None:
    save_layers(tmp_path / "none", [])
    assert load_layers(tmp_path / "none") == ()


def rewritten(path: Path, name: str, content: bytes) -> None:
    """The file with one member exchanged."""
    with zipfile.ZipFile(path) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
    members[name] = content
    with zipfile.ZipFile(path, "w") as new:
        for member, data in members.items():
            new.writestr(member, data)


def npy_bytes(array: Any, **more: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, array, **more)
    return target.getvalue()


def a_header_that_lies(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_layers_of_another_kind_of_number_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "faces"
    save_layers(path, [make_layer(0, 5, 5, canvas())])
    for name in ("before0.npy", "restored0.npy"):
        rewritten(path, name, npy_bytes(np.zeros((30, 20, 3), np.float32)))
    with pytest.raises(Unprocessable):
        load_layers(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mask0.npy", npy_bytes(np.array([{"a": 1}], dtype=object), allow_pickle=True)),
        ("mask0.npy", a_header_that_lies("(1000000, 1000000)")),
        ("mask0.npy", b"short"),
        ("mask0.npy", npy_bytes(np.zeros((3, 3), np.uint8))),
        ("before0.npy", npy_bytes(np.zeros((30, 20, 3), np.float32))),
        ("restored0.npy", npy_bytes(np.zeros((30, 20, 3), np.uint16))),
        ("places.npy", npy_bytes(np.zeros((1, 4), np.int64))),
        ("places.npy", npy_bytes(np.zeros((300, 3), np.int64))),
    ],
)
def test_a_file_that_is_not_ours_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "faces"
    save_layers(path, [make_layer(0, 5, 5, canvas())])
    rewritten(path, name, content)
    with pytest.raises(Unprocessable) as raised:
        load_layers(path)
    assert raised.value.code == "layers_unreadable"


def test_half_a_file_is_refused_and_a_missing_one_says_so(tmp_path: Path) -> None:
    path = tmp_path / "faces"
    save_layers(path, [make_layer(0, 5, 5, canvas())])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(Unprocessable):
        load_layers(path)
    with pytest.raises(FileNotFoundError):
        load_layers(tmp_path / "none")
