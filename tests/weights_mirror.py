"""A loopback server that holds weight files as a release page does: ranges, validators, and what can go wrong there.

What it does wrong is chosen by the first folder of the path: `missing`, `evil` (other bytes), `long`, `short`,
`no-range`, `shifted` (another part than asked), `cut` (the first answer ends early), `slow` (waits for `gate` halfway).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.restoration.models import weights
from app.restoration.models.weights import WeightFile

CUT_BYTES = 700_000


class WeightsMirror:
    """The server's state: files by name, the validator it gives, and the Range and If-Range of each request."""

    def __init__(self, files: dict[str, bytes], address: str = "") -> None:
        self.files, self.address, self.etag = files, address, '"first"'
        self.ranges: list[str | None] = []
        self.conditions: list[str | None] = []
        self.gate, self.halfway = threading.Event(), threading.Event()


def let_official(monkeypatch: pytest.MonkeyPatch, *rows: WeightFile) -> None:
    """Let the manifest mean these rows by their names."""
    changed = {row.file: row for row in rows}
    monkeypatch.setattr(weights, "MANIFEST", tuple(changed.get(row.file, row) for row in weights.MANIFEST))


def put_conversion(folder: Path, row: WeightFile) -> Path:
    """A whole conversion of an official file into safetensors, as far as its marks say; it holds no tensors."""
    data = b"tensors"
    marks = {"source_sha256": row.sha256, "data_sha256": hashlib.sha256(data).hexdigest()}
    header = json.dumps({"__metadata__": marks}).encode()
    path = folder / Path(row.file).with_suffix(".safetensors")
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


@contextlib.contextmanager
def serving_weights(files: dict[str, bytes]) -> Iterator[WeightsMirror]:
    """A mirror of these files in a thread, until the end of the block."""
    mirror = WeightsMirror(files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, mirror)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    mirror.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield mirror
    finally:
        mirror.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(request: BaseHTTPRequestHandler, mirror: WeightsMirror) -> None:
    kind, name = request.path.split("/")[1], request.path.rsplit("/", 1)[1]
    asked, condition = request.headers.get("Range"), request.headers.get("If-Range")
    mirror.ranges.append(asked)
    mirror.conditions.append(condition)
    if kind == "missing" or name not in mirror.files:
        request.send_error(404)
        return
    good = mirror.files[name]
    body = {"evil": b"x" * len(good), "long": good + b"more", "short": good[:-5]}.get(kind, good)
    is_current = condition in (None, mirror.etag)
    start = int(asked[6:-1]) if asked and is_current and kind != "no-range" else 0
    request.send_response(206 if start else 200)
    request.send_header("ETag", mirror.etag)
    request.send_header("Content-Length", str(len(body) - start))
    if start:
        told = start + 1 if kind == "shifted" else start
        request.send_header("Content-Range", f"bytes {told}-{len(body) - 1}/{len(body)}")
    request.end_headers()
    with contextlib.suppress(OSError):
        _send(request, mirror, kind, body, start)


def _send(request: BaseHTTPRequestHandler, mirror: WeightsMirror, kind: str, body: bytes, start: int) -> None:
    if kind == "cut" and not start:
        request.wfile.write(body[:CUT_BYTES])
    elif kind == "slow":
        middle = max(start, len(body) // 2)
        request.wfile.write(body[start:middle])
        request.wfile.flush()
        mirror.halfway.set()
        while not mirror.gate.wait(0.02):  # a drop now and then, so that the reader hears a cancel
            request.wfile.write(body[middle : middle + 1])
            middle = min(middle + 1, len(body) - 1)
        request.wfile.write(body[middle:])
    else:
        request.wfile.write(body[start:])
