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
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from app.errors import Unavailable, Unprocessable
from app.images.child_answers import (
    ChildDied,
    as_error,
    read_header,
    read_overview,
    read_picture,
    read_preview,
    read_pyramid,
)
from app.images.child_process import ChildProcess
from app.images.confinement import Confinement
from app.images.file_opening import opened_file
from app.images.header import Header, ImageLimits, undecodable
from app.images.patches import Box, Overview
from app.images.picture import Picture
from app.images.preview import PREVIEW_SIDE_PIXELS
from app.images.pyramid import Pyramid

HEADER_TIMEOUT_SECONDS = 5.0


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
        self._child: ChildProcess | None = None
        # One thread makes and serves every child: on Linux a child's death signal is tied to the thread that made it.
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="decoder")

    def start(self) -> Confinement:
        """Start the child now, so that the first photo does not wait for it; returns what confines it."""
        child = self._submit(self._warm)
        assert isinstance(child, ChildProcess)
        return child.confinement

    def decode(
        self,
        path: Path,
        *,
        as_stored: bool = False,
        page: int | None = None,
        keep_partial: bool = False,
        rotate: int = 0,
    ) -> Picture:
        """Decode the first picture of a file; `as_stored` leaves its numbers and its profile as they are.

        `page`, from 0, asks for that page of a TIFF; then nothing is noted of the others. `keep_partial` decodes what
        is there of a file that lacks pixels, with a note, instead of refusing it. `rotate` turns the upright picture
        by so many degrees clockwise.

        Raises:
            RestoreError: those of `decode.decode_file`; `decode_timeout`, `file_missing`, `no_space` (disk full),
                `shutting_down`, `decoder_unavailable`, or `decoder_out_of_memory` (somebody killed the child).
        """
        options = {"as_stored": as_stored, "page": page, "keep_partial": keep_partial, "rotate": rotate}
        request = {"do": "decode", "options": options}
        picture = self._submit(lambda: self._ask(request, [path], read_picture))
        assert isinstance(picture, Picture)
        return picture

    def overview(self, path: Path, *, keep_partial: bool = False, rotate: int = 0) -> Overview:
        """The photo reduced, with its own size; arguments and errors as those of `decode`."""
        request = {"do": "overview", "options": {"keep_partial": keep_partial, "rotate": rotate}}
        overview = self._submit(lambda: self._ask(request, [path], read_overview))
        assert isinstance(overview, Overview)
        return overview

    def window(self, path: Path, box: Box, *, keep_partial: bool = False, rotate: int = 0) -> Picture:
        """The part of a photo that lies in the box, without metadata; arguments and errors as those of `decode`."""
        options = {"keep_partial": keep_partial, "rotate": rotate}
        request = {"do": "window", "options": options, "box": dataclasses.astuple(box)}
        picture = self._submit(lambda: self._ask(request, [path], read_picture))
        assert isinstance(picture, Picture)
        return picture

    def read_header(self, path: Path) -> Header:
        """Judge a file by its header, as `header.read_header` does; what takes long is refused as `decode_timeout`."""
        header = self._submit(lambda: self._ask({"do": "header"}, [path], read_header, HEADER_TIMEOUT_SECONDS))
        assert isinstance(header, Header)
        return header

    def face_preview(self, layers: Path, result: Path, index: int, strength: float, max_side: int) -> bytes:
        """A JPEG of one kept face of a result, in the colours that the result's own profile means.

        Raises:
            RestoreError: `face_not_found`, `layers_unreadable`, or what stands at `decode`.
        """
        request = {"do": "face", "index": index, "strength": strength, "max_side": max_side}
        data = self._submit(lambda: self._ask(request, [layers, result], read_preview))
        assert isinstance(data, bytes)
        return data

    def preview(
        self,
        path: Path,
        max_side: int = PREVIEW_SIDE_PIXELS,
        max_megapixels: float | None = None,
        *,
        rotate: int = 0,
    ) -> bytes:
        """A JPEG of at most `max_side` pixels a side, of a photo turned by `rotate` degrees clockwise.

        `max_megapixels` says that the file is a result of our own, which may be so large: it then gets the time and
        the memory that its size needs.
        """
        request = {"do": "preview", "max_side": max_side, "max_megapixels": max_megapixels, "rotate": rotate}
        share = max(1.0, (max_megapixels or 0.0) / self._limits.max_input_megapixels)
        seconds = share * self._limits.decode_timeout_seconds
        data = self._submit(lambda: self._ask(request, [path], read_preview, seconds))
        assert isinstance(data, bytes)
        return data

    def pyramid(self, path: Path, *, of_result: bool, rotate: int = 0) -> Pyramid:
        """The tiles of a photo turned by `rotate` degrees clockwise, or of our own result. Whoever asked closes it.

        It lies in a nameless file in this decoder's folder, and goes with the process at the latest.

        Raises:
            RestoreError: `no_tiles` without libvips, or what stands at `decode`.
        """

        def read(answer: dict[str, Any], file: BinaryIO, limits: ImageLimits) -> Pyramid:
            return read_pyramid(answer, file, limits, self._folder)

        found = self._submit(lambda: self._ask({"do": "pyramid", "result": of_result, "rotate": rotate}, [path], read))
        assert isinstance(found, Pyramid)
        return found

    def tile_preview(self, pyramid: Pyramid, max_side: int) -> bytes:
        """A JPEG of at most `max_side` pixels a side, from the tiles of a picture that was cut up already.

        Raises:
            RestoreError: `result_not_found` once the pyramid is closed, or what stands at `decode`.
        """
        tiles = pyramid.rows(pyramid.smallest_level(max_side))
        sizes = [[len(tile) for tile in row] for row in tiles]
        blocks = [tile for row in tiles for tile in row]
        request = {"do": "tile_preview", "tiles": sizes, "max_side": max_side}
        seconds = self._limits.decode_timeout_seconds
        data = self._submit(lambda: self._ask_of([], request, read_preview, seconds, blocks))
        assert isinstance(data, bytes)
        return data

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, or None while there is none."""
        child = self._child
        return child.process.pid if child is not None and child.process.poll() is None else None

    def rest(self) -> None:
        """End the child; the next photo gets a fresh one."""
        self._submit(self._end_child)

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
            raise shutting_down() from None

    def _end_child(self) -> None:
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.end()

    def _warm(self) -> ChildProcess:
        with self._lock:
            if self._closed:
                raise shutting_down()
            if self._child is None or self._child.process.poll() is not None:
                if self._child is not None:
                    self._child.end()
                self._child = ChildProcess(self._limits, self._folder)
            child = self._child
        child.await_ready()
        return child

    def _ask(
        self, request: dict[str, Any], paths: Sequence[Path], read: Any, timeout_seconds: float | None = None
    ) -> object:
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(opened_file(path, follow_links=self._follow_links)) for path in paths]
            return self._ask_of(files, request, read, timeout_seconds or self._limits.decode_timeout_seconds)

    def _ask_of(
        self, files: Sequence[int], request: dict[str, Any], read: Any, seconds: float, blocks: Sequence[bytes] = ()
    ) -> object:
        """Ask the child; `blocks` are put into its file before, for requests that bring their bytes along."""
        child = self._warm()
        try:
            child.put(blocks)
            answer = child.ask({**request, "seconds": seconds}, seconds, files)
            if "error" in answer:
                raise as_error(answer["error"])
            return read(answer, child.file, self._limits)
        except TimeoutError:
            child.end()
            raise Unprocessable(
                "decode_timeout", "Decoding the photo took too long; save it as an ordinary JPEG or PNG and retry."
            ) from None
        except (ChildDied, OSError, ValueError, KeyError, TypeError):
            killed = child.was_killed()
            child.end()
            if self._closed:
                raise shutting_down() from None
            raise (_out_of_memory() if killed else undecodable()) from None
        finally:
            child.forget()


def _out_of_memory() -> Unavailable:
    return Unavailable(
        "decoder_out_of_memory",
        "The system ended the decoder while it read this photo, most likely because memory ran out; "
        "try again later or with a smaller photo.",
    )


def shutting_down() -> Unavailable:
    """`shutting_down`: what ends with the process."""
    return Unavailable("shutting_down", "The service is shutting down; try again in a minute.", retry_after_seconds=60)
