"""Fair use: a day's photos, uploads at once, what is told of the limits, and keys with names and roles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.api.auth.api_keys import ApiKeys, NamedKey
from app.api.auth.caller import Role, derive_owner
from app.errors import RestoreError, TooManyRequests
from app.store import Job, Result, Store, next_day
from app.store.accounts import day_of
from tests.databases import IMPLEMENTATIONS, two_views
from tests.harness import until
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running
from tests.test_guard import FORM, Wire, call
from tests.test_store_contract import ME
from tests.test_store_contract import photo as new_photo
from tests.test_store_races import at_once

NOON = 1_790_000_000.0 // 86_400 * 86_400 + 43_200


@pytest.fixture(params=IMPLEMENTATIONS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    with two_views(request.param, tmp_path) as views:
        yield views


def submit(store: Store, photos: int = 1, *, owner: str = ME, now: float = NOON, daily: int | None = 10) -> Job:
    """A job that the day's count may refuse."""
    new = [new_photo() for _ in range(photos)]
    return store.submit(owner, new, "{}", "local", 1000, now, daily_limit=daily)[0]


def used(store: Store, now: float = NOON, owner: str = ME) -> int:
    return store.accounts.usage(owner, now).photos_today


# The rows.


def test_of_100_parallel_submits_a_quota_of_10_admits_10(stores: tuple[Store, Store]) -> None:
    def one(number: int) -> Callable[[], object]:
        return lambda: submit(stores[number % 2])

    outcomes = at_once([one(number) for number in range(100)])
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 10
    assert {getattr(outcome, "code", "") for outcome in outcomes if not isinstance(outcome, Job)} == {"quota_exceeded"}
    assert used(stores[0]) == stores[1].counts().queued == stores[0].accounts.usage(ME, NOON).waiting == 10


def test_racing_batches_never_pass_the_quota(stores: tuple[Store, Store]) -> None:
    def one(number: int) -> Callable[[], object]:
        return lambda: submit(stores[number % 2], photos=3)

    outcomes = at_once([one(number) for number in range(20)])
    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 3
    assert used(stores[0]) == 9
    submit(stores[0], photos=1)
    with pytest.raises(TooManyRequests):
        submit(stores[0], photos=1)


