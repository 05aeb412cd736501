"""Text is text: what no database stores and no answer carries is refused, and odd rows never make a list fail."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.options import is_plain_text
from tests.databases import IMPLEMENTATIONS
from tests.http_service import Service, assert_problem, photo, running

ODD = {
    "lone surrogate": "a\ud800b",
    "other half": "\udfff",
    "nul": "a\0b",
    "escape": "\x1b[31m",
    "delete": "\x7f",
    "next line": "a\x85b",
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as found:
        yield found


def post_json(service: Service, path: str, body: dict[str, str]) -> Any:
    """As JSON with escapes, which can say what UTF-8 cannot."""
    return service.client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})


def test_ordinary_text_of_any_script_is_plain() -> None:
    assert is_plain_text("old photo, café, Ελλάδα, 日本, عربى, 👩🏽‍🚀\r\n\ttwo lines")
    assert not any(is_plain_text(text) for text in ODD.values())


@pytest.mark.parametrize("name", ["prompt", "model", "quality", "face_model", "output_format"])
@pytest.mark.parametrize("kind", ODD)
def test_a_control_or_half_a_character_is_refused_in_every_text(service: Service, kind: str, name: str) -> None:
    photo_id = service.client.post("/api/v1/photos", files={"file": photo()}).json()["id"]
    answer = post_json(service, f"/api/v1/photos/{photo_id}/restore", {name: ODD[kind]})
    assert assert_problem(answer, 422, "invalid_option")["detail"].startswith(f"Option '{name}' must be plain text")
    assert service.client.get("/api/v1/jobs").json()["jobs"] == []


@pytest.mark.parametrize("kind", [kind for kind, text in ODD.items() if text.isascii() or text == "a\x85b"])
def test_a_control_in_a_form_is_refused_too(service: Service, kind: str) -> None:
    """Halves of characters cannot be said there: bytes that are no UTF-8 are read as Latin-1."""
    answer = service.client.post("/enhance", files={"files": photo()}, data={"prompt": ODD[kind]})
    assert_problem(answer, 422, "invalid_option")


def test_an_odd_name_of_an_attempt_or_a_file_is_unknown(service: Service) -> None:
    photo_id = service.client.post("/api/v1/photos", files={"file": photo()}).json()["id"]
    for text in ODD.values():
        answer = post_json(service, f"/api/v1/photos/{photo_id}/select", {"attempt_id": text})
        assert_problem(answer, 422, "no_attempt")
    for path in ("/processed/%00", "/processed/%ed%a0%80.png", "/status/%00"):
        assert service.client.get(path).status_code == 404


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_an_odd_id_or_cursor_is_unknown_whatever_the_database(tmp_path: Path, name: str) -> None:
    """PostgreSQL takes no NUL at all, wherever one could come to a query."""
    with running(tmp_path, database_url=IMPLEMENTATIONS[name](tmp_path)) as service:
        job_id = service.submit()
        service.finish(job_id)
        for odd in ("%00", "%ed%a0%80", f"{job_id}%00"):
            for path in ("jobs?before=", "photos?before=", "results?before=", "photos/", "jobs/", "batch/"):
                assert service.client.get(f"/api/v1/{path}{odd}").status_code == 404
            for path in ("result?attempt=", "preview?attempt=", "tile?attempt=", "damage?attempt="):
                assert service.client.get(f"/api/v1/jobs/{job_id}/{path}{odd}").status_code == 404
            assert service.client.get(f"/api/v1/jobs/{job_id}/faces/{odd}/0/before").status_code == 404
            assert service.client.delete(f"/api/v1/jobs/{job_id}/attempts/{odd}").status_code == 404
            assert service.client.delete(f"/api/v1/photos/{odd}").status_code == 404


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("jobs.options_json", '{"prompt": "\\ud800"}'),
        ("jobs.options_json", "{"),
        ("jobs.options_json", '{"scale": 99}'),
        ("attempts.faces_json", "{"),
        ("attempts.faces_json", "[1, 2]"),
        ("attempts.warnings_json", '[{"code": "a"}]'),
        ("attempts.params_json", '{"pace": NaN}'),
        ("attempts.params_json", "[]"),
    ],
)
def test_a_row_that_cannot_be_read_whole_never_makes_a_list_fail(tmp_path: Path, column: str, value: str) -> None:
    with running(tmp_path) as service:
        jobs = [service.submit() for _ in range(2)]
        for job_id in jobs:
            service.finish(job_id)
    table, _, name = column.partition(".")
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as database:
        database.execute(f"UPDATE {table} SET {name} = ? WHERE number = 1", (value,))
    database.close()
    with running(tmp_path) as service:
        rows = service.client.get("/api/v1/jobs").json()["jobs"]
        assert {row["job_id"] for row in rows} == set(jobs)
        for path in (f"/api/v1/jobs/{jobs[0]}", f"/status/{jobs[0]}", f"/api/v1/jobs/{jobs[0]}/result"):
            assert service.client.get(path).status_code == 200
