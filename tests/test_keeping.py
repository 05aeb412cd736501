"""Jobs that are kept past their time, single photos that leave a job, and the names in archives."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.api import archives, schemas
from app.api.download_names import LONGEST_FILE_NAME_BYTES, ArchiveNames
from app.errors import Conflict, InsufficientStorage, NotFound
from app.images import Decoder
from app.jobs.janitor import Janitor
from app.store import SqlStore, Store
from tests.databases import IMPLEMENTATIONS
from tests.harness import OWNER, Harness, result_file, upload_file
from tests.http_service import Service, assert_problem, photo, running
from tests.test_janitor import HOUR, START, NoDecoder, completed
from tests.test_store_contract import ME, add, finish, first, status_of

UPLOAD_BYTES, RESULT_BYTES = 1234, 99  # of the contract's photos
PLENTY = 1_000_000


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path))
    opened.open()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("keeping")) as found:
        yield found


# The store.


def test_a_kept_job_does_not_expire_and_its_time_counts_anew_once_let_go(store: Store) -> None:
    job = add(store)
    finish(store, first(job), now=110.0)
    assert store.keeping.keep(ME, job.id, PLENTY, 120.0).kept
    assert store.expire(1_000.0).jobs == ()
    assert store.page(ME, 5, None, 0)[0].kept
    let_go = store.keeping.let_go(ME, job.id, 500.0)
    assert (let_go.kept, let_go.let_go_at) == (False, 500.0)
    assert store.expire(500.0).jobs == ()
    assert store.expire(501.0).jobs == (job.id,)


def test_no_more_is_kept_than_the_limit_and_each_upload_counts_once(store: Store) -> None:
    one, other, foreign = add(store), add(store), add(store, owner="another")
    for job in (one, other, foreign):
        finish(store, first(job))
    again, _ = store.restore_photo(ME, one.attempts[0].photo_id, "{}", "local", 100, 120.0)
    finish(store, first(again), now=130.0)
    limit = UPLOAD_BYTES + 2 * RESULT_BYTES
    store.keeping.keep(ME, one.id, limit, 200.0)
    store.keeping.keep(ME, one.id, 0, 200.0)  # kept already
    store.keeping.keep(ME, again.id, limit, 200.0)
    store.keeping.keep("another", foreign.id, limit, 200.0)
    with pytest.raises(InsufficientStorage) as refused:
        store.keeping.keep(ME, other.id, limit, 200.0)
    assert (refused.value.code, refused.value.status) == ("keep_limit_reached", 507)
    store.keeping.let_go(ME, one.id, 210.0)
    store.keeping.let_go(ME, again.id, 210.0)
    assert store.keeping.keep(ME, other.id, limit, 220.0).kept


def test_only_own_jobs_that_ended_are_kept(store: Store) -> None:
    job = add(store)
    with pytest.raises(Conflict, match="has not ended"):
        store.keeping.keep(ME, job.id, PLENTY, 120.0)
    finish(store, first(job))
    with pytest.raises(NotFound):
        store.keeping.keep("another", job.id, PLENTY, 120.0)
    with pytest.raises(NotFound):
        store.keeping.let_go("another", job.id, 120.0)
    assert not store.job(ME, job.id).kept


def test_one_photo_of_a_job_is_cancelled_or_removed(store: Store) -> None:
    job = add(store, photos=3)
    done, waiting, last = (attempt.id for attempt in job.attempts)
    finish(store, done)
    assert store.cancel_or_remove(ME, job.id, 120.0, waiting).outcome == "cancelled"
    assert [status_of(store, one) for one in (done, waiting, last)] == ["completed", "cancelled", "queued"]
    gone = store.cancel_or_remove(ME, job.id, 120.0, done)
    assert (gone.outcome, gone.jobs, gone.results) == ("removed", (), (f"{done}.png",))
    assert gone.uploads == (job.attempts[0].photo_id,)
    assert [attempt.id for attempt in store.job(ME, job.id).attempts] == [waiting, last]
    with pytest.raises(NotFound) as unknown:
        store.cancel_or_remove(ME, job.id, 120.0, done)
    assert unknown.value.code == "attempt_not_found"
    store.cancel_or_remove(ME, job.id, 120.0, waiting)
    finish(store, last, now=130.0)
    assert store.cancel_or_remove(ME, job.id, 140.0, last).jobs == (job.id,)
    with pytest.raises(NotFound):
        store.job(ME, job.id)


# The janitor.


def test_the_janitor_leaves_kept_jobs_and_their_files(tmp_path: Path) -> None:
    harness = Harness(tmp_path, decoder=NoDecoder())
    harness.open()
    janitor = Janitor(harness.store, harness.storage, harness.metrics, retention_seconds=HOUR)
    kept, other = completed(harness, START), completed(harness, START)
    attempt = harness.store.keeping.keep(OWNER, kept, PLENTY, START).attempts[0]
    swept = janitor.sweep(START + 1000 * HOUR)
    assert (swept.jobs, swept.orphans) == (1, 0)
    assert result_file(harness.storage, f"{attempt.id}.png").exists()
    assert upload_file(harness.storage, attempt.photo_id).exists()
    with pytest.raises(NotFound):
        harness.store.job(OWNER, other)
    harness.store.keeping.let_go(OWNER, kept, START + 1000 * HOUR)
    assert janitor.sweep(START + 1000 * HOUR + 60).jobs == 0
    assert janitor.sweep(START + 1002 * HOUR).jobs == 1
    assert not harness.storage.has_result(f"{attempt.id}.png")
    harness.close()


# The routes.


def test_a_job_is_kept_and_let_go_over_http(service: Service) -> None:
    job_id = service.submit()
    before = service.finish(job_id)
    assert (before["kept"], before["expires_at"] > 0) == (False, True)
    keep = f"/api/v1/jobs/{job_id}/keep"
    kept = service.client.post(keep).json()
    schemas.JobShape.model_validate(kept)
    assert (kept["kept"], kept["expires_at"]) == (True, None)
    let_go = service.client.delete(keep).json()
    assert (let_go["kept"], let_go["expires_at"] >= before["expires_at"]) == (False, True)
    service.context.limits = dataclasses.replace(service.context.limits, keep_limit_bytes=1)
    assert_problem(service.client.post(keep), 507, "keep_limit_reached")
    assert_problem(service.client.post(f"/api/v1/jobs/{'0' * 32}/keep"), 404, "job_not_found")


def test_the_photo_of_a_kept_job_does_not_expire_either(service: Service) -> None:
    job = service.finish(service.submit(name="own.png"))
    photo_of, keep = f"/api/v1/photos/{job['attempts'][0]['photo_id']}", f"/api/v1/jobs/{job['job_id']}/keep"
    assert service.client.get(photo_of).json()["expires_at"] == pytest.approx(job["expires_at"])
    limits = service.context.limits
    service.context.limits = dataclasses.replace(limits, keep_limit_bytes=PLENTY)
    service.client.post(keep)
    assert service.client.get(photo_of).json()["expires_at"] is None
    let_go = service.client.delete(keep).json()
    assert service.client.get(photo_of).json()["expires_at"] == pytest.approx(let_go["expires_at"])
    service.context.limits = limits


def test_one_photo_leaves_a_batch_over_http_and_one_zip_holds_all(service: Service) -> None:
    sent = [("files", (name, photo())) for name in ("one.png", "two.png", "TWO.png")]
    job_id = service.client.post("/enhance", files=sent).json()["job_id"]
    attempts = service.finish(job_id)["attempts"]
    gone = service.client.delete(f"/api/v1/jobs/{job_id}/attempts/{attempts[0]['id']}").json()
    schemas.AttemptRemoved.model_validate(gone)
    assert gone == {"job_id": job_id, "attempt_id": attempts[0]["id"], "status": "removed"}
    assert service.client.get(attempts[0]["result"]["url"]).status_code == 404
    assert_problem(service.client.delete(f"/api/v1/jobs/{job_id}/attempts/nothing"), 404, "attempt_not_found")
    other = service.submit(name="two.png")
    service.finish(other)
    answer = service.client.get("/api/v1/results")
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[:3] == ["two.png", "two (2).png", "TWO (3).png"]


def test_everything_of_an_owner_without_anything_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as empty:
        assert_problem(empty.client.get("/api/v1/results"), 409, "no_result")


def test_one_zip_of_everything_has_a_bound_and_names_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_RESULTS", 2)
    found: list[str] = []
    with running(tmp_path) as service:
        for name in ("oldest.png", "old.png", "new.png"):
            service.finish(service.submit(name=name))
        address: str | None = "/api/v1/results"
        while address is not None:
            answer = service.client.get(address)
            with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
                found += archive.namelist()
            address = answer.links["next"]["url"] if "next" in answer.links else None
        assert found == ["new.png", "old.png", archives.ERRORS_NAME, "oldest.png"]
        assert_problem(service.client.get("/api/v1/results?before=nothing"), 404, "job_not_found")


def test_a_removal_meanwhile_cuts_no_archive_and_its_files_are_closed(tmp_path: Path, decoder: Decoder) -> None:
    harness = Harness(tmp_path, None, decoder)
    harness.open()
    attempt_id = harness.submit().attempts[0].id
    harness.runner.run_attempt(attempt_id)
    job = harness.store.job(OWNER, harness.store.jobs(OWNER, 1)[0].id)
    result = result_file(harness.storage, job.attempts[0].result_name or "")
    answer = archives.archive_response(harness.storage, [job], "a.zip")
    assert str(result) in open_files()
    harness.storage.remove_result(job.attempts[0].result_name or "")
    whole = asyncio.run(gathered(aiter(answer.body_iterator)))
    assert len(whole) == int(answer.headers["content-length"])
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
    assert not [name for name in open_files() if name.startswith(str(result))]
    harness.close()


async def gathered(parts: AsyncIterator[Any]) -> bytes:
    return b"".join([part async for part in parts])


def open_files() -> list[str]:
    return [file.path for file in psutil.Process().open_files()]


# The names in archives.


def test_names_in_archives_are_the_originals_safe_unique_and_short(tmp_path: Path) -> None:
    store = SqlStore(IMPLEMENTATIONS["sqlite"](tmp_path))
    store.open()
    attempt = add(store).attempts[0]
    store.close()
    names = ArchiveNames()
    given = [
        "Größe.JPG", "cat.jpg", "CAT.png", "cat (2).jpg", "cat.webp", "con.jpg", "a:b/c\\d?.jpg", "trailing. .jpg",
        ".jpg", "",
        "é.jpg", "e\u0301.jpg", "写" * 200, "写" * 200, "x\ud800.png", "\u202egpj.exe",
    ]  # fmt: skip
    made = [
        names.add(dataclasses.replace(attempt, original_filename=name, result_name=f"{attempt.id}.png"))
        for name in given
    ]
    assert made[:10] == [
        "Größe.png", "cat.png", "CAT (2).png", "cat (2) (2).png", "cat (3).png", "_con.png", "a_b_c_d_.png",
        "trailing.png", "jpg.png", "photo.png",
    ]  # fmt: skip
    assert len({name.casefold() for name in made}) == len(given)
    assert made[11] == "e\u0301 (2).png"
    assert max(len(name.encode()) for name in made) <= LONGEST_FILE_NAME_BYTES
    assert made[13].endswith(" (2).png")
    assert made[15] == "_gpj.png"
