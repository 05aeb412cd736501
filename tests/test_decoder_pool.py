"""The pool of decoders: one child at rest, more when they are needed, and always one for headers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.errors import Unavailable
from app.images import DecoderPool, ImageLimits, decoder, decoder_pool
from app.images.child_process import ChildProcess
from app.images.decoder import Decoder
from tests import picture_factory as make
from tests.harness import until


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> Iterator[DecoderPool]:
    made = DecoderPool(ImageLimits(), clock)
    made.start()
    yield made
    made.close()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(make.jpeg())
    return path


def test_work_one_after_another_needs_one_child_for_headers_and_a_second_beside_photos(
    pool: DecoderPool, photo: Path, clock: Clock
) -> None:
    (first,) = pool.child_pids
    for _ in range(3):
        pool.read_header(photo)
    assert pool.child_pids == [first]
    assert pool.decode(photo).width == make.WIDTH
    until(lambda: len(pool.child_pids) == 2)  # for the header that may come meanwhile
    pool.decode(photo)
    assert len(pool.child_pids) == 2
    clock.now += decoder_pool.IDLE_SECONDS - 1
    pool.end_idle()
    assert len(pool.child_pids) == 2

    def one_is_left() -> bool:
        clock.now += decoder_pool.IDLE_SECONDS
        pool.end_idle()
        return len(pool.child_pids) == 1

    until(one_is_left)  # the second one may just have started
    assert one_is_left()
    (left,) = pool.child_pids
    assert pool.read_header(photo).width == make.WIDTH
    assert pool.child_pids == [left]


def test_a_header_waits_for_no_previews_and_no_photo(
    pool: DecoderPool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, begun = threading.Event(), []
    slow = Decoder.preview

    def hold(self: Decoder, *arguments: object, **named: object) -> object:
        begun.append(1)
        assert let_go.wait(20)
        return slow(self, photo, 16)

    monkeypatch.setattr(Decoder, "preview", hold)
    monkeypatch.setattr(Decoder, "decode", hold)
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(pool.preview, photo, 16) for _ in range(5)] + [threads.submit(pool.decode, photo)]
        try:
            until(lambda: len(begun) == 3)  # two previews and one photo
            assert pool.read_header(photo).width == make.WIDTH
            assert len(begun) == 3
        finally:
            let_go.set()
        for call in calls:
            call.result()
    assert len(pool.child_pids) == decoder_pool.DECODERS


def test_a_header_takes_whichever_child_is_free_first(
    pool: DecoderPool, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new child takes longer to start than most photos take to be decoded."""
    let_start = threading.Event()
    start = Decoder.start

    def slow(self: Decoder) -> object:
        assert let_start.wait(20)
        return start(self)

    monkeypatch.setattr(Decoder, "start", slow)
    try:
        pool.decode(photo)
        assert pool.read_header(photo).width == make.WIDTH
        assert len(pool.child_pids) == 1
    finally:
        let_start.set()


def test_a_child_that_died_at_rest_is_replaced_and_a_closed_pool_says_so(pool: DecoderPool, photo: Path) -> None:
    (child,) = pool.child_pids
    os.kill(child, signal.SIGKILL)
    until(lambda: pool.child_pids == [])
    assert pool.decode(photo).width == make.WIDTH
    pool.close()
    with pytest.raises(Unavailable) as caught:
        pool.read_header(photo)
    assert caught.value.code == "shutting_down"
    assert pool.child_pids == []


def test_a_child_that_cannot_be_made_is_told_and_the_next_one_is(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that lacks descriptors for a while costs no decoder its place, and nobody waits for ever."""
    make_child, failures = ChildProcess, [1]

    def exhausted(limits: ImageLimits, folder: Path | None) -> ChildProcess:
        if failures:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return make_child(limits, folder)

    monkeypatch.setattr(decoder, "ChildProcess", exhausted)
    pool = DecoderPool(ImageLimits())
    with ThreadPoolExecutor(1) as threads, contextlib.closing(pool):
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):  # the future's own TimeoutError is one too
            threads.submit(pool.read_header, photo).result(30)
        failures.clear()
        assert threads.submit(pool.read_header, photo).result(60).width == make.WIDTH
        assert len(pool.child_pids) == 1
