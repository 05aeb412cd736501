"""The storage border: ids and bytes, whoever keeps the files. The docstrings are the contract of every implementation.

A file is lent as a local path for the time of a `with` block only, so that an implementation may fetch it from
elsewhere and drop its copy afterwards; callers keep no path. Its contract suite is `tests/test_storage_contract.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from app.storage.names import Beside

OnBytes = Callable[[], None]


def ignore_bytes() -> None:
    """The `OnBytes` of a caller whom nobody watches."""


@dataclasses.dataclass(frozen=True)
class StoredUpload:
    """A committed upload: its id, the SHA-256 of its bytes in hex, and its length."""

    id: str
    sha256: str
    bytes: int


@dataclasses.dataclass(frozen=True)
class FoundFile:
    """A file that is kept: its name, and when it was last written (epoch seconds)."""

    name: str
    modified_at: float


@dataclasses.dataclass(frozen=True)
class OpenedFile:
    """A file that is open for reading; whoever opened it closes `file`.

    A removal meanwhile does not cut it, but for a file that another server keeps, of which only the beginning is here
    yet (it may be the whole file, or nothing): where the rest cannot be had any more, reading raises, and never ends
    early without a word. `Storage.grace_seconds` says how long such a file should stay for its readers.

    Attributes:
        file: at its start, seekable.
        size: length in bytes.
        modified_at: epoch seconds.
    """

    file: BinaryIO
    size: int
    modified_at: float


class UploadWriter(Protocol):
    """One upload on its way in. Not for two threads at once; leaving the `with` block uncommitted removes it."""

    @property
    def path(self) -> Path:
        """A local file with the bytes written so far (nothing is buffered), for the header check before `commit`.

        Valid until `commit` or `abort`.
        """
        ...

    @property
    def bytes_written(self) -> int:
        """How many bytes came so far."""
        ...

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append one chunk. Raises `Unavailable` `storage_full`; nothing is left then."""
        ...

    def commit(self) -> StoredUpload:
        """Keep the upload. After the return it survives a power cut; after any error nothing is left of it."""
        ...

    def abort(self) -> None:
        """Remove what was written. Harmless after `commit` and when called twice."""
        ...

    def __enter__(self) -> Self:
        """Enter the block that owns the upload."""
        ...

    def __exit__(self, *error: object) -> None:
        """Abort, unless it was committed."""
        ...


