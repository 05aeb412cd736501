"""Broken, hostile and oversized files and requests over HTTP: each with its exact status and code, and never a 5xx.

The files come from `tests.hostile_files`; what only the decoder can know ends as a failed job with that code, and the
client that waits gets that status. After all of them the next good photo is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import images
from tests.hostile_files import HOSTILE, ODD_BUT_GOOD
from tests.http_service import Service, assert_problem, photo, running
from tests.test_error_codes import raised

ID = "0" * 32
FORM = {"content-type": "multipart/form-data; boundary=b"}
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
END = b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the whole table; at its end it is as well as at its start."""
    with running(tmp_path_factory.mktemp("hostile"), max_file_size_mb=2, max_batch_size=3) as found:
        yield found
        assert found.finish(found.submit())["status"] == "completed"
        assert found.client.get("/api/v1/health").json() == {
            "status": "ready",
            "reasons": [],
            "causes": [],
            "notes": [],
        }
        rows = found.client.get("/api/v1/jobs?limit=100").json()["jobs"]
        assert len(found.uploads()) == sum(len(row["attempts"]) for row in rows)
        assert 'status="500"' not in found.client.get("/metrics").text


def send(service: Service, data: bytes, name: str) -> Any:
    return service.client.post("/api/v1/enhance", files={"file": (name, data)}, headers={"Prefer": "wait=30"})


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_meets_its_status_and_code(service: Service, kind: str) -> None:
    case = HOSTILE[kind]
    found = assert_problem(send(service, case.bytes(), case.filename), case.status, case.code)
    assert ("job_id" in found) == (case.stage == "decode")


@pytest.mark.parametrize("kind", ODD_BUT_GOOD)
def test_an_odd_but_whole_file_is_restored(service: Service, kind: str) -> None:
    answer = send(service, ODD_BUT_GOOD[kind](), "odd.bin")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed"), answer.text


def form(body: bytes, **headers: str) -> Callable[[Service], Any]:
    return lambda service: service.client.post("/api/v1/enhance", content=body, headers={**FORM, **headers})


def ask(method: str, path: str, **more: Any) -> Callable[[Service], Any]:
    return lambda service: service.client.request(method, path, **more)


def upload(path: str = "/enhance", **more: Any) -> Callable[[Service], Any]:
    return lambda service: service.client.post(path, files={"file": photo()}, **more)


