"""The routes of jobs over HTTP, from the submission to the ZIP, with the real store, decoder and worker."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from PIL import Image
from starlette.datastructures import Headers

from app.api import archives, download_names, file_responses, schemas
from app.api.prefer_wait import preferred_wait
from app.api.pyramids import Pyramids
from app.api.shared_calls import KeptAnswers
from app.options import FIELDS
from tests.harness import until
from tests.http_service import Service, assert_problem, describe, photo, running

NOBODY = "0" * 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("jobs")) as found:
        yield found


@pytest.fixture(scope="module")
def finished(service: Service) -> str:
    """A finished job of one photo with a difficult name."""
    job_id = service.submit(name='Größe "1"\r\nX-Evil: 1 <b>.png', scale="2")
    assert service.finish(job_id)["status"] == "completed"
    return job_id


@pytest.fixture
def held(service: Service) -> Iterator[Service]:
    """The same service while its backend is held."""
    service.backend.gate.clear()
    yield service
    service.backend.gate.set()
    for job in service.client.get("/api/v1/jobs?limit=100").json()["jobs"]:
        service.finish(job["job_id"])


def image_of(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP"))


# The simple surface.


def test_the_main_job_runs_on_the_simple_surface(service: Service) -> None:
    answer = service.client.post(
        "/enhance", files=[("files", ("a.png", photo())), ("files", ("b.jpg", photo(kind="JPEG")))]
    )
    assert answer.status_code == 202
    assert set(answer.json()) == {"job_id", "status", "queue_position"}
    job_id = answer.json()["job_id"]
    assert answer.headers["location"] == f"/status/{job_id}"
    service.finish(job_id)
    state = service.client.get(f"/status/{job_id}").json()
    schemas.StatusShape.model_validate(state)
    assert (state["status"], state["progress"], state["errors"]) == ("completed", 1.0, [])
    assert [row["original_filename"] for row in state["results"]] == ["a.png", "b.jpg"]
    for row, kind in zip(state["results"], ("PNG", "JPEG"), strict=True):
        found = image_of(service.client.get(row["url"]).content)
        assert (found.format, found.size) == (kind, (160, 120)) == (kind, (row["width"], row["height"]))


def test_options_reach_the_restoration(service: Service) -> None:
    state = service.finish(service.submit(scale="1.5", output_format="webp", face_enhance="off"))
    assert state["options"]["scale"] == 1.5
    assert state["options"]["face_enhance"] is False
    found = image_of(service.client.get(state["results"][0]["url"]).content)
    assert (found.format, found.size) == ("WEBP", (60, 45))


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"scale": "9"}, 422, "invalid_option"),
        ({"scale": "nan"}, 422, "invalid_option"),
        ({"scale": "\u0664"}, 422, "invalid_option"),
        ({"seed": "1_000"}, 422, "invalid_option"),
        ({"color_strength": "\u00a0"}, 422, "invalid_option"),
        ({"quality": "superb"}, 422, "invalid_option"),
        ({"prompt": "x" * 801}, 422, "invalid_option"),
        ({"colour": "red"}, 422, "unknown_option"),
        ({"<script>": "1"}, 422, "unknown_option"),
        ({"model": "../../etc/passwd"}, 422, "invalid_option"),
        ({"model": "nobody-knows-it"}, 422, "unknown_model"),
        ({"model": "absent"}, 409, "model_not_installed"),
        ({"repair": "auto"}, 409, "repair_unavailable"),
        ({"repair": "always"}, 422, "invalid_option"),
        ({"backend": "siliconflow"}, 409, "backend_unavailable"),
    ],
)
def test_options_out_of_bounds_are_refused_and_nothing_is_kept(
    service: Service, fields: dict[str, str], status: int, code: str
) -> None:
    before = service.uploads()
    answer = service.client.post("/api/v1/enhance", files={"file": photo()}, data=fields)
    assert "script" not in assert_problem(answer, status, code)["detail"]
    assert service.uploads() == before


def test_unknown_models_are_answered_with_the_known_ones(service: Service) -> None:
    answer = service.client.post("/api/v1/enhance", files={"file": photo()}, data={"model": "nobody"})
    assert "lanczos, absent" in answer.json()["detail"]


def test_without_any_model_a_photo_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with running(tmp_path, describe=lambda: {**describe(), "models": []}) as bare:
        answer = bare.client.post("/api/v1/enhance", files={"file": photo()})
        assert "run.py models download" in assert_problem(answer, 503, "no_model")["detail"]
        health = bare.client.get("/api/v1/health").json()
        assert health["status"] == "failing"
        assert bare.client.get("/health/ready").status_code == 503


def test_a_model_dropped_in_a_moment_ago_is_found(tmp_path: Path) -> None:
    table = describe()
    with running(tmp_path, describe=lambda: table) as late:
        assert late.client.get("/api/v1/config").status_code == 200
        table["models"][1]["installed"] = True
        late.context.catalog._looked_at -= 5
        assert late.client.post("/enhance", files={"file": photo()}, data={"model": "absent"}).status_code == 202


def test_a_result_over_the_limit_is_refused_with_the_scale_that_fits(tmp_path: Path) -> None:
    with running(tmp_path, max_output_megapixels=0.01) as small:
        answer = small.client.post("/api/v1/enhance", files={"file": photo()})
        assert "the largest scale that fits is 2.8" in assert_problem(answer, 413, "output_too_large")["detail"]
        assert small.client.post("/enhance", files={"file": photo()}, data={"scale": "2.8"}).status_code == 202
        answer = small.client.post("/enhance", files={"file": photo(200, 100)})
        assert "make the photo smaller" in assert_problem(answer, 413, "output_too_large")["detail"]


# The versioned surface.


def test_a_submission_says_where_its_job_is(service: Service) -> None:
    one = service.client.post("/api/v1/enhance", files={"file": photo()})
    assert one.headers["location"] == f"/api/v1/jobs/{one.json()['job_id']}"
    schemas.Submitted.model_validate(one.json())
    many = service.client.post("/api/v1/enhance/batch", files={"files": photo()})
    assert many.json()["batch_id"] == many.json()["job_id"]
    assert many.headers["location"] == f"/api/v1/batch/{many.json()['batch_id']}"
    schemas.BatchSubmitted.model_validate(many.json())
    two = service.client.post("/api/v1/enhance", files=[("file", photo()), ("file", photo())])
    assert_problem(two, 413, "too_many_files")


def test_a_job_tells_everything_and_keeps_to_its_schema(service: Service, finished: str) -> None:
    state = service.client.get(f"/api/v1/jobs/{finished}").json()
    schemas.JobShape.model_validate(state)
    assert state == service.client.get(f"/api/v1/batch/{finished}").json()
    attempt = state["attempts"][0]
    assert attempt["result"]["params"] == {"device": "cpu"}
    assert state["expires_at"] == pytest.approx(attempt["ended_at"] + 3600)


def test_waiting_jobs_know_their_place(held: Service) -> None:
    first = held.submit()
    held.wait_for(first, "processing")
    second = held.submit()
    held.wait_for(second, "processing")  # decoded ahead
    third, fourth = held.submit(), held.submit()
    places = [
        held.client.get(f"/status/{job_id}").json()["queue_position"] for job_id in (first, second, third, fourth)
    ]
    assert places == [0, 0, 1, 2]
    state = held.client.get(f"/api/v1/jobs/{first}").json()
    schemas.JobShape.model_validate(state)
    assert (state["stage"], state["expires_at"]) == ("upscaling", None)
    assert_problem(held.client.get(f"/api/v1/jobs/{first}/result"), 409, "not_finished")
    assert_problem(held.client.get(f"/api/v1/batch/{third}/results"), 409, "not_finished")


def test_jobs_are_paged_newest_first(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        ids = [service.submit() for _ in range(5)]
        seen, before = [], None
        for _ in range(3):
            page = service.client.get(
                "/api/v1/jobs", params={"limit": 2, **({"before": before} if before else {})}
            ).json()
            schemas.JobPage.model_validate(page)
            seen += [job["job_id"] for job in page["jobs"]]
            before = page["next"]
        assert seen == ids[::-1]
        assert before is None


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", "1e3"])
def test_a_page_has_bounds(service: Service, limit: str) -> None:
    found = assert_problem(service.client.get("/api/v1/jobs", params={"limit": limit}), 422, "invalid_parameter")
    assert "'limit'" in found["detail"]


def test_an_active_job_is_cancelled_and_an_ended_one_removed_with_its_files(held: Service) -> None:
    running_id, waiting_id = held.submit(), held.submit()
    held.wait_for(running_id, "processing")
    for job_id in (waiting_id, running_id):
        assert held.client.delete(f"/api/v1/jobs/{job_id}").json() == {"job_id": job_id, "status": "cancelled"}
        assert held.client.get(f"/status/{job_id}").json()["status"] == "cancelled"
        assert_problem(held.client.get(f"/api/v1/jobs/{job_id}/result"), 409, "no_result")
    held.backend.gate.set()
    done = held.submit()
    url = held.finish(done)["results"][0]["url"]
    name = url.rpartition("/")[2]
    assert (held.folder / "results" / name).exists()
    before = len(held.uploads())
    schemas.Removed.model_validate(held.client.delete(f"/api/v1/jobs/{done}").json())
    assert not (held.folder / "results" / name).exists()
    assert len(held.uploads()) == before - 1
    assert_problem(held.client.get(f"/api/v1/jobs/{done}"), 404, "job_not_found")
    assert_problem(held.client.delete(f"/api/v1/jobs/{done}"), 404, "job_not_found")
    assert_problem(held.client.get(url), 404, "result_not_found")


@pytest.mark.parametrize(
    "job_id", [NOBODY, "1", "../../etc/passwd", "%2e%2e%2fx", "A" * 32, "0" * 33, "0" * 32 + "%0A"]
)
def test_unknown_and_odd_ids_are_not_found(service: Service, job_id: str) -> None:
    for path in (
        "/status/{}",
        "/api/v1/jobs/{}",
        "/api/v1/jobs/{}/result",
        "/api/v1/batch/{}/results",
        "/processed/{}",
    ):
        answer = service.client.get(path.format(job_id))
        assert answer.status_code == 404
        assert answer.json()["code"] in ("job_not_found", "result_not_found", "not_found")
    assert_problem(service.client.get("/api/v1/jobs", params={"before": job_id}), 404, "job_not_found")


@pytest.mark.parametrize(
    "name", ["passwd", ".scratch", "x.png", NOBODY, f"{NOBODY}.png", f"{NOBODY}.exe", f"{NOBODY}.png.part"]
)
def test_only_results_with_a_row_are_handed_out(service: Service, name: str) -> None:
    (service.folder / "results" / name).touch() if len(name) > 30 else None
    assert_problem(service.client.get(f"/processed/{name}"), 404, "result_not_found")


# Waiting in the request.


def test_prefer_wait_answers_with_the_finished_job(service: Service) -> None:
    answer = service.client.post("/api/v1/enhance", files={"file": photo()}, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    schemas.JobShape.model_validate(answer.json())
    assert answer.json()["status"] == "completed"


def test_prefer_wait_answers_with_the_failures_own_status(service: Service) -> None:
    fields = {"prompt": "fail"}
    answer = service.client.post(
        "/api/v1/enhance/batch", files={"files": photo()}, data=fields, headers={"Prefer": "respond-async, wait=20"}
    )
    found = assert_problem(answer, 422, "undecodable_image")
    state = service.client.get(f"/status/{found['job_id']}").json()
    assert (state["status"], state["results"]) == ("failed", [])
    assert (
        state["errors"]
        == found["errors"]
        == [{"original_filename": "upload", "code": "undecodable_image", "message": "This photo was asked to fail."}]
    )
    schemas.StatusShape.model_validate(state)
    assert_problem(service.client.get(f"/api/v1/batch/{found['job_id']}/results"), 409, "no_result")
    assert_problem(service.client.get(f"/api/v1/jobs/{found['job_id']}/result"), 409, "no_result")


def test_prefer_wait_gives_up_in_time_with_a_202(held: Service) -> None:
    answer = held.client.post("/api/v1/enhance", files={"file": photo()}, headers={"Prefer": "wait=0"})
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_client_that_hangs_up_ends_its_wait(held: Service) -> None:
    """Asked over ASGI: the disconnect comes while the job is held, and the call returns."""
    form = photo()
    asked = held.client.build_request("POST", "/api/v1/enhance", files={"file": form}, headers={"Prefer": "wait=60"})
    body = asked.read()
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def scenario() -> None:
        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/api/v1/enhance", "raw_path": b"/api/v1/enhance",
            "query_string": b"", "headers": [(k.lower(), v) for k, v in asked.headers.raw], "client": ("127.0.0.1", 1),
            "server": ("localhost", 8001), "scheme": "http", "http_version": "1.1", "root_path": "",
            "asgi": {"version": "3.0"},
        }  # fmt: skip
        await asyncio.wait_for(held.app(scope, receive, send), 10)

    held.client.portal.call(scenario)  # type: ignore[union-attr]
    assert sent == []
    assert 'status="499"' in held.client.get("/metrics").text


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("wait=5", 5),
        ("respond-async, Wait = 7", 7),
        ("wait=99999", 300),
        ("waits=5", None),
        ("wait=-1", None),
        ("", None),
    ],
)
def test_prefer_is_read_as_the_rfc_has_it(value: str, seconds: int | None) -> None:
    assert preferred_wait(Headers({"prefer": value})) == seconds


# Files.


def test_a_result_is_streamed_under_the_originals_name_and_never_as_a_page(service: Service, finished: str) -> None:
    answer = service.client.get(f"/api/v1/jobs/{finished}/result")
    assert answer.headers["content-type"] == "image/png"
    assert "sandbox" in answer.headers["content-security-policy"]
    shown = answer.headers["content-disposition"]
    assert shown.startswith('inline; filename="')
    assert "_x2.png" in shown
    assert "filename*=UTF-8''Gr%C3%B6%C3%9Fe" in shown
    assert "x-evil" not in answer.headers
    assert image_of(answer.content).size == (80, 60)


def test_results_can_be_fetched_in_ranges_and_are_not_sent_twice(service: Service, finished: str) -> None:
    path = f"/api/v1/jobs/{finished}/result"
    whole = service.client.get(path)
    size, etag = len(whole.content), whole.headers["etag"]

    def ranged(text: str, **more: str) -> Any:
        return service.client.get(path, headers={"Range": text, **more})

    first = ranged("bytes=0-99")
    assert (first.status_code, first.content) == (206, whole.content[:100])
    assert first.headers["content-range"] == f"bytes 0-99/{size}"
    assert ranged("bytes=-7").content == whole.content[-7:]
    assert ranged("bytes=100-").content == whole.content[100:]
    assert ranged("bytes=0-9", **{"If-Range": etag}).status_code == 206
    for ignored in ("bytes=0-1,5-6", "items=0-5", "bytes=9-3", "bytes=a-b", "bytes=" + "0-1," * 2000):
        assert ranged(ignored).status_code == 200
    assert ranged("bytes=0-9", **{"If-Range": '"other"'}).status_code == 200
    assert_problem(ranged(f"bytes={size}-"), 416, "range_not_satisfiable")
    assert_problem(ranged("bytes=-0"), 416, "range_not_satisfiable")
    same = service.client.get(path, headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")


def test_what_was_made_of_a_deleted_photo_goes_with_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, set[str]]] = []
    for kept in (KeptAnswers, Pyramids):
        monkeypatch.setattr(kept, "forget", lambda _, ids, name=kept.__name__: told.append((name, set(ids))))
    job_id = service.submit()
    service.finish(job_id)
    (attempt,) = service.context.store.jobs("local", 1)[0].attempts
    assert service.client.delete(f"/api/v1/jobs/{job_id}").json()["status"] == "removed"
    until(lambda: len(told) == 2)
    assert told == [(name, {attempt.id, attempt.photo_id}) for name in ("KeptAnswers", "Pyramids")]


def test_a_preview_is_a_small_jpeg(service: Service) -> None:
    job_id = service.submit(photo(300, 200))
    service.finish(job_id)
    for path in (f"/api/v1/jobs/{job_id}/preview", f"/api/v1/jobs/{job_id}/original?preview=true"):
        answer = service.client.get(path)
        assert answer.headers["content-type"] == "image/jpeg"
        found = image_of(answer.content)
        assert (found.format, max(found.size) <= 400) == ("JPEG", True)
    assert image_of(service.client.get(f"/api/v1/jobs/{job_id}/preview").content).size == (400, 267)


def test_the_original_is_only_ever_saved(service: Service) -> None:
    data = photo()
    job_id = service.submit(data, name="page.html")
    service.finish(job_id)
    answer = service.client.get(f"/api/v1/jobs/{job_id}/original")
    assert answer.content == data
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_batch_is_one_zip_of_safe_and_unique_names(service: Service) -> None:
    names = ["cat.png", "cat.png", "../../evil.png", "/etc/passwd", "Größe.png"]
    sent = [("files", (name, photo())) for name in names]
    job_id = service.client.post("/enhance", files=sent).json()["job_id"]
    state = service.finish(job_id)
    answer = service.client.get(f"/api/v1/batch/{job_id}/results")
    assert answer.headers["content-type"] == "application/zip"
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [
            "cat.png", "cat (2).png", "evil.png", "passwd.png", "Größe.png"
        ]  # fmt: skip
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert archive.testzip() is None
        assert image_of(archive.read("evil.png")).size == (160, 120)
    assert_problem(service.client.get(f"/api/v1/jobs/{job_id}/result"), 409, "several_results")
    chosen = state["attempts"][2]["id"]
    found = service.client.get(f"/api/v1/jobs/{job_id}/result", params={"attempt": chosen})
    assert "evil_x4.png" in found.headers["content-disposition"]
    other = service.client.get(f"/api/v1/jobs/{job_id}/result", params={"attempt": NOBODY})
    assert_problem(other, 404, "attempt_not_found")


def test_the_longest_names_can_be_saved_and_unpacked(service: Service) -> None:
    sent = [("files", (name, photo())) for name in ("写" * 200 + ".png", "a" * 250 + ".png", "🖼" * 120)]
    job_id = service.client.post("/enhance", files=sent).json()["job_id"]
    state = service.finish(job_id)
    with zipfile.ZipFile(io.BytesIO(service.client.get(f"/api/v1/batch/{job_id}/results").content)) as archive:
        names = archive.namelist()
        assert max(len(name.encode()) for name in names) <= 255
        assert [name[:1] for name in names] == ["写", "a", "🖼"]
        assert all(name.endswith(".png") for name in names)
        assert archive.testzip() is None
    path = f"/api/v1/jobs/{job_id}/result?attempt={state['attempts'][0]['id']}"
    shown = unquote(service.client.get(path).headers["content-disposition"].partition("filename*=UTF-8''")[2])
    assert len(shown.encode()) <= 255


def test_a_zip_names_what_is_missing_from_it(service: Service) -> None:
    """One of two photos is damaged behind its header, so that only the decoder can know."""
    cut = photo()[:-40]
    sent = [("files", ("good.png", photo())), ("files", ("cut.png", cut))]
    job_id = service.client.post("/enhance", files=sent).json()["job_id"]
    state = service.finish(job_id)
    assert (state["status"], len(state["results"]), len(state["errors"])) == ("completed", 1, 1)
    with zipfile.ZipFile(io.BytesIO(service.client.get(f"/api/v1/batch/{job_id}/results").content)) as archive:
        assert archive.namelist() == ["good.png", archives.ERRORS_NAME]
        assert archive.read(archives.ERRORS_NAME).startswith(b"cut.png: ")


def test_a_file_that_is_gone_is_a_plain_404(service: Service) -> None:
    job_id = service.submit()
    url = service.finish(job_id)["results"][0]["url"]
    (service.folder / "results" / url.rpartition("/")[2]).unlink()
    for path in (url, f"/api/v1/jobs/{job_id}/preview", f"/api/v1/batch/{job_id}/results"):
        assert_problem(service.client.get(path), 404, "result_not_found")


# The queue.


def test_a_full_queue_refuses_with_a_time_and_loses_nothing(tmp_path: Path) -> None:
    with running(tmp_path, queue_limit=2) as small:
        small.backend.gate.clear()
        kept = [small.submit()]
        small.wait_for(kept[0], "processing")
        kept.append(small.submit())
        small.wait_for(kept[1], "processing")
        kept += [small.submit(), small.submit()]
        for _ in range(3):
            refused = small.client.post("/enhance", files={"file": photo()})
            assert_problem(refused, 503, "queue_full")
            assert int(refused.headers["retry-after"]) >= 1
        many = small.client.post("/enhance", files=[("files", photo())] * 3)
        assert many.status_code in (413, 503)
        assert len(small.uploads()) == 4
        small.backend.gate.set()
        assert [small.finish(job_id)["status"] for job_id in kept] == ["completed"] * 4


# Small things.


def test_the_name_of_a_download_keeps_the_stem_and_says_the_scale(service: Service, finished: str) -> None:
    attempt = service.context.store.job("local", finished).attempts[0]
    assert download_names.download_name(attempt).endswith("_x2.png")
    assert file_responses.disposition("inline", 'a"b\\c;d é.png') == (
        "inline; filename=\"a_b_c_d _.png\"; filename*=UTF-8''a%22b%5Cc%3Bd%20%C3%A9.png"
    )


def test_the_openapi_text_is_generated_from_the_options(service: Service) -> None:
    spec = service.client.get("/openapi.json").json()
    form = spec["paths"]["/api/v1/enhance"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert set(form["properties"]) == {"file", "webhook_url", "photo_options", "preset", *FIELDS}
    number, text = form["properties"]["scale"]["anyOf"]
    assert (number["type"], number["minimum"], number["maximum"]) == ("number", 1.0, 8.0)
    assert text == {"type": "string", "enum": [""]}  # an empty field means the default
    assert form["additionalProperties"] is False
    assert service.client.get("/docs").status_code == 404