class Storage(Protocol):
    """Uploads, the masks of attempts, results in their versions, and what lies beside them. Usable from any thread.

    Names are checked by pattern: one that is not of ours raises `NotFound` with the code of the method. A call that
    writes may raise `Unavailable` `storage_full`; any may raise `Unavailable` `storage_unavailable` where the files are
    kept by another server.
    """

    def open_upload(self, photo_id: str) -> UploadWriter:
        """Start an upload; write chunks into it, then `commit()` or `abort()`."""
        ...

    def has_upload(self, photo_id: str) -> bool:
        """Whether a committed upload is kept. Raises `NotFound` `photo_not_found` for what is no id."""
        ...

    def has_result(self, result_name: str) -> bool:
        """Whether this version of a result is kept. Raises `NotFound` `result_not_found` for a bad name."""
        ...

    def has_beside(self, result_name: str, kind: Beside) -> bool:
        """Whether this is kept beside a result. Raises `NotFound` `result_not_found` for a bad name."""
        ...

    def upload(self, photo_id: str, on_bytes: OnBytes = ignore_bytes) -> AbstractContextManager[Path]:
        """Lend an upload as a local file. Raises `NotFound` `photo_not_found` when it is not kept.

        `on_bytes` is called with every piece that comes from another server.
        """
        ...

    def result(self, result_name: str) -> AbstractContextManager[Path]:
        """Lend one version of a result as a local file. Raises `NotFound` `result_not_found` when it is not kept."""
        ...

    def beside(self, result_name: str, kind: Beside) -> AbstractContextManager[Path]:
        """Lend what is kept beside a result. Raises `NotFound` `result_not_found` when it is not."""
        ...

    def mask(self, attempt_id: str) -> AbstractContextManager[Path]:
        """Lend the mask that an attempt came with. Raises `NotFound` `mask_missing` when it is not kept."""
        ...

    def open_original(self, photo_id: str) -> OpenedFile:
        """Open an upload for sending. Raises `NotFound` `photo_not_found` when it is not kept."""
        ...

    def open_result(self, result_name: str, *, prefetch: bool = True) -> OpenedFile:
        """Open one version of a result for sending. Raises `NotFound` `result_not_found` when it is not kept.

        Without `prefetch` nothing of a file that another server keeps is held here before it is read, for those who
        open many at once.
        """
        ...

    def address(self, result_name: str, media_type: str, disposition: str) -> str | None:
        """An address on another server that serves this version of a result for some minutes, to whoever knows it.

        It is served with this `Content-Type` and `Content-Disposition`. None where results are sent by this service.
        Raises `NotFound` `result_not_found` when it is not kept.
        """
        ...

    def address_origin(self) -> str | None:
        """The origin of every `address`, for pages that show results; None where results are sent by this service."""
        ...

    def share(self, jpeg: bytes) -> AbstractContextManager[str | None]:
        """Lend a picture to a provider: an address on the public internet, valid in this block only.

        None where there is no such address, or it cannot be made just now.
        """
        ...

    def problem(self) -> str | None:
        """What is wrong with a server that keeps the files, in a sentence, as the last calls found it; asks nobody."""
        ...

    def scratch(self, attempt_id: str) -> AbstractContextManager[Path]:
        """A fresh, empty local file to write to, made for this block alone; unless published it goes at its end."""
        ...

    def name_of_run(self, result_name: str, run: str) -> str:
        """The name to publish what the run with this token (hex) made of a result.

        Where several processes may write at once it bears a mark of the run, so that a late one overwrites nothing.
        Raises `NotFound` `result_not_found` for a bad name.
        """
        ...

    def publish(self, temporary: Path, result_name: str, on_bytes: OnBytes = ignore_bytes) -> None:
        """Keep a finished scratch file under a result's name, in the place of one that has it already.

        `on_bytes` is called with every piece that went to another server, which may take minutes.
        After the return it survives a power cut; after any error the name is as it was, and the temporary is gone,
        except after `storage_unavailable`: then the same call may be made again.
        """
        ...

    def publish_beside(self, temporary: Path, result_name: str, kind: Beside, on_bytes: OnBytes = ignore_bytes) -> None:
        """The same for what is kept beside this result."""
        ...

    def keep_mask(self, temporary: Path, attempt_id: str) -> None:
        """The same for the mask of an attempt that is about to get its row. Raises `NotFound` `mask_missing`."""
        ...

    def copy_result(self, result_name: str, copy_name: str) -> None:
        """Keep a result also under the name of another attempt's, and what lies beside it likewise.

        The two are removed one by one. Raises `NotFound` `result_not_found` when it is not kept or a name is bad.
        """
        ...

    def remove_upload(self, photo_id: str) -> bool:
        """Remove an upload at once; False when it was not kept. What that means for its readers: `OpenedFile`."""
        ...

    def remove_result(self, result_name: str) -> bool:
        """Remove what one run made: all versions and what lies beside; False when this one was not kept itself.

        At once, as `remove_upload`.
        """
        ...

    def remove_mask(self, attempt_id: str) -> bool:
        """Remove the mask of an attempt; False when it was not kept."""
        ...

    def remove_version(self, result_name: str) -> bool:
        """Remove one version of a result and nothing else; False when it was not kept."""
        ...

    def remove_versions_before(self, result_name: str) -> None:
        """Remove the versions between a result's first one and this one, of which no row can be in use any more."""
        ...

    def replace_upload(self, photo_id: str, by: str) -> None:
        """Put a committed upload of the same bytes in the place of one whose file is gone."""
        ...

    def grace_seconds(self) -> float:
        """How long a file should stay once no row names it, for those who are reading it; 0 where they need none."""
        ...

    def unnamed_since(self) -> dict[str, float]:
        """What was noted last by `note_unnamed`; empty where files need no grace."""
        ...

    def note_unnamed(self, since: Mapping[str, float]) -> None:
        """Note for the next pass of the janitor, in whatever process, since when no row names a file.

        Epoch seconds by name; it takes the place of what was noted before.
        """
        ...

    def free_disk_ok(self) -> bool:
        """Whether there is more free space than the mark below which uploads are refused."""
        ...

    def iter_uploads(self) -> Iterator[FoundFile]:
        """Committed uploads. Files that do not bear our names are not ours and never listed."""
        ...

    def iter_results(self) -> Iterator[FoundFile]:
        """Published results in all their versions, and what lies beside them."""
        ...

    def iter_masks(self) -> Iterator[FoundFile]:
        """Masks of attempts, each under its attempt's id with `.mask` behind it."""
        ...

    def iter_parts(self) -> Iterator[FoundFile]:
        """Unfinished uploads and results, and what was shared."""
        ...

    def iter_local_parts(self) -> Iterator[FoundFile]:
        """Those that only this host can be writing, so that no lock is overlooked."""
        ...

    def remove_found(self, file: FoundFile) -> bool:
        """Remove a file that one of the four lists named; False when it is gone, or is a part that has a writer."""
        ...
