"""Masks that users draw, below HTTP: their bits, their rows, their files, and the runs that fill what they mark."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from app.errors import InsufficientStorage, RestoreError, Unavailable, Unprocessable
from app.images import DecoderPool, ImageLimits
from app.images.damage_file import DamageMap, read_damage, save_damage
from app.images.damage_layer import DamageLayer
from app.images.drawn_mask import pack_mask, unpack_mask
from app.jobs import worker_reports
from app.jobs.deletion import Deletion
from app.jobs.janitor import Janitor, Sweep
from app.jobs.own_masks import MaskSubmission
from app.main import create_app
from app.options import RestoreOptions
from app.storage import new_id
from app.store import NO_ORIGIN, Attempt, Job, JobOrigin, SentMask, SqlStore, Store
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.harness import OWNER, Harness, until, upload_file
from tests.http_service import BASE_URL, KEY, settings_for
from tests.repairing_backend import RepairingBackend
from tests.s3_servers import BUCKET, S3Server
from tests.test_damage_api import HEIGHT, SCRATCH, WIDTH, blank, describe_repair, encoded, scratched
from tests.test_store_contract import ME, add, finish, first

HOUR, START = 3600.0, 1_000_000.0
MASK_BYTES = 77
EMPTY = pack_mask(np.zeros((10, 20), np.bool_))


# Bits.


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_mask_comes_back_as_it_was_packed(width: int, height: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    assert (unpack_mask(pack_mask(mask), (width, height)) == mask).all()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "mask_unreadable"),
        (b"12345", "mask_unreadable"),
        (pack_mask(np.zeros((20, 10), np.bool_)), "mask_wrong_size"),  # turned
        (EMPTY[:-4], "mask_unreadable"),  # without its checksum
        (EMPTY[:8] + b"no deflate", "mask_unreadable"),
        (EMPTY[:8] + pack_mask(np.zeros((4000, 20), np.bool_))[8:], "mask_unreadable"),  # more bits than pixels
    ],
)
def test_what_is_no_packed_mask_of_this_photo_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        unpack_mask(data, (20, 10))
    assert refused.value.code == code


def test_damage_is_kept_as_two_grey_pictures(tmp_path: Path) -> None:
    probability = np.arange(200, dtype=np.uint8).reshape(10, 20)
    save_damage(tmp_path / "kept", DamageLayer(probability, probability > 100))
    for which, meant in (
        (DamageMap.PROBABILITY, probability),
        (DamageMap.MASK, (probability > 100).astype(np.uint8) * 255),
    ):
        with Image.open(io.BytesIO(read_damage(tmp_path / "kept", which))) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            assert (np.asarray(image) == meant).all()
    (tmp_path / "kept").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(Unprocessable, match="cannot be read"):
        read_damage(tmp_path / "kept", DamageMap.MASK)


# Rows.


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path))
    opened.open()
    yield opened
    opened.close()


def masked(store: Store, job: Job, now: float = 120.0) -> Attempt:
    """One attempt more at the job's photo, which came with a mask."""
    origin = JobOrigin(mask=SentMask(new_id(), MASK_BYTES))
    again, _ = store.restore_photo(ME, job.attempts[0].photo_id, "{}", "local", 100, now, origin=origin)
    assert origin.mask is not None
    assert [attempt.id for attempt in again.attempts] == [origin.mask.attempt_id]
    return again.attempts[0]


def test_an_attempt_has_the_id_under_which_its_mask_is_kept(store: Store) -> None:
    job = add(store)
    finish(store, first(job))
    assert job.attempts[0].mask_bytes is None
    attempt = masked(store, job)
    assert attempt.mask_bytes == MASK_BYTES
    assert store.named_files.mask_ids() == {attempt.id}
    assert store.claim(attempt.id, "t", 130.0) == store.attempt(attempt.id)
    assert store.crashed(attempt.id, "t", 131.0)
    again = store.claim(attempt.id, "u", 132.0)
    assert again is not None
    assert again.mask_bytes == MASK_BYTES


