"""Blending the faces of a finished result again: right pixels, no piling up, no mixing, and never a half version."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.errors import Conflict, NotFound, TooManyRequests, Unavailable, Unprocessable
from app.images import Decoder, ImageLimits, Picture, decode, encode
from app.images.face_layers import blend_layers, load_layers
from app.jobs.janitor import Janitor
from app.jobs.reblending import MAX_WAITING, MAX_WAITING_OF_ONE, MOST_TRIES, Reblender
from app.storage import Beside, Storage, first_version, next_version, public_name, related_files
from app.storage.names import mark_run
from app.store import Attempt, NewVersion
from tests.databases import IMPLEMENTATIONS, needs_postgres
from tests.face_backend import PLACES, FaceBackend
from tests.harness import OWNER, Harness, layers_file, photo_bytes, result_file
from tests.picture_factory import adobe_rgb, grey_gamma_18
from tests.s3_servers import S3Server, open_storage

LIMITS = ImageLimits()


class Bench:
    """A workshop whose photos have faces, and a reblender."""

    def __init__(self, folder: Path, database_url: str = "", storage: Storage | None = None) -> None:
        self.harness = Harness(folder, backend=FaceBackend(), database_url=database_url, storage=storage)
        self.harness.open()
        self.store, self.storage = self.harness.store, self.harness.storage
        self.reblender = Reblender(self.store, self.storage, Decoder(LIMITS), self.harness.metrics)

    def close(self) -> None:
        self.reblender.close()
        self.harness.close()

    def restored(self, content: bytes | None = None, options: str = '{"scale": 2}') -> Attempt:
        """A finished attempt; its faces are kept."""
        job = self.harness.submit(content or photo_bytes(40, 30), options=options)
        self.harness.runner.run_attempt(job.attempts[0].id)
        return self.row(job.attempts[0].id)

    def row(self, attempt_id: str) -> Attempt:
        found = self.store.attempt(attempt_id)
        assert found is not None
        assert found.error_code is None, found
        return found

    def picture(self, attempt: Attempt) -> Picture:
        """What the shown version holds, its numbers as they stand in the file."""
        assert attempt.result_name is not None
        with self.storage.result(attempt.result_name) as path:
            return decode.decode_file(path, LIMITS, decode.DecodeOptions(as_stored=True))

    def overlapping(self, both_blended: threading.Barrier, attempt_id: str, strengths: dict[int, float]) -> Attempt:
        """Blend, and show the first version only when the other one's is blended too."""
        publish = self.storage.publish

        def together(temporary: Path, result_name: str) -> None:
            self.storage.publish = publish  # type: ignore[method-assign]
            publish(temporary, result_name)
            both_blended.wait(20)

        self.storage.publish = together  # type: ignore[method-assign, assignment]
        return self.reblender.reblend(attempt_id, strengths)

    def files(self) -> set[str]:
        return {file.name for file in self.storage.iter_results()}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def worst(one: Any, other: Any) -> int:
    return int(np.abs(one.astype(np.int64) - other.astype(np.int64)).max())


def outside_the_faces(rgb: Any) -> Any:
    """The picture with the faces' rectangles blacked out."""
    rest = rgb.copy()
    for left, top, side in PLACES:
        rest[top : top + side, left : left + side] = 0
    return rest


