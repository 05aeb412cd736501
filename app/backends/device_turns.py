"""Whose turn it is on the device: photos share it in time slices, and previews may go in between two steps of a photo.

A step is what a photo tells progress after: a run of a network, or a part of it. A photo that comes while another is at
work gets the device after that one's next step, and from then on they take turns, so that neither waits for the other's
end; which photos may be at work together is the caller's business. A preview goes ahead of whatever waits, yet never
for long: at most one patch goes between two steps, and after a patch the photos work at least as long as it took before
the next one may go in. So previews take at most half of the device while photos are there. A preview that nobody waits
for any more stops at its next step.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from app.errors import Cancelled, Unavailable
from app.stages import IsWanted, OnProgress, Stage, always_wanted

BUSY_RETRY_SECONDS = 10
_IDLE_SECONDS = 1.0  # without a photo, after which nothing is owed to any
_LOOK_SECONDS = 0.5
SLICE_SECONDS = 0.25  # how long a photo works before another one that is at work too gets its turn
HOLD_SECONDS = 0.1  # how long at most the photo at work stands still while another one is decoded
_COMES_WITHIN_SECONDS = 0.02  # from the end of its decoding until it waits for the device
Answer = TypeVar("Answer")
Beat = Callable[[], bool]  # tells that the work goes on; False: stop


class _Patch(Generic[Answer]):
    """The work of one preview that waits for its turn, and its answer."""

    def __init__(self, work: Callable[[Beat], Answer], is_wanted: IsWanted) -> None:
        self.work, self.is_wanted = work, is_wanted
        self.began_at: float | None = None
        self.ended = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def run(self, beat: Beat) -> None:
        """Do it, and keep whatever comes of it; raises `Cancelled` when `beat` stopped it."""
        try:
            self.answer = self.work(lambda: beat() and self.is_wanted())
        except Cancelled as stopped:
            if self.is_wanted():
                raise
            self.error = stopped
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked, not to the photo in between
            self.error = error
        self.ended = True


class PhotoTurn:
    """The turns of one photo.

    Attributes:
        lent_seconds: how long it stood still for previews and for other photos.
        worked_seconds: how long it had the device in its earlier turns, counted from where the one at work stood when
            it came.
        taken_at: when its last turn began, None before the first.
        has_device: whether it is its turn.
    """

    def __init__(self, turns: DeviceTurns) -> None:
        self._turns = turns
        self.lent_seconds = self.worked_seconds = 0.0
        self.taken_at: float | None = None
        self.has_device = False

    def worked_by(self, now: float) -> float:
        """`worked_seconds` with the present turn."""
        return self.worked_seconds + (now - self.taken_at if self.has_device and self.taken_at is not None else 0.0)

    def paced(self, on_progress: OnProgress) -> OnProgress:
        """The progress of the photo, which after each step lets one preview in, and another photo whose turn it is.

        While these run the photo goes on telling where it stands, so that nobody takes it for hung; when it is asked to
        stop, it does so without waiting for the device, and the preview steps back and waits again.
        """

        def step(fraction: float, stage: Stage) -> bool:
            def beat() -> bool:
                return on_progress(fraction, stage)

            if not beat():
                return False
            self.lent_seconds += self._turns.let_one_in(beat)
            began_at = self._turns.now()
            goes_on = self._turns.let_photo_in(self, beat)
            self.lent_seconds += self._turns.now() - began_at
            return goes_on

        return step


class DeviceTurns:
    """The turns on one device; safe to use from any thread. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moved = threading.Condition()
        self._taken = False
        self._at_work: PhotoTurn | None = None
        self._line: deque[PhotoTurn] = deque()  # of photos that wait for the device, at its head the next one
        self._waiting: deque[_Patch[Any]] = deque()
        self._held_until = float("-inf")
        self._owed_seconds = 0.0  # how long photos work before the next preview may go in
        self._looked_at = 0.0
        self._photo_ended_at = float("-inf")

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock()

    @property
    def photos_waiting(self) -> int:
        """How many photos wait for the device, those between two of their turns among them."""
        return len(self._line)

    @contextlib.contextmanager
    def photo(self, is_wanted: IsWanted = always_wanted) -> Iterator[PhotoTurn]:
        """The device is a photo's (or a warm-up's) while the block runs, in turns with others that use `paced`.

        Waits for it, ahead of every preview. `is_wanted` is asked now and then meanwhile.

        Raises:
            Cancelled: it is not wanted any more.
        """
        turn = PhotoTurn(self)
        with self._moved:
            self._held_until = float("-inf")
            if self._at_work is not None:
                turn.worked_seconds = self._at_work.worked_by(self._clock())
            self._line.append(turn)
            self._moved.notify_all()
        try:
            if not self._await_device(turn, is_wanted):
                raise Cancelled
            yield turn
        finally:
            with self._moved:
                if turn.has_device:
                    self._count_work()
                    self._photo_ended_at = self._looked_at
                    self._free()

    @contextlib.contextmanager
    def expecting(self) -> Iterator[None]:
        """While the block decodes another photo, the one at work stands still after its step: they share processors.

        For `HOLD_SECONDS` at most, so that a large photo cannot keep the device idle.
        """
        with self._moved:
            self._held_until = self._clock() + HOLD_SECONDS
        try:
            yield
        finally:
            with self._moved:
                self._held_until = min(self._held_until, self._clock() + _COMES_WITHIN_SECONDS)
                self._moved.notify_all()

    @contextlib.contextmanager
    def if_free(self) -> Iterator[bool]:
        """The device is the block's if nobody has it just now; else False."""
        with self._moved:
            has_it = not self._taken and not self._line
            self._taken = self._taken or has_it
        try:
            yield has_it
        finally:
            if has_it:
                with self._moved:
                    self._free()

    def preview(
        self, work: Callable[[Beat], Answer], wait_seconds: float, is_wanted: IsWanted = always_wanted
    ) -> Answer:
        """Run `work` on the free device, or have the photo at work run it between two of its steps.

        Raises:
            Unavailable: `preview_busy` when its turn did not come within `wait_seconds`.
            Cancelled: it is not wanted any more. What `work` raises.
        """
        patch = _Patch(work, is_wanted)
        with self._moved:
            self._waiting.append(patch)
            runs_here = self._await_turn(patch, self._clock() + wait_seconds)
        if runs_here:
            try:
                patch.run(always_wanted)
            finally:
                with self._moved:
                    self._ran(patch)
                    self._free()
        if patch.error is not None:
            raise patch.error
        return patch.answer  # type: ignore[return-value]

    def let_one_in(self, beat: Beat) -> float:
        """In the thread of a photo: run one waiting preview, if it may; gives its seconds."""
        with self._moved:
            self._count_work()
            if not self._waiting or self._owed_seconds > 0:
                return 0.0
            patch = self._waiting.popleft()
            patch.began_at = self._clock()
        try:
            patch.run(beat)
        except Cancelled:  # the photo was: the preview waits again
            with self._moved:
                patch.began_at = None
                self._waiting.appendleft(patch)
                self._moved.notify_all()
            return 0.0
        with self._moved:
            return self._ran(patch)

    def let_photo_in(self, turn: PhotoTurn, beat: Beat) -> bool:
        """In the thread of the photo at work: wait for its next turn where another one is due; False: stop at once."""
        with self._moved:
            self._hold_still()
            if not self._line or not self._is_due(turn):
                return True
            self._count_work()
            turn.worked_seconds = turn.worked_by(self._clock())
            turn.has_device = False
            self._line.append(turn)
            self._free()
        return self._await_device(turn, beat)

    def _hold_still(self) -> None:
        """Let the photo that is expected come, and be next."""
        while not self._line and (left := self._held_until - self._clock()) > 0:
            self._moved.wait(left)

    def _is_due(self, turn: PhotoTurn) -> bool:
        """Whether the next photo in the line gets the device now: one that comes at once, else after a time slice.

        Steps of one photo may take ten times as long as those of the other, so who has worked less goes on.
        """
        assert turn.taken_at is not None
        now, other = self._clock(), self._line[0]
        if other.taken_at is None:
            return True
        return now - turn.taken_at >= SLICE_SECONDS and turn.worked_by(now) >= other.worked_seconds

    def _await_device(self, turn: PhotoTurn, is_wanted: IsWanted) -> bool:
        """Wait at the place in the line; False, without the device, when it is not wanted any more."""
        while not self._take(turn):
            try:
                wanted = is_wanted()
            except BaseException:
                self._leave_line(turn)
                raise
            if not wanted:
                self._leave_line(turn)
                return False
        return True

    def _take(self, turn: PhotoTurn) -> bool:
        """Take the device if its turn comes within a moment."""
        with self._moved:
            if not self._moved.wait_for(lambda: not self._taken and self._line[0] is turn, _LOOK_SECONDS):
                return False
            self._line.popleft()
            self._taken = turn.has_device = True
            self._at_work = turn
            self._looked_at = turn.taken_at = self._clock()
            return True

    def _leave_line(self, turn: PhotoTurn) -> None:
        with self._moved:
            self._line.remove(turn)
            self._moved.notify_all()

    def _await_turn(self, patch: _Patch[Any], until: float) -> bool:
        """Wait until it has run in a photo's thread (False), or may run in this one, which has the device then."""
        while not patch.ended:
            if patch.began_at is None and not patch.is_wanted():
                self._waiting.remove(patch)
                raise Cancelled
            if patch.began_at is None and self._may_run_here(patch):
                self._waiting.remove(patch)
                self._taken, patch.began_at = True, self._clock()
                return True
            left = until - self._clock()
            if patch.began_at is None and left <= 0:
                self._waiting.remove(patch)
                raise _busy()
            self._moved.wait(_LOOK_SECONDS if patch.began_at is not None else min(left, _LOOK_SECONDS))
        return False

    def _may_run_here(self, patch: _Patch[Any]) -> bool:
        """Whether the device is free, no photo wants it, none did a moment ago, and no other preview came before."""
        if self._taken or self._line or self._waiting[0] is not patch:
            return False
        return self._owed_seconds <= 0 or self._clock() - self._photo_ended_at >= _IDLE_SECONDS

    def _ran(self, patch: _Patch[Any]) -> float:
        """Note what the patch took, which the photos get first before the next one."""
        assert patch.began_at is not None
        self._looked_at = self._clock()
        self._owed_seconds = self._looked_at - patch.began_at
        self._moved.notify_all()
        return self._owed_seconds

    def _count_work(self) -> None:
        now = self._clock()
        self._owed_seconds = max(0.0, self._owed_seconds - (now - self._looked_at))
        self._looked_at = now

    def _free(self) -> None:
        self._taken, self._at_work = False, None
        self._moved.notify_all()


def _busy() -> Unavailable:
    return Unavailable(
        "preview_busy",
        "Other photos need the device just now; ask for the preview again, or send the photo.",
        retry_after_seconds=BUSY_RETRY_SECONDS,
    )
