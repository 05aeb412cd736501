"""Finds the photos of a restore run, decides where each result goes, and names every file that is left out.

A photo's ending is believed, and the decoder judges it later; where a name has no photo's ending or begins with a dot,
the file's first bytes decide. Results never share a place, and none takes the place of a photo.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from app.commands.earlier_results import RECORDS_NAME, EarlierResults, PhotoVersion
from app.errors import BadRequest, Conflict, RestoreError
from app.images import ImageLimits, read_header
from app.images.formats import FORMATS
from app.options import RestoreOptions
from app.result_names import Stems, place_of, printable

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
NOT_A_PHOTO = "not a photo that can be opened"
HIDDEN_FOLDER = "in a hidden folder"
LINKED_FOLDER = "behind a link to a folder"
NOT_A_FILE = "not a file"
UNREADABLE = "not readable"
UNFINISHED = "an unfinished file"


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
        return self.exact or place_of(self.folder, self.stem, extension)

    def is_done(self, earlier: EarlierResults) -> bool:
        """Whether a result is there that was made from the photo as it is; of an unreadable photo there is none."""
        try:
            photo = PhotoVersion.of(self.source)
            return any(earlier.is_done(place, photo) for place in self.places())
        except OSError:
            return False

    def places(self) -> list[Path]:
        """Every place that the result may get."""
        chosen = FORMATS.get(self.output_format)
        return [self.result(each.extension) for each in ([chosen] if chosen else FORMATS.values())]


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a run restores, and what it leaves out: (name for people, why), in order of the names."""

    tasks: list[RestoreTask]
    left_out: list[tuple[str, str]]


def find_tasks(
    source: Path, target: Path, options: RestoreOptions, limits: ImageLimits, *, into_folder: bool = False
) -> Selection:
    """All photos of `source`, in order of their names, with their places in `target`.

    `into_folder` says that `target` is a folder, whatever its name looks like.

    Raises:
        BadRequest: `no_such_file`; `unknown_ending` when OUT ends like a file that is not written; `format_mismatch`
            when its ending says something else than --output-format.
        Conflict: `would_overwrite` when a result would take the place of a photo.
    """
    if source.is_dir():
        selection = _folder_tasks(source, target, options, limits, into_folder)
    elif source.is_file():
        selection = Selection([_file_task(source, target, options, into_folder)], [])
    else:
        raise BadRequest("no_such_file", f"There is no file or folder {source}.")
    _refuse_overwriting(selection.tasks)
    return selection


def _file_task(source: Path, target: Path, options: RestoreOptions, into_folder: bool) -> RestoreTask:
    label, suffix = printable(source.name), target.suffix.lower()
    if into_folder or target.is_dir() or not suffix:
        return RestoreTask(source, label, target, _stem(source), options.output_format)
    named = _FORMAT_OF_SUFFIX.get(suffix)
    if named is None:
        raise BadRequest(
            "unknown_ending",
            f"OUT ends in {suffix}, and a result can be written as {', '.join(_FORMAT_OF_SUFFIX)} only; "
            "choose one of these, or end OUT with a slash if it is a folder.",
        )
    if options.output_format not in ("auto", named):
        raise BadRequest(
            "format_mismatch",
            f"OUT ends in {suffix} but --output-format is {options.output_format}; leave one of them out.",
        )
    return RestoreTask(source, label, target.parent, target.stem, named, exact=target)


def _folder_tasks(
    source: Path, target: Path, options: RestoreOptions, limits: ImageLimits, into_folder: bool
) -> Selection:
    """The photos below a folder, with the same folders below `target`, which is not searched itself."""
    looks_like_file = target.suffix.lower() in PHOTO_SUFFIXES | _FORMAT_OF_SUFFIX.keys() and not into_folder
    if target.is_file() or (looks_like_file and not target.is_dir()):
        raise BadRequest("format_mismatch", f"{source.name} is a folder, so OUT must be a folder too.")
    search = _Search(source, target, limits)
    search.run()
    stems = Stems([(target / name.parent, _stem(name), name.suffix) for name in search.photos])
    tasks = [
        RestoreTask(source / name, printable(str(name)), target / name.parent, stem, options.output_format)
        for name, stem in zip(search.photos, stems.chosen, strict=True)
    ]
    return Selection(tasks, sorted(search.left_out))


def _stem(name: Path) -> str:
    """The name without a photo's ending; a name without one is kept whole."""
    return name.stem if name.suffix.lower() in PHOTO_SUFFIXES else name.name


class _Search:
    """One look through a folder; `photos` are paths below it."""

    def __init__(self, source: Path, target: Path, limits: ImageLimits) -> None:
        self._source, self._limits = source, limits
        self._results = None if _same(source, target) else target
        self.photos: list[Path] = []
        self.left_out: list[tuple[str, str]] = []

    def run(self) -> None:
        """Look at everything; links to folders are not followed, since they could lead round and round."""
        for folder, below, names in os.walk(self._source, onerror=self._not_listed):
            below[:] = [name for name in below if self._enters(Path(folder, name))]
            for name in names:
                if name != RECORDS_NAME:
                    self._judge(Path(folder, name))
        self.photos.sort()

    def _enters(self, folder: Path) -> bool:
        if self._results is not None and _same(folder, self._results):
            return False
        reason = HIDDEN_FOLDER if folder.name.startswith(".") else LINKED_FOLDER if folder.is_symlink() else None
        if reason:
            self._leave_out(folder, reason, "/")
        return reason is None

    def _judge(self, path: Path) -> None:
        reason = self._reason(path)
        if reason is None:
            self.photos.append(path.relative_to(self._source))
        else:
            self._leave_out(path, reason)

    def _reason(self, path: Path) -> str | None:
        """Why a file is left out, or None."""
        if not path.is_file():
            return NOT_A_FILE
        if path.suffix == ".part":
            return UNFINISHED
        if path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith("."):
            return None
        try:
            read_header(path, self._limits)
        except RestoreError:
            return NOT_A_PHOTO
        except OSError:
            return UNREADABLE
        return None

    def _not_listed(self, error: OSError) -> None:
        self._leave_out(Path(error.filename), UNREADABLE, "/")

    def _leave_out(self, path: Path, reason: str, mark: str = "") -> None:
        name = path.relative_to(self._source) if path != self._source else path
        self.left_out.append((printable(str(name)) + mark, reason))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _refuse_overwriting(tasks: Sequence[RestoreTask]) -> None:
    """Compares files and not names: links and file systems that ignore case give one file several names."""
    photos = {_identity(task.source) for task in tasks}
    for task in tasks:
        if any(place.exists() and _identity(place) in photos for place in task.places()):
            raise Conflict(
                "would_overwrite", f"The result of {task.label} would take the place of a photo; choose another OUT."
            )


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino
