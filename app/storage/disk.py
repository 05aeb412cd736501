"""Photos and results in two folders, and the order of writing that survives a crash at any moment.

A file is written under a temporary name, synced, renamed, and its folder synced; only then may a row name it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from app import atomic_files
from app.errors import NotFound
from app.storage.disk_upload import DiskUploadWriter, translate_disk_full
from app.storage.names import (
    ID_PATTERN,
    LAYERS_PATTERN,
    RESULT_PATTERN,
    first_version,
    layers_name,
    related_files,
    version_of,
)
from app.storage.protocol import FoundFile, OpenedFile

_UPLOAD_PART_PATTERN = re.compile(r"[0-9a-f]{32}\.part")
_PART_PATTERN = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}\.part")
_GONE = "There is no such file; it may have expired."
_SCRATCH = ".scratch"
_MEGABYTE = 1024 * 1024


class DiskStorage:
    """The upload folder and the folder of results; see `Storage`. Symbolic links are refused."""

    def __init__(self, upload_folder: Path, processed_folder: Path, min_free_disk_mb: int = 0) -> None:
        self._uploads = Path(upload_folder).absolute()
        self._results = Path(processed_folder).absolute()
        self._scratch = self._results / _SCRATCH
        self._min_free_bytes = min_free_disk_mb * _MEGABYTE
        self._make_folders()

    def open_upload(self, photo_id: str) -> DiskUploadWriter:
        """See `Storage`."""
        final = self._upload_path(photo_id)
        part = final.with_name(f"{photo_id}.part")
        try:
            return DiskUploadWriter(part, final)
        except FileNotFoundError:  # somebody removed the folder while we run
            self._make_folders()
            return DiskUploadWriter(part, final)

    def has_upload(self, photo_id: str) -> bool:
        """See `Storage`."""
        return self._upload_path(photo_id).is_file()

    def has_result(self, result_name: str) -> bool:
        """See `Storage`."""
        return self._result_path(result_name).is_file()

    def has_layers(self, result_name: str) -> bool:
        """See `Storage`."""
        return self._layers_path(result_name).is_file()

    @contextlib.contextmanager
    def upload(self, photo_id: str) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._upload_path(photo_id), "photo_not_found")

    @contextlib.contextmanager
    def result(self, result_name: str) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._result_path(result_name), "result_not_found")

    @contextlib.contextmanager
    def layers(self, result_name: str) -> Iterator[Path]:
        """See `Storage`. The file itself is lent, so it must not be written to."""
        yield _kept(self._layers_path(result_name), "result_not_found")

    def open_original(self, photo_id: str) -> OpenedFile:
        """See `Storage`."""
        return _open(self._upload_path(photo_id), "photo_not_found")

    def open_result(self, result_name: str) -> OpenedFile:
        """See `Storage`."""
        return _open(self._result_path(result_name), "result_not_found")

    @contextlib.contextmanager
    def scratch(self, attempt_id: str) -> Iterator[Path]:
        """See `Storage`. The name lies on the results' file system; two runs of one attempt never share it."""
        self._make_folders()
        name = f"{attempt_id}.{secrets.token_hex(4)}.part"
        temporary = self._inside(self._scratch, name, _PART_PATTERN, "result_not_found")
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def name_of_run(self, result_name: str, run: str) -> str:
        """See `Storage`: the name itself, since one process writes here, one run of an attempt after the other."""
        return self._result_path(result_name).name

    def publish(self, temporary: Path, result_name: str) -> None:
        """See `Storage`: sync the file, give it its final name, sync the folder."""
        _publish(temporary, self._result_path(result_name))

    def publish_layers(self, temporary: Path, result_name: str) -> None:
        """See `Storage`."""
        _publish(temporary, self._layers_path(result_name))

    def remove_upload(self, photo_id: str) -> bool:
        """See `Storage`."""
        return _remove(self._upload_path(photo_id))

    def remove_result(self, result_name: str) -> bool:
        """See `Storage`."""
        there = _remove(self._result_path(result_name))
        for path in (self._results / name for name in related_files(result_name)):
            if path.is_file():
                _remove(path)
        return there

    def remove_version(self, result_name: str) -> bool:
        """See `Storage`."""
        return _remove(self._result_path(result_name))

    def remove_versions_before(self, result_name: str) -> None:
        """See `Storage`. Earlier ones went when the version before this one was shown."""
        stem, _, ending = first_version(result_name).rpartition(".")
        before = version_of(result_name) - 1
        if before > 1:
            self.remove_version(f"{stem}-v{before}.{ending}")

    def replace_upload(self, photo_id: str, by: str) -> None:
        """See `Storage`."""
        atomic_files.rename(self._upload_path(by), self._upload_path(photo_id))

    def free_disk_ok(self) -> bool:
        """See `Storage`: the least of both folders' file systems counts."""
        try:
            free = min(shutil.disk_usage(folder).free for folder in (self._uploads, self._results))
        except OSError:  # a folder is gone: the next write makes it again or says why not
            return False
        return free > self._min_free_bytes

    def iter_uploads(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        return _found(self._uploads, ID_PATTERN)

    def iter_results(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        yield from _found(self._results, RESULT_PATTERN)
        yield from _found(self._results, LAYERS_PATTERN)

    def iter_parts(self) -> Iterator[FoundFile]:
        """See `Storage`."""
        yield from _found(self._uploads, _UPLOAD_PART_PATTERN)
        yield from _found(self._scratch, _PART_PATTERN)

    def remove_found(self, file: FoundFile) -> bool:
        """See `Storage`. The name tells the folder."""
        for folder, pattern in (
            (self._uploads, ID_PATTERN),
            (self._uploads, _UPLOAD_PART_PATTERN),
            (self._results, RESULT_PATTERN),
            (self._results, LAYERS_PATTERN),
            (self._scratch, _PART_PATTERN),
        ):
            if pattern.fullmatch(file.name):
                return _remove(folder / file.name)
        raise NotFound("result_not_found", _GONE)

    def _make_folders(self) -> None:
        for folder in (self._uploads, self._results, self._scratch):
            folder.mkdir(parents=True, exist_ok=True)

    def _upload_path(self, photo_id: str) -> Path:
        return self._inside(self._uploads, photo_id, ID_PATTERN, "photo_not_found")

    def _result_path(self, result_name: str) -> Path:
        return self._inside(self._results, result_name, RESULT_PATTERN, "result_not_found")

    def _layers_path(self, result_name: str) -> Path:
        return self._inside(self._results, layers_name(result_name), LAYERS_PATTERN, "result_not_found")

    def _inside(self, folder: Path, name: str, pattern: re.Pattern[str], code: str) -> Path:
        """`folder/name` once the name is one of ours, is no symbolic link and resolves to inside the folder."""
        path = folder / name if pattern.fullmatch(name) else None
        if path is None or path.is_symlink() or path.resolve().parent != folder.resolve():
            raise NotFound(code, _GONE)
        return path


def _publish(temporary: Path, final: Path) -> None:
    try:
        with translate_disk_full():
            atomic_files.publish(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _kept(path: Path, code: str) -> Path:
    if not path.is_file():
        raise NotFound(code, _GONE)
    return path


def _open(path: Path, code: str) -> OpenedFile:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFound(code, _GONE) from None
    facts = os.fstat(file.fileno())
    return OpenedFile(file, facts.st_size, facts.st_mtime)


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _found(folder: Path, pattern: re.Pattern[str]) -> Iterator[FoundFile]:
    """Regular files of the folder whose names match; a file that vanishes while we look is passed over."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(FileNotFoundError):
            facts = entry.stat(follow_symlinks=False)
            if pattern.fullmatch(entry.name) and stat.S_ISREG(facts.st_mode):
                yield FoundFile(entry.name, facts.st_mtime)
