"""The bytes that one owner may have here: photos and results, added up in the transaction that takes in more."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import InsufficientStorage
from app.store import Job, JobOrigin, NewPhoto, NewVersion, Photo, SentMask, Store
from tests.databases import IMPLEMENTATIONS, two_views
from tests.http_service import KEY, OTHER_KEY, assert_problem, running
from tests.test_store_contract import ME, result
from tests.test_store_contract import photo as any_photo
from tests.test_store_races import at_once

NOW = 1.0
MEGABYTE = 1024 * 1024
OTHER = {"X-API-KEY": OTHER_KEY}


@pytest.fixture(params=IMPLEMENTATIONS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    with two_views(request.param, tmp_path) as views:
        yield views


def photo(size: int = 100, number: int = 0) -> NewPhoto:
    """An upload of so many bytes, which differ from those of other numbers."""
    return dataclasses.replace(any_photo(), bytes=size, sha256=f"{number:064}")


def submit(store: Store, *sizes: int, owner: str = ME, limit: int | None = 1000) -> Job:
    new = [photo(size) for size in sizes]
    return store.submit(owner, new, "{}", "local", 99, NOW, storage_limit=limit)[0]


def add(store: Store, number: int, size: int = 100, limit: int | None = 1000) -> tuple[Photo, bool]:
    return store.library.add(ME, photo(size, number), NOW, storage_limit=limit)


def finish(store: Store, job: Job) -> None:
    """End a job's one attempt with a result of 99 bytes, and 50 beside it."""
    (attempt,) = job.attempts
    assert store.claim(attempt.id, "t", NOW)
    assert store.complete(attempt.id, "t", dataclasses.replace(result(attempt.id), beside_bytes=50), NOW)


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InsufficientStorage) as found:
        call()
    assert (found.value.code, found.value.status) == ("storage_limit_reached", 507)
    return found.value.detail


# The rows.


def test_a_submission_that_does_not_fit_is_refused_whole_and_counts_nowhere(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    submit(store, 600, 300)
    again = [photo(60), photo(60)]
    refused(lambda: store.submit(ME, again, "{}", "local", 99, NOW, daily_limit=9, storage_limit=1000))
    assert store.accounts.stored_bytes(ME) == 900
    assert (store.counts().queued, store.accounts.usage(ME, NOW).photos_today) == (2, 0)
    submit(store, 100)  # to the last byte
    refused(lambda: submit(store, 1))
    submit(store, 1, limit=None)
    submit(store, 1000, owner="another")


def test_what_was_cancelled_counts_until_it_is_removed(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    for _ in range(2):
        job = submit(store, 500)
        store.cancel_or_remove(ME, job.id, NOW)
    refused(lambda: submit(store, 500))
    store.cancel_or_remove(ME, job.id, NOW)  # it has ended: now it goes
    submit(store, 500)


def test_results_and_all_that_lies_beside_them_count(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    kept, _ = add(store, 1)
    mask = JobOrigin(mask=SentMask("e" * 32, 25))
    job, _ = store.restore_photo(ME, kept.id, "{}", "local", 99, NOW, storage_limit=125, origin=mask)
    assert store.accounts.stored_bytes(ME) == 125
    finish(store, job)
    assert store.accounts.stored_bytes(ME) == 125 + 99 + 50
    assert store.new_version(job.attempts[0].id, 1, NewVersion("x-v2.png", 70, ()))
    assert store.accounts.stored_bytes(ME) == 125 + 99 + 50 + 70
    assert store.accounts.stored_bytes("another") == 0
    store.library.remove(ME, kept.id)
    assert store.accounts.stored_bytes(ME) == 0


def test_a_full_owner_restores_no_photo_once_more(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    kept, _ = add(store, 1)
    refused(lambda: store.restore_photo(ME, kept.id, "{}", "local", 99, NOW, storage_limit=100))
    mask = JobOrigin(mask=SentMask("e" * 32, 25))
    refused(lambda: store.restore_photo(ME, kept.id, "{}", "local", 99, NOW, storage_limit=124, origin=mask))
    assert store.counts().queued == 0
    store.restore_photo(ME, kept.id, "{}", "local", 99, NOW, storage_limit=101)


def test_the_library_takes_no_more_than_fits_but_equal_bytes_any_time(stores: tuple[Store, Store]) -> None:
    store = stores[0]
    first, _ = add(store, 1, 1000)
    sentence = refused(lambda: add(store, 2, 1))
    assert sentence.startswith("Your photos and results here take 0 MB of 0 MB, so this does not fit; remove some")
    again, is_new = add(store, 1, 1000)
    assert (again.id, is_new) == (first.id, False)
    assert len(store.library.photos(ME, 9)) == 1


def test_two_that_fit_one_by_one_and_race_are_counted_exactly(stores: tuple[Store, Store]) -> None:
    """Without the lock both processes add up what neither has written yet."""

    def one(number: int) -> Callable[[], object]:
        store = stores[number % 2]
        return lambda: add(store, number) if number % 3 else submit(store, 100)

    outcomes = at_once([one(number) for number in range(40)])
    codes = {getattr(outcome, "code", "") for outcome in outcomes if isinstance(outcome, Exception)}
    assert codes == {"storage_limit_reached"}
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 10
    assert stores[0].accounts.stored_bytes(ME) == 1000


# Over HTTP.


def noise(number: int, side: int = 360) -> bytes:
    """A photo of nearly 0.4 megabytes that is like no other."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_photos_that_nobody_restores_do_not_fill_the_disk(tmp_path: Path) -> None:
    with running(tmp_path, key=f"{KEY},{OTHER_KEY}", storage_limit_mb_per_owner=1) as service:

        def send(number: int, headers: dict[str, str] | None = None) -> Any:
            return service.client.post("/api/v1/photos", files={"file": noise(number)}, headers=headers)

        kept = [send(number).json()["id"] for number in range(2)]
        body = assert_problem(send(2), 507, "storage_limit_reached")
        assert body["detail"].startswith("Your photos and results here take 0.7 MB of 1 MB, so this does not fit;")
        assert len(service.uploads()) == 2
        assert send(0).status_code == 200
        assert send(3, OTHER).status_code == 201
        share = service.client.get("/api/v1/me").json()["stored_bytes"]
        assert share["used"] == len(noise(0)) + len(noise(1))
        assert (share["limit"], share["left"]) == (MEGABYTE, MEGABYTE - share["used"])
        assert service.client.get("/api/v1/config").json()["limits"]["stored_bytes"] == MEGABYTE
        service.client.delete(f"/api/v1/photos/{kept[0]}")
        assert send(2).status_code == 201


def test_submit_and_cancel_again_and_again_does_not_either(tmp_path: Path) -> None:
    with running(tmp_path, storage_limit_mb_per_owner=1) as service:  # without keys it holds for all together
        service.backend.gate.clear()
        for number in range(2):
            service.client.delete(f"/api/v1/jobs/{service.submit(noise(number))}")
        for path in ("/enhance", "/api/v1/enhance", "/api/v1/enhance/batch"):
            answer = service.client.post(path, files={"file": noise(2)}, headers={"Idempotency-Key": path})
            assert_problem(answer, 507, "storage_limit_reached")
        assert len(service.uploads()) == 2


def test_without_the_setting_nothing_is_added_up(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        service.finish(service.submit(noise(1)))
        assert service.client.get("/api/v1/me").json()["stored_bytes"] is None
        assert service.client.get("/api/v1/config").json()["limits"]["stored_bytes"] is None
