"""Turns on the device: one preview between two steps of a photo, and photos get as much time as previews took."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from app.backends.device_turns import HOLD_SECONDS, SLICE_SECONDS, Beat, DeviceTurns, PhotoTurn
from app.errors import Cancelled, Unavailable
from app.stages import Stage
from tests.harness import until


class Clock:
    """Monotonic seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def asking(turns: DeviceTurns, work: Callable[[Beat], object], count: int) -> list[threading.Thread]:
    """So many threads that each ask for a preview, all of them waiting."""
    threads = [threading.Thread(target=turns.preview, args=(work, 1000.0)) for _ in range(count)]
    for thread in threads:
        thread.start()
    until(lambda: len(turns._waiting) == count)
    return threads


def test_one_preview_goes_between_two_steps_and_photos_get_at_least_half() -> None:
    clock, ran = Clock(), []
    turns = DeviceTurns(clock)

    def work(beat: Beat) -> None:
        ran.append(clock.now)
        clock.now += 10.0

    with turns.photo() as turn:
        threads = asking(turns, work, 3)
        step = turn.paced(lambda fraction, stage: True)
        photo_seconds = 0.0
        while len(ran) < 3:
            before = len(ran)
            step(0.5, Stage.UPSCALING)
            assert len(ran) - before <= 1
            clock.now += 1.0
            photo_seconds += 1.0
        assert turn.lent_seconds == 30.0
    for thread in threads:
        thread.join(10)
    assert ran == [0.0, 20.0, 40.0]  # 10 s each, and 10 s of the photo after each
    assert photo_seconds >= 20.0


def test_a_photo_that_waits_goes_before_every_preview_that_waits() -> None:
    clock, order = Clock(), []
    turns = DeviceTurns(clock)

    def photo() -> None:
        with turns.photo():
            order.append("photo")

    with turns.photo():
        askers = asking(turns, lambda beat: order.append("preview"), 8)
        waiting = threading.Thread(target=photo)
        waiting.start()
        until(lambda: turns.photos_waiting == 1)
    waiting.join(10)
    for asker in askers:
        asker.join(10)
    assert order == ["photo"] + 8 * ["preview"]


def test_a_preview_that_ran_keeps_the_next_one_out_until_photos_had_their_time() -> None:
    clock = Clock()
    turns = DeviceTurns(clock)

    def slow(beat: Beat) -> None:
        clock.now += 30.0

    with turns.photo() as turn:
        asking(turns, slow, 1)
        turn.paced(lambda fraction, stage: True)(0.0, Stage.LOADING)
    with pytest.raises(Unavailable, match="device"):  # the photo has only just ended, the next may be about to come
        turns.preview(lambda beat: None, 0.0)
    clock.now += 1.0
    assert turns.preview(lambda beat: 7, 0.0) == 7  # nobody has come


def test_a_cancelled_photo_gives_the_preview_back_to_the_queue() -> None:
    turns, goes_on, begun = DeviceTurns(), [True, False], []

    def work(beat: Beat) -> str:
        begun.append(1)
        if not beat():
            raise Cancelled
        return "done"

    answers: list[str] = []
    asker = threading.Thread(target=lambda: answers.append(turns.preview(work, 1000.0)))
    with turns.photo() as turn:
        asker.start()
        until(lambda: len(turns._waiting) == 1)
        turn.paced(lambda fraction, stage: goes_on.pop(0))(0.0, Stage.LOADING)
    asker.join(10)
    assert answers == ["done"]
    assert len(begun) == 2


def test_the_failure_of_a_preview_is_not_the_photos() -> None:
    turns, seen = DeviceTurns(), []

    def fails(beat: Beat) -> None:
        raise ValueError("of the preview")

    def ask() -> None:
        with pytest.raises(ValueError, match="of the preview"):
            turns.preview(fails, 1000.0)
        seen.append(True)

    asker = threading.Thread(target=ask)
    with turns.photo() as turn:
        asker.start()
        until(lambda: len(turns._waiting) == 1)
        assert turn.paced(lambda fraction, stage: True)(0.0, Stage.LOADING)
    asker.join(10)
    assert seen


def test_a_preview_that_nobody_waits_for_any_more_stops_wherever_it_is() -> None:
    """Alone on the device, in a photo's steps, and while it waits; the photo goes on, and the device is free."""
    turns, left = DeviceTurns(), threading.Event()

    def work(beat: Beat) -> str:
        steps = 0
        while beat():
            steps += 1
            if steps == 3:
                left.set()
            assert steps < 1000
        raise Cancelled

    def ask(outcomes: list[object], wanted: Callable[[], bool]) -> None:
        try:
            outcomes.append(turns.preview(work, 1000.0, wanted))
        except Cancelled:
            outcomes.append(Cancelled)

    outcomes: list[object] = []
    ask(outcomes, lambda: not left.is_set())  # alone
    left.clear()
    with turns.photo() as turn:
        inside = threading.Thread(target=ask, args=(outcomes, lambda: not left.is_set()))
        inside.start()
        step = turn.paced(lambda fraction, stage: True)
        until(lambda: step(0.0, Stage.LOADING) and len(outcomes) == 2)
        inside.join(10)
        ask(outcomes, lambda: False)  # its turn never came
    assert outcomes == [Cancelled] * 3
    with turns.if_free() as free:
        assert free


