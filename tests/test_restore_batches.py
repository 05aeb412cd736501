"""A batch of `run.py restore` with a stand-in for the backend: what each photo gets, and that none ends the others."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.commands import restore
from app.commands.earlier_results import ATTRIBUTE_NAME, RECORDS_NAME, EarlierResults, PhotoVersion
from app.commands.restore import Machine, settings_for
from app.errors import Conflict, DeviceLost, Unprocessable
from app.options import EngineName, RestoreOptions
from app.settings import Settings
from tests.command_line import files_below, put_photo, run
from tests.harness import LanczosBackend
from tests.tiff_writer import TiffWriter

_ROW_BYTES = 90


class StandIn(LanczosBackend):
    """A local backend that knows nothing of its machine."""

    def describe_pace(self, _options: RestoreOptions) -> dict[str, Any]:
        return {}


@pytest.fixture(params=[ATTRIBUTE_NAME, RECORDS_NAME])
def marking(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What marks results: the attribute, or the hidden file of a file system without attributes."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    if request.param == RECORDS_NAME:
        monkeypatch.setattr(os, "setxattr", refuse)
    else:
        try:
            os.setxattr(tmp_path, ATTRIBUTE_NAME, b"")
        except OSError:
            pytest.skip("this file system has no extended attributes")
    return str(request.param)


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `restore` in `tmp_path`; `on_tile` is called at each photo's first tile with its number."""
    monkeypatch.chdir(tmp_path)

    def restored(*words: str, on_photo: Callable[[int], object] = int) -> int:
        backend = StandIn(1 << 16, lambda _: on_photo(backend.runs))
        monkeypatch.setattr(restore, "open_loaded_backend", lambda *_: backend)
        return run(tmp_path, "restore", *words, "--scale", "2")

    return restored


