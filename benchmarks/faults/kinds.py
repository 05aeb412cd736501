"""The kinds of faults: what each does to a running service, and which ends of photos are documented for it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from benchmarks.stand_in_service import StandInService
from benchmarks.wall_clock import MovableClock

_DAY_SECONDS, _CLOSE_SECONDS = 86_400, 600
_DISK_MEGABYTES = 48
_MEGABYTE = 1 << 20
_ROOMS_LEFT_BYTES = (0, 4096, 65_536, 300_000)
_DECODE_SECONDS = 3.0
_CHILD = "app.images.child"
_FROZEN_CHILDREN = 0.7  # of the freezes; the others are of the whole server
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "AVIF")
_FORMATS_OF = {"CMYK": ("JPEG", "TIFF"), "RGBA": ("PNG", "WEBP", "TIFF", "AVIF")}  # the other modes go into all
_QUICK: Mapping[str, Mapping[str, Any]] = {
    "PNG": {"compress_level": 1},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"method": 0, "quality": 20},
    "AVIF": {"speed": 10, "quality": 20},
    "JPEG": {"progressive": True},
}
_HOLD_THE_DATABASE = """
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
time.sleep(float(sys.argv[2]))
held.execute("ROLLBACK")
"""

Strike = Callable[[StandInService, random.Random], None]  # begins the fault, holds it for a moment, and lifts it


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """Where a service lives (None: anywhere), with which variables, and how the fault strikes there."""

    strike: Strike
    parent: Path | None = None
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


def small_photo(chance: random.Random) -> bytes:
    """A photo of grain alone, of any format."""
    side = chance.randint(40, 400)
    pixels = np.random.default_rng(chance.getrandbits(32)).integers(0, 256, (side, side + 7, 3), np.uint8)
    return _saved(Image.fromarray(pixels), chance.choice(_FORMATS))


def hungry_photo(chance: random.Random) -> bytes:
    """A photo of few bytes whose pixels take about as much memory as a photo may."""
    mode = chance.choice(("RGB", "RGBA", "L", "CMYK"))
    name = chance.choice(_FORMATS_OF.get(mode, _FORMATS))
    return hungry_photo_of(chance.randint(4_000_000, 39_000_000), chance.randint(3000, 8000), mode, name)


def hungry_photo_of(pixels: int, width: int, mode: str, name: str) -> bytes:
    """A photo of so many pixels, of a mode and a format of Pillow's, that takes few bytes."""
    return _saved(Image.linear_gradient("L").resize((width, pixels // width)).convert(mode), name)


def _saved(image: Image.Image, name: str) -> bytes:
    target = io.BytesIO()
    image.save(target, name, **_QUICK[name])
    return target.getvalue()


@contextlib.contextmanager
def small_disk() -> Iterator[Surroundings]:
    """A disk of a few megabytes, which is filled for a moment (as root, on Linux)."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MEGABYTES}m", "nir-faults", name], check=True)
        try:
            yield Surroundings(functools.partial(_fill, Path(name)), Path(name))
        finally:
            subprocess.run(["umount", "-l", name], check=True)


def _fill(disk: Path, service: StandInService, chance: random.Random) -> None:
    """Fill the disk up to a few bytes, wait, and make room again."""
    ballast = disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            with contextlib.suppress(OSError):
                while file.write(bytes(_MEGABYTE)):
                    pass
            file.truncate(max(0, file.tell() - chance.choice(_ROOMS_LEFT_BYTES)))
        time.sleep(chance.uniform(0.5, 3.0))
    finally:
        ballast.unlink()


@contextlib.contextmanager
def hungry_photos() -> Iterator[Surroundings]:
    """The fault lies in the photos: they need more memory than the decoder's child may take."""
    yield Surroundings(lambda service, chance: None)


@contextlib.contextmanager
def freezes() -> Iterator[Surroundings]:
    """SIGSTOP: one of the decoder's children for longer than a photo may take, or the server for a moment."""

    def freeze(service: StandInService, chance: random.Random) -> None:
        children = [child for child in psutil.Process(service.pid).children() if _CHILD in child.cmdline()]
        if children and chance.random() < _FROZEN_CHILDREN:
            _stop(chance.choice(children).pid, _DECODE_SECONDS + chance.uniform(0.5, 2.0))
        else:
            _stop(service.pid, chance.uniform(0.5, 5.0))

    yield Surroundings(freeze)


def _stop(pid: int, seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):  # the service has ended the child meanwhile
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def movable_clock() -> Iterator[Surroundings]:
    """A wall clock that jumps by a day, either way."""
    with tempfile.TemporaryDirectory() as name:
        clock = MovableClock(Path(name))
        ahead_seconds = 0

        def jump(service: StandInService, chance: random.Random) -> None:
            nonlocal ahead_seconds
            ahead_seconds += chance.choice((-1, 1)) * _DAY_SECONDS
            clock.move_to(ahead_seconds)
            time.sleep(chance.uniform(1.5, 4.0))  # the header below is as old as a second
            told = service.client.get("/health/live").headers["date"]
            off = parsedate_to_datetime(told).timestamp() - time.time() - ahead_seconds
            if abs(off) > _CLOSE_SECONDS:
                raise RuntimeError(f"the service's clock did not move: it says {told}")

        yield Surroundings(jump, environment=clock.environment)


@contextlib.contextmanager
def locked_database() -> Iterator[Surroundings]:
    """Another process's transaction, for shorter or longer than the service waits for it."""

    def lock(service: StandInService, chance: random.Random) -> None:
        database, seconds = str(service.folder / "jobs.sqlite3"), str(chance.uniform(0.5, 12.0))
        subprocess.run([sys.executable, "-c", _HOLD_THE_DATABASE, database, seconds], check=True)

    yield Surroundings(lock)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        surroundings: what has to be there for it.
        refusals: codes with which a submit may be refused meanwhile.
        failures: codes with which an accepted photo may fail.
        settings: of the service.
        photo: makes what is sent.
        may_expire: whether a photo that has ended may be gone when it is asked for.
    """

    surroundings: Callable[[], contextlib.AbstractContextManager[Surroundings]]
    refusals: frozenset[str] = frozenset()
    failures: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    photo: Callable[[random.Random], bytes] = small_photo
    may_expire: bool = False


_FULL, _TOO_SLOW = frozenset(("storage_full", "no_space")), frozenset(("decode_timeout",))
_EAGER_JANITOR = {"janitor_interval_minutes": 0.02}
KINDS: Mapping[str, Kind] = {
    "disk": Kind(small_disk, _FULL, _FULL, _EAGER_JANITOR),
    "memory": Kind(hungry_photos, frozenset(), frozenset(("decode_memory",)), {"decode_memory_mb": 256}, hungry_photo),
    "hang": Kind(freezes, _TOO_SLOW, _TOO_SLOW, {"decode_timeout_seconds": _DECODE_SECONDS}),
    "clock": Kind(movable_clock, settings=_EAGER_JANITOR, may_expire=True),
    "locked": Kind(locked_database, frozenset(("database_busy",))),
}
