"""Weight files: verified before use, fetched with resume over a real (loopback) HTTP server."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.restoration.models import weights
from app.restoration.models.weights import Verdict, WeightFile, download, load_error, verify

BODY = bytes(range(256)) * 8192  # 2 MiB
ROW = dataclasses.replace(
    weights.MANIFEST[0], bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest(), url="http://127.0.0.1:9/none"
)


class Mirror(BaseHTTPRequestHandler):
    """Serves BODY under every name; what it does wrong is chosen by the first folder of the path."""

    ranges: list[str | None]

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        type(self).ranges.append(asked)
        kind = self.path.split("/")[1]
        if kind == "missing":
            self.send_error(404)
            return
        body = {"evil": b"x" * len(BODY), "long": BODY + b"more", "short": BODY[:-5]}.get(kind, BODY)
        start = int(asked[6:-1]) if asked and kind != "no-range" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = start + 700_000 if kind == "cut" and not start else len(body)
        self.wfile.write(body[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def mirror() -> Iterator[str]:
    Mirror.ranges = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def official_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(weights._BY_FILE, ROW.file, ROW)


def quiet(done: int, total: int) -> None:
    """No progress bar."""


def test_a_file_arrives_whole_and_verified(mirror: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = download(ROW, tmp_path / "new" / "weights", f"{mirror}/good/", lambda *step: told.append(step))
    assert path.read_bytes() == BODY
    assert verify(path) is Verdict.VERIFIED
    assert told[-1] == (len(BODY), len(BODY))
    assert [p.name for p in path.parent.iterdir()] == [ROW.file], "a part was left behind"


def test_a_cut_connection_resumes_where_it_stopped(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        download(ROW, tmp_path, f"{mirror}/cut", quiet)
    assert caught.value.code == "download_failed"
    part = tmp_path / f"{ROW.file}.part"
    have = part.stat().st_size
    assert 0 < have < len(BODY)
    assert not (tmp_path / ROW.file).exists()
    assert download(ROW, tmp_path, f"{mirror}/cut", quiet).read_bytes() == BODY
    assert Mirror.ranges == [None, f"bytes={have}-"]


def test_a_server_without_ranges_starts_over(mirror: str, tmp_path: Path) -> None:
    (tmp_path / f"{ROW.file}.part").write_bytes(BODY[:1000])
    assert download(ROW, tmp_path, f"{mirror}/no-range", quiet).read_bytes() == BODY


def test_a_wrong_hash_never_gets_the_name(mirror: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        download(ROW, tmp_path, f"{mirror}/evil", quiet)
    assert caught.value.code == "download_corrupt"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["missing", "long"])
def test_a_server_that_answers_wrongly_is_an_error_that_says_so(kind: str, mirror: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        download(ROW, tmp_path, f"{mirror}/{kind}", quiet)
    assert caught.value.code == "download_failed"
    assert not (tmp_path / ROW.file).exists()


def test_no_network_is_a_plain_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="could not be downloaded"):
        download(ROW, tmp_path, "http://127.0.0.1:9", quiet)


def test_only_web_addresses_are_fetched(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        download(ROW, tmp_path, "file:///etc", quiet)


def test_a_full_part_with_foreign_bytes_is_thrown_away(mirror: str, tmp_path: Path) -> None:
    (tmp_path / f"{ROW.file}.part").write_bytes(b"y" * len(BODY))
    assert download(ROW, tmp_path, f"{mirror}/good", quiet).read_bytes() == BODY


def test_an_official_name_with_other_bytes_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / ROW.file
    assert verify(path) is Verdict.MISSING
    path.write_bytes(BODY[:-1])
    assert verify(path) is Verdict.WRONG_SIZE
    path.write_bytes(BODY[:-1] + b"!")
    assert verify(path) is Verdict.WRONG_HASH
    assert "not the official file" in (load_error(path, allow_unverified=False) or "")
    assert load_error(path, allow_unverified=True) is None
    path.write_bytes(BODY)
    assert load_error(path, allow_unverified=False) is None


def test_a_file_of_the_users_own_name_is_the_users_own_choice(tmp_path: Path) -> None:
    path = tmp_path / "my_own.pth"
    path.write_bytes(b"anything")
    assert verify(path) is Verdict.UNKNOWN
    assert load_error(path, allow_unverified=False) is None


@pytest.mark.parametrize("row", weights.MANIFEST, ids=lambda row: row.file)
def test_every_row_is_complete(row: WeightFile) -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", row.sha256)
    assert row.bytes > 1_000_000
    assert row.url.startswith("https://github.com/")
    assert row.url.endswith(f"/{row.file}")
    assert row.licence
    assert row.purpose
