"""Keeps one child process running: starts it, starts it again after a crash or a hang, and passes signals on.

A child that ends with `EXIT_OK` or with `EXIT_BAD_SETTINGS` is left ended. One that takes the place of a dead one is
told so: only a death that was seen here, of the child alone, may count against the photos it had in work. One that
hung, or lost its graphics card, twice in a short time is started with further words on its command line, which say
which of the two it was.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, MappingProxyType

from app.exit_codes import EXIT_BAD_SETTINGS, EXIT_CARD_LOST, EXIT_FAILED, EXIT_HUNG, EXIT_OK
from app.process_names import SUPERVISOR_VARIABLE, new_supervisor_mark

_PR_SET_PDEATHSIG = 1
_ENDS_TO_AVOID_THE_CARD = 2
_MAY_BE_THE_CARD = {EXIT_HUNG: "did not answer any more", EXIT_CARD_LOST: "lost its graphics card"}
_BOTH = "hung or lost its graphics card"
_SIGNALS = (signal.SIGTERM, signal.SIGINT) + ((signal.SIGHUP,) if sys.platform != "win32" else ())


@dataclasses.dataclass(frozen=True)
class Policy:
    """How often a child may be started again, and how long to wait before: doubling, up to the longest wait.

    A photo that kills the process does so three times before it is given up, so that many restarts belong to one photo.
    """

    restarts: int = 12
    window_seconds: float = 600.0
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 30.0


class Supervisor:
    """Runs `command` until it ends for good. One use; `run` must be called from the main thread (signals).

    Args:
        command: the child's program and its words.
        environment: all of the child's environment, but for the mark of this supervisor.
        say: takes a line for people.
        policy: how often and when a child is started again.
        words_without_card: by exit code, added to the command once the child ended with `EXIT_CARD_LOST` or `EXIT_HUNG`
            twice in the policy's window; they tell it to leave the graphics card alone, and why: those of the lost
            card when it was lost at least once. They stay until the supervisor ends.
        words_after_death: added to the command of a child whose predecessor died, unasked, under this supervisor.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        policy: Policy = Policy(),
        words_without_card: Mapping[int, Sequence[str]] = MappingProxyType({}),
        words_after_death: Sequence[str] = (),
    ) -> None:
        self._command, self._environment = list(command), {**environment, SUPERVISOR_VARIABLE: new_supervisor_mark()}
        self._say, self._policy = say, policy
        self._words_after_death = list(words_after_death)
        self._child: subprocess.Popen[bytes] | None = None
        self._signals = 0
        self._stopping = threading.Event()
        self._restarts: deque[float] = deque()
        self._card_ends: deque[tuple[float, int]] = deque()
        self._words_without_card = dict(words_without_card)

    def run(self) -> int:
        """Start the child and stay until it is over; returns the exit code for this process (128 + n for signal n)."""
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            return self._keep_running()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep_running(self) -> int:
        command = self._command
        while True:
            code = self._run_once(command)
            if code in (EXIT_OK, EXIT_BAD_SETTINGS) or self._stopping.is_set():
                return code if code >= 0 else 128 - code
            wait = self.wait_before_restart(time.monotonic())
            if code in _MAY_BE_THE_CARD:
                self.note_end(code, time.monotonic())
            reason = _MAY_BE_THE_CARD.get(code, f"ended with {_words(code)}")
            if wait is None:
                self._say(f"The service {reason}, too often in a short time; giving up. The lines above say why.")
                return code if code > 0 else 128 - code
            self._say(f"The service {reason}; starting it again in {wait:g} s.")
            if self._stopping.wait(wait):
                return EXIT_OK
            command = [*self._command, *self._words_after_death]

    def _run_once(self, command: Sequence[str]) -> int:
        # Its own process group: Ctrl-C in a terminal then reaches only this process, which passes it on once.
        group = None if sys.platform == "win32" else 0
        self._child = subprocess.Popen(command, env=self._environment, process_group=group)  # noqa: S603
        if self._stopping.is_set():  # the signal came while the child was being made
            self._pass_on()
        return self._child.wait()

    def wait_before_restart(self, now: float) -> float | None:
        """Seconds to wait before the next start; None when the limit of restarts in the window is used up."""
        while self._restarts and self._restarts[0] < now - self._policy.window_seconds:
            self._restarts.popleft()
        if len(self._restarts) >= self._policy.restarts:
            return None
        wait = self._policy.first_wait_seconds * 2 ** len(self._restarts)
        self._restarts.append(now)
        return float(min(wait, self._policy.longest_wait_seconds))

    def note_end(self, code: int, now: float) -> None:
        """The child hung or lost its card: after the second time in the window the next ones do without the card."""
        self._card_ends.append((now, code))
        while self._card_ends[0][0] < now - self._policy.window_seconds:
            self._card_ends.popleft()
        if len(self._card_ends) < _ENDS_TO_AVOID_THE_CARD or not self._words_without_card:
            return
        codes = {code for _, code in self._card_ends}
        reason = EXIT_CARD_LOST if EXIT_CARD_LOST in codes else EXIT_HUNG
        self._command += self._words_without_card[reason]
        self._words_without_card = {}
        what = "hung" if codes == {EXIT_HUNG} else "lost its graphics card" if EXIT_HUNG not in codes else _BOTH
        self._say(f"The service {what} twice in a short time; it goes on with the CPU.")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._stopping.set()
        self._pass_on()

    def _pass_on(self) -> None:
        """The first signal asks the child to finish, the second ends it at once."""
        child = self._child
        if child is None or child.returncode is not None:
            return
        if self._signals > 1:
            child.kill()
        else:
            child.terminate()


def die_with(parent_pid: int) -> None:
    """Ask the kernel (Linux) to end this process when its parent dies, so that a killed supervisor leaves no orphan.

    The parent may have died before the kernel was asked; then this process ends here.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(EXIT_FAILED)


def _words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