REQUESTS: dict[str, tuple[Callable[[Service], Any], int, str]] = {
    "no body": (form(b""), 400, "bad_multipart"),
    "no boundary": (form(FILE + END, **{"content-type": "multipart/form-data"}), 400, "bad_multipart"),
    "boundary that never comes": (form(b"x" * 1000), 400, "bad_multipart"),
    "form cut off": (form(FILE + photo()), 400, "bad_multipart"),
    "part without name": (form(b"--b\r\nContent-Type: image/png\r\n\r\nx" + END), 400, "bad_multipart"),
    "part header without end": (form(b"--b\r\nX: " + b"y" * 20_000 + END), 400, "bad_multipart"),
    "hundred part headers": (form(b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nz" + END), 400, "bad_multipart"),
    "no file": (form(b'--b\r\nContent-Disposition: form-data; name="scale"\r\n\r\n2' + END), 422, "no_file"),
    "empty file": (form(FILE + END), 422, "empty_file"),
    "file in a strange field": (form(FILE.replace(b'"file"', b'"cv"') + b"x" + END), 422, "unknown_file_field"),
    "file of 3 MB": (form(FILE + bytes(3_000_000) + END), 413, "file_too_large"),
    "body of 5 MB": (form(FILE + bytes(5_000_000) + END), 413, "body_too_large"),
    "length that lies upwards": (form(FILE + b"x" + END, **{"content-length": "999999999999"}), 413, "body_too_large"),
    "length that is no number": (form(b"", **{"content-length": "ten"}), 400, "bad_request"),
    "json instead of a form": (ask("POST", "/enhance", json={"file": "x"}), 415, "unsupported_media_type"),
    "form in the address": (
        ask("POST", "/enhance", data={"file": "x"}), 415, "unsupported_media_type"
    ),
    "bare bytes": (ask("POST", "/enhance", content=photo()), 415, "unsupported_media_type"),
    "four files where three fit": (
        ask("POST", "/enhance", files=[("files", photo())] * 4), 413, "too_many_files"
    ),
    "two files where one fits": (
        ask("POST", "/api/v1/enhance", files=[("file", photo())] * 2), 413, "too_many_files"
    ),
    "fifty fields": (
        upload(data={f"f{n}": "1" for n in range(50)}), 400, "too_many_fields"
    ),
    "field of 100 kB": (upload(data={"prompt": "x" * 100_000}), 413, "field_too_large"),
    "scale of infinity": (upload(data={"scale": "inf"}), 422, "invalid_option"),
    "scale of a thousand digits": (upload(data={"scale": "9" * 1000}), 422, "invalid_option"),
    "quality as a list": (upload(data={"quality": ["fast", "best"]}), 422, "repeated_option"),
    "unknown option": (upload(data={"__proto__": "1"}), 422, "unknown_option"),
    "model as a path": (upload(data={"model": "../weights/x"}), 422, "invalid_option"),
    "model with NUL": (upload(data={"model": "a\0b"}), 422, "invalid_option"),
    "unknown model": (upload(data={"model": "x" * 100}), 422, "unknown_model"),
    "unknown backend": (upload(data={"backend": "paint"}), 422, "invalid_option"),
    "result over the limit": (
        lambda service: service.client.post("/enhance", files={"file": photo(3000, 2500)}, data={"scale": "8"}),
        413,
        "output_too_large",
    ),
    "foreign page": (upload(headers={"origin": "https://evil.example"}), 403, "foreign_origin"),
    "foreign page, no origin": (upload(headers={"sec-fetch-site": "cross-site"}), 403, "foreign_origin"),
    "foreign host": (upload(headers={"host": "rebound.example"}), 400, "host_not_allowed"),
    "id with SQL": (ask("GET", "/status/'%20OR%201=1--"), 404, "job_not_found"),
    "id with dots": (ask("GET", "/api/v1/jobs/..%2f..%2fetc"), 404, "not_found"),
    "id of others": (ask("DELETE", f"/api/v1/jobs/{ID}"), 404, "job_not_found"),
    "id with NUL": (ask("GET", "/api/v1/jobs/a%00b"), 404, "job_not_found"),
    "result as a path": (ask("GET", "/processed/..%2f..%2fetc%2fpasswd"), 404, "not_found"),
    "result with NUL": (ask("GET", f"/processed/{ID}%00.png"), 404, "result_not_found"),
    "page of minus one": (ask("GET", "/api/v1/jobs?limit=-1"), 422, "invalid_parameter"),
    "unknown page": (ask("GET", "/api/v1/jobs?before=%ff%fe"), 404, "job_not_found"),
    "body for another call": (ask("POST", "/api/v1/models/warmup", content=bytes(70_000)), 413, "body_too_large"),
    "wrong method": (ask("TRACE", "/enhance"), 405, "method_not_allowed"),
    "unheard-of method": (ask("BREW", "/status/x"), 405, "method_not_allowed"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_hostile_request_meets_its_status_and_code(service: Service, kind: str) -> None:
    call, status, code = REQUESTS[kind]
    assert_problem(call(service), status, code)


# What a photo, a form or an address can meet beyond these tables, and where that is tested.
ELSEWHERE = {
    "decode_memory": "test_images_decoder",
    "decode_timeout": "test_images_decoder",
    "decoder_unavailable": "test_images_decoder",
    "decoder_out_of_memory": "test_images_decoder",
    "face_not_found": "test_faces_api",
    "file_missing": "test_images_decoder",
    "no_space": "test_images_decoder",
    "shutting_down": "test_images_decoder",
    "too_many_pages": "test_pages",
    "too_many_uploads": "test_fair_use",
    "unsupported_depth": "HOSTILE, at the decoder",
}


def test_the_tables_meet_every_refusal_of_photos_and_forms() -> None:
    """Read from the sources: a new refusal needs a hostile file or request of its own."""
    folder = Path(images.__file__).parent
    names = ("header.py", "container.py", "sniffing.py", "bmp_header.py", "tiff_*.py", "decode/*.py", "decoder.py")
    of_photos = {path for name in (*names, "child.py") for path in folder.glob(name)}
    of_forms = {folder.parent / "api" / name for name in ("multipart_form.py", "uploads.py")}
    refusals = {code for path in of_photos | of_forms for _, code in raised(path.read_text(encoding="utf-8"))}
    met = {case.code for case in HOSTILE.values()} | {code for _, _, code in REQUESTS.values()}
    assert refusals - met - set(ELSEWHERE) == set()
    assert {"undecodable_image", "bad_multipart", "image_too_large"} <= refusals
