"""The routes of faces over HTTP: lists, crops, new strengths, addresses of older versions, and every refusal."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.api import schemas
from tests.face_backend import PLACES, FaceBackend
from tests.harness import layers_file
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running

NOBODY = "0" * 32


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, backend=FaceBackend()) as made:
        yield made


def restored(service: Service, **fields: str) -> dict[str, Any]:
    """A finished job of one photo of 64 x 48, twice as large."""
    return service.finish(service.submit(photo(64, 48), **{"scale": "2", **fields}))


def faces_of(service: Service, job_id: str) -> list[dict[str, Any]]:
    answer = service.client.get(f"/api/v1/jobs/{job_id}/faces")
    assert answer.status_code == 200
    schemas.FacesShape.model_validate(answer.json())
    attempts: list[dict[str, Any]] = answer.json()["attempts"]
    return attempts


def pixels(content: bytes) -> Any:
    with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def middle(content: bytes) -> tuple[int, ...]:
    """The colour in the middle of a picture."""
    found = pixels(content)
    return tuple(found[found.shape[0] // 2, found.shape[1] // 2])


def test_the_faces_of_a_result_are_listed_with_their_crops(service: Service) -> None:
    job = restored(service)
    (row,) = faces_of(service, job["job_id"])
    assert (row["version"], row["reblendable"], row["url"]) == (1, True, job["results"][0]["url"])
    assert row["attempt_id"] == job["attempts"][0]["id"]
    assert [(face["index"], face["restored"], face["strength"]) for face in row["faces"]] == [
        (0, True, 1.0),
        (1, True, 1.0),
        (2, False, 1.0),
    ]
    assert row["faces"][2]["before_url"] is None
    before, after = (service.client.get(row["faces"][0][side]) for side in ("before_url", "after_url"))
    for crop in (before, after):
        assert crop.headers["content-type"] == "image/jpeg"
        assert crop.headers["cache-control"] == "private, no-store"
    side = PLACES[0][2]
    assert pixels(before.content).shape == (side, side, 3)
    assert np.abs(np.array(middle(after.content)) - (230, 26, 26)).max() < 12
    assert np.abs(np.array(middle(before.content)) - (230, 26, 26)).max() > 60


def test_a_large_face_is_shown_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.face_backend.PLACES", ((10, 10, 500), (100, 20, 30)))
    with running(tmp_path, backend=FaceBackend()) as service:
        job = service.finish(service.submit(photo(300, 300), scale="2"))
        (row,) = faces_of(service, job["job_id"])
        assert pixels(service.client.get(row["faces"][0]["before_url"]).content).shape == (256, 256, 3)


def test_a_new_strength_makes_a_new_version_that_every_address_shows(service: Service) -> None:
    job = restored(service)
    path, old_url = f"/api/v1/jobs/{job['job_id']}/faces", job["results"][0]["url"]
    first = service.client.get(old_url)
    answer = service.client.post(path, json={"0": 0.5})
    assert answer.status_code == 200
    row = answer.json()
    schemas.AttemptFaces.model_validate(row)
    assert row["version"] == 2
    assert row["url"] != old_url
    assert [face["strength"] for face in row["faces"]] == [0.5, 1.0, 1.0]
    assert row == faces_of(service, job["job_id"])[0]

    newest = service.client.get(row["url"])
    assert newest.status_code == 200
    left, top, side = PLACES[0]
    y, x = top + side // 2, left + 10
    half = (pixels(first.content)[y, x] + pixels(service.client.get(row["faces"][0]["before_url"]).content)[12, 10]) / 2
    assert np.abs(pixels(newest.content)[y, x] - half).max() < 12
    after = pixels(service.client.get(row["faces"][0]["after_url"]).content)[12, 10]
    assert np.abs(after - half).max() < 12
    assert "v=2" in row["faces"][0]["after_url"]

    for address in (old_url, f"/api/v1/jobs/{job['job_id']}/result"):
        assert service.client.get(address).content == newest.content
    # A copy of the first version is never taken for the newest, whole or in part.
    stale = service.client.get(old_url, headers={"If-None-Match": first.headers["etag"]})
    assert (stale.status_code, stale.content) == (200, newest.content)
    assert stale.headers["etag"] != first.headers["etag"]
    part = service.client.get(old_url, headers={"Range": "bytes=0-9", "If-Range": first.headers["etag"]})
    assert (part.status_code, part.content) == (200, newest.content)
    same = service.client.get(old_url, headers={"If-None-Match": stale.headers["etag"]})
    assert same.status_code == 304

    state = service.client.get(f"/api/v1/jobs/{job['job_id']}").json()
    schemas.JobShape.model_validate(state)
    assert state["attempts"][0]["version"] == 2
    assert state["results"][0]["url"] == row["url"]
    assert state["attempts"][0]["result"]["bytes"] == len(newest.content)
    assert state["results"][0]["faces"][0]["strength"] == 0.5


def test_a_result_is_asked_about_without_its_bytes(service: Service) -> None:
    job = restored(service)
    for address in (job["results"][0]["url"], f"/api/v1/jobs/{job['job_id']}/result"):
        whole, head = service.client.get(address), service.client.head(address)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "content-length", "content-type"):
            assert head.headers[name] == whole.headers[name]


def test_the_archive_of_a_batch_holds_the_newest_versions(service: Service) -> None:
    job = restored(service)
    row = service.client.post(f"/api/v1/jobs/{job['job_id']}/faces", json={"0": 0.0, "1": 0.0}).json()
    archive = service.client.get(f"/api/v1/batch/{job['job_id']}/results").content
    assert service.client.get(row["url"]).content in archive


def test_names_of_versions_that_never_were_are_unknown(service: Service) -> None:
    job = restored(service)
    attempt = job["attempts"][0]["id"]
    service.client.post(f"/api/v1/jobs/{job['job_id']}/faces", json={"0": 0.5})
    for name in (f"{attempt}-v3.png", f"{attempt}-v1.png", f"{attempt}-v2.jpg", f"{attempt}.faces", f"{attempt}-v2"):
        assert_problem(service.client.get(f"/processed/{name}"), 404, "result_not_found")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"0": 1.5}', 422, "invalid_strength"),
        (b'{"0": -0.1}', 422, "invalid_strength"),
        (b'{"0": NaN}', 422, "invalid_strength"),
        (b'{"0": Infinity}', 422, "invalid_strength"),
        (b'{"0": 1' + b"0" * 400 + b"}", 422, "invalid_strength"),
        (b'{"0": true}', 422, "invalid_strength"),
        (b'{"0": "0.5"}', 422, "invalid_strength"),
        (b'{"0": null}', 422, "invalid_strength"),
        (b'{"0": [0.5]}', 422, "invalid_strength"),
        (b"{}", 422, "invalid_strength"),
        (b"", 422, "invalid_strength"),
        (b'{"2": 0.5}', 422, "unknown_face"),
        (b'{"7": 0.5}', 422, "unknown_face"),
        (b'{"-1": 0.5}', 422, "unknown_face"),
        ('{"²": 0.5}'.encode(), 422, "unknown_face"),
        (b'{"../x": 0.5}', 422, "unknown_face"),
        (b'{"' + b"9" * 5000 + b'": 0.5}', 422, "unknown_face"),
        (b"[0.5]", 400, "bad_json"),
        (b"not json", 400, "bad_json"),
        (b"\xff\xfe", 400, "bad_json"),
        (b"[" * 50_000, 400, "bad_json"),
        (b'{"0": ' + b"9" * 6000 + b"}", 400, "bad_json"),
        (b" " * 70_000, 413, "body_too_large"),
    ],
)
def test_bad_strengths_are_refused_and_change_nothing(body: bytes, status: int, code: str, service: Service) -> None:
    job = restored(service)
    answer = service.client.post(f"/api/v1/jobs/{job['job_id']}/faces", content=body)
    assert_problem(answer, status, code)
    assert faces_of(service, job["job_id"])[0]["version"] == 1


def test_a_batch_needs_to_know_which_photo(service: Service) -> None:
    files = [("files", (name, photo(64, 48))) for name in ("a.png", "b.png")]
    job_id = service.client.post("/api/v1/enhance/batch", files=files, data={"scale": "2"}).json()["batch_id"]
    job = service.finish(job_id)
    path = f"/api/v1/jobs/{job_id}/faces"
    assert_problem(service.client.post(path, json={"0": 0.5}), 422, "attempt_needed")
    second = job["attempts"][1]["id"]
    answer = service.client.post(f"{path}?attempt={second}", json={"0": 0.5})
    assert (answer.json()["attempt_id"], answer.json()["version"]) == (second, 2)
    assert [row["version"] for row in faces_of(service, job_id)] == [1, 2]
    assert_problem(service.client.post(f"{path}?attempt={NOBODY}", json={"0": 0.5}), 404, "attempt_not_found")


def test_before_the_end_it_is_not_ready(service: Service, tmp_path: Path) -> None:
    with running(tmp_path / "held") as held:  # the Lanczos backend waits at its gate
        held.backend.gate.clear()
        job_id = held.submit()
        held.wait_for(job_id, "processing")
        assert_problem(held.client.post(f"/api/v1/jobs/{job_id}/faces", json={"0": 0.5}), 409, "not_ready")
        assert held.client.get(f"/api/v1/jobs/{job_id}/faces").json() == {"job_id": job_id, "attempts": []}
        held.backend.gate.set()
        held.finish(job_id)
        assert_problem(held.client.post(f"/api/v1/jobs/{job_id}/faces", json={"0": 0.5}), 409, "faces_not_kept")


def test_a_photo_that_failed_has_no_result(service: Service) -> None:
    with running(service.folder / "failing") as failing:
        job_id = failing.submit(prompt="fail")
        failing.finish(job_id)
        assert_problem(failing.client.post(f"/api/v1/jobs/{job_id}/faces", json={"0": 0.5}), 409, "no_result")


def test_without_kept_layers_the_faces_are_listed_and_cannot_change(service: Service) -> None:
    job = restored(service)
    layers_file(service.context.storage, job["attempts"][0]["result"]["url"].rpartition("/")[2]).unlink()
    (row,) = faces_of(service, job["job_id"])
    assert row["reblendable"] is False
    assert {face["before_url"] for face in row["faces"]} == {None}
    path = f"/api/v1/jobs/{job['job_id']}/faces"
    assert_problem(service.client.post(path, json={"0": 0.5}), 409, "faces_not_kept")
    assert_problem(service.client.get(f"{path}/{row['attempt_id']}/0/before"), 409, "faces_not_kept")


def test_a_photo_without_faces_has_an_empty_row(service: Service) -> None:
    job = restored(service, prompt="no faces")
    (row,) = faces_of(service, job["job_id"])
    assert (row["faces"], row["reblendable"]) == ([], False)
    assert_problem(service.client.post(f"/api/v1/jobs/{job['job_id']}/faces", json={"0": 1}), 409, "faces_not_kept")


def test_odd_crops_are_refused(service: Service) -> None:
    job = restored(service)
    attempt = job["attempts"][0]["id"]
    path = f"/api/v1/jobs/{job['job_id']}/faces"
    for index in (2, 3, -1):
        assert_problem(service.client.get(f"{path}/{attempt}/{index}/after"), 404, "face_not_found")
    assert_problem(service.client.get(f"{path}/{attempt}/0/between"), 422, "invalid_parameter")
    assert_problem(service.client.get(f"{path}/{attempt}/x/after"), 422, "invalid_parameter")
    assert_problem(service.client.get(f"{path}/{NOBODY}/0/after"), 404, "attempt_not_found")
    assert_problem(service.client.get(f"/api/v1/jobs/{NOBODY}/faces/{attempt}/0/after"), 404, "job_not_found")
    assert_problem(service.client.get("/api/v1/jobs/x/faces"), 404, "job_not_found")


def test_the_faces_of_others_are_unknown(tmp_path: Path) -> None:
    with running(tmp_path, backend=FaceBackend(), key=f"{KEY},{OTHER_KEY}") as service:
        job = restored(service)
        attempt, foreign = job["attempts"][0]["id"], {"X-API-KEY": OTHER_KEY}
        path = f"/api/v1/jobs/{job['job_id']}/faces"
        for answer in (
            service.client.get(path, headers=foreign),
            service.client.post(path, json={"0": 0.5}, headers=foreign),
            service.client.get(f"{path}/{attempt}/0/before", headers=foreign),
        ):
            assert_problem(answer, 404, "job_not_found")
        service.client.post(path, json={"0": 0.5})
        for url in (job["results"][0]["url"], faces_of(service, job["job_id"])[0]["url"]):
            assert_problem(service.client.get(url, headers=foreign), 404, "result_not_found")
        assert faces_of(service, job["job_id"])[0]["version"] == 2


def test_many_clients_at_once_get_one_version_each_and_downloads_go_on(service: Service) -> None:
    job = restored(service)
    path, url = f"/api/v1/jobs/{job['job_id']}/faces", job["results"][0]["url"]
    versions: list[int] = []
    broken: list[Any] = []

    def change(strength: float) -> None:
        while (answer := service.client.post(path, json={"0": strength})).status_code == 429:
            assert answer.json()["code"] == "too_many_reblends"
        versions.append(answer.json()["version"])

    def download() -> None:
        for _ in range(15):
            answer = service.client.get(url)
            if answer.status_code != 200 or pixels(answer.content).shape != (96, 128, 3):
                broken.append(answer)

    threads = [threading.Thread(target=change, args=(step / 8,)) for step in range(8)]
    threads += [threading.Thread(target=download) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(2, 10))
    assert not broken


def test_removing_the_job_removes_every_file(service: Service) -> None:
    job = restored(service)
    for strength in (0.1, 0.2, 0.3):
        service.client.post(f"/api/v1/jobs/{job['job_id']}/faces", json={"1": strength})
    results = service.folder / "results"
    assert len([path for path in results.iterdir() if path.is_file()]) == 4
    assert service.client.delete(f"/api/v1/jobs/{job['job_id']}").json()["status"] == "removed"
    assert not [path for path in results.iterdir() if path.is_file()]
