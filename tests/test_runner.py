"""One restoration at a time: what ends in the row, what lies on disk, and in which order."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app import images
from app.errors import Cancelled, Internal, OutOfMemory, RestoreError, Unavailable
from app.images import Decoder, ImageLimits, Picture
from app.images.formats import FORMATS
from app.jobs import progress
from app.jobs.result_writing import Finished
from app.jobs.storage_retries import FULL_DISK_PATIENCE_SECONDS
from app.notices import Notice
from app.options import RestoreOptions
from app.results import RestorationResult
from app.stages import OnProgress, Stage
from app.storage import DiskStorage, new_id, next_version
from app.store import Attempt, AttemptStatus, Job, NewVersion, SqlStore
from tests.harness import OWNER, Harness, LanczosBackend, photo_bytes, result_file


@pytest.fixture
def harness(tmp_path: Path, decoder: Decoder) -> Iterator[Harness]:
    made = Harness(tmp_path, decoder=decoder)
    made.open()
    yield made
    made.store.close()


def only(harness: Harness, job: Job) -> Attempt:
    return harness.store.job(OWNER, job.id).attempts[0]


def run(harness: Harness, job: Job) -> Attempt:
    harness.runner.run_attempt(job.attempts[0].id)
    return only(harness, job)


def metric(harness: Harness, line: str) -> bool:
    return line in harness.metrics.render().decode().splitlines()


class Raising(LanczosBackend):
    """A backend that fails in the middle of its run."""

    def __init__(self, error: BaseException) -> None:
        def fail(number: int) -> None:
            if number == 1:
                raise error

        super().__init__(on_tile=fail)


def test_a_photo_becomes_a_result_whose_row_says_what_lies_on_disk(harness: Harness) -> None:
    attempt = run(harness, harness.submit(photo_bytes(24, 16, kind="PNG")))
    assert attempt.status is AttemptStatus.COMPLETED
    assert attempt.result_name == f"{attempt.id}.png"
    path = result_file(harness.storage, attempt.result_name)
    with Image.open(path) as result:
        result.load()
        assert (result.format, result.size) == ("PNG", (48, 32))
    assert (attempt.result_width, attempt.result_height) == (48, 32)
    assert attempt.result_bytes == path.stat().st_size
    assert (attempt.result_mime, attempt.model, attempt.params) == ("image/png", "lanczos", {"tile": 8})
    assert attempt.warnings[0].code == "lanczos"
    assert attempt.seconds is not None
    assert harness.scratch_files() == []
    assert metric(harness, 'restore_attempts_ended_total{status="completed"} 1.0')
    assert metric(harness, 'restore_stage_seconds_count{stage="decode"} 1.0')
    assert metric(harness, 'restore_stage_seconds_count{stage="restore"} 1.0')
    assert metric(harness, 'restore_stage_seconds_count{stage="encode"} 1.0')
    assert metric(harness, "restore_result_megapixels_total 0.001536")


def test_options_reach_the_backend_and_the_encoder(harness: Harness) -> None:
    options = RestoreOptions(scale=3.0, output_format="webp", output_quality=50).to_json()
    attempt = run(harness, harness.submit(options=options))
    assert (attempt.result_mime, attempt.result_width) == ("image/webp", 72)


def test_what_was_given_up_becomes_warnings(harness: Harness) -> None:
    class Noting(Decoder):
        def decode(self, path: Path, **asked: Any) -> Picture:
            picture = super().decode(path, **asked)
            return dataclasses.replace(picture, notes=(Notice("photo_changed", "The profile is broken."),))

    harness.decoder = Noting(ImageLimits())
    attempt = run(harness, harness.submit())
    assert Notice("photo_changed", "The profile is broken.") in attempt.warnings


def test_an_attempt_runs_once(harness: Harness) -> None:
    job = harness.submit()
    run(harness, job)
    harness.runner.run_attempt(job.attempts[0].id)
    harness.runner.run_attempt(new_id())
    assert harness.backend.runs == 1
    assert only(harness, job).tries == 1


def test_a_broken_photo_fails_with_its_own_reason(harness: Harness) -> None:
    attempt = run(harness, harness.submit(photo_bytes()[:300]))
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, "undecodable_image")
    assert harness.backend.runs == 0


def test_a_result_of_too_many_bytes_for_its_format_is_refused_before_the_work(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 x 16 pixels of 3 bytes make 6144 x 3 at scale 4, of which the header knows the pixels alone."""
    small = dataclasses.replace(FORMATS["tiff"], max_raw_bytes=6144 * 3 - 1)
    monkeypatch.setitem(FORMATS, "tiff", small)
    options = RestoreOptions(scale=4.0, output_format="tiff").to_json()
    attempt = run(harness, harness.submit(options=options))
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, "too_large_for_format")
    assert harness.backend.runs == 0