@pytest.mark.parametrize("how", ["job", "attempt", "photo", "age"])
def test_a_mask_goes_with_its_row_and_not_before(store: Store, how: str) -> None:
    job = add(store)
    finish(store, first(job))
    attempt = masked(store, job)
    assert store.cancel_or_remove(ME, attempt.job_id, 125.0).masks == ()  # cancelled: the row stays
    assert store.named_files.mask_ids() == {attempt.id}
    if how == "job":
        gone = store.cancel_or_remove(ME, attempt.job_id, 130.0)
    elif how == "attempt":
        gone = store.cancel_or_remove(ME, attempt.job_id, 130.0, attempt.id)
    elif how == "photo":
        gone = store.library.remove(ME, attempt.photo_id)
    else:
        gone = store.expire(1_000.0)
    assert gone.masks == (attempt.id,)
    assert store.named_files.mask_ids() == set()


def test_a_mask_counts_towards_what_may_be_kept(store: Store) -> None:
    job = add(store)
    finish(store, first(job))
    attempt = masked(store, job)
    finish(store, attempt.id, now=130.0)
    whole = 1234 + 99 + MASK_BYTES  # the contract's upload and result
    with pytest.raises(InsufficientStorage):
        store.keeping.keep(ME, attempt.job_id, whole - 1, 140.0)
    assert store.keeping.keep(ME, attempt.job_id, whole, 140.0).kept


# Files and runs.


@pytest.fixture
def decoders() -> Iterator[DecoderPool]:
    pool = DecoderPool(ImageLimits())
    yield pool
    pool.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Harness]:
    made = Harness(tmp_path, RepairingBackend())
    made.open()
    yield made
    made.close()


def drawn() -> Any:
    mask = blank()
    mask[2:6, 70:80] = 255
    return mask


def submit(bench: Harness, decoders: DecoderPool, mask: Any = None) -> Attempt:
    """A finished job of a scratched photo, and a waiting attempt with a mask."""
    photo = bench.upload(scratched(), WIDTH, HEIGHT)
    job = bench.store.add_job(OWNER, [photo], RestoreOptions(scale=1).to_json(), "local", 9, time.time())
    bench.runner.run_attempt(job.attempts[0].id)
    path = bench.folder / "mask.png"
    path.write_bytes(encoded(drawn() if mask is None else mask))

    def restore(options: RestoreOptions, origin: JobOrigin) -> tuple[Job, int]:
        return bench.store.restore_photo(OWNER, photo.id, options.to_json(), "local", 9, time.time(), origin=origin)

    masks = MaskSubmission(bench.storage, decoders)
    again, _ = masks.submit(bench.attempts(job)[0], path, restore, NO_ORIGIN)
    return again.attempts[0]


def now_of(bench: Harness, attempt: Attempt) -> Attempt:
    found = bench.store.attempt(attempt.id)
    assert found is not None
    return found


def test_a_run_that_died_is_made_again_with_the_same_mask(bench: Harness, decoders: DecoderPool) -> None:
    attempt = submit(bench, decoders)
    for _ in range(2):
        token = new_id()
        prepared = bench.runner.prepare(attempt.id, token, time.time())
        assert prepared is not None
        assert prepared.mask is not None
        assert (prepared.mask == (drawn() > 0)).all()
        bench.runner.abandon(attempt.id, token)
    bench.runner.run_attempt(attempt.id)
    done = now_of(bench, attempt)
    assert (done.status.value, done.params["repair"]["own_mask"]) == ("completed", True)
    assert bench.backend.found == 0
    assert len(list(bench.storage.iter_masks())) == 1


def test_a_mask_that_is_lost_fails_its_attempt_with_a_reason(bench: Harness, decoders: DecoderPool) -> None:
    attempt = submit(bench, decoders)
    assert bench.storage.remove_mask(attempt.id)
    bench.runner.run_attempt(attempt.id)
    assert (now_of(bench, attempt).status.value, now_of(bench, attempt).error_code) == ("failed", "mask_missing")


