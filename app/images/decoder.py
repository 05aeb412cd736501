"""The killable decoder: one child process that decodes, and the parent that gives it time, memory and its death.

A photo that hangs, crashes or eats memory costs its child, never the service; the next photo gets a fresh child. The
child is a plain process that answers JSON, so nothing it says is ever unpickled, and it never sees the service's
environment (keys stand there). Files are opened here and handed over as descriptors; `confinement` says what else the
child cannot do.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from app import errors
from app.errors import Internal, RestoreError, Unavailable, Unprocessable
from app.images.confinement import Confinement
from app.images.file_opening import opened_file
from app.images.header import Header, ImageLimits, undecodable
from app.images.picture import Picture
from app.images.preview import PREVIEW_SIDE_PIXELS
from app.images.sniffing import MIME_TYPES
from app.notices import PHOTO_CHANGED, notices_of

HEADER_TIMEOUT_SECONDS = 5.0
_START_TIMEOUT_SECONDS = 60.0
_MAX_ANSWER_BYTES = 64 * 1024
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_ERRORS = (errors.NotFound, errors.TooLarge, errors.UnsupportedFormat, errors.Unprocessable, errors.Unavailable)
_PICTURE_BLOCKS = 7


class _Died(Exception):
    """The child ended, or said something that is no answer."""


class Decoder:
    """Decodes files in a child process; safe to call from any thread, one photo at a time.

    Args:
        limits: what a photo may cost.
        folder: where the nameless file for the pixels is made (the system's temporary folder when None).
        follow_links: whether a photo may be named by a symbolic link: for commands, whose user names his own files.
    """

    def __init__(self, limits: ImageLimits, folder: Path | None = None, *, follow_links: bool = False) -> None:
        self._limits = limits
        self._follow_links = follow_links
        self._folder = folder
        self._lock = threading.Lock()
        self._closed = False
        self._child: _Child | None = None
        # One thread makes and serves every child: on Linux a child's death signal is tied to the thread that made it.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="decoder")

    def start(self) -> Confinement:
        """Start the child now, so that the first photo does not wait for it; returns what confines it."""
        child = self._submit(self._warm)
        assert isinstance(child, _Child)
        return child.confinement

    def decode(
        self, path: Path, *, as_stored: bool = False, page: int | None = None, keep_partial: bool = False
    ) -> Picture:
        """Decode the first picture of a file; `as_stored` leaves its numbers and its profile as they are.

        `page`, from 0, asks for that page of a TIFF; then nothing is noted of the others. `keep_partial` decodes what
        is there of a file that lacks pixels, with a note, instead of refusing it.

        Raises:
            RestoreError: those of `decode.decode_file`; `decode_timeout`, `file_missing`, `no_space` (disk full),
                `shutting_down` or `decoder_unavailable`.
        """
        options = {"as_stored": as_stored, "page": page, "keep_partial": keep_partial}
        request = {"do": "decode", "options": options}
        picture = self._submit(lambda: self._ask(request, [path], _read_picture))
        assert isinstance(picture, Picture)
        return picture

    def read_header(self, path: Path) -> Header:
        """Judge a file by its header, as `header.read_header` does; what takes long is refused as `decode_timeout`."""
        header = self._submit(lambda: self._ask({"do": "header"}, [path], _read_header, HEADER_TIMEOUT_SECONDS))
        assert isinstance(header, Header)
        return header

    def face_preview(self, layers: Path, result: Path, index: int, strength: float, max_side: int) -> bytes:
        """A JPEG of one kept face of a result, in the colours that the result's own profile means.

        Raises:
            RestoreError: `face_not_found`, `layers_unreadable`, or what stands at `decode`.
        """
        request = {"do": "face", "index": index, "strength": strength, "max_side": max_side}
        data = self._submit(lambda: self._ask(request, [layers, result], _read_preview))
        assert isinstance(data, bytes)
        return data

    def preview(self, path: Path, max_side: int = PREVIEW_SIDE_PIXELS, max_megapixels: float | None = None) -> bytes:
        """A JPEG of at most `max_side` pixels a side.

        `max_megapixels` says that the file is a result of our own, which may be so large: it then gets the time and
        the memory that its size needs.
        """
        request = {"do": "preview", "max_side": max_side, "max_megapixels": max_megapixels}
        share = max(1.0, (max_megapixels or 0.0) / self._limits.max_input_megapixels)
        seconds = share * self._limits.decode_timeout_seconds
        data = self._submit(lambda: self._ask(request, [path], _read_preview, seconds))
        assert isinstance(data, bytes)
        return data

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        child = self._child
        return child.process.pid if child is not None and child.process.poll() is None else None

    def close(self) -> None:
        """Kill the child; a photo being decoded ends with `shutting_down`."""
        with self._lock:
            self._closed = True
            child = self._child
        if child is not None:
            child.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        if child is not None:
            child.end()

    def _submit(self, work: Any) -> object:
        try:
            return self._thread.submit(work).result()
        except (RuntimeError, concurrent.futures.CancelledError):
            raise _shutting_down() from None

    def _warm(self) -> _Child:
        with self._lock:
            if self._closed:
                raise _shutting_down()
            if self._child is None or self._child.process.poll() is not None:
                if self._child is not None:
                    self._child.end()
                self._child = _Child(self._limits, self._folder)
            child = self._child
        child.await_ready()
        return child

    def _ask(
        self, request: dict[str, Any], paths: Sequence[Path], read: Any, timeout_seconds: float | None = None
    ) -> object:
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(opened_file(path, follow_links=self._follow_links)) for path in paths]
            return self._ask_of(files, request, read, timeout_seconds or self._limits.decode_timeout_seconds)

    def _ask_of(self, files: Sequence[int], request: dict[str, Any], read: Any, seconds: float) -> object:
        child = self._warm()
        try:
            answer = child.ask({**request, "seconds": seconds}, seconds, files)
            if "error" in answer:
                raise _as_error(answer["error"])
            return read(answer, child.file, self._limits)
        except TimeoutError:
            child.end()
            raise Unprocessable(
                "decode_timeout", "Decoding the photo took too long; save it as an ordinary JPEG or PNG and retry."
            ) from None
        except (_Died, OSError, ValueError, KeyError, TypeError):
            child.end()
            raise (_shutting_down() if self._closed else undecodable()) from None
        finally:
            child.forget()


class _Child:
    """One process with its socket for requests, its pipe for answers and its nameless file.

    `confinement` is known once it is ready.
    """

    confinement: Confinement

    def __init__(self, limits: ImageLimits, folder: Path | None) -> None:
        self.file: Any = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by end()
        root = Path(__file__).resolve().parents[2]
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # Each thread of a library would reserve address space of its own and so eat the memory limit.
        environment |= {"MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._requests, childs_end = socket.socketpair()  # descriptors can be sent through it
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.images.child"],
            stdin=childs_end.fileno(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env=environment,
            pass_fds=(self.file.fileno(),),
            bufsize=0,
            process_group=0,  # whatever it may have started is killed with it
        )
        childs_end.close()
        assert self.process.stdout is not None
        self._poll = select.poll()  # not select(): that fails once a busy server holds 1024 descriptors
        self._poll.register(self.process.stdout, select.POLLIN)
        self._ready = False
        self._setup = {"limits": dataclasses.asdict(limits), "fd": self.file.fileno(), "parent": os.getpid()}

    def await_ready(self) -> None:
        """Wait for the first word of a new child."""
        if self._ready:
            return
        try:
            self.confinement = Confinement(**self.ask(self._setup, _START_TIMEOUT_SECONDS)["confinement"])
        except (_Died, OSError, ValueError, KeyError, TypeError, TimeoutError):
            self.end()
            raise Internal(
                "decoder_unavailable", "Photos cannot be decoded now; the service's log says more."
            ) from None
        self._ready = True

    def ask(self, message: dict[str, Any], timeout_seconds: float, files: Sequence[int] = ()) -> dict[str, Any]:
        """Send one line with open files, return the answer; raises TimeoutError, or `_Died` when the pipe closes."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        socket.send_fds(self._requests, [json.dumps(message).encode() + b"\n"], list(files))
        line = b""
        while not line.endswith(b"\n"):
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(self.process.stdout.fileno(), _MAX_ANSWER_BYTES)
            line += part
            if not part or len(line) > _MAX_ANSWER_BYTES:
                raise _Died
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise _Died
        return answer

    def forget(self) -> None:
        """Give the pixels' disk space back."""
        if not self.file.closed:
            self.file.truncate(0)

    def kill(self) -> None:
        """Kill the process with its group."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill the process, reap it and close everything; safe to call again."""
        self.kill()
        self.process.wait()
        self._requests.close()
        for stream in (self.process.stdout, self.file):
            if stream is not None:
                stream.close()


def _shutting_down() -> Unavailable:
    return Unavailable("shutting_down", "The service is shutting down; try again in a minute.", retry_after_seconds=60)


def _as_error(said: dict[str, Any]) -> RestoreError:
    kind = next((kind for kind in _ERRORS if kind.status == said["status"]), Unprocessable)
    return kind(str(said["code"]), str(said["detail"]))


def _read_preview(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> bytes:
    return _read_blocks(answer["sizes"], 1, 0, file)[0]


def _read_header(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> Header:
    width, height, name = int(answer["width"]), int(answer["height"]), str(answer["format"])
    if not 0 < width * height <= limits.max_input_megapixels * 1e6 or min(width, height) < 1:
        raise _Died
    page_sizes = tuple((int(page_width), int(page_height)) for page_width, page_height in answer["page_sizes"])
    if page_sizes[:1] != ((width, height),) or min(map(min, page_sizes)) < 1:
        raise _Died
    return Header(name, MIME_TYPES[name], width, height, page_sizes)


def _read_picture(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> Picture:
    """Rebuild the picture; every number is checked, for the child may have been taken over by a hostile photo."""
    width, height = int(answer["width"]), int(answer["height"])
    depth = np.dtype(np.uint16 if answer["deep"] else np.uint8)
    area = width * height
    if not 0 < area <= limits.max_input_megapixels * 1e6 or answer["source_format"] not in MIME_TYPES:
        raise _Died
    sizes = [int(size) for size in answer["sizes"]]
    if sizes[0] != area * 3 * depth.itemsize or sizes[1] not in (0, area * depth.itemsize):
        raise _Died
    rgb = np.empty((height, width, 3), depth)
    alpha = np.empty((height, width), depth) if sizes[1] else None
    _fill(rgb, file, 0)
    if alpha is not None:
        _fill(alpha, file, sizes[0])
    icc, exif, xmp, iptc, texts = _read_blocks(sizes[2:], _PICTURE_BLOCKS - 2, sizes[0] + sizes[1], file)
    dpi = tuple(float(part) for part in answer["dpi"]) if answer["dpi"] else None
    return Picture(
        rgb=rgb,
        alpha=alpha,
        grey=bool(answer["grey"]),
        icc_profile=icc or None,
        exif=exif or None,
        xmp=xmp or None,
        dpi=(dpi[0], dpi[1]) if dpi else None,
        iptc=iptc or None,
        texts=tuple((str(keyword), str(text)) for keyword, text in json.loads(texts or b"[]")),
        source_format=answer["source_format"],
        notes=notices_of(PHOTO_CHANGED, (str(note) for note in answer["notes"])),
        pages=int(answer["pages"]),
    )


def _fill(target: Any, file: BinaryIO, position: int) -> None:
    """Read straight into an array, without a copy between."""
    file.seek(position)
    view = memoryview(target).cast("B")
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise _Died
        view = view[count:]


def _read_blocks(sizes: list[int], expected: int, position: int, file: BinaryIO) -> list[bytes]:
    if len(sizes) != expected or sum(sizes) > os.fstat(file.fileno()).st_size or min(sizes) < 0:
        raise _Died
    file.seek(position)
    return [file.read(size) for size in sizes]
