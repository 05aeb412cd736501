"""Events for one of several processes: what others change is found by comparing revisions, in one query for all jobs.

The rows are the truth and are enough: this needs no message from anybody. A hint from elsewhere (see `redis_hints`)
only makes it faster.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import Protocol

from app.events.local import LocalEvents
from app.events.protocol import OnChange, Unsubscribe

Look = Callable[[Collection[str]], Mapping[str, Hashable]]  # a revision of each of these jobs that is there


class Hints(Protocol):
    """A way to tell other processes that they may look at once. It may lose anything."""

    def send(self, job_ids: Collection[str]) -> None:
        """Tell the others of changes. Never blocks and never raises."""
        ...


class PollingEvents:
    """Tells of changes of this process at once, and of those of others at the next `tick`; see `Events`.

    Args:
        look: gives the revisions of jobs.
        hints: tells other processes of changes made here; None: they find them by themselves.
    """

    def __init__(self, look: Look, hints: Hints | None = None) -> None:
        self._look, self._hints = look, hints
        self._listeners = LocalEvents()
        self._lock = threading.Lock()
        self._followed: Counter[str] = Counter()
        self._seen: dict[str, Hashable] = {}

    def tick(self) -> None:
        """Look at the followed jobs once, without a query when there are none. Raises what `look` raises."""
        with self._lock:
            followed = list(self._followed)
        found = self._look(followed) if followed else {}
        with self._lock:
            # None stands for a job that is gone. One that was followed a moment ago is told of as well: it may have
            # changed after its follower read it.
            changed = [job_id for job_id in followed if self._seen.get(job_id, self) != found.get(job_id)]
            self._seen = {job_id: found.get(job_id) for job_id in followed if job_id in self._followed}
        self._listeners.publish(changed)

    def hear(self, job_ids: Iterable[str]) -> None:
        """A hint from another process: these jobs changed there."""
        with self._lock:
            followed = [job_id for job_id in job_ids if job_id in self._followed]
        self._listeners.publish(followed)

    def publish(self, job_ids: Iterable[str]) -> None:
        """See `Events`."""
        changed = list(job_ids)
        self._listeners.publish(changed)
        if self._hints is not None and changed:
            self._hints.send(changed)

    def subscribe(self, callback: OnChange) -> Unsubscribe:
        """See `Events`."""
        return self._listeners.subscribe(callback)

    def follow(self, job_id: str) -> Unsubscribe:
        """See `Events`."""
        with self._lock:
            self._followed[job_id] += 1
        once = [job_id]

        def unfollow() -> None:
            with self._lock:
                if once:
                    self._followed[once.pop()] -= 1
                if self._followed[job_id] < 1:
                    del self._followed[job_id]

        return unfollow

    def has_listeners(self) -> bool:
        """See `Events`."""
        return self._listeners.has_listeners()