def test_a_backend_that_repairs_nothing_says_so(bench: Harness, decoders: DecoderPool) -> None:
    from tests.harness import LanczosBackend

    attempt = submit(bench, decoders)
    bench.backends["local"] = LanczosBackend()
    bench.runner.run_attempt(attempt.id)
    assert now_of(bench, attempt).error_code == "repair_unavailable"


def test_where_the_attempt_is_refused_its_mask_is_not_kept(bench: Harness, decoders: DecoderPool) -> None:
    submit(bench, decoders)
    attempts = [one for job in bench.store.jobs(OWNER, 9) for one in job.attempts]
    ended = next(one for one in attempts if one.mask_bytes is None)

    def refuse(options: RestoreOptions, origin: JobOrigin) -> tuple[Job, int]:
        raise RestoreError("photo_busy", "This photo is being restored.")

    with pytest.raises(RestoreError):
        MaskSubmission(bench.storage, decoders).submit(ended, bench.folder / "mask.png", refuse)
    assert len(list(bench.storage.iter_masks())) == 1
    assert bench.scratch_files() == []


def test_a_mask_whose_attempt_may_be_there_is_kept(bench: Harness, decoders: DecoderPool) -> None:
    """The database committed, and its answer was lost."""
    before = submit(bench, decoders)
    bench.store.cancel_or_remove(OWNER, before.job_id, time.time())
    ended = now_of(bench, before)

    def lose(options: RestoreOptions, origin: JobOrigin) -> tuple[Job, int]:
        asked = (OWNER, before.photo_id, options.to_json(), "local", 9, time.time())
        bench.store.restore_photo(*asked, origin=origin)
        raise Unavailable("database_unavailable", "Gone.")

    with pytest.raises(Unavailable):
        MaskSubmission(bench.storage, decoders).submit(ended, bench.folder / "mask.png", lose)
    (attempt_id,) = bench.store.queued_ids()
    bench.runner.run_attempt(attempt_id)
    done = bench.store.attempt(attempt_id)
    assert done is not None
    assert done.status.value == "completed"


def test_a_mask_whose_attempt_was_made_before_goes(bench: Harness, decoders: DecoderPool) -> None:
    made = submit(bench, decoders)
    job = bench.store.job(OWNER, made.job_id)
    masks = MaskSubmission(bench.storage, decoders)
    again, _ = masks.submit(made, bench.folder / "mask.png", lambda *_: (job, 1))
    assert again == job
    assert [file.name[:32] for file in bench.storage.iter_masks()] == [made.id]


