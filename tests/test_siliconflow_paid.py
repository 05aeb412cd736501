"""What was paid for at the provider is fetched again while that may help, and the provider is never asked twice."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from app.backends.siliconflow.paid_result import FetchRetries
from app.errors import Cancelled, Internal, RestoreError, Unprocessable
from app.images import Decoder, ImageLimits, Picture
from app.options import RestoreOptions
from tests.provider_stand_in import Play, StandIn, Wire

PHOTO = Picture(np.random.default_rng(7).integers(0, 256, (30, 40, 3), dtype=np.uint8), source_format="JPEG")


class Clock:
    """Seconds that pass only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def provider() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.close()


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(ImageLimits())
    yield made
    made.close()


def retries(clock: Clock) -> FetchRetries:
    return FetchRetries(900.0, clock, clock.pause)


def keep_on(fraction: float, stage: str) -> bool:
    return True


@pytest.mark.parametrize("trouble", ["500", "cut", "closed"])
def test_a_download_that_fails_is_tried_again_and_nothing_is_paid_twice(
    trouble: str, provider: StandIn, decoder: Decoder
) -> None:
    plays: dict[str, Play] = {
        "500": lambda wire: wire.reply(500, b""),
        "cut": lambda wire: wire.send(wire.head(200, 5000) + b"\x89PNG\r\n\x1a\n"),
        "closed": lambda wire: None,
    }

    def bad_then_good(wire: Wire) -> None:
        play = plays[trouble] if len(provider.asked("store")) < 4 else provider.give
        play(wire)

    provider.store, clock = bad_then_good, Clock()
    backend = provider.backend(decoder.decode, retries=retries(clock))
    assert backend.restore(PHOTO, RestoreOptions(), keep_on).picture.width
    assert (len(provider.asked("api")), len(provider.asked("store"))) == (1, 4)
    assert clock.now == 1 + 2 + 4


@pytest.mark.parametrize(
    "error", [Internal("decoder_unavailable", "x"), OSError(errno.EMFILE, "Too many open files"), MemoryError()]
)
def test_a_decoder_that_fails_for_a_reason_of_ours_gets_the_result_again(
    error: Exception, provider: StandIn, decoder: Decoder
) -> None:
    errors = [error]

    def decode(path: Path) -> Picture:
        if errors:
            raise errors.pop()
        return decoder.decode(path)

    backend = provider.backend(decode, retries=retries(Clock()))
    assert backend.restore(PHOTO, RestoreOptions(), keep_on).picture.width
    assert (len(provider.asked("api")), len(provider.asked("store"))) == (1, 2)


def test_patience_ends_with_the_last_failure(provider: StandIn, decoder: Decoder) -> None:
    provider.store, clock = lambda wire: wire.reply(503, b""), Clock()
    with pytest.raises(RestoreError) as caught:
        provider.backend(decoder.decode, retries=retries(clock)).restore(PHOTO, RestoreOptions(), keep_on)
    assert caught.value.code == "provider_unavailable"
    assert 800 < clock.now <= 900
    assert len(provider.asked("api")) == 1


def test_what_is_wrong_with_the_result_itself_is_not_waited_for(provider: StandIn, decoder: Decoder) -> None:
    provider.store, clock = lambda wire: wire.reply(200, b"<html>"), Clock()
    with pytest.raises(RestoreError) as caught:
        provider.backend(decoder.decode, retries=retries(clock)).restore(PHOTO, RestoreOptions(), keep_on)
    assert caught.value.code == "provider_result_refused"
    assert (clock.now, len(provider.asked("store"))) == (0.0, 1)


def test_who_waits_gives_signs_of_life_and_can_be_stopped() -> None:
    clock, beats = Clock(), list[float]()

    def fetch() -> Picture:
        raise Internal("decoder_unavailable", "x")

    def beat() -> bool:
        beats.append(clock.now)
        return clock.now < 20

    with pytest.raises(Cancelled):
        retries(clock).fetch(fetch, beat)
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) <= 1.0
    with pytest.raises(Unprocessable):
        retries(clock).fetch(lambda: _refuse(), lambda: True)


def _refuse() -> Picture:
    raise Unprocessable("undecodable_image", "x")