def test_a_photo_that_is_gone_fails_with_a_sentence(harness: Harness) -> None:
    job = harness.submit()
    harness.storage.remove_upload(job.attempts[0].photo_id)
    assert run(harness, job).error_code == "photo_missing"


def test_a_backend_that_is_not_set_up_fails_with_a_sentence(harness: Harness) -> None:
    photo = harness.upload(photo_bytes())
    job = harness.store.add_job(OWNER, [photo], "{}", "siliconflow", 9, 1.0)
    assert run(harness, job).error_code == "backend_unavailable"


def test_options_that_cannot_be_read_back_fail(harness: Harness) -> None:
    assert run(harness, harness.submit(options='{"scale": 99}')).error_code == "invalid_option"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OutOfMemory("gpu_out_of_memory", "The smallest tile does not fit."), "gpu_out_of_memory", "smallest tile"),
        (RuntimeError("secret detail at /srv/me"), "internal_error", "reason of ours"),
        (Cancelled(), "internal_error", "reason of ours"),  # nobody asked it to stop
    ],
)
def test_every_failure_ends_in_the_row(
    harness: Harness, error: Exception, code: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    harness.backends["local"] = Raising(error)
    attempt = run(harness, harness.submit())
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, code)
    assert attempt.error_message is not None
    assert said in attempt.error_message
    assert "secret" not in attempt.error_message
    if str(error).startswith("secret"):
        assert "Traceback" in caplog.text
    assert harness.result_files() == harness.scratch_files() == []
    harness.backends["local"] = LanczosBackend()
    assert run(harness, harness.submit()).status is AttemptStatus.COMPLETED


def exhausted(error: Exception) -> Exception:
    """An error of ours that was caused by another."""
    try:
        try:
            raise error
        except Exception:
            raise Unavailable("weights_unreadable", "The file cannot be read.") from None
    except Unavailable as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        RuntimeError("can't start new thread"),
        exhausted(OSError(errno.ENFILE, "Too many open files in system")),
    ],
)
@pytest.mark.parametrize("where", ["decode", "restore", "encode"])
def test_what_the_process_lacks_is_never_the_photos_fault(
    harness: Harness, error: Exception, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = harness.submit()

    def lacking(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        place: Any = {"decode": harness.decoder, "restore": harness.backend, "encode": images}[where]
        patch.setattr(place, where, lacking)
        for _ in range(5):
            attempt = run(harness, job)
            assert (attempt.status, attempt.tries) == (AttemptStatus.QUEUED, 0)
    assert caplog.text.count("ran out of resources") == 1
    assert harness.scratch_files() == []
    assert run(harness, job).status is AttemptStatus.COMPLETED


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "out_of_memory"),
        (Internal("decoder_unavailable", "No."), "decoder_unavailable"),
        (Unavailable("decoder_out_of_memory", "Killed."), "decoder_out_of_memory"),
    ],
)
def test_a_lack_of_memory_is_tried_again_alone_before_it_is_the_photos_own(
    harness: Harness, error: Exception, code: str
) -> None:
    job = harness.submit()
    harness.backends["local"] = Raising(error)
    seen = [run(harness, job) for _ in range(3)]
    assert [(attempt.status.value, attempt.tries, attempt.error_code) for attempt in seen] == [
        ("queued", 1, None),
        ("queued", 2, None),
        ("failed", 3, code),
    ]


class Paid(LanczosBackend):
    """A backend that a result costs money at."""

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        assert on_progress(0.1, Stage.SENDING)
        return super().restore(picture, options, on_progress)


