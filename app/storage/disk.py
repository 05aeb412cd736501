"""Photos and results in two folders, and the order of writing that survives a crash at any moment.

A file is written under a temporary name, synced, renamed, and its folder synced; only then may a row name it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from app import atomic_files
from app.errors import NotFound
from app.storage.disk_upload import DiskUploadWriter, translate_disk_full
from app.storage.names import (
    BESIDE_PATTERN,
    ID_PATTERN,
    MASK_PATTERN,
    RESULT_PATTERN,
    Beside,
    beside_name,
    first_version,
    mark_run,
    mask_name,
    related_files,
    version_of,
)
from app.storage.protocol import FoundFile, OnBytes, OpenedFile, ignore_bytes
from app.storage.scratch import GONE, ScratchFolders, found_files, inside, remove_file


class DiskStorage:
    """The upload folder and the folder of results; see `Storage`. Symbolic links are refused.

    `marks_runs`: processes of several hosts write here, so each run publishes under a name of its own.
    """

    def __init__(
        self, upload_folder: Path, processed_folder: Path, min_free_disk_mb: int = 0, *, marks_runs: bool = False
    ) -> None:
        self._marks_runs = marks_runs
        self._folders = ScratchFolders(upload_folder, processed_folder, min_free_disk_mb)
        self._uploads, self._results = self._folders.uploads, self._folders.results

    def open_upload(self, photo_id: str) -> DiskUploadWriter:
        """See `Storage`."""
        part, final = self._folders.upload_part(photo_id), self._uploads / photo_id
        try:
            return DiskUploadWriter(part, final)
        except FileNotFoundError:  # somebody removed the folder while we run
            self._folders.make()
            return DiskUploadWriter(part, final)

    def has_upload(self, photo_id: str) -> bool:
        """See `Storage`."""
        return self._upload_path(photo_id).is_file()

    def has_result(self, result_name: str) -> bool:
        """See `Storage`."""
        return self._result_path(result_name).is_file()

    def has_beside(self, result_name: str, kind: Beside) -> bool:
        """See `Storage`."""
        return self._beside_path(result_name, kind).is_file()

    @contextlib.contextmanager
    def upload(self, photo_id: str, on_bytes: OnBytes = ignore_bytes) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._upload_path(photo_id), "photo_not_found")

    @contextlib.contextmanager
    def result(self, result_name: str) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._result_path(result_name), "result_not_found")

    @contextlib.contextmanager
    def beside(self, result_name: str, kind: Beside) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._beside_path(result_name, kind), "result_not_found")

    @contextlib.contextmanager
    def mask(self, attempt_id: str) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._mask_path(attempt_id), "mask_missing")

    def open_original(self, photo_id: str) -> OpenedFile:
        """See `Storage`."""
        return _open(self._upload_path(photo_id), "photo_not_found")

    def open_result(self, result_name: str, *, prefetch: bool = True) -> OpenedFile:
        """See `Storage`: nothing has to be fetched."""
        return _open(self._result_path(result_name), "result_not_found")

    def address(self, result_name: str, media_type: str, disposition: str) -> None:
        """See `Storage`: the service sends the files itself."""

    def address_origin(self) -> None:
        """See `Storage`."""

    def share(self, jpeg: bytes) -> AbstractContextManager[str | None]:
        """See `Storage`: nobody outside reaches these folders."""
        return contextlib.nullcontext()

    def problem(self) -> None:
        """See `Storage`: `free_disk_ok` says what there is to say."""

    def scratch(self, attempt_id: str) -> AbstractContextManager[Path]:
        """See `Storage`."""
        return self._folders.scratch(attempt_id)

    def name_of_run(self, result_name: str, run: str) -> str:
        """See `Storage`: the name itself where one process writes, one run of an attempt after the other."""
        name = self._result_path(result_name).name
        return mark_run(name, run) if self._marks_runs else name

    def publish(self, temporary: Path, result_name: str, on_bytes: OnBytes = ignore_bytes) -> None:
        """See `Storage`: sync the file, give it its final name, sync the folder."""
        _publish(temporary, self._result_path(result_name))

    def publish_beside(self, temporary: Path, result_name: str, kind: Beside, on_bytes: OnBytes = ignore_bytes) -> None:
        """See `Storage`."""
        _publish(temporary, self._beside_path(result_name, kind))

    def keep_mask(self, temporary: Path, attempt_id: str) -> None:
        """See `Storage`."""
        _publish(temporary, self._mask_path(attempt_id))

    def copy_result(self, result_name: str, copy_name: str) -> None:
        """See `Storage`: two names of one file, since a result's bytes are never written again."""
        source, target = self._result_path(result_name), self._result_path(copy_name)
        self._link(_kept(source, "result_not_found"), target)
        for kind in Beside:
            if self.has_beside(result_name, kind):
                self._link(self._beside_path(result_name, kind), self._beside_path(copy_name, kind))

    def remove_upload(self, photo_id: str) -> bool:
        """See `Storage`."""
        return remove_file(self._upload_path(photo_id))

    def remove_result(self, result_name: str) -> bool:
        """See `Storage`."""
        there = remove_file(self._result_path(result_name))
        for name in related_files(result_name) | self._marked_versions(result_name):
            if (self._results / name).is_file():
                remove_file(self._results / name)
        return there

    def remove_mask(self, attempt_id: str) -> bool:
        """See `Storage`."""
        return remove_file(self._mask_path(attempt_id))

    def remove_version(self, result_name: str) -> bool:
        """See `Storage`."""
        return remove_file(self._result_path(result_name))

    def remove_versions_before(self, result_name: str) -> None:
        """See `Storage`. Earlier ones went when the version before this one was shown."""
        for name in self._marked_versions(result_name):
            if 1 < version_of(name) < version_of(result_name):
                self.remove_version(name)
        stem, _, ending = first_version(result_name).rpartition(".")
        before = version_of(result_name) - 1
        if before > 1:
            self.remove_version(f"{stem}-v{before}.{ending}")

    def _marked_versions(self, result_name: str) -> frozenset[str]:
        """The later versions of a run's result whose names bear the marks of whoever blended them."""
        if not self._marks_runs:
            return frozenset()
        stem, _, ending = first_version(result_name).rpartition(".")
        found = (path.name for path in self._results.glob(f"{stem}-v*.{ending}"))
        return frozenset(name for name in found if RESULT_PATTERN.fullmatch(name))

    def replace_upload(self, photo_id: str, by: str) -> None:
        """See `Storage`."""
        atomic_files.rename(self._upload_path(by), self._upload_path(photo_id))

    def grace_seconds(self) -> float:
        """See `Storage`: what is open can be read to its end."""
        return 0.0

    def unnamed_since(self) -> dict[str, float]:
        """See `Storage`."""
        return {}

    def note_unnamed(self, since: Mapping[str, float]) -> None:
        """See `Storage`: nothing waits here."""

    def free_disk_ok(self) -> bool:
        """See `Storage`."""
        return self._folders.free_disk_ok()

    def iter_uploads(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return found_files(self._uploads, ID_PATTERN)

    def iter_results(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        yield from found_files(self._results, RESULT_PATTERN)
        yield from found_files(self._results, BESIDE_PATTERN)

    def iter_masks(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return found_files(self._uploads, MASK_PATTERN)

    def iter_parts(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return self._folders.iter_parts()

    def iter_local_parts(self) -> Iterator[FoundFile]:
        """See `Storage`: none of folders that other hosts write to, whose locks a file system need not show here."""
        return iter(()) if self._marks_runs else self._folders.iter_parts()

    def remove_found(self, file: FoundFile) -> bool:
        """See `Storage`. The name tells the folder."""
        for folder, pattern in (
            (self._uploads, ID_PATTERN),
            (self._results, RESULT_PATTERN),
            (self._results, BESIDE_PATTERN),
            (self._uploads, MASK_PATTERN),
        ):
            if pattern.fullmatch(file.name):
                return remove_file(folder / file.name)
        removed = self._folders.remove_part(file.name)
        if removed is None:
            raise NotFound("result_not_found", GONE)
        return removed

    def _link(self, source: Path, target: Path) -> None:
        """Another name for a file, or where the file system knows no such thing a copy; it survives a power cut.

        Made among the scratch files, where what a killed process leaves is found.
        """
        with self._folders.scratch(target.name[:32]) as part, translate_disk_full():
            part.unlink()
            try:
                os.link(source, part)
            except OSError:
                shutil.copyfile(source, part)
            atomic_files.publish(part, target)

    def _upload_path(self, photo_id: str) -> Path:
        return inside(self._uploads, photo_id, ID_PATTERN, "photo_not_found")

    def _result_path(self, result_name: str) -> Path:
        return inside(self._results, result_name, RESULT_PATTERN, "result_not_found")

    def _beside_path(self, result_name: str, kind: Beside) -> Path:
        return inside(self._results, beside_name(result_name, kind), BESIDE_PATTERN, "result_not_found")

    def _mask_path(self, attempt_id: str) -> Path:
        return inside(self._uploads, mask_name(attempt_id), MASK_PATTERN, "mask_missing")


def _publish(temporary: Path, final: Path) -> None:
    """Where that fails the scratch file stays until its block ends, since it may be published once there is room."""
    with translate_disk_full():
        atomic_files.publish(temporary, final)


def _kept(path: Path, code: str) -> Path:
    if not path.is_file():
        raise NotFound(code, GONE)
    return path


def _open(path: Path, code: str) -> OpenedFile:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(code, GONE) from None
    facts = os.fstat(file.fileno())
    return OpenedFile(file, facts.st_size, facts.st_mtime)
