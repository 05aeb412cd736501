"""Weight files: the official ones are known by their bytes, and a table says what each may be used for."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from app.restoration.models import weights
from app.restoration.models.weights import Verdict, WeightFile, load_error, verify
from tests.weights_mirror import let_official

BODY = bytes(range(256)) * 8192  # 2 MiB
ROW = dataclasses.replace(
    weights.MANIFEST[0], bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest(), url="http://127.0.0.1:9/none"
)


@pytest.fixture(autouse=True)
def official_row(monkeypatch: pytest.MonkeyPatch) -> None:
    let_official(monkeypatch, ROW)


def test_an_official_name_with_other_bytes_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / ROW.file
    assert verify(path) is Verdict.MISSING
    path.write_bytes(BODY[:-1])
    assert verify(path) is Verdict.WRONG_SIZE
    assert f"not whole ({len(BODY) - 1} of {len(BODY)} bytes)" in (load_error(path, allow_unverified=False) or "")
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


def test_what_no_licence_leaves_free_for_commerce_is_marked() -> None:
    for row in (*weights.MANIFEST, weights.EMBEDDED):
        restricted = any(words in row.licence for words in ("non-commercial", "CC BY-NC"))
        assert row.commercial_use is not restricted, row.file


def test_names_and_sets_lead_to_rows() -> None:
    assert [row.file for row in weights.find_rows("faces")] == list(weights.FACES)
    assert weights.find_rows("GFPGANv1.4") == weights.find_rows("GFPGANv1.4.pth")
    assert weights.find_rows("all") == list(weights.MANIFEST)
    assert all(row.default for row in weights.find_rows("default"))
    assert weights.find_rows("unknown") == []