def test_a_refusal_says_what_is_left_and_until_when_and_counts_nothing(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    submit(store, photos=8)
    with pytest.raises(
        TooManyRequests, match=r"10 photos a day, and 2 of today's are left; .* in 12 h 0 min"
    ) as refused:
        submit(store, photos=3)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("quota_exceeded", 43_200)
    with pytest.raises(TooManyRequests, match="2 of today's are left"):
        submit(store, photos=11)
    assert used(store) == store.counts().queued == 8


def test_the_first_submit_of_a_day_may_not_be_larger_than_the_quota(stores: tuple[Store, Store]) -> None:
    with pytest.raises(TooManyRequests):
        submit(stores[0], photos=11)
    assert used(stores[0]) == 0


def test_each_day_and_each_owner_has_its_own_count(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    submit(store, photos=10)
    submit(store, photos=10, owner="another")
    submit(store, photos=10, now=next_day(NOON))
    with pytest.raises(TooManyRequests):
        submit(store, now=next_day(NOON) - 1)
    assert (day_of(next_day(NOON) - 1), day_of(next_day(NOON))) == (day_of(NOON), day_of(NOON + 86_400))


def test_a_full_queue_takes_nothing_from_the_day(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    for limits in ({"queue_limit": 1}, {"queue_limit": 99, "owner_limit": 1}):
        store.submit(ME, [new_photo()], "{}", "local", limits["queue_limit"], NOON, daily_limit=10)
        with pytest.raises(RestoreError, match="wait"):
            store.submit(
                ME, [new_photo()], "{}", "local", limits["queue_limit"], NOON,
                owner_limit=limits.get("owner_limit"), daily_limit=10,
            )  # fmt: skip
        for job in store.jobs(ME, 9):
            store.cancel_or_remove(ME, job.id, NOON)
    assert used(store) == 2


def test_a_repeated_restoration_counts(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    kept, _ = store.library.add(ME, new_photo(), NOON)
    job, _ = store.restore_photo(ME, kept.id, "{}", "local", 99, NOON, daily_limit=1)
    store.cancel_or_remove(ME, job.id, NOON)
    with pytest.raises(TooManyRequests, match="0 of today's are left"):
        store.restore_photo(ME, kept.id, "{}", "local", 99, NOON, daily_limit=1)


def finish(store: Store, job: Job, *, from_cache: bool, now: float = NOON) -> bool:
    """Run a job's one attempt to its end, by its network or with a copy."""
    (attempt,) = job.attempts
    store.claim(attempt.id, attempt.id, now)
    done = Result(f"{attempt.id}.png", "image/png", 8, 8, 9, "net", 1.0, from_cache=from_cache)
    return store.complete(attempt.id, attempt.id, done, now)


def test_what_the_result_cache_gives_is_taken_out_of_the_day_on_which_it_was_accepted(
    stores: tuple[Store, Store],
) -> None:
    store = stores[0]
    run, copied = submit(store), submit(store)
    submit(store, now=NOON + 86_400)
    assert finish(store, run, from_cache=False)
    assert used(store) == 2
    assert finish(store, copied, from_cache=True, now=NOON + 86_400)
    assert not finish(store, copied, from_cache=True)  # it has ended: once only
    assert (used(store), used(store, NOON + 86_400)) == (1, 1)
    submit(store, photos=9)


def test_racing_copies_and_submits_leave_an_exact_count(stores: tuple[Store, Store]) -> None:
    waiting = [submit(stores[0]) for _ in range(10)]
    ends = [lambda job=job, n=n: finish(stores[n % 2], job, from_cache=True) for n, job in enumerate(waiting)]
    again = [lambda n=n: submit(stores[n % 2]) for n in range(10)]
    outcomes = at_once([call for pair in zip(ends, again, strict=True) for call in pair])
    accepted = sum(isinstance(outcome, Job) for outcome in outcomes)
    assert outcomes.count(True) == 10
    assert used(stores[0]) == stores[0].counts().queued == accepted
    submit(stores[1], photos=10 - accepted) if accepted < 10 else None
    assert used(stores[1]) == 10


def test_copies_without_a_quota_count_nothing(stores: tuple[Store, Store]) -> None:
    job = submit(stores[0], daily=None)
    assert finish(stores[0], job, from_cache=True)
    assert used(stores[0]) == 0


def test_without_a_quota_nothing_is_counted_and_old_days_are_forgotten(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    submit(store, daily=None)
    assert used(store) == 0
    submit(store)
    submit(store, now=NOON + 86_400)
    store.accounts.forget_usage(NOON + 86_400)
    assert (used(store), used(store, NOON + 86_400)) == (0, 1)


def test_the_counts_of_one_owner_are_its_own(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    submit(store, photos=2)
    submit(store, photos=3, owner="another")
    assert (store.counts(ME).queued, store.counts().queued, store.counts("nobody").queued) == (2, 5, 0)


# Over HTTP.


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two named keys, an admin's and a user's; its client is the user."""
    keys = f"kay:user:{KEY},ops:admin:{OTHER_KEY}"
    settings: dict[str, Any] = {"key": keys, "rate_limit": "1000/minute", "quota_photos_per_day": 5}
    with running(tmp_path_factory.mktemp("named"), max_concurrent_uploads=3, **settings) as service:
        yield service


ADMIN = {"X-API-KEY": OTHER_KEY}


def test_me_says_who_and_what_is_left_and_submits_lower_it(named: Service) -> None:
    me = named.client.get("/api/v1/me").json()
    assert (me["name"], me["role"], me["expires_at"]) == ("kay", "user", None)
    assert (me["photos_today"]["limit"], me["waiting"]["limit"], me["uploads"]["limit"]) == (5, 20, 3)
    before, now = me["photos_today"]["left"], time.time()
    assert now < me["photos_today"]["resets_at"] <= now + 86_400
    assert me["photos_today"]["resets_at"] % 86_400 == 0
    assert me["requests"]["limit"] == 1000
    job = named.submit()
    after = named.client.get("/api/v1/me").json()
    assert (after["photos_today"]["left"], after["photos_today"]["used"]) == (before - 1, 5 - before + 1)
    named.finish(job)
    assert named.client.get("/api/v1/me", headers=ADMIN).json()["photos_today"]["left"] == 5


def test_every_answer_tells_the_rate_and_a_submit_tells_the_day(named: Service) -> None:
    answers = [named.client.get("/api/v1/config") for _ in range(2)]
    left = [int(answer.headers["ratelimit-remaining"]) for answer in answers]
    assert left[0] - left[1] == 1
    assert answers[0].headers["ratelimit-limit"] == "1000"
    assert 0 < int(answers[0].headers["ratelimit-reset"]) <= 60
    accepted = named.client.post("/enhance", files={"file": photo()}, headers=ADMIN)
    assert (accepted.headers["ratelimit-limit"], accepted.headers["ratelimit-remaining"]) == ("5", "4")
    assert 0 < int(accepted.headers["ratelimit-reset"]) <= 86_400


def test_over_the_day_comes_429_with_the_time_of_the_next(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY, quota_photos_per_day=2) as service:
        pair = [("files", ("a.png", photo())), ("files", ("b.png", photo(kind="JPEG")))]
        assert service.client.post("/enhance", files=pair).status_code == 202
        refused = service.client.post("/enhance", files={"file": photo()})
        body = assert_problem(refused, 429, "quota_exceeded")
        wait = int(refused.headers["retry-after"])
        assert abs(wait - (next_day(time.time()) - time.time())) < 60
        assert "midnight UTC" in body["detail"]
        assert refused.headers["ratelimit-remaining"] == "0"
        kept = service.client.post("/api/v1/photos", files={"file": photo(50, 50)})
        assert kept.status_code == 201  # only a restoration counts
        again = service.client.post(f"/api/v1/photos/{kept.json()['id']}/restore", json={})
        assert_problem(again, 429, "quota_exceeded")
        assert len(service.uploads()) == 3


def test_parallel_submits_over_http_are_counted_exactly(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY, quota_photos_per_day=10, max_concurrent_uploads=0) as service:
        service.backend.gate.clear()

        def send(_: int) -> int:
            return int(service.client.post("/enhance", files={"file": photo()}).status_code)

        with ThreadPoolExecutor(16) as pool:
            codes = list(pool.map(send, range(40)))
        assert sorted(set(codes)) == [202, 429]
        assert codes.count(202) == 10


def test_a_fourth_upload_at_once_is_refused_before_its_body_is_read(named: Service) -> None:
    owner, wire = derive_owner(b"owner", KEY.encode()), Wire()
    places = named.context.uploads
    with places.acquire(owner), places.acquire(owner), places.acquire(owner):
        headers = {**FORM, "x-api-key": KEY, "content-length": "900"}
        named.client.portal.call(call, named.app, wire, "/enhance", headers)  # type: ignore[union-attr]
        assert (wire.status, wire.read) == (429, 0)
        assert wire.header("connection") == "close"
        refused = named.client.post("/enhance", files={"file": photo()})
        assert "3 of your uploads" in assert_problem(refused, 429, "too_many_uploads")["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert named.client.get("/api/v1/me").json()["uploads"] == share(3, 3)
        assert named.client.post("/enhance", files={"file": photo()}, headers=ADMIN).status_code == 202


def test_a_place_is_free_again_however_an_upload_ends(named: Service) -> None:
    for content in (b"--b--\r\n", b"broken", b""):
        assert named.client.post("/enhance", content=content, headers=FORM).status_code in (400, 422)
    assert named.client.get("/api/v1/me").json()["uploads"] == share(3, 0)


def share(limit: int, used_now: int) -> dict[str, int | None]:
    return {"limit": limit, "used": used_now, "left": limit - used_now}


def test_without_keys_nobody_is_told_apart_and_uploads_have_no_limit(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        me = service.client.get("/api/v1/me").json()
        assert (me["name"], me["role"]) == ("local", "admin")
        assert [me[name] for name in ("photos_today", "waiting", "uploads", "requests")] == [None] * 4
        answer = service.client.post("/enhance", files={"file": photo()})
        assert "ratelimit-limit" not in answer.headers
        assert service.client.get("/metrics").status_code == 200
        assert "restore_caller_requests_total{" not in service.client.get("/metrics").text


def test_beside_an_owner_who_floods_another_waits_for_no_more_than_the_photo_in_work(tmp_path: Path) -> None:
    with running(tmp_path, key=f"kay:user:{KEY},ops:admin:{OTHER_KEY}") as service:
        service.backend.gate.clear()
        flood = [service.submit() for _ in range(8)]
        until(lambda: service.backend.calls == 1)  # one is in work, the next is decoded
        mine = service.client.post("/api/v1/enhance", files={"file": photo()}, headers=ADMIN).json()["job_id"]
        service.backend.gate.set()
        until(lambda: service.client.get(f"/status/{mine}", headers=ADMIN).json()["status"] == "completed")
        for job_id in flood:
            service.finish(job_id)
        jobs = [service.client.get(f"/api/v1/jobs/{job_id}").json() for job_id in flood]
        started = service.client.get(f"/api/v1/jobs/{mine}", headers=ADMIN).json()["attempts"][0]["started_at"]
        assert sum(job["attempts"][0]["started_at"] < started for job in jobs) <= 3


# Names and roles.


def test_a_users_key_may_not_what_an_admins_may(named: Service) -> None:
    for method, path in (("GET", "/metrics"), ("POST", "/api/v1/models/warmup")):
        assert_problem(named.client.request(method, path), 403, "admin_required")
        assert named.client.request(method, path, headers=ADMIN).status_code == 200


def test_metrics_and_log_tell_keys_apart_by_name_and_never_hold_a_key(
    named: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        accepted = named.client.post("/enhance", files={"file": photo()}, headers=ADMIN)
    assert f"job {accepted.json()['job_id']} of ops: 1 photos accepted" in caplog.text
    assert named.client.get("/api/v1/jobs").status_code == 200
    figures = named.client.get("/metrics", headers=ADMIN).text
    assert 'restore_caller_photos_total{caller="ops"}' in figures
    assert 'restore_caller_requests_total{caller="kay",status="200"}' in figures
    assert KEY not in figures + caplog.text
    assert OTHER_KEY not in figures + caplog.text


def test_the_status_counts_all_jobs_for_an_admin_and_own_ones_for_a_user(tmp_path: Path) -> None:
    with running(tmp_path, key=f"kay:user:{KEY},ops:admin:{OTHER_KEY}") as service:
        service.backend.gate.clear()
        first = service.client.post("/enhance", files={"file": photo()}, headers=ADMIN)
        assert first.status_code == 202
        service.submit()

        def count(headers: dict[str, str]) -> int:
            queue = service.client.get("/api/v1/status", headers=headers).json()["queue"]
            return int(queue["queued"] + queue["processing"])

        assert (count({}), count(ADMIN)) == (1, 2)


@pytest.mark.parametrize(
    ("keys", "roles"),
    [
        ([NamedKey("a"), NamedKey("b", "kay")], [Role.ADMIN, Role.ADMIN]),
        ([NamedKey("a"), NamedKey("b", "ops", Role.ADMIN)], [Role.USER, Role.ADMIN]),
        ([NamedKey("a", "kay", Role.USER), NamedKey("b")], [Role.USER, Role.USER]),
    ],
)
def test_keys_without_roles_do_everything_until_one_has_a_role(keys: list[NamedKey], roles: list[Role]) -> None:
    found = [ApiKeys(keys).caller_of_key(key.key.encode()) for key in keys]
    assert [caller.role for caller in found if caller] == roles


def test_a_key_keeps_its_owner_whatever_its_name_and_role() -> None:
    plain, named_key = ApiKeys([NamedKey(KEY)]), ApiKeys([NamedKey(KEY, "kay", Role.USER)])
    before, after = (keys.caller_of_key(KEY.encode()) for keys in (plain, named_key))
    assert before is not None
    assert after is not None
    assert before.owner == after.owner
    assert (before.name, after.name) == (f"key-{before.owner[:8]}", "kay")
