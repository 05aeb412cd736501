"""Where `run.py restore` puts its results, and what it says of the files that it leaves out."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from app.atomic_files import part_beside
from app.commands import photos
from app.result_names import NAME_BYTES, Stems, place_of, printable, shortened
from tests.command_line import files_below, put_photo, run

OUT = Path("out")


def stems(*names: str, folder: Path = OUT) -> list[str]:
    paths = [Path(name) for name in names]
    return Stems([(folder / path.parent, path.stem, path.suffix) for path in paths]).chosen


# Names alone.


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a.jpg", "a.png"], ["a_jpg", "a_png"]),
        (["a.jpg", "a.png", "a_jpg.png"], ["a_jpg_2", "a_png", "a_jpg"]),
        (["a.jpg", "a.png", "a_jpg.png", "a_jpg_2.png"], ["a_jpg_3", "a_png", "a_jpg", "a_jpg_2"]),
        (["A.jpg", "a.jpg"], ["A_jpg", "a_jpg_2"]),
        (["STRASSE.png", "straße.png"], ["STRASSE_png", "straße_png_2"]),
        (["e\u0301.png", "\u00e9.png"], ["e\u0301_png", "\u00e9_png_2"]),
        (["a", "a.jpg"], ["a", "a_jpg"]),
        (["x/a.jpg", "y/a.png"], ["a", "a"]),
        (["X/a.jpg", "x/a.png"], ["a_jpg", "a_png"]),
        (["r.200.png", "r.300.png"], ["r.200", "r.300"]),
    ],
)
def test_no_two_photos_of_a_folder_share_a_stem(names: list[str], chosen: list[str]) -> None:
    assert stems(*names) == chosen


def test_folders_that_are_one_by_a_link_are_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert stems("real/a.jpg", "link/a.jpg", folder=tmp_path) == ["a_jpg", "a_jpg_2"]


@pytest.mark.parametrize("letter", ["a", "\u5199", "e\u0301", "\U0001f469\u200d\U0001f33e", "\udce9"])
@pytest.mark.parametrize("extension", ["jpg", "webp"])
def test_a_name_is_no_longer_than_a_file_system_takes(letter: str, extension: str) -> None:
    stem = letter * 255
    place = place_of(OUT, stem, extension)
    size = len(os.fsencode(place.name))
    assert NAME_BYTES - len(os.fsencode(letter)) < size <= NAME_BYTES
    assert stem.startswith(place.stem)
    assert len(place.stem) % len(letter) == 0


def test_a_stem_that_fits_is_not_touched() -> None:
    assert place_of(OUT, "a" * 251, "jpg").name == "a" * 251 + ".jpg"
    assert shortened("abc", 3) == "abc"


def test_long_names_that_become_the_same_when_shortened_stay_apart() -> None:
    chosen = stems("a" * 251 + ".jpg", "a" * 250 + "b.jpg", "a" * 250 + ".png")
    places = {place_of(OUT, stem, extension).name for stem in chosen for extension in ("webp", "jpg")}
    assert len(places) == 6
    assert all(len(name) <= NAME_BYTES for name in places)


def test_names_are_shown_as_plain_text() -> None:
    assert printable("Zo\u00eb & co") == "Zo\u00eb & co"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("a\x1b[31m\nb") == "a\\x1b[31m\\nb"


# Whole runs.


def test_every_photo_has_its_own_result_and_a_second_run_finds_it(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("a.jpg", "a.png", "a_jpg.png", "A.JPG", "r.200.png", "r.300.png")):
        put_photo(project / "in" / name, 10 + number)
    words = ("restore", "in", "out", "--scale", "1", "--output-format", "png")
    assert run(project, *words) == 0
    made = files_below(project / "out")
    assert made == {"A_JPG_2.png", "a_jpg_3.png", "a_png.png", "a_jpg.png", "r.200.png", "r.300.png"}
    widths = {name: Image.open(project / "out" / name).width for name in made}
    assert sorted(widths.values()) == list(range(10, 16))
    assert (widths["a_jpg.png"], widths["r.200.png"]) == (12, 14)
    assert run(project, *words) == 0
    assert "0 restored, 6 already done" in capsys.readouterr().out


def test_names_of_255_bytes_and_names_that_are_no_utf_8_are_restored(project: Path) -> None:
    names = [b"a" * 251 + b".jpg", "\u5199".encode() * 83 + b"ab.jpg", b"caf\xe9.jpg"]
    for name in names:
        put_photo(project / "in" / "x.jpg").rename(project / "in" / os.fsdecode(name))
    assert run(project, "restore", "in", "same", "--scale", "1") == 0
    assert files_below(project / "same") == {os.fsdecode(name) for name in names}
    assert run(project, "restore", "in", "out", "--scale", "1", "--output-format", "webp") == 0
    assert files_below(project / "out") == {
        "a" * 250 + ".webp",
        "\u5199" * 83 + "a.webp",
        os.fsdecode(b"caf\xe9.webp"),
    }


def test_a_temporary_name_is_short_and_does_not_depend_on_the_run(tmp_path: Path) -> None:
    with part_beside(tmp_path / ("a" * 255)) as first, part_beside(tmp_path / ("a" * 255)) as second:
        assert first == second
        first.write_bytes(b"as long as the file system allows")
    with part_beside(tmp_path / ("a" * 254)) as other:
        assert other != first
    assert list(tmp_path.iterdir()) == []


def test_the_bytes_decide_where_a_name_does_not_say(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project / "in"
    for name in (".facebook_14.jpg", "scan", "IMG.jpg_large", ".hidden"):
        put_photo(folder / name, kind="JPEG")
    put_photo(folder / "old.gif", kind="GIF")
    (folder / "notes.txt").write_text("BM is how a bitmap begins, and this is none")
    (folder / "._plain.jpg").write_bytes(b"\0\5\x16\7 what some systems leave beside a photo")
    put_photo(folder / ".thumbnails" / "small.jpg")
    put_photo(project / "elsewhere" / "far.jpg")
    (folder / "linked").symlink_to(project / "elsewhere")
    (folder / "gone.jpg").symlink_to(project / "nowhere")
    (folder / ".0123456789abcdef.part").write_bytes(b"half")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
        assert run(project, "restore", "in", "out", "--scale", "1") == 0
    assert files_below(project / "out") == {".facebook_14.jpg", "scan.jpg", "IMG.jpg_large.jpg", ".hidden.jpg"}
    said = capsys.readouterr().out
    assert "6 files and 2 folders left out:" in said
    assert f"  {photos.NOT_A_PHOTO}: ._plain.jpg, notes.txt, old.gif\n" in said
    assert f"  {photos.HIDDEN_FOLDER}: .thumbnails/\n" in said
    assert f"  {photos.LINKED_FOLDER}: linked/\n" in said
    assert f"  {photos.NOT_A_FILE}: gone.jpg, socket.png\n" in said
    assert f"  {photos.UNFINISHED}: .0123456789abcdef.part\n" in said
    assert "4 restored, 0 already done, 0 failed." in said


def test_the_result_ends_as_its_bytes_are(project: Path) -> None:
    folder = project / "in"
    put_photo(folder / "0.jpg", kind="PNG")
    put_photo(folder / "1.png", kind="JPEG")
    assert run(project, "restore", "in", "out", "--scale", "1") == 0
    assert files_below(project / "out") == {"0.png", "1.jpg"}


def test_a_folder_without_a_photo_says_what_it_found(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_photo(project / "in" / "old.gif", kind="GIF")
    assert run(project, "restore", "in", "out") == 1
    assert "1 file left out:\n  not a photo that can be opened: old.gif" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".bmp", ".heic", ".gif", ".jfif", ".jpe", ".xyz", ".PDF"])
def test_an_ending_that_is_not_written_is_a_mistake(
    ending: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(project / "a.png")
    assert run(project, "restore", "a.png", f"new{ending}") == 2
    said = capsys.readouterr().err
    assert f"OUT ends in {ending.lower()}" in said
    assert ".jpg, .jpeg, .png, .webp, .tif, .tiff, .avif only" in said
    assert files_below(project) == {"a.png"}


def test_a_folder_may_look_like_a_file_if_it_is_there_or_ends_with_a_slash(project: Path) -> None:
    put_photo(project / "a.png")
    (project / "old.bmp").mkdir()
    assert run(project, "restore", "a.png", "old.bmp", "--scale", "1") == 0
    assert run(project, "restore", "a.png", "new.v2/", "--scale", "1") == 0
    assert files_below(project) == {"a.png", "old.bmp/a.png", "new.v2/a.png"}


def test_a_folder_is_not_restored_into_a_file(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_photo(project / "in" / "a.png")
    assert run(project, "restore", "in", "new.bmp") == 2
    assert "OUT must be a folder too" in capsys.readouterr().err
    assert files_below(project) == {"in/a.png"}


def test_no_result_takes_the_place_of_another_photo(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_photo(project / "in" / "in" / "a.png")
    put_photo(project / "in" / "a.png", 30)
    put_photo(project / "b.png")
    (project / "linked").mkdir()
    (project / "linked" / "b.png").symlink_to(project / "b.png")
    before = {name: (project / name).read_bytes() for name in files_below(project)}
    for words in (("in", "."), ("b.png", "linked"), ("b.png", "linked/b.png")):
        assert run(project, "restore", *words) == 2
        assert "would take the place of a photo" in capsys.readouterr().err
    assert {name: (project / name).read_bytes() for name in files_below(project)} == before


def test_a_result_too_large_for_its_format_is_told_before_the_work(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_photo(project / "pano.png", 4200, 2)
    monkeypatch.setattr("app.images.Decoder.decode", lambda *_: pytest.fail("decoded"))
    for words in (("pano.png", "new.webp"), ("pano.png", "out", "--output-format", "webp")):
        assert run(project, "restore", *words) == 1
        assert "too_large_for_format" in capsys.readouterr().out
