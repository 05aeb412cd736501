"""How long it takes to blend the faces of a finished result anew: a JPEG of 12 megapixels with two large faces.

Everything is real but the restoration: rows, files, the decoding child, the encoder. Run with
`python -m benchmarks.reblend`; `--megapixels`, `--faces`, `--format` and `--rounds` change the case.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from app import images
from app.images import Decoder, ImageLimits, Picture
from app.images.face_layers import FaceLayer
from app.jobs.reblending import Reblender
from app.metrics import Metrics
from app.storage import Beside, DiskStorage, Storage, new_id
from app.store import NewPhoto, Result, SqlStore, Store

OWNER = "bench"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--faces", type=int, default=2)
    parser.add_argument("--face-side", type=int, default=1000, help="pixels in the result")
    parser.add_argument("--format", default="jpg", choices=("jpg", "png", "webp", "tiff", "avif"))
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _measure(Path(folder), asked)


def _measure(folder: Path, asked: argparse.Namespace) -> None:
    store, storage = (
        SqlStore(f"sqlite:///{folder / 'jobs.sqlite3'}"),
        DiskStorage(folder / "uploads", folder / "results"),
    )
    store.open()
    limits = ImageLimits(max_input_megapixels=400, decode_timeout_seconds=200, decode_memory_mb=9600)
    reblender = Reblender(store, storage, Decoder(limits), Metrics())
    attempt_id, name = _finished(store, storage, asked)
    seconds = []
    for step in range(asked.rounds):
        began = time.perf_counter()
        reblender.reblend(attempt_id, dict.fromkeys(range(asked.faces), step / asked.rounds))
        seconds.append(time.perf_counter() - began)
    with storage.beside(name, Beside.FACES) as kept:
        layers = kept.stat().st_size / 1e6
    print(f"first call, with the start of the decoding child: {seconds[0]:.2f} s")
    print(
        f"then: median {statistics.median(seconds[1:]):.2f} s, slowest {max(seconds[1:]):.2f} s; layers {layers:.1f} MB"
    )
    reblender.close()
    store.close()


def _finished(store: Store, storage: Storage, asked: argparse.Namespace) -> tuple[str, str]:
    """A completed attempt with its result and its layers on disk; returns its id, and the result's name."""
    height = round((asked.megapixels * 1e6 / 1.5) ** 0.5)
    picture = Picture(_photo(round(height * 1.5), height), source_format="PNG")
    photo = NewPhoto(new_id(), "0" * 64, "photo.jpg", "image/jpeg", 1, 1, 1)
    attempt = store.add_job(OWNER, [photo], f'{{"output_format": "{asked.format}"}}', "local", 9, 0.0).attempts[0]
    store.claim(attempt.id, "run", 0.0)
    layers = [_layer(picture, number, asked.face_side) for number in range(asked.faces)]
    with storage.scratch(attempt.id) as temporary:
        written = images.encode(picture, temporary, asked.format, 95, "keep")
        name = f"{attempt.id}.{written.extension}"
        storage.publish(temporary, name)
    with storage.scratch(attempt.id) as temporary:
        images.keep_layers(temporary, layers, picture, "auto")
        storage.publish_beside(temporary, name, Beside.FACES)
    rows = tuple({"index": index, "restored": True, "strength": 1.0} for index in range(asked.faces))
    facts = Result(name, written.mime, written.width, written.height, written.bytes_written, "none", 1.0, faces=rows)
    assert store.complete(attempt.id, "run", facts, 1.0)
    print(f"{written.width} x {written.height}, {written.bytes_written / 1e6:.1f} MB of {asked.format}")
    return attempt.id, name


def _photo(width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8: soft shapes with some grain, about as hard to encode as a photo."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    grainy: NDArray[np.int16] = soft + chance.integers(-6, 7, soft.shape, dtype=np.int16)
    return np.clip(grainy, 0, 255).astype(np.uint8)


def _layer(picture: Picture, index: int, side: int) -> FaceLayer:
    side = min(side, picture.width, picture.height)
    left, top = index * (picture.width - side) // 2 % max(1, picture.width - side), (picture.height - side) // 2
    before = picture.rgb[top : top + side, left : left + side].copy()
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), side // 2 - 20, 255, -1)
    return FaceLayer(index, left, top, before, before[::-1].copy(), cv2.GaussianBlur(mask, (0, 0), 8))


if __name__ == "__main__":
    main()
