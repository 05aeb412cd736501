"""`strip_gps` and `strip` leave no place, wherever it is hidden: ExifTool finds none, and neither do the bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.images import ImageLimits, encode
from app.images.decode import decode_file
from tests import exiftool
from tests.hidden_places import PLACES, TRACES, inflated

LIMITS = ImageLimits()
FORMATS = ["jpg", "png", "webp", "tiff", "avif"]
_NAMES = re.compile(r"GPS|Latitude|Longitude|City|Country|Province|(?<!Web)State|Location|GeoTiff|ModelTie|Coordinates")
_VALUES = re.compile(r"48\.858|48,51|2\.2944|Paris|France")
_FILE_GROUPS = ("System:", "ExifTool:", "File:File")


def restored(folder: Path, name: str, policies: tuple[str, ...]) -> list[Path]:
    """A hidden place's photo as it is, and its result in each format under each policy."""
    photo = folder / "photo"
    photo.write_bytes(PLACES[name]())
    picture = decode_file(photo, LIMITS)
    files = [folder / f"{policy} {form}" for policy in policies for form in FORMATS]
    for file in files:
        policy, form = file.name.split()
        encode(picture, file, form, 90, policy)
    return files


def places_in(tags: dict[str, Any]) -> list[str]:
    """What ExifTool's tags tell of a place."""
    own = {key: value for key, value in tags.items() if not key.startswith(_FILE_GROUPS)}
    return [key for key, value in own.items() if _NAMES.search(key) or _VALUES.search(str(value))]


@pytest.mark.parametrize("name", list(PLACES))
def test_the_bytes_of_a_result_hold_no_place(name: str, tmp_path: Path) -> None:
    for file in restored(tmp_path, name, ("strip_gps", "strip")):
        data = inflated(file.read_bytes())
        assert not [trace for trace in TRACES if trace in data], file.name


@pytest.fixture(scope="module")
def read_by_exiftool(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What ExifTool reads from the results of every hiding place, by "place: policy format", in one run of it."""
    found = {}
    for name in PLACES:
        for file in restored(tmp_path_factory.mktemp("places"), name, ("strip_gps", "strip")):
            found[f"{name}: {file.name}"] = file
    return dict(zip(found, exiftool.read(*found.values()), strict=True))


@exiftool.needs_exiftool
def test_exiftool_finds_no_place_in_any_result(read_by_exiftool: dict[str, dict[str, Any]]) -> None:
    assert len(read_by_exiftool) == len(PLACES) * 2 * len(FORMATS)
    assert not {name: places_in(tags) for name, tags in read_by_exiftool.items() if places_in(tags)}


@pytest.mark.parametrize("name", ["exif gps", "xmp attribute", "iptc city", "png texts", "tiff gps", "webp xmp"])
def test_kept_places_are_there_to_be_found(name: str, tmp_path: Path) -> None:
    """The search finds what `keep` leaves, so it would find what the others should not."""
    for file in restored(tmp_path, name, ("keep",)):
        data = inflated(file.read_bytes())
        assert name == "png texts" or any(trace in data for trace in TRACES), file.name
        if exiftool.EXIFTOOL:
            assert places_in(exiftool.read(file)[0]), file.name


@pytest.mark.parametrize("name", list(PLACES))
def test_what_tells_no_place_is_kept(name: str, tmp_path: Path) -> None:
    data = PLACES[name]()
    kept = [mark for mark in (b"Camera Works", b'dc:source="kept"', b"(c) kept") if mark in data]
    if b"DOCTYPE" in data or "behind its end" in name:
        kept = []
    for file in restored(tmp_path, name, ("strip_gps",)):
        found = inflated(file.read_bytes())
        assert not [mark for mark in kept if mark not in found], file.name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("exif maker note", ["maker's own notes"]),
        ("exif unknown tag", ["unknown EXIF tags"]),
        ("exif description", ["an EXIF text"]),
        ("xmp unknown schema", ["XMP"]),
        ("iptc caption", ["IPTC"]),
        ("png texts", ["the text 'Comment'"]),
        ("exif gps", []),
        ("xmp attribute", []),
        ("iptc city", []),
    ],
)
def test_what_went_with_the_place_is_named_and_the_place_itself_is_not(
    name: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "photo").write_bytes(PLACES[name]())
    notes = encode(decode_file(tmp_path / "photo", LIMITS), tmp_path / "result", "png", 90, "strip_gps").notes
    assert len(notes) == len(words)
    assert all(word in notes[0].message for word in words)


def test_there_are_many_hiding_places() -> None:
    assert len(PLACES) >= 40
