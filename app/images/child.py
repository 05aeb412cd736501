"""The decoding child: takes requests from a socket, decodes, and puts pixels into a file it inherited.

It runs in a process of its own, confined (`confinement`) and with an empty environment, and dies with its parent.
Photos come as open descriptors beside the request. It answers one JSON line a request; everything large goes through
the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import AvifImagePlugin

from app.errors import NotFound, RestoreError, Unavailable
from app.images.confinement import DECODE_THREADS, MEBIBYTE, confine, die_with_parent, limit_cpu, set_memory
from app.images.decode import DecodeOptions, decode_file
from app.images.face_layers import load_layers, mix
from app.images.file_preview import preview_file, preview_part
from app.images.header import Header, ImageLimits, quiet_pillow, read_header
from app.images.patch_decoding import cut_window, make_overview
from app.images.patches import Box, Overview
from app.images.picture import Picture
from app.images.result_preview import preview_result, result_memory

_WRITE_BYTES = 64 * MEBIBYTE
_MAX_REQUEST_BYTES = 64 * 1024
_MAX_FILES = 2
_MAX_PAGE_SIZES = 1000  # an answer is one short line; far more than may be restored together
_RESULT_ROOM_BYTES = 256 * MEBIBYTE


def main() -> None:
    """Take the setup from the socket that stdin is, say what confines us, then answer requests until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not break the protocol
    requests = socket.socket(fileno=0)
    setup, _ = _receive(requests)
    limits = ImageLimits(**setup["limits"])
    _die_with(setup["parent"])
    quiet_pillow()
    cv2.setNumThreads(DECODE_THREADS)
    AvifImagePlugin.DEFAULT_MAX_THREADS = DECODE_THREADS
    _say(answers, {"ready": True, "confinement": dataclasses.asdict(confine(limits))})
    while True:
        request, files = _receive(requests)
        try:
            limit_cpu(request["seconds"])
            answer = _answer(request, [_path_of(file) for file in files], setup["fd"], limits)
        finally:
            for file in files:
                os.close(file)
        _say(answers, answer)


def _receive(requests: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request, one line, and the descriptors that came with it; ends the process when the parent has gone."""
    line, files = b"", list[int]()
    while not line.endswith(b"\n"):
        part, descriptors, _, _ = socket.recv_fds(requests, _MAX_REQUEST_BYTES, _MAX_FILES)
        if not part:
            sys.exit()
        line += part
        files += descriptors
    request = json.loads(line)
    assert isinstance(request, dict)
    return request, files


def _path_of(file: int) -> Path:
    """A name that opens this descriptor's file once more, from its start, whatever stands under its own name now."""
    if sys.platform == "darwin":  # opened there, /dev/fd would share one position between all who read
        return Path(os.fsdecode(fcntl.fcntl(file, fcntl.F_GETPATH, bytes(1024)).rstrip(b"\0")))
    return Path(f"/dev/fd/{file}")


def _say(answers: io.TextIOBase | Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _die_with(parent: int) -> None:
    """Die at once when the parent is killed (Linux); elsewhere the closed socket ends the child after its request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def _allow_memory(needed_bytes: int) -> Iterator[None]:
    """Allow more than a photo may take, for a while, where a result of our own needs it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] != resource.RLIM_INFINITY and needed_bytes + _RESULT_ROOM_BYTES > before[0]:
        set_memory(needed_bytes + _RESULT_ROOM_BYTES)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _answer(request: dict[str, Any], files: Sequence[Path], fd: int, limits: ImageLimits) -> dict[str, Any]:
    """Do one request. An expected failure is an answer; a file too large for the disk is the machine's fault."""
    try:
        path = files[0]
        if request["do"] == "decode":
            return _send_picture(decode_file(path, limits, DecodeOptions(**request["options"])), fd)
        if request["do"] == "overview":
            return _send_overview(make_overview(path, limits, DecodeOptions(**request["options"])), fd)
        if request["do"] == "window":
            box, options = Box(*request["box"]), DecodeOptions(**request["options"])
            return _send_picture(cut_window(path, limits, options, box), fd)
        if request["do"] == "header":
            return _describe_header(read_header(path, limits))
        if request["do"] == "face":
            return {"sizes": _send([_face_preview(path, files[1], request)], fd)}
        if request["do"] == "pyramid":
            return _write_pyramid(path, request["result"], fd, limits)
        if request["max_megapixels"] is not None:  # a result of our own, not a photo of somebody's
            with _allow_memory(result_memory(path)):
                return {"sizes": _send([preview_result(path, request["max_side"])], fd)}
        return {"sizes": _send([preview_file(path, limits, request["max_side"], request["rotate"])], fd)}
    except RestoreError as error:
        return _failure(error)
    except OSError:
        return _failure(Unavailable("no_space", "There is no room to decode a photo now; try again later."))


def _write_pyramid(path: Path, of_result: bool, fd: int, limits: ImageLimits) -> dict[str, Any]:
    """Loads its module and libvips only now: most children never make one."""
    from app.images import pyramid_writing

    if not of_result:
        return dict(pyramid_writing.write_photo_pyramid(path, limits, fd))
    with _allow_memory(pyramid_writing.pyramid_memory(path)):
        return dict(pyramid_writing.write_result_pyramid(path, fd))


def _describe_header(header: Header) -> dict[str, Any]:
    return {
        "format": header.format,
        "width": header.width,
        "height": header.height,
        "page_sizes": header.page_sizes[:_MAX_PAGE_SIZES],
    }


def _face_preview(layers: Path, result: Path, request: dict[str, Any]) -> bytes:
    """One kept face, blended at its strength; the layers are in the colours of the result's profile."""
    found = load_layers(layers, request["index"])
    if not found:
        raise NotFound("face_not_found", "This result has no such restored face.")
    region = found[0].before.copy()
    mix(region, found[0].restored, found[0].mask, request["strength"])
    return preview_part(region, result, request["max_side"])


def _failure(error: RestoreError) -> dict[str, Any]:
    return {"error": {"status": error.status, "code": error.code, "detail": error.detail}}


def _send_picture(picture: Picture, fd: int) -> dict[str, Any]:
    blocks: list[Any] = [picture.rgb]
    blocks += [block if block is not None else b"" for block in (picture.alpha, picture.icc_profile)]
    blocks += [picture.exif or b"", picture.xmp or b"", picture.iptc or b""]
    blocks += [json.dumps(picture.texts).encode() if picture.texts else b""]
    blocks += [picture.srgb_table if picture.srgb_table is not None else b""]
    return {
        "sizes": _send(blocks, fd),
        "width": picture.width,
        "height": picture.height,
        "deep": picture.rgb.dtype == np.uint16,
        "grey": picture.grey,
        "dpi": picture.dpi,
        "source_format": picture.source_format,
        "pages": picture.pages,
        "notes": [notice.message for notice in picture.notes],
    }


def _send_overview(overview: Overview, fd: int) -> dict[str, Any]:
    facts = {"photo": [overview.width, overview.height], "colourless": overview.colourless}
    return {**_send_picture(overview.small, fd), **facts}


def _send(blocks: Sequence[Any], fd: int) -> list[int]:
    """Write blocks one after another from the start of the file; returns their sizes in bytes."""
    sizes, position = [], 0
    for block in blocks:
        view = memoryview(block).cast("B") if len(block) else memoryview(b"")
        sizes.append(len(view))
        while view:
            written = os.pwrite(fd, view[:_WRITE_BYTES], position)
            position += written
            view = view[written:]
    return sizes


if __name__ == "__main__":
    main()
