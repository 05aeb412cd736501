"""Multipart bodies: streamed into storage, counted part by part, and removed whole on any refusal."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.multipart_form import FLUSH_BYTES, MAX_FIELD_BYTES, MAX_FIELDS, MultipartForm, UploadLimits, receive_form
from app.errors import RestoreError, Unavailable
from app.storage import DiskStorage, Storage, new_id
from tests.harness import upload_file
from tests.http_service import Service, assert_problem, photo, running

BOUNDARY = "xYzZY"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
LIMITS = UploadLimits(max_files=3, max_file_bytes=500_000)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("upload"), max_file_size_mb=0.5, max_batch_size=3) as found:
        yield found


def part(data: bytes, name: str = "file", filename: str | None = "a.png", extra: str = "") -> bytes:
    shown = "" if filename is None else f'; filename="{filename}"'
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n{extra}\r\n'.encode() + data + b"\r\n"
    )


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def fed(storage: Storage, data: bytes, step: int = 1 << 16, content_type: str = TYPE) -> MultipartForm:
    """A whole body through a form, in steps, flushed as the service does."""
    form = MultipartForm(content_type, LIMITS, lambda: storage.open_upload(new_id()))

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), step):
            yield data[start : start + step]

    async def in_thread(function: Callable[[], None]) -> None:
        await asyncio.to_thread(function)

    asyncio.run(receive_form(form, chunks(), in_thread))
    return form


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return DiskStorage(tmp_path / "uploads", tmp_path / "results")


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_files_and_fields_come_out_as_they_went_in_however_they_are_cut(storage: Storage, step: int) -> None:
    content = secrets.token_bytes(3000) + f"\r\n--{BOUNDARY[:-1]}".encode() + b"\r\n--"
    form = fed(storage, body(part(content), part(b"4", "scale", None), part(b"", "quality", None)), step)
    form.flush()
    assert form.fields == {"scale": "4", "quality": ""}
    writer = form.files[0].writer
    assert writer is not None
    assert writer.path.read_bytes() == content
    assert form.files[0].bytes == len(content)
    form.abort()
    assert list(storage.iter_parts()) == []


def test_a_large_file_is_written_as_it_comes(storage: Storage) -> None:
    form = fed(storage, body(part(bytes(FLUSH_BYTES + 1000))))
    assert form.files[0].writer is not None
    assert form.files[0].writer.bytes_written >= FLUSH_BYTES
    form.abort()


@pytest.mark.parametrize(
    ("sent", "label"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\photos\\\\me.jpg", "me.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("<img src=x onerror=alert(1)>.png", "img src=x onerror=alert(1).png"),
        ("Größe.png", "Größe.png"),
        ("", "photo"),
        ("...", "photo"),
        ("x" * 500 + ".jpg", "x" * 116 + ".jpg"),
    ],
)
def test_a_file_name_is_only_a_clean_label(storage: Storage, sent: str, label: str) -> None:
    form = fed(storage, body(part(b"data", filename=sent)))
    assert form.files[0].label == label
    form.abort()


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "too many files": (body(*[part(b"x")] * 4), 413, "too_many_files"),
    "file too large": (body(part(bytes(500_001))), 413, "file_too_large"),
    "too many fields": (
        body(*[part(b"1", f"f{i}", None) for i in range(MAX_FIELDS + 1)]), 400, "too_many_fields"
    ),
    "field too large": (body(part(bytes(MAX_FIELD_BYTES + 1), "prompt", None)), 413, "field_too_large"),
    "same option twice": (body(part(b"2", "scale", None), part(b"4", "scale", None)), 422, "repeated_option"),
    "file in another field": (body(part(b"x", "avatar")), 422, "unknown_file_field"),
    "part without a name": (body(part(b"x", "")), 400, "bad_multipart"),
    "cut in the middle": (body(part(bytes(300)))[:-30], 400, "bad_multipart"),
    "no end": (body(part(b"x"))[: -len(BOUNDARY) - 6], 400, "bad_multipart"),
    "another boundary": (b"--other\r\n\r\nx\r\n--other--\r\n", 400, "bad_multipart"),
    "nothing at all": (b"", 400, "bad_multipart"),
    "no colon": (f"--{BOUNDARY}\r\nnonsense\r\n\r\nx\r\n--{BOUNDARY}--".encode(), 400, "bad_multipart"),
    "very many part headers": (body(part(b"x", extra="X-A: b\r\n" * 50)), 400, "bad_multipart"),
    "endless part header": (body(part(b"x", extra="X-A: " + "b" * 9000 + "\r\n")), 400, "bad_multipart"),
    "part header with NUL": (body(part(b"x", extra="X\0A: b\r\n")), 400, "bad_multipart"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("step", [13, 1 << 20])
def test_a_bad_form_is_refused_and_leaves_nothing(storage: Storage, kind: str, step: int) -> None:
    data, status, code = REFUSED[kind]
    with pytest.raises(RestoreError) as caught:
        fed(storage, part(secrets.token_bytes(100), "files") + data if "cut" in kind else data, step)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert list(storage.iter_parts()) == []


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=" + "b" * 71])
def test_a_form_needs_a_boundary_of_lawful_length(storage: Storage, content_type: str) -> None:
    with pytest.raises(RestoreError) as caught:
        fed(storage, b"", content_type=content_type)
    assert caught.value.code == "bad_multipart"


def test_the_refusal_of_a_large_file_names_it_and_the_limit(service: Service) -> None:
    files = [("files", ("small.png", photo())), ("files", ("big.png", bytes(600_000)))]
    answer = service.client.post("/enhance", files=files)
    detail = assert_problem(answer, 413, "file_too_large")["detail"]
    assert "Photo 2 ('big.png')" in detail
    assert "0.5 MB" in detail
    assert service.uploads() == []


def test_one_bad_photo_refuses_the_batch_and_every_bad_one_is_named(service: Service) -> None:
    files = [("files", ("ok.png", photo())), ("files", ("a.gif", b"GIF89a")), ("files", ("b.html", b"<html>"))]
    found = assert_problem(service.client.post("/enhance", files=files), 415, "unsupported_format")
    assert [row["original_filename"] for row in found["errors"]] == ["a.gif", "b.html"]
    files[2] = ("files", ("cut.png", b"\x89PNG\r\n\x1a\n"))
    mixed = assert_problem(service.client.post("/api/v1/enhance/batch", files=files), 422, "several_errors")
    assert [row["code"] for row in mixed["errors"]] == ["unsupported_format", "undecodable_image"]
    assert service.uploads() == []
    assert service.client.get("/api/v1/jobs").json()["jobs"] == []


def test_no_file_and_an_untouched_file_field_are_the_same(service: Service) -> None:
    assert_problem(service.client.post("/enhance", files={"scale": (None, "2")}), 422, "no_file")
    empty = service.client.post("/enhance", content=body(part(b"", "files", "")), headers={"content-type": TYPE})
    assert_problem(empty, 422, "no_file")
    named = service.client.post("/enhance", files={"files": ("void.png", b"")})
    assert_problem(named, 422, "empty_file")


def test_a_field_named_files_without_a_file_name_is_a_file_too(service: Service) -> None:
    answer = service.client.post("/enhance", content=body(part(photo(), "file", None)), headers={"content-type": TYPE})
    assert answer.status_code == 202
    service.finish(answer.json()["job_id"])


def test_when_the_rows_cannot_be_written_the_files_go_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    before = service.uploads()

    def full(*_: Any, **__: Any) -> None:
        raise Unavailable("storage_full", "There is no free disk space left for jobs.")

    monkeypatch.setattr(service.context.store, "submit", full)
    assert_problem(service.client.post("/enhance", files={"file": photo()}), 503, "storage_full")
    assert service.uploads() == before


def test_when_nobody_knows_whether_the_rows_were_written_the_files_are_left_to_the_janitor(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = service.uploads()

    def odd(*_: Any, **__: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(service.context.store, "submit", odd)
    assert_problem(service.client.post("/enhance", files={"file": photo()}), 500, "internal_error")
    (left,) = set(service.uploads()) - set(before)
    (service.folder / "uploads" / left).unlink()


def test_a_file_is_on_disk_before_its_row_is_written(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    submit = service.context.store.submit

    def watched(owner: str, photos: Any, *rest: Any, **limits: Any) -> Any:
        seen.append(all(upload_file(service.context.storage, one.id).stat().st_size == one.bytes for one in photos))
        return submit(owner, photos, *rest, **limits)

    monkeypatch.setattr(service.context.store, "submit", watched)
    service.finish(service.submit())
    assert seen == [True]