class StepwisePhoto:
    """A photo in a thread of its own that takes a step when the test says so, on a clock that only its steps move."""

    def __init__(
        self,
        turns: DeviceTurns,
        clock: Clock,
        name: str,
        log: list[str],
        step_seconds: float = SLICE_SECONDS / 2,
        steps: int = 3,
    ) -> None:
        self._turns, self._clock, self._name, self._log = turns, clock, name, log
        self._step_seconds, self._count = step_seconds, steps
        self._steps, self.is_wanted = threading.Semaphore(0), True
        self.lent_seconds, self.stopped = 0.0, False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def step(self) -> None:
        """Let it work for half a time slice; returns when it has, if it has the device."""
        before = len(self._log)
        self.permit()
        until(lambda: len(self._log) > before)

    def permit(self) -> None:
        """Let it work, whenever it has the device."""
        self._steps.release()

    def _run(self) -> None:
        try:
            with self._turns.photo(lambda: self.is_wanted) as turn:
                paced = turn.paced(lambda fraction, stage: self.is_wanted)
                for _ in range(self._count):
                    self._steps.acquire()
                    self._clock.now += self._step_seconds
                    self._log.append(self._name)
                    if not paced(0.5, Stage.UPSCALING):
                        raise Cancelled
                self.lent_seconds = turn.lent_seconds
        except Cancelled:
            self.stopped = True


def test_a_photo_that_comes_is_next_and_then_both_take_time_slices() -> None:
    clock, log = Clock(), list[str]()
    turns = DeviceTurns(clock)
    first = StepwisePhoto(turns, clock, "first", log)
    first.step()
    second = StepwisePhoto(turns, clock, "second", log)
    until(lambda: turns.photos_waiting == 1)
    first.step()  # after which the new one has the device at once, however short the slice was
    for photo in (second, second, first, second):  # two steps are a slice
        photo.step()
    for photo in (first, second):
        photo.thread.join(10)
    assert log == ["first", "first", "second", "second", "first", "second"]
    assert (first.lent_seconds, second.lent_seconds) == (SLICE_SECONDS, SLICE_SECONDS / 2)


def test_a_photo_of_long_steps_gets_no_more_of_the_device_than_one_of_short_steps() -> None:
    clock, log = Clock(), list[str]()
    turns = DeviceTurns(clock)
    long = StepwisePhoto(turns, clock, "long", log, 4 * SLICE_SECONDS)
    long.step()
    short = StepwisePhoto(turns, clock, "short", log, SLICE_SECONDS, 9)
    until(lambda: turns.photos_waiting == 1)
    long.step()
    for _ in range(4):
        short.step()
    long.step()
    long.thread.join(10)
    for _ in range(5):
        short.step()
    short.thread.join(10)
    assert log == ["long", "long", *4 * ["short"], "long", *5 * ["short"]]


def test_photos_that_stop_while_they_wait_for_the_device_leave_at_once_and_others_keep_it() -> None:
    """One that stands still between two steps, and one that has not begun."""
    clock, log = Clock(), list[str]()
    turns = DeviceTurns(clock)
    first = StepwisePhoto(turns, clock, "first", log)
    second = StepwisePhoto(turns, clock, "second", log)
    until(lambda: turns.photos_waiting == 1)
    first.step()
    third = StepwisePhoto(turns, clock, "third", log)
    until(lambda: turns.photos_waiting == 2)
    for photo in (first, third):
        photo.is_wanted = False
        photo.thread.join(10)
        assert photo.stopped
    for _ in range(3):
        second.step()
    second.thread.join(10)
    assert log == ["first", "second", "second", "second"]
    with turns.if_free() as is_free:
        assert is_free


def test_the_device_is_not_free_while_a_photo_is_about_to_take_it() -> None:
    turns = DeviceTurns()
    turns._line.append(PhotoTurn(turns))  # as it is between the end of one turn and the beginning of the next
    with turns.if_free() as is_free:
        assert not is_free


def test_a_photo_at_work_stands_still_while_another_one_is_decoded_and_goes_after_it() -> None:
    clock, log = Clock(), list[str]()
    turns = DeviceTurns(clock)
    first = StepwisePhoto(turns, clock, "first", log, HOLD_SECONDS / 10)
    with turns.expecting():
        first.step()
        first.permit()  # which it does not use now
    second = StepwisePhoto(turns, clock, "second", log, HOLD_SECONDS / 10, 2)
    second.step()
    second.step()  # it is not held itself
    first.step()
    for photo in (first, second):
        photo.thread.join(10)
    assert log == ["first", "second", "second", "first", "first"]
    assert first.lent_seconds == pytest.approx(2 * HOLD_SECONDS / 10)


def test_a_photo_at_work_stands_still_for_no_longer_than_a_moment() -> None:
    """While a large photo is decoded, and after one that could not be."""
    clock, log = Clock(), list[str]()
    turns = DeviceTurns(clock)
    only = StepwisePhoto(turns, clock, "only", log, HOLD_SECONDS)
    with turns.expecting():
        only.step()
        only.step()
    with turns.expecting():
        pass
    only.step()
    only.thread.join(10)
    assert not only.thread.is_alive()