def _album(second: int | None) -> bytes:
    """A TIFF of two pages; the pixels of the second begin where asked."""
    writer, pixels = TiffWriter(), np.random.default_rng(1).integers(0, 256, (40, _ROW_BYTES // 3, 3), np.uint8)
    writer.page(pixels, 2, 8)
    writer.page(pixels, 2, 8, tags={} if second is None else {273: ("I", [second])})
    return writer.content()


def test_every_page_that_lacks_pixels_is_kept_where_asked(
    tmp_path: Path, batch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "album.tif").write_bytes(_album(len(_album(None)) - 20 * _ROW_BYTES))
    assert batch("album.tif", "out", "--pages", "all") == 1
    assert "Page 2" in " ".join(capsys.readouterr().out.split())
    assert batch("album.tif", "out", "--pages", "all", "--partial", "keep") == 0
    assert "are missing and stay grey" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "album.tif", formats=("TIFF",)) as image:
        assert getattr(image, "n_frames", 1) == 2


@pytest.mark.usefixtures("marking")
@pytest.mark.parametrize("age_seconds", [-1000, 1000])
@pytest.mark.parametrize("words", [("in", "out"), ("in/a.png", "out/a.png"), ("in", "out", "--output-format", "png")])
def test_a_file_that_is_no_result_of_the_photo_stays_without_overwrite(
    age_seconds: int,
    words: tuple[str, ...],
    tmp_path: Path,
    batch: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    photo, other = put_photo(tmp_path / "in" / "a.png"), put_photo(tmp_path / "out" / "a.png", 10)
    changed = photo.stat().st_mtime + age_seconds
    os.utime(other, (changed, changed))
    before = other.read_bytes()
    assert batch(*words) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "would_overwrite" in said
    assert "0 restored, 0 already done, 1 failed." in said
    assert other.read_bytes() == before
    assert batch(*words, "--overwrite") == 0
    assert Image.open(other).width == 48
    assert batch(*words) == 0
    assert "0 restored, 1 already done" in capsys.readouterr().out


@pytest.mark.usefixtures("marking")
def test_photos_of_two_folders_with_one_name_do_not_replace_each_other(
    tmp_path: Path, batch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(tmp_path / "march" / "a.png")
    put_photo(tmp_path / "april" / "a.png", 30)
    assert batch("march", "out") == 0
    assert batch("april", "out") == 1
    assert "would_overwrite" in capsys.readouterr().out
    assert Image.open(tmp_path / "out" / "a.png").width == 48


@pytest.mark.usefixtures("marking")
def test_a_result_that_was_changed_is_done_but_not_replaced(
    tmp_path: Path, batch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    photo = put_photo(tmp_path / "in" / "a.png")
    assert batch("in", "out") == 0
    before = put_photo(tmp_path / "out" / "a.png", 12).read_bytes()
    assert batch("in", "out") == 0
    assert "0 restored, 1 already done" in capsys.readouterr().out
    os.utime(photo, ns=(2 * 10**18, 2 * 10**18))
    assert batch("in", "out") == 1
    assert (tmp_path / "out" / "a.png").read_bytes() == before


@pytest.mark.usefixtures("marking")
def test_results_are_known_in_folders_that_were_moved(
    tmp_path: Path, batch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(tmp_path / "in" / "deep" / "a.png")
    assert batch("in", "out") == 0
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    (tmp_path / "out").rename(tmp_path / "results")
    assert batch("elsewhere/deep", "results/deep") == 0
    assert "0 restored, 1 already done" in capsys.readouterr().out


def test_records_with_foreign_and_torn_lines_are_read(tmp_path: Path, marking: str) -> None:
    photo, place = put_photo(tmp_path / "a.jpg"), tmp_path / "out" / "a.png"
    put_photo(place)
    foreign = b'[1]\n{"result": 3}\n\xff\n{"result": "b.png", "photo": {"x": 1}, "result_bytes": 1}\n{"resu'
    (place.parent / RECORDS_NAME).write_bytes(foreign)
    version = PhotoVersion.of(photo)
    EarlierResults(overwrite=False).record(place, place, version)
    assert (RECORDS_NAME in marking) == ((place.parent / RECORDS_NAME).read_bytes() != foreign)
    assert EarlierResults(overwrite=False).is_done(place, version)
    assert not EarlierResults(overwrite=True).is_done(place, version)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"photo": 1, "result_bytes": 1}', b'{"photo": {}}'])
def test_an_attribute_that_is_not_ours_is_passed_over(content: bytes, tmp_path: Path) -> None:
    photo, place = put_photo(tmp_path / "a.jpg"), put_photo(tmp_path / "out" / "a.png")
    try:
        os.setxattr(place, ATTRIBUTE_NAME, content)
    except OSError:
        pytest.skip("this file system has no extended attributes")
    assert not EarlierResults(overwrite=False).is_done(place, PhotoVersion.of(photo))
    with pytest.raises(Conflict):
        EarlierResults(overwrite=False).check(place, PhotoVersion.of(photo))


def test_a_folder_of_results_holds_nothing_else_and_records_are_no_file_that_is_left_out(
    tmp_path: Path, batch: Callable[..., int], marking: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(tmp_path / "in" / "a.png")
    assert batch("in", "out") == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a.png", marking} - {ATTRIBUTE_NAME}
    assert marking in {*os.listxattr(tmp_path / "out" / "a.png"), *names}
    assert batch("out", "again") == 0
    assert "left out" not in capsys.readouterr().out


def test_what_is_noted_does_not_tell_where_the_photo_lay(
    tmp_path: Path, batch: Callable[..., int], marking: str
) -> None:
    put_photo(tmp_path / "secret" / "a.png")
    assert batch("secret", "out") == 0
    out = tmp_path / "out"
    noted = (
        os.getxattr(out / "a.png", ATTRIBUTE_NAME) if marking == ATTRIBUTE_NAME else (out / RECORDS_NAME).read_bytes()
    )
    assert b"result_bytes" in noted
    assert b"secret" not in noted


def _raise(error: Exception) -> bool:
    raise error


@pytest.mark.parametrize(
    ("error", "code"), [(MemoryError(), "out_of_memory"), (ZeroDivisionError("odd"), "internal_error")]
)
def test_a_photo_that_fails_in_an_unforeseen_way_ends_no_batch(
    error: Exception,
    code: str,
    tmp_path: Path,
    batch: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        put_photo(tmp_path / "in" / name)
    assert batch("in", "out", on_photo=lambda number: number == 2 and _raise(error)) == 1
    assert files_below(tmp_path / "out") == {"a.png", "c.png"}
    said = capsys.readouterr().out
    assert code in said
    assert "2 restored, 0 already done, 1 failed." in said
    assert ("odd" in caplog.text) == (code == "internal_error")


def test_a_lost_card_ends_the_batch_with_its_report(
    tmp_path: Path, batch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        put_photo(tmp_path / "in" / name)
    assert batch("in", "out", on_photo=lambda number: number == 2 and _raise(DeviceLost("cuda:0 is lost"))) == 1
    assert files_below(tmp_path / "out") == {"a.png"}
    said = capsys.readouterr().out
    assert "device_lost" in said
    assert "1 restored, 0 already done, 1 failed." in said


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        (Machine(tile=5), "TILE_SIZE"),
        (Machine(tile=5000), "TILE_SIZE"),
        (Machine(device="gpu"), "DEVICE"),
        (Machine(precision="int8"), "PRECISION"),
        (Machine(engine="slow"), "ENGINE"),
    ],
)
def test_words_about_the_machine_are_held_to_the_bounds_of_the_settings(machine: Machine, name: str) -> None:
    with pytest.raises(Unprocessable, match=f"{name}: ") as caught:
        settings_for(Settings(), machine)
    assert caught.value.code == "invalid_option"


def test_words_about_the_machine_go_before_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILE_SIZE", "64")
    monkeypatch.setenv("PRECISION", "bf16")
    made = settings_for(Settings(), Machine(device="cpu", tile=0, engine="fast"))
    assert (made.device, made.precision, made.tile_size, made.engine) == ("cpu", "bf16", 0, EngineName.FAST)
