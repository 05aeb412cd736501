"""Requests that are sent twice with one Idempotency-Key: one job, whoever repeats, whatever broke in between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Conflict, RestoreError
from app.storage import new_id
from app.store import NewPhoto, SqlStore
from app.store.idempotency import CRASHED_SECONDS, KEPT_SECONDS
from tests.databases import IMPLEMENTATIONS
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running

ME = "me"


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path))
    opened.open()
    yield opened
    opened.close()


def submit(store: SqlStore, job_id: str) -> str:
    new = NewPhoto(new_id(), "a" * 64, "old.jpg", "image/jpeg", 30, 20, 1234)
    job, _ = store.submit(ME, [new], "{}", "local", 100, 100.0, job_id=job_id)
    assert job.id == job_id
    return job.attempts[0].id


# Rows.


def test_the_second_request_hears_of_the_first_ones_job(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    assert not first.accepted
    store.idempotency.accept(ME, "k", submit(store, first.job_id), 7)
    again = store.idempotency.begin(ME, "k", "d", 101.0)
    assert (again.accepted, again.job_id, again.position) == (True, first.job_id, 7)


def test_while_the_first_is_in_work_the_second_is_refused(store: SqlStore) -> None:
    store.idempotency.begin(ME, "k", "d", 100.0)
    with pytest.raises(Conflict) as raised:
        store.idempotency.begin(ME, "k", "d", 100.0 + CRASHED_SECONDS - 1)
    assert raised.value.code == "idempotency_key_in_use"


def test_a_first_one_that_died_before_its_job_is_taken_over_once(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    later = 100.0 + CRASHED_SECONDS
    again = store.idempotency.begin(ME, "k", "d", later)
    assert (again.accepted, again.job_id) == (False, first.job_id)
    with pytest.raises(Conflict):
        store.idempotency.begin(ME, "k", "d", later + 1)


def test_a_first_one_that_died_after_its_job_is_found_by_it(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    attempt_id = submit(store, first.job_id)
    again = store.idempotency.begin(ME, "k", "d", 101.0)
    assert (again.accepted, again.job_id, again.attempt_id) == (True, first.job_id, attempt_id)


def test_no_second_job_can_have_the_first_ones_id(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    submit(store, first.job_id)
    with pytest.raises(Exception, match=r"(?i)unique|constraint|busy"):
        submit(store, first.job_id)


def test_keys_are_of_their_owners_and_last_a_day(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    assert store.idempotency.begin("you", "k", "d", 100.0).job_id != first.job_id
    store.idempotency.accept(ME, "k", submit(store, first.job_id), 1)
    assert store.idempotency.begin(ME, "k", "d", 100.0 + KEPT_SECONDS).job_id == first.job_id
    assert store.idempotency.begin(ME, "k", "d", 101.0 + KEPT_SECONDS).job_id != first.job_id


def test_old_keys_are_swept_and_others_stay(store: SqlStore) -> None:
    store.idempotency.begin(ME, "old", "d", 100.0)
    kept = store.idempotency.begin(ME, "new", "d", 200.0)
    store.idempotency.accept(ME, "new", submit(store, kept.job_id), 1)
    assert store.idempotency.expire(150.0 + KEPT_SECONDS) == 1
    assert store.idempotency.begin(ME, "new", "d", 201.0).job_id == kept.job_id


def test_of_many_at_once_one_begins(store: SqlStore) -> None:
    begun: list[str] = []
    refused: set[str] = set()
    start = threading.Barrier(8)

    def one() -> None:
        start.wait(10)
        try:
            begun.append(store.idempotency.begin(ME, "k", "d", 100.0).job_id)
        except RestoreError as error:
            refused.add(error.code)

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(begun) == 1
    assert refused == {"idempotency_key_in_use"}


# HTTP.


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, key=f"{KEY},{OTHER_KEY}") as found:
        yield found


def post(service: Service, path: str, key: str, data: bytes = b"", **fields: str) -> Any:
    files = {"file": ("a.png", data or photo())}
    return service.client.post(path, files=files, data=fields, headers={"Idempotency-Key": key})


def jobs_of(service: Service) -> list[Any]:
    found: list[Any] = service.client.get("/api/v1/jobs").json()["jobs"]
    return found


@pytest.mark.parametrize("path", ["/enhance", "/api/v1/enhance", "/api/v1/enhance/batch"])
def test_a_repeated_submit_gives_the_same_answer_and_no_second_job(service: Service, path: str) -> None:
    first, again = post(service, path, "k1", scale="2"), post(service, path, "k1", scale="2")
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert len(jobs_of(service)) == len(service.uploads()) == 1
    service.finish(first.json()["job_id"])
    assert post(service, path, "k1", scale="2").json() == first.json()
    assert post(service, path, "k2", scale="2").json() != first.json()


def test_a_repeated_submit_may_wait_for_the_result(service: Service) -> None:
    first = post(service, "/api/v1/enhance", "k1")
    headers = {"Idempotency-Key": "k1", "Prefer": "wait=20"}
    again = service.client.post("/api/v1/enhance", files={"file": ("a.png", photo())}, headers=headers)
    assert again.status_code == 200
    assert again.json()["job_id"] == first.json()["job_id"]


def test_a_repeated_submit_gives_the_body_also_when_the_job_is_gone(service: Service) -> None:
    first = post(service, "/api/v1/enhance", "k1")
    service.finish(first.json()["job_id"])
    service.client.delete(f"/api/v1/jobs/{first.json()['job_id']}")
    again = post(service, "/api/v1/enhance", "k1")
    assert (again.status_code, again.json()) == (202, first.json())
    assert jobs_of(service) == []


def test_another_request_with_the_key_is_refused(service: Service) -> None:
    post(service, "/api/v1/enhance", "k1", scale="2")
    for answer in (
        post(service, "/api/v1/enhance", "k1", scale="3"),
        post(service, "/enhance", "k1", scale="2"),
        post(service, "/api/v1/enhance", "k1", photo(50), scale="2"),
    ):
        assert_problem(answer, 422, "idempotency_key_reused")
    assert len(jobs_of(service)) == len(service.uploads()) == 1


def test_what_was_refused_may_be_sent_again(service: Service) -> None:
    assert_problem(post(service, "/api/v1/enhance", "k1", b"no photo"), 415, "unsupported_format")
    assert post(service, "/api/v1/enhance", "k1").status_code == 202


def test_another_owner_has_keys_of_its_own(service: Service) -> None:
    first = post(service, "/api/v1/enhance", "k1")
    service.client.headers["X-API-KEY"] = OTHER_KEY
    assert post(service, "/api/v1/enhance", "k1").json() != first.json()


def test_a_repeated_restore_of_a_photo_gives_the_first_ones_attempt(service: Service) -> None:
    upload = service.client.post("/api/v1/photos", files={"file": ("a.png", photo())}).json()
    path, headers = f"/api/v1/photos/{upload['id']}/restore", {"Idempotency-Key": "k1"}
    first = service.client.post(path, json={"scale": 2}, headers=headers)
    assert first.status_code == 202
    service.finish(first.json()["job_id"])
    assert service.client.post(path, json={"scale": 2}, headers=headers).json() == first.json()
    assert_problem(service.client.post(path, json={"scale": 3}, headers=headers), 422, "idempotency_key_reused")
    assert len(jobs_of(service)) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "\xe9"])
def test_an_odd_key_is_refused(service: Service, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = service.client.post("/api/v1/enhance", files={"file": ("a.png", photo())}, headers=headers)
    assert_problem(answer, 400, "bad_idempotency_key")
