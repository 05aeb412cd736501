"""The routes of photos over HTTP: upload once, restore often, select, archive, delete, and every refusal."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.api import schemas
from app.jobs.janitor import Janitor
from app.main import create_app
from tests.http_service import (
    BASE_URL,
    KEY,
    OTHER_KEY,
    GatedBackend,
    Service,
    assert_problem,
    describe,
    photo,
    running,
    settings_for,
)

PHOTOS = "/api/v1/photos"
NOBODY = "0" * 32


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as made:
        yield made


def upload(service: Service, content: bytes | None = None, name: str = "cat.png", headers: Any = None) -> Any:
    return service.client.post(PHOTOS, files={"file": (name, content or photo())}, headers=headers)


def uploaded(service: Service, content: bytes | None = None) -> str:
    answer = upload(service, content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def shown(service: Service, photo_id: str) -> dict[str, Any]:
    answer = service.client.get(f"{PHOTOS}/{photo_id}")
    assert answer.status_code == 200, answer.text
    schemas.PhotoShape.model_validate(answer.json())
    body: dict[str, Any] = answer.json()
    return body


def restore(service: Service, photo_id: str, **options: Any) -> dict[str, Any]:
    """One attempt to its end; gives the accepted answer."""
    answer = service.client.post(f"{PHOTOS}/{photo_id}/restore", json=options)
    assert answer.status_code == 202, answer.text
    schemas.RestoreSubmitted.model_validate(answer.json())
    accepted: dict[str, Any] = answer.json()
    service.finish(accepted["job_id"])
    return accepted


def test_one_upload_is_restored_again_and_again_and_the_liked_result_is_kept(service: Service) -> None:
    answer = upload(service)
    assert (answer.status_code, answer.headers["location"]) == (201, f"{PHOTOS}/{answer.json()['id']}")
    found = answer.json()
    schemas.PhotoShape.model_validate(found)
    assert (found["status"], found["width"], found["height"], found["mime"]) == ("uploaded", 40, 30, "image/png")
    assert (found["original_filename"], found["bytes"], found["attempts"]) == ("cat.png", len(photo()), [])
    assert found["expires_at"] == pytest.approx(found["created_at"] + 3600)

    small, large = (restore(service, found["id"], scale=scale) for scale in (2, 3))
    state = shown(service, found["id"])
    assert (state["status"], state["selected_attempt_id"]) == ("ready", None)
    assert [row["job_id"] for row in state["attempts"]] == [small["job_id"], large["job_id"]]
    assert [row["id"] for row in state["attempts"]] == [small["attempt_id"], large["attempt_id"]]
    assert [row["result"]["width"] for row in state["attempts"]] == [80, 120]
    assert {row["photo_id"] for row in state["attempts"]} == {found["id"]}

    for _ in range(2):  # the same choice twice is the same choice
        answer = service.client.post(f"{PHOTOS}/{found['id']}/select", json={"attempt_id": small["attempt_id"]})
        assert (answer.status_code, answer.json()["selected_attempt_id"]) == (200, small["attempt_id"])
    assert len(service.uploads()) == 1
    with Image.open(
        io.BytesIO(service.client.get(f"/api/v1/jobs/{large['job_id']}/result").content), formats=("PNG",)
    ) as image:
        assert image.size == (120, 90)


def test_equal_bytes_are_the_same_photo_and_are_stored_once(service: Service) -> None:
    first = uploaded(service)
    again = upload(service, name="copy.png")
    assert (again.status_code, again.json()["id"]) == (200, first)
    assert again.json()["original_filename"] == "cat.png"
    assert uploaded(service, photo(41)) != first
    assert len(service.uploads()) == 2


def test_the_same_bytes_from_many_clients_at_once_are_one_photo(service: Service) -> None:
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(upload(service))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert service.uploads() == [answers[0].json()["id"]]


def test_a_batch_with_the_same_photo_twice_still_works(service: Service) -> None:
    uploaded(service)
    files = [("files", (name, photo())) for name in ("a.png", "b.png")]
    answer = service.client.post("/enhance", files=files, data={"scale": "2"})
    state = service.finish(answer.json()["job_id"])
    assert [row["original_filename"] for row in state["results"]] == ["a.png", "b.png"]
    assert len({row["photo_id"] for row in state["attempts"]}) == 2
    assert len(service.client.get(PHOTOS).json()["photos"]) == 1  # uploads of jobs are not in the list


def test_the_upload_of_a_job_can_be_restored_again_by_its_id(service: Service) -> None:
    first = service.finish(service.submit(scale="2"))
    photo_id = first["attempts"][0]["photo_id"]
    assert shown(service, photo_id)["status"] == "ready"
    second = restore(service, photo_id, scale=3)
    assert len(shown(service, photo_id)["attempts"]) == 2
    service.client.delete(f"/api/v1/jobs/{first['job_id']}")
    assert len(service.uploads()) == 1  # the other attempt still has its photo
    service.client.delete(f"/api/v1/jobs/{second['job_id']}")
    assert service.uploads() == []
    assert_problem(service.client.get(f"{PHOTOS}/{photo_id}"), 404, "photo_not_found")


def test_a_lost_file_is_healed_by_uploading_it_again(service: Service) -> None:
    photo_id = uploaded(service)
    service.context.storage.remove_upload(photo_id)
    assert_problem(service.client.post(f"{PHOTOS}/{photo_id}/restore"), 404, "photo_missing")
    assert upload(service).json()["id"] == photo_id
    assert service.uploads() == [photo_id]
    restore(service, photo_id)


@pytest.mark.parametrize(
    ("request_of", "scale"),
    [
        ({}, 4.0),
        ({"json": {}}, 4.0),
        ({"json": {"scale": 2, "face_enhance": False}}, 2.0),
        ({"data": {"scale": "2", "quality": "fast"}}, 2.0),
        ({"content": b"scale=3", "headers": {"content-type": "application/x-www-form-urlencoded"}}, 3.0),
        ({"files": {"scale": (None, "3")}}, 3.0),
        ({"content": b'{"scale": 3}'}, 3.0),
    ],
)
def test_options_come_as_json_as_a_form_or_not_at_all(request_of: Any, scale: float, service: Service) -> None:
    photo_id = uploaded(service)
    answer = service.client.post(f"{PHOTOS}/{photo_id}/restore", **request_of)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/api/v1/jobs/{answer.json()['job_id']}"
    assert service.finish(answer.json()["job_id"])["options"]["scale"] == scale


FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"json": {"scale": 9}}, 422, "invalid_option"),
        ({"json": {"scale": [2]}}, 422, "invalid_option"),
        ({"json": {"face_enhance": 0}}, 422, "invalid_option"),
        ({"json": {"size": 2}}, 422, "unknown_option"),
        ({"json": {"<script>": 2}}, 422, "unknown_option"),
        ({"json": [1]}, 400, "bad_json"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "bad_json"),
        ({"content": b"scale=2&scale=3", "headers": FORM}, 422, "repeated_option"),
        ({"content": b"&".join(b"a%d=1" % n for n in range(50)), "headers": FORM}, 400, "bad_request"),
        ({"content": b"scale=\xff", "headers": FORM}, 400, "bad_request"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"files": {"file": ("cat.png", b"abc")}}, 422, "unknown_option"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "bad_multipart"),
        ({"json": {"backend": "siliconflow"}}, 409, "backend_unavailable"),
        ({"json": {"model": "absent"}}, 409, "model_not_installed"),
        ({"json": {"model": "nobody"}}, 422, "unknown_model"),
        ({"content": b" " * 70_000}, 413, "body_too_large"),
    ],
)
def test_bad_options_are_refused_and_start_nothing(request_of: Any, status: int, code: str, service: Service) -> None:
    photo_id = uploaded(service)
    assert_problem(service.client.post(f"{PHOTOS}/{photo_id}/restore", **request_of), status, code)
    assert shown(service, photo_id)["attempts"] == []


def test_null_stands_for_the_default_as_the_description_says(service: Service) -> None:
    page = service.client.get("/openapi.json").json()
    content = page["paths"]["/api/v1/photos/{photo_id}/restore"]["post"]["requestBody"]["content"]
    described = content["application/json"]["schema"]["properties"]
    names = {name for name, schema in described.items() if '"null"' in json.dumps(schema)}
    assert names == set(described) - {"webhook_url"}
    photo_id = uploaded(service)
    assert service.client.post(f"{PHOTOS}/{photo_id}/restore", json=dict.fromkeys(names)).status_code == 202


def test_a_result_over_the_limit_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, max_output_megapixels=0.01) as service:
        photo_id = uploaded(service)
        assert_problem(service.client.post(f"{PHOTOS}/{photo_id}/restore"), 413, "output_too_large")
        assert service.client.post(f"{PHOTOS}/{photo_id}/restore", json={"scale": 2}).status_code == 202


def test_a_full_queue_and_a_stopping_service_take_no_attempt(service: Service, tmp_path: Path) -> None:
    with running(tmp_path / "full", queue_limit=1) as full:
        ids = [uploaded(full, photo(40 + n)) for n in range(5)]  # more than the worker holds besides the queue
        full.backend.gate.clear()
        answers = [full.client.post(f"{PHOTOS}/{photo_id}/restore") for photo_id in ids]
        refused = [answer for answer in answers if answer.status_code != 202]
        assert refused
        for answer in refused:
            assert_problem(answer, 503, "queue_full")
            assert answer.headers["retry-after"]
    photo_id = uploaded(service)
    service.context.admission.draining = True
    assert_problem(service.client.post(f"{PHOTOS}/{photo_id}/restore"), 503, "draining")
    assert_problem(upload(service), 503, "draining")


def test_one_attempt_at_a_time(service: Service) -> None:
    photo_id = uploaded(service)
    service.backend.gate.clear()
    job_id = service.client.post(f"{PHOTOS}/{photo_id}/restore", json={"scale": 2}).json()["job_id"]
    service.wait_for(job_id, "processing")
    assert shown(service, photo_id)["status"] == "processing"
    for answer in (
        service.client.post(f"{PHOTOS}/{photo_id}/restore"),
        service.client.post(f"{PHOTOS}/{photo_id}/archive"),
        service.client.delete(f"{PHOTOS}/{photo_id}"),
    ):
        assert_problem(answer, 409, "photo_busy")
    assert shown(service, photo_id)["expires_at"] is None
    attempt = shown(service, photo_id)["attempts"][0]["id"]
    answer = service.client.post(f"{PHOTOS}/{photo_id}/select", json={"attempt_id": attempt})
    assert_problem(answer, 409, "attempt_not_completed")
    assert upload(service).json()["id"] == photo_id  # the same bytes meanwhile are the same photo
    service.client.delete(f"/api/v1/jobs/{job_id}")
    service.backend.gate.set()
    assert shown(service, photo_id)["status"] == "uploaded"
    restore(service, photo_id, scale=2)


def test_a_photo_whose_next_attempt_still_waits_is_busy_too(service: Service) -> None:
    photo_id = uploaded(service)
    restore(service, photo_id, scale=2)
    service.restoring.worker.stop()
    assert service.client.post(f"{PHOTOS}/{photo_id}/restore").status_code == 202
    assert shown(service, photo_id)["status"] == "ready"
    for answer in (
        service.client.post(f"{PHOTOS}/{photo_id}/archive"),
        service.client.post(f"{PHOTOS}/{photo_id}/restore"),
        service.client.delete(f"{PHOTOS}/{photo_id}"),
    ):
        assert_problem(answer, 409, "photo_busy")
    assert shown(service, photo_id)["status"] == "ready"


def test_two_clients_who_start_at_once_get_one_attempt(service: Service) -> None:
    photo_id = uploaded(service)
    service.backend.gate.clear()
    answers: list[Any] = []
    path = f"{PHOTOS}/{photo_id}/restore"
    threads = [threading.Thread(target=lambda: answers.append(service.client.post(path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert len(shown(service, photo_id)["attempts"]) == 1


def test_a_failed_attempt_leaves_the_photo_as_it_was(service: Service) -> None:
    photo_id = uploaded(service)
    restore(service, photo_id, prompt="fail")
    assert shown(service, photo_id)["status"] == "uploaded"
    assert_problem(service.client.post(f"{PHOTOS}/{photo_id}/archive"), 409, "photo_not_ready")
    restore(service, photo_id)
    restore(service, photo_id, prompt="fail")
    state = shown(service, photo_id)
    assert state["status"] == "ready"
    assert [row["status"] for row in state["attempts"]] == ["failed", "completed", "failed"]


def test_waiting_for_the_end_answers_with_the_job_or_its_failure(service: Service) -> None:
    path, wait = f"{PHOTOS}/{uploaded(service)}/restore", {"Prefer": "wait=20"}
    answer = service.client.post(path, json={"scale": 2}, headers=wait)
    assert (answer.status_code, answer.json()["results"][0]["width"]) == (200, 80)
    assert_problem(service.client.post(path, json={"prompt": "fail"}, headers=wait), 422, "undecodable_image")


def test_an_archived_photo_is_out_of_the_list_and_takes_no_attempts(service: Service) -> None:
    kept, archived = uploaded(service), uploaded(service, photo(50))
    attempt = restore(service, archived)["attempt_id"]
    for _ in range(2):
        answer = service.client.post(f"{PHOTOS}/{archived}/archive")
        assert (answer.status_code, answer.json()["status"]) == (200, "archived")
    assert [row["id"] for row in service.client.get(PHOTOS).json()["photos"]] == [kept]
    assert [row["id"] for row in service.client.get(f"{PHOTOS}?archived=true").json()["photos"]] == [archived]
    assert_problem(service.client.post(f"{PHOTOS}/{archived}/restore"), 409, "photo_archived")
    answer = service.client.post(f"{PHOTOS}/{archived}/select", json={"attempt_id": attempt})
    assert_problem(answer, 409, "photo_archived")
    again = upload(service, photo(50))
    assert (again.status_code, again.json()["id"], again.json()["status"]) == (200, archived, "archived")
    url = shown(service, archived)["attempts"][0]["result"]["url"]
    assert service.client.get(url).status_code == 200
    assert service.client.delete(f"{PHOTOS}/{archived}").json() == {"photo_id": archived, "status": "removed"}
    assert service.client.get(url).status_code == 404
    assert uploaded(service, photo(50)) != archived


def test_deleting_removes_rows_and_files_and_happens_once(service: Service) -> None:
    photo_id = uploaded(service)
    jobs = [restore(service, photo_id, scale=scale)["job_id"] for scale in (2, 3)]
    assert service.client.delete(f"{PHOTOS}/{photo_id}").status_code == 200
    assert_problem(service.client.delete(f"{PHOTOS}/{photo_id}"), 404, "photo_not_found")
    for job_id in jobs:
        assert_problem(service.client.get(f"/api/v1/jobs/{job_id}"), 404, "job_not_found")
    assert service.uploads() == []
    assert not [path for path in (service.folder / "results").iterdir() if path.is_file()]


def test_removing_the_job_of_an_attempt_keeps_the_photo(service: Service) -> None:
    photo_id = uploaded(service)
    accepted = restore(service, photo_id)
    service.client.post(f"{PHOTOS}/{photo_id}/select", json={"attempt_id": accepted["attempt_id"]})
    service.client.delete(f"/api/v1/jobs/{accepted['job_id']}")
    state = shown(service, photo_id)
    assert (state["attempts"], state["selected_attempt_id"]) == ([], None)
    assert service.uploads() == [photo_id]
    restore(service, photo_id)


def test_a_photo_lives_as_long_as_it_is_used(service: Service) -> None:
    parts = service.context
    photo_id = uploaded(service)
    janitor = Janitor(parts.store, parts.storage, parts.metrics, retention_seconds=3600)
    begin = shown(service, photo_id)["created_at"]
    for step in (1, 2, 3):
        now = begin + step * 3000
        parts.wall = lambda moment=now: moment
        assert upload(service).status_code == 200
        assert janitor.sweep(now).uploads == 0
        assert shown(service, photo_id)["expires_at"] == pytest.approx(now + 3600)
    assert janitor.sweep(now + 3601).uploads == 1
    assert service.uploads() == []
    assert_problem(service.client.get(f"{PHOTOS}/{photo_id}"), 404, "photo_not_found")


def test_the_attempts_of_a_photo_live_as_long_as_the_photo(service: Service) -> None:
    parts = service.context
    photo_id = uploaded(service)
    job_id = restore(service, photo_id)["job_id"]
    janitor = Janitor(parts.store, parts.storage, parts.metrics, retention_seconds=3600)
    ended = service.finish(job_id)["attempts"][0]["ended_at"]
    parts.wall = lambda: ended + 3000
    upload(service)
    assert janitor.sweep(ended + 3700).jobs == 0
    assert service.client.get(f"/api/v1/jobs/{job_id}").status_code == 200
    done = janitor.sweep(ended + 3000 + 3601)
    assert (done.jobs, done.uploads, done.results) == (1, 1, 1)


def test_the_list_is_paged_newest_first(service: Service) -> None:
    ids = [uploaded(service, photo(30 + number)) for number in range(5)]
    pages: list[list[str]] = []
    before: str | None = ""
    while before is not None:
        answer = service.client.get(f"{PHOTOS}?limit=2{before and f'&before={before}'}")
        schemas.PhotoPage.model_validate(answer.json())
        pages.append([row["id"] for row in answer.json()["photos"]])
        before = answer.json()["next"]
    assert pages == [ids[4:2:-1], ids[2:0:-1], ids[0:1]]
    assert_problem(service.client.get(f"{PHOTOS}?before={NOBODY}"), 404, "photo_not_found")
    assert_problem(service.client.get(f"{PHOTOS}?before=x"), 404, "photo_not_found")
    assert_problem(service.client.get(f"{PHOTOS}?limit=0"), 422, "invalid_parameter")


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"files": {"file": ("a.png", b"<html>")}}, 415, "unsupported_format"),
        ({"files": {"file": ("a.png", b"")}}, 422, "empty_file"),
        ({"files": {"file": ("a.png", photo()[:40])}}, 422, "undecodable_image"),
        ({"files": [("file", ("a.png", photo())), ("file", ("b.png", photo()))]}, 413, "too_many_files"),
        ({"files": {"file": ("a.png", photo())}, "data": {"scale": "2"}}, 422, "unknown_option"),
        ({"files": {"scale": (None, "2")}}, 422, "unknown_option"),
        ({"content": b"{}", "headers": {"content-type": "application/json"}}, 415, "unsupported_media_type"),
        ({"files": {"file": ("big.png", b"x" * 1_200_000)}}, 413, "file_too_large"),
    ],
)
def test_bad_uploads_leave_nothing(request_of: Any, status: int, code: str, tmp_path: Path) -> None:
    with running(tmp_path, max_file_size_mb=1) as service:
        assert_problem(service.client.post(PHOTOS, **request_of), status, code)
        assert service.uploads() == []
        assert service.client.get(PHOTOS).json() == {"photos": [], "next": None}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{}", 422, "no_attempt"),
        (b'{"attempt_id": 1}', 422, "no_attempt"),
        (b'{"attempt_id": null}', 422, "no_attempt"),
        (b"x", 400, "bad_json"),
        (b'{"attempt_id": "' + NOBODY.encode() + b'"}', 404, "attempt_not_found"),
    ],
)
def test_odd_choices_are_refused(body: bytes, status: int, code: str, service: Service) -> None:
    photo_id = uploaded(service)
    restore(service, photo_id)
    assert_problem(service.client.post(f"{PHOTOS}/{photo_id}/select", content=body), status, code)


def test_the_attempt_of_another_photo_cannot_be_chosen(service: Service) -> None:
    one, other = uploaded(service), uploaded(service, photo(50))
    attempt = restore(service, other)["attempt_id"]
    answer = service.client.post(f"{PHOTOS}/{one}/select", json={"attempt_id": attempt})
    assert_problem(answer, 404, "attempt_not_found")


def test_the_photos_of_others_are_unknown_and_their_bytes_tell_nothing(tmp_path: Path) -> None:
    with running(tmp_path, key=f"{KEY},{OTHER_KEY}") as service:
        photo_id = uploaded(service)
        attempt = restore(service, photo_id)["attempt_id"]
        foreign = {"X-API-KEY": OTHER_KEY}
        path = f"{PHOTOS}/{photo_id}"
        for answer in (
            service.client.get(path, headers=foreign),
            service.client.delete(path, headers=foreign),
            service.client.post(f"{path}/restore", headers=foreign),
            service.client.post(f"{path}/archive", headers=foreign),
            service.client.post(f"{path}/select", json={"attempt_id": attempt}, headers=foreign),
            service.client.get(f"{PHOTOS}?before={photo_id}", headers=foreign),
        ):
            assert_problem(answer, 404, "photo_not_found")
        assert service.client.get(PHOTOS, headers=foreign).json()["photos"] == []
        theirs = upload(service, headers=foreign)
        assert theirs.status_code == 201  # 200 would tell that somebody has this very photo
        assert theirs.json()["id"] != photo_id
        assert shown(service, photo_id)["status"] == "ready"


@pytest.mark.parametrize("photo_id", ["x", "0" * 31, "0" * 33, "..%2f..%2fetc", "G" * 32])
def test_what_is_no_id_is_no_photo(photo_id: str, service: Service) -> None:
    for method, end in (("GET", ""), ("DELETE", ""), ("POST", "/restore"), ("POST", "/archive"), ("POST", "/select")):
        content = b'{"attempt_id": "x"}' if end == "/select" else b""
        answer = service.client.request(method, f"{PHOTOS}/{photo_id}{end}", content=content)
        assert answer.status_code == 404, (method, end)


def test_photos_outlive_the_service(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        photo_id = uploaded(service)
        attempt = restore(service, photo_id, scale=2)["attempt_id"]
        service.client.post(f"{PHOTOS}/{photo_id}/select", json={"attempt_id": attempt})
        before = shown(service, photo_id)
    app = create_app(settings_for(tmp_path), backends={"local": GatedBackend()}, describe=describe)
    with TestClient(app, base_url=BASE_URL) as client:
        assert client.get(f"{PHOTOS}/{photo_id}").json() == before
        assert client.post(PHOTOS, files={"file": ("x.png", photo())}).json()["id"] == photo_id
