"""A thread that is started again when it dies, with growing pauses, and that says so when it dies too often.

The lanes and the watchdog run in such threads; what has a pass to make again and again is a `PeriodicThread`.
"""

from __future__ import annotations

import collections
import enum
import logging
import threading
import time
from collections.abc import Callable

from app.errors import RestoreError

log = logging.getLogger(__name__)

DEATHS_TO_FAIL = 5
DEATHS_WINDOW_SECONDS = 600.0
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0


class ThreadState(enum.StrEnum):
    """`failing`: it died five times in ten minutes; it is still started again, and may recover."""

    STOPPED = "stopped"
    RUNNING = "running"
    FAILING = "failing"


class SupervisedThread:
    """Runs `body(stop)` in a daemon thread until it returns; a body that raises anything is run again.

    `on_death` is called in the dying thread with the exception, before the pause. `clock` is monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        body: Callable[[threading.Event], None],
        *,
        on_death: Callable[[BaseException], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self.name = name
        self.restarts = 0
        self._body, self._on_death, self._clock = body, on_death, clock
        self._first_pause = first_pause_seconds
        self._deaths: collections.deque[float] = collections.deque(maxlen=DEATHS_TO_FAIL)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start; a thread is started once."""
        if self._thread is not None:
            raise RuntimeError(f"thread {self.name} was started before")
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the body to end (it watches its event); does not wait."""
        self._stop.set()

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the end; False when it still runs after the timeout."""
        if self._thread is None:
            return True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    @property
    def state(self) -> ThreadState:
        """Whether it runs, and whether it keeps dying."""
        if self._thread is None or not self._thread.is_alive():
            return ThreadState.STOPPED
        return ThreadState.FAILING if self._recent_deaths() >= DEATHS_TO_FAIL else ThreadState.RUNNING

    def _recent_deaths(self) -> int:
        oldest = self._clock() - DEATHS_WINDOW_SECONDS
        return sum(moment >= oldest for moment in list(self._deaths))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._body(self._stop)
            except BaseException as error:  # noqa: BLE001 - whatever kills the body, it is run again
                self._record_crash(error)
                self._stop.wait(self._pause())
            else:
                return

    def _record_crash(self, error: BaseException) -> None:
        """Record a death. Nothing raised here may end the thread."""
        log.critical("thread %s died and will be started again", self.name, exc_info=error)
        self.restarts += 1
        self._deaths.append(self._clock())
        if self._on_death is not None:
            try:
                self._on_death(error)
            except BaseException:
                log.exception("the death of thread %s could not be settled", self.name)

    def _pause(self) -> float:
        doublings = max(0, self._recent_deaths() - 1)
        return float(min(LONGEST_PAUSE_SECONDS, self._first_pause * 2.0**doublings))


class PeriodicThread:
    """Makes a pass at once and one after each pause, in a supervised thread, until it is stopped.

    A pass that raises `RestoreError` (the store is away, say) is logged when that begins, not each time.

    Args:
        name: of the thread.
        make_pass: one pass.
        pause_seconds: between the end of one and the next.
        trouble: what is not done meanwhile, for the log.
        on_restart: told the name when the thread died and is started again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        make_pass: Callable[[], object],
        pause_seconds: float,
        *,
        trouble: str,
        on_restart: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_pass, self._pause_seconds, self._trouble = make_pass, pause_seconds, trouble
        self._thread = SupervisedThread(name, self._loop, on_death=lambda _: on_restart(name), clock=clock)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread and wait for it; harmless when it was never started."""
        self._thread.stop()
        self._thread.join(timeout_seconds)

    @property
    def state(self) -> ThreadState:
        """Whether the thread runs, or keeps dying."""
        return self._thread.state

    @property
    def restarts(self) -> int:
        """How often the thread died and was started again."""
        return self._thread.restarts

    def _loop(self, stop: threading.Event) -> None:
        in_trouble = False
        while not stop.is_set():
            try:
                self._make_pass()
                in_trouble = False
            except RestoreError as error:
                if not in_trouble:
                    log.warning("%s: %s", self._trouble, error.detail)
                in_trouble = True
            stop.wait(self._pause_seconds)