def test_a_mask_of_another_size_is_refused_before_a_pixel_is_decoded(
    bench: Harness, decoders: DecoderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(decoders, "decode", lambda path, *, as_stored: decoded.append(path))
    with pytest.raises(Unprocessable) as refused:
        submit(bench, decoders, blank(0, 4000, 4000))
    assert (refused.value.code, decoded) == ("mask_wrong_size", [])


def test_a_mask_without_a_row_goes_once_it_is_old_and_one_with_a_row_with_its_job(
    bench: Harness, decoders: DecoderPool
) -> None:
    attempt = submit(bench, decoders)
    orphan = new_id()
    with bench.storage.scratch(orphan) as temporary:
        temporary.write_bytes(b"its row was never written")
        bench.storage.keep_mask(temporary, orphan)
    uploads = bench.folder / "uploads"
    for path in uploads.glob("*.mask"):
        os.utime(path, (START, START))
    janitor = Janitor(bench.store, bench.storage, bench.metrics, retention_seconds=HOUR)
    assert janitor.sweep(START + HOUR - 1) == Sweep()
    assert janitor.sweep(START + HOUR + 1) == Sweep(orphans=1)
    assert [path.name for path in uploads.glob("*.mask")] == [f"{attempt.id}.mask"]
    bench.runner.run_attempt(attempt.id)
    janitor.sweep(time.time() + 2 * HOUR)
    assert not list(uploads.iterdir())
    assert bench.result_files() == []


def test_a_result_from_the_cache_is_never_that_of_a_mask(bench: Harness, decoders: DecoderPool) -> None:
    from app.jobs.result_cache import ResultCache

    class Repeating(RepairingBackend):
        def result_facts(self, options: RestoreOptions) -> dict[str, Any]:
            return {"engine": "test"}

    cache = ResultCache(bench.store, bench.storage, {"local": Repeating()}, same_owner=True, code="c")
    attempt = submit(bench, decoders)
    options = RestoreOptions.from_json(attempt.options_json)
    assert cache.key_of(attempt, options) is None
    plain = next(one for job in bench.store.jobs(OWNER, 9) for one in job.attempts if one.mask_bytes is None)
    assert cache.key_of(plain, options) is not None


def test_a_file_that_resists_does_not_keep_the_others(bench: Harness, decoders: DecoderPool) -> None:
    attempt = submit(bench, decoders)
    bench.runner.run_attempt(attempt.id)
    upload_file(bench.storage, attempt.photo_id)
    bench.storage.remove_mask(attempt.id)  # gone already
    Deletion(bench.store, bench.storage).remove_photo(OWNER, attempt.photo_id)
    assert not list((bench.folder / "uploads").iterdir())


# Another host.


@contextlib.contextmanager
def serving(folder: Path, url: str, server: S3Server, **more: Any) -> Iterator[TestClient]:
    """A server with folders of its own; database and bucket are shared."""
    shared = {"storage_url": f"s3://{BUCKET}/masks", "s3_endpoint_url": server.url, "s3_addressing_style": "path"}
    settings = settings_for(folder, database_url=url, key=KEY, **shared)
    app = create_app(settings, describe=describe_repair, warm_up=lambda: "lanczos", **more)
    with TestClient(app, base_url=BASE_URL, headers={"X-API-KEY": KEY}) as client:
        assert app.state.service.loaded.wait(20)
        yield client


@needs_postgres
def test_a_worker_of_another_host_fills_what_a_mask_marks(
    tmp_path: Path, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_reports, "REPORT_SECONDS", 0.1)
    url, backend = IMPLEMENTATIONS["postgres"](tmp_path), RepairingBackend()
    with (
        serving(tmp_path / "api", url, seaweedfs, restores=False) as api,
        serving(tmp_path / "worker", url, seaweedfs, backends={"local": backend}),
    ):
        until(lambda: api.get("/health/ready").status_code == 200)
        assert api.get("/api/v1/config").json()["repair"]["available"]

        def finished(answer: Any) -> dict[str, Any]:
            assert answer.status_code == 200, answer.text
            job: dict[str, Any] = answer.json()
            assert job["status"] == "completed"
            return job

        wait = {"Prefer": "wait=30"}
        files, asked = {"file": ("a.png", scratched())}, {"scale": "1", "output_format": "png"}
        job = finished(api.post("/api/v1/enhance", files=files, data=asked, headers=wait))
        path = f"/api/v1/jobs/{job['job_id']}/damage"
        again = finished(api.post(path, files={"mask": ("m.png", encoded(drawn()))}, headers=wait))
        assert backend.found == 0
        shown = api.get(again["attempts"][0]["damage_url"])
        with Image.open(io.BytesIO(shown.content)) as image:
            assert (np.asarray(image) == drawn()).all()
        with Image.open(io.BytesIO(api.get(again["results"][0]["url"]).content)) as image:
            assert (np.asarray(image.convert("L"))[SCRATCH] == 255).all()
        assert not list(tmp_path.rglob("*.mask"))  # of the local folders
        assert api.post("/api/v1/damage", files=files).status_code == 409
        api.delete(f"/api/v1/photos/{job['attempts'][0]['photo_id']}")
        left = seaweedfs.client().list_objects_v2(Bucket=BUCKET, Prefix="masks/").get("Contents", ())
        assert [row["Key"] for row in left] == []
