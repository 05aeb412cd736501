"""One weight file over the network: resumed where an earlier run stopped, checked before it gets its name.

What has arrived lies in a `.part` beside its place, with the server's validator (RFC 9110, section 8.8) in a second
file, so that bytes of two versions are never joined. The part is locked while somebody writes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from app import atomic_files
from app.errors import Conflict, Unavailable
from app.restoration.models.weights import WeightFile, sha256

OnBytes = Callable[[int, int], None]  # bytes so far, bytes in all; may raise `Cancelled`

CONNECT_TIMEOUT_SECONDS = 10.0
_BLOCK_BYTES = 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_RANGE_NOT_SATISFIABLE = 416


def fetch_weights(row: WeightFile, folder: Path, base_url: str, on_bytes: OnBytes) -> Path:
    """Fetch one file into `folder`, which is made when missing; verified before it gets its name.

    Args:
        row: what to fetch.
        folder: the weights folder.
        base_url: mirror, or empty for the origin.
        on_bytes: told how far it is; what has arrived stays when it raises `Cancelled`.

    Raises:
        Unavailable: `download_failed` (network, status, full disk) or `download_corrupt` (wrong size or hash; the
            part is removed). Conflict: `download_running` while another process fetches the same file.
    """
    part = part_of(folder, row)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(part, row) as file:
            if not _is_whole(row, file, part):
                _fetch(download_url(row, base_url), file, part, row.bytes, on_bytes)
            return _checked(row, file, part)
    except (urllib.error.URLError, OSError, HTTPException, ValueError) as error:
        raise Unavailable(
            "download_failed", f"{row.file} could not be downloaded ({_reason(error)}); try again later."
        ) from error


def download_url(row: WeightFile, base_url: str) -> str:
    """Where to fetch a file: the mirror when one is set (files lie there under their own names), else the origin."""
    return f"{base_url.rstrip('/')}/{row.file}" if base_url else row.url


def partial_bytes(folder: Path, row: WeightFile) -> int:
    """How much of a file an earlier run left to go on with."""
    try:
        return min(part_of(folder, row).stat().st_size, row.bytes)
    except OSError:
        return 0


def part_of(folder: Path, row: WeightFile) -> Path:
    """Where the bytes of a file wait until they are whole."""
    return folder / f"{row.file}.part"


def _validator_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


@contextlib.contextmanager
def _locked(part: Path, row: WeightFile) -> Iterator[BinaryIO]:
    """The part, open for appending and ours alone until the block ends."""
    while True:
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = f"{row.file} is being downloaded by another process; wait until it has ended."
                raise Conflict("download_running", text) from None
            if _is_at(file, part):  # whoever held the lock before may have given the file its name meanwhile
                try:
                    yield file
                finally:
                    _forget_empty(file, part)
                return


def _is_at(file: BinaryIO, part: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), part.stat())
    except FileNotFoundError:
        return False


def _forget_empty(file: BinaryIO, part: Path) -> None:
    if os.fstat(file.fileno()).st_size == 0 and _is_at(file, part):
        part.unlink()
        _validator_of(part).unlink(missing_ok=True)


def _is_whole(row: WeightFile, file: BinaryIO, part: Path) -> bool:
    """Whether an earlier run ended between the last byte and the name; a full part with other bytes is emptied."""
    if os.fstat(file.fileno()).st_size < row.bytes:
        return False
    if sha256(part) == row.sha256:
        return True
    file.truncate(0)
    return False


def _fetch(url: str, file: BinaryIO, part: Path, total: int, on_bytes: OnBytes) -> None:
    """Append what is missing to the part; a server that ignores Range, or has another version, makes it start over."""
    have = os.fstat(file.fileno()).st_size
    if not url.startswith(("https://", "http://")):
        raise ValueError("the address must start with https:// or http://")
    request = urllib.request.Request(url, headers=_range_headers(part, have))  # noqa: S310 - checked above
    try:
        answer = urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_SECONDS)  # noqa: S310 - checked above
    except urllib.error.HTTPError as error:
        if error.code == _RANGE_NOT_SATISFIABLE:  # what lies here is of no version that the server has
            file.truncate(0)
        raise
    with answer:
        done = have if have and answer.status == 206 else 0
        if done and not _begins_at(answer.headers.get("Content-Range", ""), done, total):
            file.truncate(0)
            raise ValueError("the server sent another part than it was asked for")
        if not done:
            file.truncate(0)
            _remember(part, answer.headers.get("ETag"), answer.headers.get("Last-Modified"))
        while block := answer.read1(_BLOCK_BYTES):  # what has come, so that a cancel is heard on a slow line too
            done += len(block)
            if done > total:
                file.truncate(0)
                raise ValueError("the server sent more than the file's size")
            file.write(block)
            on_bytes(done, total)


def _range_headers(part: Path, have: int) -> dict[str, str]:
    """What asks for the rest, only if the server's file is still the one that the part began with."""
    if not have:
        return {}
    try:
        validator = _validator_of(part).read_text(encoding="ascii")
    except (OSError, ValueError):
        validator = ""
    return {"Range": f"bytes={have}-", **({"If-Range": validator} if validator else {})}


def _remember(part: Path, etag: str | None, modified: str | None) -> None:
    """Keep the validator; a weak ETag is none for ranges (RFC 9110, section 13.1.5)."""
    validator = modified if etag is None or etag.startswith("W/") else etag
    _validator_of(part).write_text(validator or "", encoding="ascii", errors="ignore")


def _begins_at(content_range: str, start: int, total: int) -> bool:
    found = _CONTENT_RANGE.fullmatch(content_range.strip())
    return found is not None and int(found[1]) == start and found[2] in (str(total), "*")


def _checked(row: WeightFile, file: BinaryIO, part: Path) -> Path:
    """Give the part its name once it is whole; what is not whole yet stays, so that the next call goes on there."""
    file.flush()
    if os.fstat(file.fileno()).st_size < row.bytes:
        raise Unavailable("download_failed", f"The connection was cut while {row.file} came; run the download again.")
    _validator_of(part).unlink(missing_ok=True)
    if sha256(part) != row.sha256:
        part.unlink()
        raise Unavailable("download_corrupt", f"{row.file} arrived damaged and was removed; run the download again.")
    path = part.with_name(row.file)
    atomic_files.publish(part, path)
    return path


def _reason(error: Exception) -> str:
    """In few words, without a path."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    if isinstance(reason, OSError):
        reason = reason.strerror or type(reason).__name__
    return str(reason or (error if isinstance(error, ValueError) else type(error).__name__))
