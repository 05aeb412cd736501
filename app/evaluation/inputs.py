"""Finds the photos of an evaluation, and for each its reference by name.

It looks at names only; what is inside a file is judged when it is decoded.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path

from app.errors import BadRequest, NotFound
from app.result_names import Stems, printable

PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif")
)


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo: its name in the report, its file, the stem of its results, and where its reference lies.

    Attributes:
        label: path below the folder, with slashes; a text for people, which any file takes, whatever the name's bytes.
        path: the file.
        stem: path of its results below the results' folder, without an extension.
        reference: the file with what the result should be, or None.
    """

    label: str
    path: Path
    stem: str
    reference: Path | None = None


def find_photos(folder: Path, *, apart_from: Path, reference: Path | None = None) -> list[Photo]:
    """The photos below a folder, by name; hidden ones and those of the results' folder are left out.

    Args:
        folder: where to look.
        apart_from: the results' folder, which may lie inside, or around both.
        reference: a folder with one reference for each photo, of the same path and stem (any photo extension); of
            several the one whose name is most alike: the same name, then the same stem, then one in another case.

    Raises:
        BadRequest: `no_such_folder`. NotFound: `no_photo`.
    """
    for place in (folder, *([reference] if reference else [])):
        if not place.is_dir():
            raise BadRequest(
                "no_such_folder",
                f"There is no folder {place.name or place}; make it and put photos in, or name another.",
            )
    names = sorted(_below(folder, apart_from))
    if not names:
        raise NotFound(
            "no_photo",
            f"There is no photo in {folder.name or folder} (jpg, png, webp, tiff, bmp, avif; heic with the optional "
            "package); put some in, or name another folder.",
        )
    references = _references(reference, apart_from) if reference else {}
    stems = Stems([(folder / name.parent, name.stem, name.suffix) for name in names])
    return [
        Photo(printable(name.as_posix()), folder / name, (name.parent / stem).as_posix(), _most_alike(references, name))
        for name, stem in zip(names, stems.chosen, strict=True)
    ]


def _references(folder: Path, apart_from: Path) -> dict[tuple[int, str], Path]:
    return {key: folder / name for name in sorted(_below(folder, apart_from)) for key in _keys(name)}


def _most_alike(references: dict[tuple[int, str], Path], name: Path) -> Path | None:
    return next((references[key] for key in _keys(name) if key in references), None)


def _keys(name: Path) -> list[tuple[int, str]]:
    """What a photo and its reference have in common, the closest first; macOS writes accents apart from letters."""
    stem = name.with_suffix("").as_posix()
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", stem).casefold())
    return list(enumerate((name.as_posix(), stem, folded)))


def _below(folder: Path, apart_from: Path) -> list[Path]:
    """Paths of photos relative to the folder."""
    found = []
    has_results = apart_from != folder and apart_from.is_relative_to(folder)
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix.lower() not in PHOTO_SUFFIXES or any(part.startswith(".") for part in name.parts):
            continue
        if path.is_file() and not (has_results and path.is_relative_to(apart_from)):
            found.append(name)
    return found