def test_a_lossless_result_is_blended_to_the_very_value(bench: Bench) -> None:
    attempt = bench.restored(photo_bytes(40, 30, kind="PNG"))
    first = bench.picture(attempt)
    layers = load_layers(layers_file(bench.storage, attempt.result_name or ""))
    changed = bench.reblender.reblend(attempt.id, {0: 0.25, 1: 0.5})
    assert (changed.version, changed.result_name) == (2, f"{attempt.id}-v2.png")
    assert worst(bench.picture(changed).rgb, blend_layers(first.rgb, layers, {0: 0.25, 1: 0.5})) == 0
    assert worst(outside_the_faces(bench.picture(changed).rgb), outside_the_faces(first.rgb)) == 0
    left, top, side = PLACES[0]
    assert tuple(first.rgb[top + side // 2, left + 10]) == (230, 26, 26)  # full strength: the face's own colour
    assert [face["strength"] for face in changed.faces] == [0.25, 0.5, 1.0]


def test_faces_that_are_not_named_keep_their_strength_and_the_way_back_is_exact(bench: Bench) -> None:
    attempt = bench.restored(photo_bytes(40, 30, kind="PNG"))
    first = bench.picture(attempt)
    bench.reblender.reblend(attempt.id, {0: 0.0})
    second = bench.reblender.reblend(attempt.id, {1: 0.3})
    assert [face["strength"] for face in second.faces] == [0.0, 0.3, 1.0]
    back = bench.reblender.reblend(attempt.id, {0: 1.0, 1: 1.0})
    assert worst(bench.picture(back).rgb, first.rgb) == 0
    assert back.version == 4


def test_losses_of_a_lossy_format_do_not_pile_up(bench: Bench) -> None:
    """The fifteenth version is the very file that the first change gave: each is made from the first version."""
    attempt = bench.restored(photo_bytes(64, 48), options='{"scale": 2, "output_quality": 60}')
    hashes = []
    for step in range(14):
        changed = bench.reblender.reblend(attempt.id, {0: 0.5 if step % 2 == 0 else 0.9})
        assert changed.result_name is not None
        content = result_file(bench.storage, changed.result_name).read_bytes()
        hashes.append(hashlib.sha256(content).hexdigest())
        assert changed.result_bytes == len(content)
    assert len(set(hashes)) == 2
    assert hashes[0] == hashes[12]


def source(kind: str) -> tuple[bytes, str]:
    """A photo of some kind and the options that go with it."""
    chance = np.random.default_rng(5)
    target = io.BytesIO()
    colours = chance.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    smooth = np.dstack([np.tile(np.linspace(20, 230, 40), (30, 1))] * 3).astype(np.uint8)
    if kind == "16 bits":
        return _encoded(Picture(chance.integers(0, 65536, (30, 40, 3), dtype=np.uint16)), "png"), '{"scale": 2}'
    if kind == "16 bits as jpg":
        return _encoded(Picture(smooth.astype(np.uint16) * 257), "png"), '{"scale": 2, "output_format": "jpg"}'
    if kind in ("alpha", "alpha as jpg"):
        alpha = np.tile(np.linspace(0, 255, 40), (30, 1)).astype(np.uint8)
        Image.fromarray(np.dstack([smooth, alpha]), "RGBA").save(target, "PNG")
        return target.getvalue(), '{"scale": 2, "output_format": "jpg"}' if "jpg" in kind else '{"scale": 2}'
    if kind == "grey":
        Image.fromarray(smooth[..., 0]).save(target, "PNG")
    elif kind == "grey as webp":
        Image.fromarray(smooth[..., 0]).save(target, "PNG")
        return target.getvalue(), '{"scale": 2, "output_format": "webp"}'
    elif kind == "deep grey as webp":
        deep = Picture(smooth.astype(np.uint16) * 257, grey=True, icc_profile=grey_gamma_18())
        return _encoded(deep, "png"), '{"scale": 2, "output_format": "webp"}'
    elif kind == "profile":
        Image.fromarray(colours).save(target, "PNG", icc_profile=adobe_rgb())
    elif kind in ("tiff", "webp", "avif"):
        Image.fromarray(smooth).save(target, "PNG")
        return target.getvalue(), f'{{"scale": 2, "output_format": "{kind}"}}'
    return target.getvalue(), '{"scale": 2}'


def _encoded(picture: Picture, name: str) -> bytes:
    path = Path(os.environ["PYTEST_TMP"]) / "source"
    encode(picture, path, name, 95, "keep")
    return path.read_bytes()


KINDS = ["16 bits", "16 bits as jpg", "alpha", "alpha as jpg", "grey", "grey as webp", "deep grey as webp", "profile"]
KINDS += ["tiff", "webp", "avif"]
ROUNDING = {
    "16 bits as jpg": 12,
    "alpha as jpg": 12,
    "grey as webp": 12,
    "deep grey as webp": 12,
    "webp": 12,
    "avif": 12,
}


@pytest.mark.parametrize("kind", KINDS)
def test_depth_transparency_grey_profile_and_format_stay(
    kind: str, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strength 1 again gives the first version again (within what the format loses), in every way it is written."""
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))
    content, options = source(kind)
    attempt = bench.restored(content, options)
    first = bench.picture(attempt)
    changed = bench.reblender.reblend(attempt.id, {0: 1.0, 1: 1.0})
    again = bench.picture(changed)
    assert Path(changed.result_name or "").suffix == Path(attempt.result_name or "").suffix
    assert (again.rgb.dtype, again.grey, again.icc_profile) == (first.rgb.dtype, first.grey, first.icc_profile)
    assert (again.alpha is None) == (first.alpha is None)
    if first.alpha is not None and again.alpha is not None:
        assert worst(first.alpha, again.alpha) == 0
    assert worst(first.rgb, again.rgb) <= ROUNDING.get(kind, 0)
    assert np.abs(first.rgb.astype(int) - again.rgb.astype(int)).mean() < 0.6
    if kind == "profile":
        assert first.icc_profile == adobe_rgb()


def test_a_result_is_read_back_with_its_own_numbers_even_where_an_upload_would_be_converted(bench: Bench) -> None:
    """An upload in a wide space whose colours all fit sRGB becomes sRGB; a result, and its layers, must not."""
    attempt = bench.restored(photo_bytes(40, 30, kind="PNG"))
    ramp = np.tile(np.linspace(90, 160, 80), (60, 1)).astype(np.uint8)
    mild = Picture(np.dstack([ramp, ramp[:, ::-1], ramp]), icc_profile=adobe_rgb())
    path = result_file(bench.storage, attempt.result_name or "")
    encode(mild, path, "png", 95, "keep")
    assert decode.decode_file(path, LIMITS).icc_profile != adobe_rgb()
    changed = bench.picture(bench.reblender.reblend(attempt.id, {0: 0.5}))
    assert changed.icc_profile == adobe_rgb()
    assert worst(outside_the_faces(changed.rgb), outside_the_faces(mild.rgb)) == 0


def test_metadata_stays_as_it_was_asked_for(bench: Bench) -> None:
    exif = Image.Exif()
    exif[315] = "Ann"
    exif[274] = 6
    exif.get_ifd(0x8825)[1] = "N"
    target = io.BytesIO()
    Image.open(io.BytesIO(photo_bytes(40, 30)), formats=("JPEG",)).save(target, "JPEG", exif=exif, dpi=(240, 240))
    for policy, artist in (("keep", "Ann"), ("strip_gps", "Ann"), ("strip", None)):
        attempt = bench.restored(target.getvalue(), f'{{"scale": 2, "metadata": "{policy}"}}')
        changed = bench.reblender.reblend(attempt.id, {0: 0.5})
        facts = []
        for row in (attempt, changed):
            with Image.open(result_file(bench.storage, row.result_name or ""), formats=("JPEG",)) as image:
                said = image.getexif()
                facts.append((image.size, dict(said), dict(said.get_ifd(0x8825)), image.info.get("dpi")))
        assert facts[0] == facts[1]
        assert facts[0][1].get(315) == artist
        assert bool(facts[0][2]) is (policy == "keep")


def test_two_at_once_never_mix_and_none_is_lost(bench: Bench) -> None:
    attempt = bench.restored(photo_bytes(40, 30, kind="PNG"))
    first, layers = bench.picture(attempt), load_layers(layers_file(bench.storage, attempt.result_name or ""))
    start = threading.Barrier(6)
    errors: list[Exception] = []

    def change(index: int, strength: float) -> None:
        start.wait()
        try:
            bench.reblender.reblend(attempt.id, {index: strength})
        except Exception as error:
            errors.append(error)

    wanted = [(0, 0.25), (1, 0.5)] * 3
    threads = [threading.Thread(target=change, args=one) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    row = bench.row(attempt.id)
    assert row.version == 7
    assert worst(bench.picture(row).rgb, blend_layers(first.rgb, layers, {0: 0.25, 1: 0.5})) == 0


def overtake(bench: Bench, attempt: Attempt, times: int) -> None:
    """Have another process show a version of its own in the moment before ours would be, so many times."""
    publish, versions = bench.storage.publish, iter(range(1, times + 1))

    def overtaken(temporary: Path, result_name: str) -> None:
        publish(temporary, result_name)
        version = next(versions, None)
        if version is not None:
            name = f"{attempt.id}-v{version + 1}.12345678.jpg"
            bench.storage.publish = publish  # type: ignore[method-assign]
            with bench.storage.scratch(attempt.id) as other:
                other.write_bytes(b"of the other process")
                publish(other, name)
            bench.storage.publish = overtaken  # type: ignore[method-assign, assignment]
            faces = ({**attempt.faces[0]}, {**attempt.faces[1], "strength": version / 10})
            assert bench.store.new_version(attempt.id, version, NewVersion(name, 1, faces))

    bench.storage.publish = overtaken  # type: ignore[method-assign, assignment]


def test_one_that_another_process_overtakes_is_made_again_on_top_of_what_that_left(bench: Bench) -> None:
    attempt = bench.restored()
    assert not bench.store.new_version(attempt.id, 7, NewVersion("x", 1, attempt.faces))
    overtake(bench, attempt, 2)
    done = bench.reblender.reblend(attempt.id, {0: 0.5})
    assert (done.version, done.result_name) == (4, f"{attempt.id}-v4.jpg")
    assert [face["strength"] for face in done.faces][:2] == [0.5, 0.2]
    assert f"{attempt.id}-v2.jpg" not in bench.files()


def test_one_that_is_overtaken_again_and_again_gives_up_and_leaves_nothing(bench: Bench) -> None:
    attempt = bench.restored()
    overtake(bench, attempt, MOST_TRIES)
    with pytest.raises(Conflict, match="changed by somebody else"):
        bench.reblender.reblend(attempt.id, {0: 0.5})
    assert bench.row(attempt.id).result_name == f"{attempt.id}-v{MOST_TRIES + 1}.12345678.jpg"
    assert not {f"{attempt.id}-v{number}.jpg" for number in range(2, 9)} & bench.files()


@needs_postgres
def test_two_servers_that_blend_one_result_at_once_lose_neither_version(seaweedfs: S3Server, tmp_path: Path) -> None:
    url = IMPLEMENTATIONS["postgres"](tmp_path)
    one = Bench(tmp_path, url, open_storage(seaweedfs, tmp_path / "one", prefix="blended/"))
    two = Bench(tmp_path, url, open_storage(seaweedfs, tmp_path / "two", prefix="blended/"))
    try:
        attempt = one.restored(photo_bytes(40, 30, kind="PNG"))
        first = one.picture(attempt)
        with one.storage.beside(attempt.result_name or "", Beside.FACES) as path:
            layers = load_layers(path)
        both_blended = threading.Barrier(2)
        with ThreadPoolExecutor(2) as threads:
            ends = [
                threads.submit(bench.overlapping, both_blended, attempt.id, {face: strength})
                for bench, face, strength in ((one, 0, 0.25), (two, 1, 0.5))
            ]
        versions = sorted(end.result().version for end in ends)
        assert versions in ([2, 3], [3, 3])  # the first may see the second's already, which is built on its own
        row = two.row(attempt.id)
        assert row.version == 3
        assert worst(two.picture(row).rgb, blend_layers(first.rgb, layers, {0: 0.25, 1: 0.5})) == 0
        assert sum(public_name(name).startswith(f"{attempt.id}-v2") for name in one.files() if "-v" in name) == 1
    finally:
        one.close()
        two.close()


def test_a_job_that_is_removed_meanwhile_leaves_nothing(bench: Bench) -> None:
    attempt = bench.restored()
    publish = bench.storage.publish

    def removed(temporary: Path, result_name: str) -> None:
        gone = bench.store.cancel_or_remove(OWNER, attempt.job_id, 1.0)
        for each in gone.results:
            bench.storage.remove_result(each)
        publish(temporary, result_name)

    bench.storage.publish = removed  # type: ignore[method-assign, assignment]
    with pytest.raises(NotFound):
        bench.reblender.reblend(attempt.id, {0: 0.5})
    assert bench.files() == set()
    with pytest.raises(NotFound):
        bench.reblender.reblend(attempt.id, {0: 0.5})


def test_only_the_first_the_shown_and_the_last_version_are_kept(bench: Bench) -> None:
    attempt = bench.restored()
    for _ in range(5):
        shown = bench.reblender.reblend(attempt.id, {0: 0.5})
    assert bench.files() == {f"{attempt.id}{end}" for end in (".jpg", "-v5.jpg", "-v6.jpg", ".faces")}
    assert related_files(shown.result_name or "") == bench.files() | {f"{attempt.id}.damage"}
    gone = bench.store.cancel_or_remove(OWNER, attempt.job_id, 1.0)
    assert all(bench.storage.remove_result(name) for name in gone.results)
    assert bench.files() == set()


@pytest.mark.parametrize(
    ("break_it", "error", "code"),
    [
        (lambda bench, row: layers_file(bench.storage, row.result_name).unlink(), Conflict, "faces_not_kept"),
        (
            lambda bench, row: layers_file(bench.storage, row.result_name).write_bytes(b"PK?"),
            Conflict,
            "faces_not_kept",
        ),
        (lambda bench, row: result_file(bench.storage, row.result_name).unlink(), NotFound, "result_not_found"),
        (lambda bench, row: _shrink(result_file(bench.storage, row.result_name)), Conflict, "faces_not_kept"),
    ],
)
def test_what_is_missing_or_damaged_is_told_and_the_shown_version_stays(
    break_it: Callable[[Bench, Attempt], object], error: type[Exception], code: str, bench: Bench
) -> None:
    attempt = bench.restored()
    break_it(bench, attempt)
    with pytest.raises(error) as caught:
        bench.reblender.reblend(attempt.id, {0: 0.5})
    assert caught.value.code == code  # type: ignore[attr-defined]
    assert bench.row(attempt.id).version == 1
    assert not list(bench.storage.iter_parts())


def _shrink(path: Path) -> None:
    Image.new("RGB", (9, 9)).save(path, "JPEG")


def test_a_face_that_was_not_restored_is_refused(bench: Bench) -> None:
    attempt = bench.restored()
    for index in (2, 9):
        with pytest.raises(Unprocessable, match="restored faces are 0, 1") as caught:
            bench.reblender.reblend(attempt.id, {index: 0.5})
        assert caught.value.code == "unknown_face"


def test_a_photo_that_is_not_finished_is_not_ready(bench: Bench) -> None:
    waiting = bench.harness.submit().attempts[0]
    with pytest.raises(Conflict) as caught:
        bench.reblender.reblend(waiting.id, {0: 0.5})
    assert caught.value.code == "not_ready"


def test_faces_that_find_no_room_do_not_fail_the_photo(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.images.layer_encoding.save_layers", full)
    attempt = bench.restored()
    assert "faces_not_kept" in [warning.code for warning in attempt.warnings]
    assert not bench.reblender.can_reblend(attempt)
    assert bench.files() == {attempt.result_name}
    assert not list(bench.storage.iter_parts())


def test_faces_too_large_to_be_read_back_are_not_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.images.layer_encoding.MAX_FILE_BYTES", 5000)
    assert "faces_not_kept" in [warning.code for warning in bench.restored().warnings]


def test_the_layers_are_on_disk_before_the_row_says_that_the_result_is_there(bench: Bench) -> None:
    seen: list[bool] = []
    bench.harness.events.subscribe(lambda _: seen.append(_finished_without_layers(bench)))
    bench.restored()
    assert seen
    assert not any(seen)


def _finished_without_layers(bench: Bench) -> bool:
    attempts = [attempt for job in bench.store.jobs(OWNER, 9) for attempt in job.attempts]
    return any(
        a.result_name is not None and not bench.storage.has_beside(a.result_name, Beside.FACES) for a in attempts
    )


def test_a_cancelled_run_leaves_no_layers(bench: Bench) -> None:
    job = bench.harness.submit(photo_bytes(40, 30))
    publish = bench.storage.publish

    def cancelled(temporary: Path, result_name: str, **more: Any) -> None:
        bench.store.cancel_or_remove(OWNER, job.id, 1.0)
        publish(temporary, result_name, **more)

    bench.storage.publish = cancelled  # type: ignore[method-assign, assignment]
    bench.harness.runner.run_attempt(job.attempts[0].id)
    assert bench.files() == set()


def test_the_janitor_keeps_what_belongs_to_a_row_and_takes_what_a_crash_left(bench: Bench) -> None:
    attempt = bench.restored()
    for _ in range(3):
        shown = bench.reblender.reblend(attempt.id, {0: 0.5})
    kept = bench.files()
    for name in (next_version(shown.result_name or ""), f"{attempt.id}-v2.jpg", f"{'0' * 32}.faces"):
        (bench.harness.folder / "results" / name).write_bytes(b"left")
    for file in list(bench.storage.iter_results()):
        os.utime(bench.harness.folder / "results" / file.name, (1000.0, 1000.0))
    ended_at = attempt.ended_at or 0.0
    janitor = Janitor(bench.store, bench.storage, bench.harness.metrics, retention_seconds=3600.0)
    assert janitor.sweep(ended_at + 3000).orphans == 3
    assert bench.files() == kept
    done = janitor.sweep(ended_at + 3601)
    assert (done.jobs, done.results) == (1, 1)
    assert bench.files() == set()


@pytest.fixture
def held(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Blends wait until this is set."""
    go, decoder = threading.Event(), bench.reblender._decoder
    decode = decoder.decode

    def slowly(path: Path, *, as_stored: bool) -> Picture:
        assert go.wait(20)
        return decode(path, as_stored=as_stored)

    monkeypatch.setattr(decoder, "decode", slowly)
    return go


def test_one_owner_has_its_share_of_the_places_and_leaves_the_others_theirs(
    bench: Bench, held: threading.Event
) -> None:
    attempt = bench.restored()
    futures = [bench.reblender.submit("greedy", attempt.id, {0: 0.5}) for _ in range(MAX_WAITING_OF_ONE)]
    with pytest.raises(TooManyRequests) as caught:
        bench.reblender.submit("greedy", attempt.id, {0: 0.5})
    assert (caught.value.code, bool(caught.value.retry_after_seconds)) == ("too_many_reblends", True)
    futures.append(bench.reblender.submit("modest", attempt.id, {0: 0.5}))
    held.set()
    assert [future.result(30).version for future in futures] == list(range(2, len(futures) + 2))
    assert bench.reblender.submit("greedy", attempt.id, {0: 0.5}).result(30).version == len(futures) + 2


def test_too_many_at_once_are_told_to_come_back(bench: Bench, held: threading.Event) -> None:
    attempt = bench.restored()
    owners = [f"owner {number // MAX_WAITING_OF_ONE}" for number in range(MAX_WAITING)]
    futures = [bench.reblender.submit(owner, attempt.id, {0: 0.5}) for owner in owners]
    with pytest.raises(Unavailable) as caught:
        bench.reblender.submit("another", attempt.id, {0: 0.5})
    assert (caught.value.code, bool(caught.value.retry_after_seconds)) == ("reblend_busy", True)
    held.set()
    assert [future.result(30).version for future in futures] == list(range(2, MAX_WAITING + 2))
    assert bench.reblender.submit("another", attempt.id, {0: 0.5}).result(30).version == MAX_WAITING + 2


@pytest.mark.parametrize("moment", ["encoded", "published"])
def test_kill_9_during_a_reblend_leaves_the_version_before(moment: str, tmp_path: Path) -> None:
    """A child process is killed right after the file is written, and right after it has its name."""
    bench = Bench(tmp_path)
    attempt = bench.restored(photo_bytes(40, 30, kind="PNG"))
    bench.reblender.reblend(attempt.id, {0: 0.5})
    shown = bench.row(attempt.id)
    content = result_file(bench.storage, shown.result_name or "").read_bytes()
    bench.close()
    child = os.fork()
    if child == 0:
        _reblend_and_die(tmp_path, attempt.id, moment)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again = Bench(tmp_path)
    try:
        assert again.row(attempt.id) == shown
        assert result_file(again.storage, shown.result_name or "").read_bytes() == content
        repeated = again.reblender.reblend(attempt.id, {1: 0.25})
        assert (repeated.version, repeated.result_name) == (3, f"{attempt.id}-v3.png")
        assert [face["strength"] for face in repeated.faces] == [0.5, 0.25, 1.0]
        assert again.picture(repeated).rgb.shape == (60, 80, 3)
    finally:
        again.close()


def _reblend_and_die(folder: Path, attempt_id: str, moment: str) -> None:
    """In a forked child: never returns."""
    try:
        bench = Bench(folder)
        publish = bench.storage.publish

        def die(temporary: Path, result_name: str) -> None:
            if moment == "published":
                publish(temporary, result_name)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        bench.storage.publish = die  # type: ignore[method-assign, assignment]
        bench.reblender.reblend(attempt_id, {0: 0.0, 1: 0.0})
    finally:
        os._exit(1)


def test_names_of_versions_follow_each_other() -> None:
    stem = "0" * 32
    assert next_version(f"{stem}.tif") == f"{stem}-v2.tif"
    assert next_version(f"{stem}-v9.webp") == f"{stem}-v10.webp"
    assert first_version(f"{stem}-v10.webp") == f"{stem}.webp"
    beside = {f"{stem}.faces", f"{stem}.damage"}
    assert related_files(f"{stem}.png") == {f"{stem}.png", *beside}
    assert related_files(f"{stem}-v2.png") == {f"{stem}.png", f"{stem}-v2.png", *beside}
    assert f"{stem}-v3.png" in related_files(f"{stem}-v4.png")
    marked = mark_run(f"{stem}.png", "0123456789abcdef")
    assert (marked, next_version(marked)) == (f"{stem}.01234567.png", f"{stem}.01234567-v2.png")
    third = mark_run(f"{stem}.01234567-v3.png", "f" * 32)
    assert third == f"{stem}.01234567-v3.ffffffff.png"
    assert next_version(third) == f"{stem}.01234567-v4.png"
    assert (first_version(third), public_name(third)) == (marked, f"{stem}-v3.png")
    assert related_files(third) == {marked, third, *(name.replace(".", ".01234567.") for name in beside)}
    for bad in (f"{stem}-v1.png", f"{stem}-v02.png", f"{stem}-v.png", f"{stem}-v1234567.png", f"{stem}.faces", "x"):
        with pytest.raises(NotFound):
            next_version(bad)


def test_rows_are_replaced_and_never_changed_in_place(bench: Bench) -> None:
    attempt = bench.restored()
    before = [dict(face) for face in attempt.faces]
    bench.reblender.reblend(attempt.id, {0: 0.1})
    assert [dict(face) for face in attempt.faces] == before
    assert dataclasses.replace(attempt) == attempt