def finish_paid(harness: Harness, wait_to_retry: Callable[[], bool]) -> Attempt:
    """One paid restoration, whose end is as the test has arranged."""
    backend = Paid()
    harness.backends["local"] = backend
    job = harness.submit()
    prepared = harness.runner.prepare(job.attempts[0].id, "t", 1.0)
    assert prepared is not None
    finished = harness.runner.restore(prepared)
    assert finished is not None
    harness.runner.finish(finished, wait_to_retry=wait_to_retry)
    assert backend.runs == 1
    return only(harness, job)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space"), Unavailable("database_busy", "Busy."), MemoryError(), OSError(24, "")]
)
def test_a_paid_result_waits_for_better_times(
    harness: Harness, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[int]()

    def full(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(images, "encode", full)

    def wait_to_retry() -> bool:
        waits.append(1)
        if len(waits) == 5:
            monkeypatch.undo()
        return True

    assert finish_paid(harness, wait_to_retry).status is AttemptStatus.COMPLETED
    assert len(waits) == 5


def test_a_paid_result_that_cannot_wait_ends_in_the_row(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise Unavailable("storage_full", "The disk is full.")

    monkeypatch.setattr(images, "encode", full)
    attempt = finish_paid(harness, lambda: False)
    assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, "storage_full")


BESIDE_THE_PIXELS: dict[str, Any] = {
    "icc_profile": b"profile",
    "exif": b"II*\0",
    "xmp": b"<x/>",
    "dpi": (72.0, 72.0),
    "iptc": b"\x1c",
    "texts": (("Comment", "odd"),),
}


def test_all_that_stands_beside_the_pixels_is_known_here() -> None:
    pixels = {"rgb", "alpha", "grey", "pages", "source_format", "notes", "srgb_table"}
    assert {field.name for field in dataclasses.fields(Picture)} == pixels | set(BESIDE_THE_PIXELS)


@pytest.mark.parametrize("name", BESIDE_THE_PIXELS)
def test_a_paid_result_with_odd_metadata_is_kept_without_it(
    name: str, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, decode = images.encode, harness.decoder.decode
    added = {name: BESIDE_THE_PIXELS[name]}

    def odd(picture: Picture, *arguments: Any) -> Any:
        if getattr(picture, name):
            raise TypeError("an odd tag")
        return encode(picture, *arguments)

    def with_more(path: Path, **options: Any) -> Picture:
        decoded: Picture = decode(path, **options)
        return dataclasses.replace(decoded, **added)

    monkeypatch.setattr(images, "encode", odd)
    monkeypatch.setattr(harness.decoder, "decode", with_more)
    monkeypatch.setattr(Paid, "restore", adding(Paid.restore, added))
    attempt = finish_paid(harness, lambda: False)
    assert attempt.status is AttemptStatus.COMPLETED
    assert "metadata_not_kept" in {notice.code for notice in attempt.warnings}


def adding(restore: Any, added: dict[str, Any]) -> Any:
    """A backend's `restore` whose result has what its photo has beside the pixels, as real backends' have."""

    def kept(self: Any, picture: Picture, *rest: Any) -> RestorationResult:
        done: RestorationResult = restore(self, picture, *rest)
        return dataclasses.replace(done, picture=dataclasses.replace(done.picture, **added))

    return kept


def test_facts_that_no_row_takes_cost_the_facts_and_not_the_result(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    complete = SqlStore.complete

    def picky(store: SqlStore, attempt_id: str, token: str, result: Any, now: float) -> bool:
        if result.params:
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "surrogates not allowed")
        return complete(store, attempt_id, token, result, now)

    monkeypatch.setattr(SqlStore, "complete", picky)
    attempt = run(harness, harness.submit())
    assert (attempt.status, attempt.params) == (AttemptStatus.COMPLETED, {})
    assert [notice.code for notice in attempt.warnings] == ["facts_not_kept"]
    assert "could not be written as it is" in caplog.text


def test_a_reason_that_no_row_takes_gives_way_to_ours(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    fail = SqlStore.fail

    def picky(store: SqlStore, attempt_id: str, token: str, code: str, message: str, now: float) -> bool:
        if code != "internal_error":
            raise ValueError("no")
        return fail(store, attempt_id, token, code, message, now)

    monkeypatch.setattr(SqlStore, "fail", picky)
    harness.backends["local"] = Raising(Unavailable("no_model", "No model."))
    assert run(harness, harness.submit()).error_code == "internal_error"


def test_the_file_is_published_before_the_row_says_so(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    publish, complete = DiskStorage.publish, SqlStore.complete

    def say_publish(storage: DiskStorage, temporary: Path, name: str, **more: Any) -> None:
        seen.append(f"publish while {only(harness, job).status}")
        publish(storage, temporary, name, **more)

    def say_complete(store: SqlStore, attempt_id: str, *rest: Any) -> bool:
        seen.append(f"complete with {len(harness.result_files())} file")
        return complete(store, attempt_id, *rest)

    monkeypatch.setattr(DiskStorage, "publish", say_publish)
    monkeypatch.setattr(SqlStore, "complete", say_complete)
    job = harness.submit()
    run(harness, job)
    assert seen == ["publish while processing", "complete with 1 file"]


def test_cancelling_stops_the_backend_at_the_next_tile(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "CLAIM_INTERVAL_SECONDS", 0.0)
    tiles: list[int] = []

    def cancel(number: int) -> None:
        tiles.append(number)
        if number == 1:
            harness.store.cancel_or_remove(OWNER, job.id, 5.0)

    harness.backend.tile, harness.backend.on_tile = 2, cancel
    job = harness.submit()
    attempt = run(harness, job)
    assert tiles == [0, 1]
    assert attempt.status is AttemptStatus.CANCELLED
    assert harness.result_files() == harness.scratch_files() == []
    assert metric(harness, 'restore_attempts_ended_total{status="cancelled"} 1.0')


def test_strips_that_come_fast_ask_the_row_four_times_a_second(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, now, asked = harness.submit(), [0.0], 0
    holds = harness.store.holds

    def counted(attempt_id: str, token: str) -> bool:
        nonlocal asked
        asked += 1
        return holds(attempt_id, token)

    monkeypatch.setattr(harness.store, "holds", counted)
    attempt_id = job.attempts[0].id
    harness.store.claim(attempt_id, "t", 1.0)
    report = progress.Progress(harness.store, attempt_id, "t", lambda: now[0], lambda: None, lambda: False)
    for strip in range(100):  # ten milliseconds each
        now[0] = strip / 100
        assert report(strip / 100, Stage.UPSCALING)
    assert asked == 2  # after 0.25 and 0.75 seconds; a write, as that after 0.5, says it too
    harness.store.cancel_or_remove(OWNER, job.id, 5.0)
    now[0] += 0.25
    assert not report(1.0, Stage.UPSCALING)


def test_cancelling_between_decoding_and_restoring_spares_the_backend(harness: Harness) -> None:
    job = harness.submit()
    prepared = harness.runner.prepare(job.attempts[0].id, "t", 1.0)
    assert prepared is not None
    harness.store.cancel_or_remove(OWNER, job.id, 2.0)
    waited = dataclasses.replace(prepared, claimed_at=prepared.claimed_at - 1.0)
    assert harness.runner.restore(waited) is None
    assert harness.backend.runs == 0


def test_cancelling_during_encoding_leaves_no_file(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = images.encode

    def cancel_then_encode(*arguments: Any) -> images.Encoded:
        harness.store.cancel_or_remove(OWNER, job.id, 5.0)
        return encode(*arguments)

    monkeypatch.setattr(images, "encode", cancel_then_encode)
    job = harness.submit()
    assert run(harness, job).status is AttemptStatus.CANCELLED
    assert harness.result_files() == harness.scratch_files() == []


@pytest.mark.parametrize("how_often", [1, 2], ids=["cancelled", "removed"])
def test_cancelling_after_the_file_has_its_name_takes_it_away_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, how_often: int
) -> None:
    publish = DiskStorage.publish

    def publish_then_cancel(storage: DiskStorage, temporary: Path, name: str, **more: Any) -> None:
        publish(storage, temporary, name, **more)
        for _ in range(how_often):
            harness.store.cancel_or_remove(OWNER, job.id, 5.0)

    monkeypatch.setattr(DiskStorage, "publish", publish_then_cancel)
    job = harness.submit()
    harness.runner.run_attempt(job.attempts[0].id)
    assert harness.result_files() == []


def test_a_late_run_never_takes_away_the_result_of_the_run_after_it(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = harness.submit()
    attempt_id = job.attempts[0].id
    publish = DiskStorage.publish

    def publish_and_be_overtaken(storage: DiskStorage, temporary: Path, name: str, **more: Any) -> None:
        monkeypatch.undo()
        publish(storage, temporary, name, **more)
        harness.runner.abandon(attempt_id, "first")
        harness.runner.finish(_restored(harness, attempt_id, "second"))

    late = _restored(harness, attempt_id, "first")
    monkeypatch.setattr(DiskStorage, "publish", publish_and_be_overtaken)
    harness.runner.finish(late)
    attempt = only(harness, job)
    assert (attempt.status, attempt.tries) == (AttemptStatus.COMPLETED, 2)
    assert harness.result_files() == [attempt.result_name]


def test_a_result_whose_commit_went_unanswered_stays_when_it_was_blended_again_meanwhile(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, complete = harness.submit(), harness.store.complete

    def unanswered(*words: Any) -> bool:
        complete(*words)
        raise Unavailable("database_unavailable", "Away.")

    with monkeypatch.context() as patch:
        patch.setattr(harness.store, "complete", unanswered)
        harness.runner.run_attempt(job.attempts[0].id)
    name = only(harness, job).result_name or ""
    blended = next_version(name)
    with harness.storage.scratch(name[:32]) as temporary:
        temporary.write_bytes(b"blended")
        harness.storage.publish(temporary, blended)
    assert harness.store.new_version(name[:32], 1, NewVersion(blended, 7, ()))
    assert harness.runner.settle() == 0
    assert only(harness, job).result_name == blended
    assert sorted(harness.result_files()) == sorted([name, blended])


def _restored(harness: Harness, attempt_id: str, token: str) -> Finished:
    prepared = harness.runner.prepare(attempt_id, token, 1.0)
    assert prepared is not None
    finished = harness.runner.restore(prepared)
    assert finished is not None
    return finished


def test_a_run_that_is_asked_to_stop_is_given_back_whole(harness: Harness) -> None:
    job = harness.submit()
    beats: list[int] = []
    prepared = harness.runner.prepare(job.attempts[0].id, "t", 1.0)
    assert prepared is not None
    stopped = harness.runner.restore(prepared, heartbeat=lambda: beats.append(1), stop_requested=lambda: len(beats) > 1)
    assert stopped is None
    assert len(beats) == 2
    attempt = only(harness, job)
    assert (attempt.status, attempt.tries, attempt.progress) == (AttemptStatus.QUEUED, 0, 0.0)
    assert run(harness, job).status is AttemptStatus.COMPLETED


def test_a_decoder_that_is_closed_gives_the_attempt_back(harness: Harness) -> None:
    closed = Decoder(ImageLimits())
    closed.close()
    harness.decoder = closed
    attempt = run(harness, harness.submit())
    assert (attempt.status, attempt.tries) == (AttemptStatus.QUEUED, 0)


class Talking:
    """A backend that says what it is told to say, and moves the clock meanwhile."""

    name = "local"

    def __init__(self, words: list[tuple[float, float, str]], clock: list[float]) -> None:
        self.words, self.clock = words, clock

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        for after_seconds, fraction, stage in self.words:
            self.clock[0] += after_seconds
            assert on_progress(fraction, Stage(stage))
        return RestorationResult(picture, "talking", 1.0, {})


def test_progress_is_written_twice_a_second_and_at_every_new_stage(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [(0.1, 0.0, "loading"), (0.1, 0.1, "upscaling"), (0.3, 0.2, "upscaling"), (0.3, 0.3, "upscaling")]
    words += [(0.1, 0.4, "upscaling"), (0.1, 0.5, "faces")]
    clock = [0.0]
    harness = Harness(tmp_path, Talking(words, clock), decoder, clock=lambda: clock[0])
    harness.open()
    written: list[tuple[float, str, float | None]] = []
    report = SqlStore.report_progress

    def note(
        store: SqlStore, attempt_id: str, token: str, fraction: float, stage: str, worked_seconds: float | None = None
    ) -> bool:
        written.append((fraction, stage, None if worked_seconds is None else round(worked_seconds, 3)))
        return report(store, attempt_id, token, fraction, stage, worked_seconds)

    monkeypatch.setattr(SqlStore, "report_progress", note)
    run(harness, harness.submit())
    harness.store.close()
    assert written == [
        (0.0, "loading", None),
        (0.1, "upscaling", 0.0),
        (0.3, "upscaling", 0.6),
        (0.5, "faces", 0.8),
        (1.0, "encoding", None),
    ]


def refusing(monkeypatch: pytest.MonkeyPatch, *methods: str) -> Callable[[], None]:
    """Let these methods of the store refuse, as on a full disk, until the returned function is called."""

    def refuse(*_: Any, **__: Any) -> None:
        raise Unavailable("storage_full", "Full.")

    for method in methods:
        monkeypatch.setattr(SqlStore, method, refuse)
    return monkeypatch.undo


def test_a_result_the_store_cannot_take_yet_is_kept_and_completed_later(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = refusing(monkeypatch, "complete")
    job = harness.submit()
    assert run(harness, job).status is AttemptStatus.PROCESSING
    assert harness.runner.settle() == 1
    mend()
    assert harness.runner.settle() == 0
    attempt = only(harness, job)
    assert attempt.status is AttemptStatus.COMPLETED
    assert harness.result_files() == [attempt.result_name]


def test_a_failure_the_store_cannot_take_yet_is_written_later(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = refusing(monkeypatch, "fail")
    job = harness.submit(b"no picture at all")
    assert run(harness, job).status is AttemptStatus.PROCESSING
    mend()
    harness.runner.settle()
    assert only(harness, job).error_code == "unsupported_format"


def test_a_store_that_takes_no_progress_does_not_stop_the_run(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = refusing(monkeypatch, "report_progress", "holds")
    attempt = run(harness, harness.submit())
    mend()
    assert attempt.status is AttemptStatus.COMPLETED


def test_a_claim_the_store_cannot_take_is_the_callers_to_repeat(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = refusing(monkeypatch, "claim")
    job = harness.submit()
    with pytest.raises(RestoreError):
        run(harness, job)
    mend()
    assert run(harness, job).status is AttemptStatus.COMPLETED


@pytest.mark.parametrize("seconds_full", [60.0, FULL_DISK_PATIENCE_SECONDS + 60.0])
@pytest.mark.parametrize("where", ["decode", "encode", "publish"])
def test_a_photo_waits_for_a_full_disk_and_fails_only_where_it_stays_full(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch, where: str, seconds_full: float
) -> None:
    now = [0.0]

    def pause(seconds: float) -> None:
        now[0] += seconds

    harness = Harness(tmp_path, decoder=decoder, clock=lambda: now[0], pause=pause)
    harness.open()
    job = harness.submit()
    places = {"decode": (decoder, "decode"), "encode": (images, "encode"), "publish": (Path, "replace")}
    usable = getattr(*places[where])

    def full(*arguments: Any, **named: Any) -> Any:
        if now[0] >= seconds_full:
            return usable(*arguments, **named)
        if where == "decode":
            raise Unavailable("no_space", "There is no room to decode a photo now; try again later.")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*places[where], full)
        attempt = run(harness, job)
    if seconds_full <= FULL_DISK_PATIENCE_SECONDS:
        assert (attempt.status, now[0]) == (AttemptStatus.COMPLETED, seconds_full)
        assert harness.result_files() == [attempt.result_name]
    else:
        code = "no_space" if where == "decode" else "storage_full"
        assert (attempt.status, attempt.error_code) == (AttemptStatus.FAILED, code)
        assert now[0] == FULL_DISK_PATIENCE_SECONDS
        assert harness.result_files() == []
    assert harness.scratch_files() == []
    assert harness.backend.runs == (0 if where == "decode" and not attempt.result_name else 1)
    harness.store.close()


def test_a_photo_cancelled_while_it_waits_for_a_full_disk_is_let_go(
    tmp_path: Path, decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            harness.store.cancel_or_remove(OWNER, job.id, 5.0)

    harness = Harness(tmp_path, decoder=decoder, clock=lambda: sum(pauses), pause=pause)
    harness.open()
    job = harness.submit()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(images, "encode", full)
        attempt = run(harness, job)
    assert attempt.status is AttemptStatus.CANCELLED
    assert len(pauses) == 1
    assert harness.result_files() == harness.scratch_files() == []
    harness.store.close()
