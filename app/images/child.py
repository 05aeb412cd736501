"""The decoding child: reads requests from stdin, decodes, and puts pixels into a file it inherited.

It runs in a process of its own, with a memory limit and an empty environment, and dies with its parent. It answers one
JSON line a request; everything large goes through the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import AvifImagePlugin

from app.errors import NotFound, RestoreError, Unavailable
from app.images.decode import DecodeOptions, decode_file
from app.images.face_layers import load_layers, mix
from app.images.header import Header, ImageLimits, quiet_pillow, read_header
from app.images.picture import Picture
from app.images.preview import encode_preview, preview_file, read_profile
from app.images.result_preview import preview_result, result_memory

_MEBIBYTE = 1024 * 1024
_SET_PARENT_DEATH_SIGNAL = 1
_DECODE_THREADS = 2
_WRITE_BYTES = 64 * _MEBIBYTE
_FILE_ROOM_BYTES = 64 * _MEBIBYTE
_MAX_BYTES_PER_PIXEL = 8
_MAX_PAGE_SIZES = 1000  # an answer is one short line; far more than may be restored together
_RESULT_ROOM_BYTES = 256 * _MEBIBYTE


def main() -> None:
    """Take the setup from the first line of stdin, say ready, then answer requests until stdin closes."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not break the protocol
    setup = json.loads(sys.stdin.readline())
    limits = ImageLimits(**setup["limits"])
    _die_with(setup["parent"])
    _limit_resources(limits)
    quiet_pillow()
    cv2.setNumThreads(_DECODE_THREADS)
    AvifImagePlugin.DEFAULT_MAX_THREADS = _DECODE_THREADS
    _say(answers, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _limit_cpu(request["seconds"])
        _say(answers, _answer(request, setup["fd"], limits))


def _say(answers: io.TextIOBase | Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _die_with(parent: int) -> None:
    """Die at once when the parent is killed (Linux); elsewhere the closed stdin ends the child after its request."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _limit_resources(limits: ImageLimits) -> None:
    """Memory: what is mapped now plus the photo's share. Files: what the largest picture takes. Core dumps: none."""
    size = int(limits.max_input_megapixels * 1e6) * _MAX_BYTES_PER_PIXEL + _FILE_ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _set_memory(limits.decode_memory_mb * _MEBIBYTE)


def _set_memory(more_bytes: int) -> None:
    """Limit the address space to what is mapped now and so much more (Linux)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))


@contextlib.contextmanager
def _allow_memory(needed_bytes: int) -> Iterator[None]:
    """Allow more than a photo may take, for a while, where a result of our own needs it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] != resource.RLIM_INFINITY and needed_bytes + _RESULT_ROOM_BYTES > before[0]:
        _set_memory(needed_bytes + _RESULT_ROOM_BYTES)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _limit_cpu(seconds: float) -> None:
    """Processor time for one request: what its wall time allows to all threads; the parent's clock ends it before."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    allowed = math.ceil(used.ru_utime + used.ru_stime + _DECODE_THREADS * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _answer(request: dict[str, Any], fd: int, limits: ImageLimits) -> dict[str, Any]:
    """Do one request. An expected failure is an answer; a file too large for the disk is the machine's fault."""
    try:
        path = Path(request["path"])
        if request["do"] == "decode":
            return _send_picture(decode_file(path, limits, DecodeOptions(**request["options"])), fd)
        if request["do"] == "header":
            return _describe_header(read_header(path, limits))
        if request["do"] == "face":
            return {"sizes": _send([_face_preview(path, request)], fd)}
        if request["max_megapixels"] is not None:  # a result of our own, not a photo of somebody's
            with _allow_memory(result_memory(path)):
                return {"sizes": _send([preview_result(path, request["max_side"])], fd)}
        return {"sizes": _send([preview_file(path, limits, request["max_side"])], fd)}
    except RestoreError as error:
        return _failure(error)
    except FileNotFoundError:
        return _failure(NotFound("file_missing", "The photo's file is no longer here; upload it again."))
    except OSError:
        return _failure(Unavailable("no_space", "There is no room to decode a photo now; try again later."))


def _describe_header(header: Header) -> dict[str, Any]:
    return {
        "format": header.format,
        "width": header.width,
        "height": header.height,
        "page_sizes": header.page_sizes[:_MAX_PAGE_SIZES],
    }


def _face_preview(path: Path, request: dict[str, Any]) -> bytes:
    """One kept face, blended at its strength; the layers are in the colours of the result's profile."""
    found = load_layers(path, request["index"])
    if not found:
        raise NotFound("face_not_found", "This result has no such restored face.")
    region = found[0].before.copy()
    mix(region, found[0].restored, found[0].mask, request["strength"])
    profile = read_profile(Path(request["result"]))
    return encode_preview(Picture(region, icc_profile=profile), request["max_side"])


def _failure(error: RestoreError) -> dict[str, Any]:
    return {"error": {"status": error.status, "code": error.code, "detail": error.detail}}


def _send_picture(picture: Picture, fd: int) -> dict[str, Any]:
    blocks: list[Any] = [picture.rgb]
    blocks += [block if block is not None else b"" for block in (picture.alpha, picture.icc_profile)]
    blocks += [picture.exif or b"", picture.xmp or b"", picture.iptc or b""]
    blocks += [json.dumps(picture.texts).encode() if picture.texts else b""]
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
