"""Requests that are sent twice with one Idempotency-Key: one job, whoever repeats, whatever broke in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.errors import Conflict, RestoreError, Unavailable
from app.jobs.idempotency import AcceptedJob, submit_once
from app.jobs.keys_in_work import KeysInWork
from app.jobs.submission import Upload
from app.options import RestoreOptions
from app.storage import new_id
from app.store import HeldKey, Job, NewPhoto, SqlStore
from app.store.idempotency import CRASHED_SECONDS, KEPT_SECONDS
from tests.databases import IMPLEMENTATIONS, Clock
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running

ME = "me"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[SqlStore]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path), clock=clock)
    opened.open()
    yield opened
    opened.close()


def new_photo() -> NewPhoto:
    return NewPhoto(new_id(), "a" * 64, "old.jpg", "image/jpeg", 30, 20, 1234)


def make(store: SqlStore, job_id: str | None) -> tuple[Job, int]:
    return store.submit(ME, [new_photo()], "{}", "local", 100, 100.0, job_id=job_id)


def submit(store: SqlStore, job_id: str) -> str:
    job, _ = make(store, job_id)
    assert job.id == job_id
    return job.attempts[0].id


def held(job_id: str, key: str = "k") -> HeldKey:
    return HeldKey(ME, key, job_id)


# Rows.


def test_the_second_request_hears_of_the_first_ones_job(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    assert not first.accepted
    store.idempotency.accept(held(first.job_id), submit(store, first.job_id), 7)
    again = store.idempotency.begin(ME, "k", "d", 101.0)
    assert (again.accepted, again.job_id, again.position) == (True, first.job_id, 7)


def in_use(store: SqlStore, digest: str = "d") -> bool:
    with pytest.raises(Conflict) as raised:
        store.idempotency.begin(ME, "k", digest, 100.0)
    return raised.value.code == "idempotency_key_in_use"


def test_while_the_first_is_in_work_the_second_is_refused(store: SqlStore, clock: Clock) -> None:
    store.idempotency.begin(ME, "k", "d", 100.0)
    clock.now += CRASHED_SECONDS - 1
    assert in_use(store)


def test_a_first_one_that_died_before_its_job_is_taken_over_once(store: SqlStore, clock: Clock) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    clock.now += CRASHED_SECONDS
    again = store.idempotency.begin(ME, "k", "d", 100.0)
    assert (again.accepted, again.job_id) == (False, first.job_id)
    clock.now += 1
    assert in_use(store)


def test_a_first_one_that_is_renewed_is_not_taken_over_however_long_it_takes(store: SqlStore, clock: Clock) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    store.idempotency.renew([])
    for _ in range(5):
        clock.now += CRASHED_SECONDS - 1
        store.idempotency.renew([held(first.job_id), held("of nobody", "other")])
        assert in_use(store)
    clock.now += CRASHED_SECONDS
    assert store.idempotency.begin(ME, "k", "d", 100.0).job_id == first.job_id


def test_the_clocks_of_hosts_do_not_take_a_submission_over(store: SqlStore) -> None:
    store.idempotency.begin(ME, "k", "d", 100.0)
    with pytest.raises(Conflict):
        store.idempotency.begin(ME, "k", "d", 100.0 + 10 * CRASHED_SECONDS)


def test_what_was_refused_may_be_sent_at_once_and_keeps_its_jobs_id(store: SqlStore, clock: Clock) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    store.idempotency.forget(held(first.job_id))
    store.idempotency.renew([held(first.job_id)])  # by a keeper that has not heard of it yet
    again = store.idempotency.begin(ME, "k", "d", 200.0)
    assert (again.accepted, again.job_id) == (False, first.job_id)
    assert in_use(store)
    assert store.idempotency.expire(150.0 + KEPT_SECONDS) == 0  # its day counts from the last request


def test_after_a_refusal_another_request_may_have_the_key_with_a_job_of_its_own(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    store.idempotency.forget(held(first.job_id))
    other = store.idempotency.begin(ME, "k", "another", 100.0)
    assert (other.accepted, other.digest) == (False, "another")
    assert other.job_id != first.job_id
    late = submit(store, first.job_id)  # by one that was believed dead
    store.idempotency.accept(held(first.job_id), late, 1)
    store.idempotency.forget(held(first.job_id))
    assert in_use(store, "another")


def test_a_refusal_forgets_no_job_that_is_there(store: SqlStore) -> None:
    """The commit's answer was lost, say, or a request that was taken over committed after all."""
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    attempt_id = submit(store, first.job_id)
    store.idempotency.forget(held(first.job_id))
    again = store.idempotency.begin(ME, "k", "d", 101.0)
    assert (again.accepted, again.job_id, again.attempt_id) == (True, first.job_id, attempt_id)
    assert store.idempotency.begin(ME, "k", "another", 101.0).digest == "d"  # which is refused


