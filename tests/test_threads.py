"""Threads that are started again when they die."""

from __future__ import annotations

import threading

import pytest

from app.errors import Unavailable
from app.threads import DEATHS_WINDOW_SECONDS, PeriodicThread, SupervisedThread, ThreadState
from tests.harness import until


class Deaths:
    """A body that dies a number of times and then waits for its end."""

    def __init__(self, deaths: int, error: BaseException) -> None:
        self.left, self.error = deaths, error
        self.settled = threading.Event()

    def __call__(self, stop: threading.Event) -> None:
        if self.left:
            self.left -= 1
            raise self.error
        self.settled.set()
        stop.wait()


def ended(thread: SupervisedThread) -> bool:
    thread.stop()
    return thread.join(5.0)


@pytest.mark.parametrize("error", [RuntimeError("x"), SystemExit(1), KeyboardInterrupt()])
def test_whatever_kills_it_a_thread_is_started_again(error: BaseException) -> None:
    body = Deaths(2, error)
    mourned: list[BaseException] = []
    thread = SupervisedThread("t", body, on_death=mourned.append, first_pause_seconds=0.001)
    assert thread.state is ThreadState.STOPPED
    thread.start()
    assert body.settled.wait(5.0)
    assert (thread.restarts, thread.state) == (2, ThreadState.RUNNING)
    assert mourned == [error, error]
    assert ended(thread)
    assert thread.state is ThreadState.STOPPED


def test_five_deaths_in_ten_minutes_are_a_failing_that_heals() -> None:
    clock = [1000.0]
    body = Deaths(5, RuntimeError("x"))
    thread = SupervisedThread("t", body, clock=lambda: clock[0], first_pause_seconds=0.0001)
    thread.start()
    assert body.settled.wait(5.0)
    states = [thread.state]
    clock[0] += DEATHS_WINDOW_SECONDS + 1
    states.append(thread.state)
    assert states == [ThreadState.FAILING, ThreadState.RUNNING]
    assert ended(thread)


def test_pauses_grow_and_a_stop_ends_them() -> None:
    body = Deaths(10**9, RuntimeError("x"))
    thread = SupervisedThread("t", body, first_pause_seconds=0.01)
    thread.start()
    until(lambda: thread.restarts >= 3)
    assert thread._pause() >= 0.04
    thread._deaths.extend([thread._clock()] * 5)
    thread._first_pause = 1e9
    assert thread._pause() == 30.0
    assert ended(thread)


def test_a_fault_while_mourning_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    def fault(_error: BaseException) -> None:
        raise SystemExit("in the handler")

    body = Deaths(1, RuntimeError("x"))
    thread = SupervisedThread("t", body, on_death=fault, first_pause_seconds=0.001)
    thread.start()
    assert body.settled.wait(5.0)
    assert "could not be settled" in caplog.text
    assert ended(thread)


def test_a_body_that_returns_ends_its_thread_for_good() -> None:
    thread = SupervisedThread("t", lambda _stop: None)
    assert thread.join(1.0)
    thread.start()
    assert thread.join(5.0)
    assert (thread.restarts, thread.state) == (0, ThreadState.STOPPED)
    with pytest.raises(RuntimeError, match="started before"):
        thread.start()


def test_passes_go_on_through_trouble_that_is_told_when_it_begins(caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[BaseException | None] = [None, Unavailable("x", "away"), Unavailable("x", "away"), None]
    outcomes += [Unavailable("x", "away"), RuntimeError("a fault"), None]
    restarted: list[str] = []
    done = threading.Event()

    def make_pass() -> None:
        if not outcomes:
            done.set()
        outcome = outcomes.pop(0) if outcomes else None
        if outcome is not None:
            raise outcome

    thread = PeriodicThread("p", make_pass, 0.001, trouble="nothing is done", on_restart=restarted.append)
    thread.start()
    assert done.wait(10.0)
    states = [thread.state]
    thread.stop()
    states.append(thread.state)
    assert states == [ThreadState.RUNNING, ThreadState.STOPPED]
    assert caplog.text.count("nothing is done: away") == 2
    assert (restarted, thread.restarts) == (["p"], 1)
