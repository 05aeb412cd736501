"""Finds the photos of a restore run and decides where each result goes and whether it is already there.

It looks at names and times only; what is inside a file is judged later.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

from app.errors import BadRequest, Conflict
from app.options import RestoreOptions

PHOTO_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .webp .tif .tiff .bmp .avif .heic .heif".split()  # noqa: SIM905 - reads better
)
_FORMAT_OF_SUFFIX = {
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".png": "png",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
}
_EXTENSIONS = {"jpg": ("jpg",), "png": ("png",), "webp": ("webp",), "tiff": ("tif",), "avif": ("avif",)}
_ALL_EXTENSIONS = ("jpg", "png", "webp", "tif", "avif")


@dataclasses.dataclass(frozen=True)
class RestoreTask:
    """One photo and its place: the result is `folder/stem.EXTENSION`, or exactly `exact` when the user named a file."""

    source: Path
    label: str
    folder: Path
    stem: str
    output_format: str
    exact: Path | None = None

    def result(self, extension: str) -> Path:
        """Where the result goes, once the format is known."""
        return self.exact or self.folder / f"{self.stem}.{extension}"

    def is_done(self) -> bool:
        """Whether a result is there that is not older than the photo."""
        changed = self.source.stat().st_mtime
        extensions = _EXTENSIONS.get(self.output_format, _ALL_EXTENSIONS)
        places = [self.exact] if self.exact else [self.result(extension) for extension in extensions]
        return any(place.is_file() and place.stat().st_mtime >= changed for place in places)


def find_tasks(source: Path, target: Path, options: RestoreOptions) -> list[RestoreTask]:
    """All photos of `source`, in order of their names, with their places in `target`.

    Raises:
        BadRequest: `no_such_file`, or `format_mismatch` when OUT's ending says something else than --output-format.
        Conflict: `would_overwrite` when a result would take the place of a photo.
    """
    if source.is_dir():
        tasks = _folder_tasks(source, target, options)
    elif source.is_file():
        tasks = [_file_task(source, target, options)]
    else:
        raise BadRequest("no_such_file", f"There is no file or folder {source}.")
    for task in tasks:
        _refuse_overwriting(task)
    return tasks


def _file_task(source: Path, target: Path, options: RestoreOptions) -> RestoreTask:
    suffix = target.suffix.lower()
    if target.is_dir() or suffix not in _FORMAT_OF_SUFFIX:
        return RestoreTask(source, source.name, target, source.stem, options.output_format)
    named = _FORMAT_OF_SUFFIX[suffix]
    if options.output_format not in ("auto", named):
        raise BadRequest(
            "format_mismatch",
            f"OUT ends in {suffix} but --output-format is {options.output_format}; leave one of them out.",
        )
    return RestoreTask(source, source.name, target.parent, target.stem, named, exact=target)


def _folder_tasks(source: Path, target: Path, options: RestoreOptions) -> list[RestoreTask]:
    """The photos below a folder, with the same folders below `target`; `target` and hidden names are left out."""
    if target.is_file():
        raise BadRequest("format_mismatch", f"{source.name} is a folder, so OUT must be a folder too.")
    names = [path.relative_to(source) for path in sorted(source.rglob("*")) if _is_photo(path, source, target)]
    sharing = Counter(str(name.with_suffix("")).lower() for name in names)
    return [
        RestoreTask(
            source / name,
            str(name),
            target / name.parent,
            name.stem if sharing[str(name.with_suffix("")).lower()] == 1 else f"{name.stem}_{name.suffix[1:]}",
            options.output_format,
        )
        for name in names
    ]


def _is_photo(path: Path, source: Path, target: Path) -> bool:
    if path.suffix.lower() not in PHOTO_SUFFIXES or any(
        part.startswith(".") for part in path.relative_to(source).parts
    ):
        return False
    is_result = target != source and path.is_relative_to(target)
    return path.is_file() and not is_result


def _refuse_overwriting(task: RestoreTask) -> None:
    places = [task.exact] if task.exact else [task.result(extension) for extension in _ALL_EXTENSIONS]
    if task.source.resolve() in {place.resolve() for place in places}:
        raise Conflict("would_overwrite", f"The result of {task.label} would take its own place; choose another OUT.")