def test_a_late_refusal_of_one_that_was_taken_over_makes_no_second_job(store: SqlStore, clock: Clock) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    clock.now += CRASHED_SECONDS
    store.idempotency.begin(ME, "k", "d", 101.0)  # takes over, and is in work
    store.idempotency.forget(held(first.job_id))
    third = store.idempotency.begin(ME, "k", "d", 102.0)
    assert submit(store, first.job_id) == submit(store, third.job_id)
    assert len(store.jobs(ME, 9)) == 1


def test_a_first_one_that_died_after_its_job_is_found_by_it(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    attempt_id = submit(store, first.job_id)
    again = store.idempotency.begin(ME, "k", "d", 101.0)
    assert (again.accepted, again.job_id, again.attempt_id) == (True, first.job_id, attempt_id)


def test_no_second_job_can_have_the_first_ones_id(store: SqlStore) -> None:
    """Whoever makes it once more is given the one that is there, also where another one would be refused."""
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    asked: tuple[Any, ...] = ("{}", "local", 1, 100.0)
    made, _ = store.submit(ME, [new_photo()], *asked, daily_limit=1, job_id=first.job_id)
    again, position = store.submit(ME, [new_photo(), new_photo()], *asked, daily_limit=1, job_id=first.job_id)
    assert (again, position) == (made, 1)
    photo_id = made.attempts[0].photo_id
    restored, _ = store.restore_photo(ME, photo_id, *asked, daily_limit=1, job_id=first.job_id)
    assert restored == made
    assert (store.jobs(ME, 9), store.named_files.photo_ids()) == ([made], {photo_id})
    assert store.accounts.usage(ME, 100.0).photos_today == 1


def test_keys_are_of_their_owners_and_last_a_day(store: SqlStore) -> None:
    first = store.idempotency.begin(ME, "k", "d", 100.0)
    assert store.idempotency.begin("you", "k", "d", 100.0).job_id != first.job_id
    store.idempotency.accept(held(first.job_id), submit(store, first.job_id), 1)
    assert store.idempotency.begin(ME, "k", "d", 100.0 + KEPT_SECONDS).job_id == first.job_id
    assert store.idempotency.begin(ME, "k", "d", 101.0 + KEPT_SECONDS).job_id != first.job_id


def test_old_keys_are_swept_and_others_stay(store: SqlStore) -> None:
    store.idempotency.begin(ME, "old", "d", 100.0)
    kept = store.idempotency.begin(ME, "new", "d", 200.0)
    store.idempotency.accept(held(kept.job_id, "new"), submit(store, kept.job_id), 1)
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


# The use case.


class Client:
    """Sends one request under one key; time passes where a test says so."""

    def __init__(self, store: SqlStore) -> None:
        self.store, self.in_work = store, KeysInWork()

    def send(self, meanwhile: Callable[[], object] = lambda: None) -> AcceptedJob:
        def take(job_id: str | None) -> tuple[Job, int]:
            meanwhile()
            return make(self.store, job_id)

        return submit_once(self.store, ME, "k", lambda: "d", 100.0, take, self.in_work)


def test_a_slow_submission_is_sent_again_and_again_and_stays_one_job(store: SqlStore, clock: Clock) -> None:
    client = Client(store)
    refused: list[str] = []

    def slowly() -> None:
        for _ in range(20):  # five minutes of scanning and storing
            clock.now += 15.0
            store.idempotency.renew(client.in_work.held())  # as the lease keeper does
            with pytest.raises(Conflict) as raised:
                client.send()
            refused.append(raised.value.code)

    made = client.send(slowly)
    assert refused == ["idempotency_key_in_use"] * 20
    assert client.send() == made
    assert [job.id for job in store.jobs(ME, 9)] == [made.job_id]
    assert client.in_work.held() == []


@pytest.mark.parametrize("ends", ["makes", "is refused"])
def test_a_frozen_submission_that_was_taken_over_ends_and_stays_one_job(
    store: SqlStore, clock: Clock, ends: str
) -> None:
    frozen, other = Client(store), Client(store)
    taken: list[AcceptedJob] = []

    def freeze() -> None:
        clock.now += CRASHED_SECONDS
        taken.append(other.send())
        if ends == "is refused":
            raise Unavailable("scan_unavailable", "No.")

    if ends == "makes":
        assert frozen.send(freeze).job_id == taken[0].job_id
    else:
        with pytest.raises(Unavailable):
            frozen.send(freeze)
    assert frozen.send() == taken[0]
    assert [job.id for job in store.jobs(ME, 9)] == [taken[0].job_id]


def test_a_submission_whose_answer_was_lost_is_found_when_it_is_sent_again(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(store)
    with monkeypatch.context() as patch:
        lose_answers(patch, store)
        with pytest.raises(Unavailable):
            client.send()
    (job,) = store.jobs(ME, 9)
    assert client.send().job_id == job.id
    assert store.jobs(ME, 9) == [job]


def lose_answers(patch: pytest.MonkeyPatch, store: SqlStore) -> None:
    """Submissions are committed, and then the connection is gone."""
    accept = store.submit

    def lose(*asked: Any, **more: Any) -> None:
        accept(*asked, **more)
        raise Unavailable("database_unavailable", "The database went away.")

    patch.setattr(store, "submit", lose)


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


def test_the_files_of_a_submission_whose_job_was_made_before_go(service: Service) -> None:
    def send() -> Job:
        writer = service.context.storage.open_upload(new_id())
        writer.write(photo())
        uploads = [Upload("a.png", writer)]
        made: tuple[Job, int] = service.context.submission.submit(ME, uploads, RestoreOptions(), 1.0, "a" * 32)
        return made[0]

    first = send()
    assert send().attempts[0].id == first.attempts[0].id
    assert [name[:32] for name in service.uploads()] == [first.attempts[0].photo_id]


def test_photos_whose_commit_was_not_answered_are_kept_and_restored(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        lose_answers(patch, service.context.store)
        assert_problem(post(service, "/api/v1/enhance", "k1"), 503, "database_unavailable")
    assert len(service.uploads()) == 1
    again = post(service, "/api/v1/enhance", "k1")
    assert again.status_code == 202
    assert service.finish(again.json()["job_id"])["status"] == "completed"
    assert len(jobs_of(service)) == len(service.uploads()) == 1


def test_the_photo_of_the_library_whose_commit_was_not_answered_is_kept(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = service.context.store.library.add

    def lose(*given: Any, **limits: Any) -> None:
        add(*given, **limits)
        raise Unavailable("database_unavailable", "The database went away.")

    with monkeypatch.context() as patch:
        patch.setattr(service.context.store.library, "add", lose)
        upload = {"file": ("a.png", photo())}
        assert_problem(service.client.post("/api/v1/photos", files=upload), 503, "database_unavailable")
    (row,) = service.client.get("/api/v1/photos").json()["photos"]
    assert service.uploads() == [row["id"]]


def test_files_go_where_it_is_known_that_no_row_names_them(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("database_busy", "The database is busy.")

    with monkeypatch.context() as patch:
        patch.setattr(service.context.store, "submit", refuse)
        answer = service.client.post("/api/v1/enhance", files={"file": ("a.png", photo())})
        assert_problem(answer, 503, "database_busy")
    assert service.uploads() == []


def test_while_a_submission_is_taken_its_key_is_held_for_the_lease_keeper(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, held = service.context.lease_keeper, []
    submit = service.context.submission.submit

    def look(*given: Any, **more: Any) -> Any:
        held.append([one.key for one in keeper.keys_in_work.held()])
        return submit(*given, **more)

    monkeypatch.setattr(service.context.submission, "submit", look)
    assert post(service, "/api/v1/enhance", "k1").status_code == 202
    assert (held, keeper.keys_in_work.held()) == ([["k1"]], [])
