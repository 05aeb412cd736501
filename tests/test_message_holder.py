"""Messages of the broker are held while this process has or may get their attempts, and the rows are asked rarely."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import Any

import pytest

from app.errors import Unavailable
from app.store import SqlStore
from app.worker.active_runs import ActiveRuns, Step
from app.worker.message_holder import MessageHolder
from tests.harness import until
from tests.test_store_contract import ME, add, first, result


class CountedStore(SqlStore):
    """Counts the looks at rows, which can be kept waiting or refused."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.looks: list[set[str]] = []
        self.is_away = False
        self.may_look = threading.Event()
        self.may_look.set()

    def waiting_among(self, attempt_ids: Collection[str]) -> dict[str, str]:
        self.looks.append(set(attempt_ids))
        assert self.may_look.wait(20)
        if self.is_away:
            raise Unavailable("database_unavailable", "Away.")
        return super().waiting_among(attempt_ids)


class CountedRuns(ActiveRuns):
    """Counts how often somebody began to wait for a move."""

    waits = 0

    def rooms_made(self) -> int:
        self.waits += 1
        return super().rooms_made()


class Place:
    """A holder over a store in memory, with a clock that stands still."""

    def __init__(self) -> None:
        self.store, self.now = CountedStore("sqlite://"), 0.0
        self.store.open()
        self.runs = CountedRuns(lambda: self.now)
        self.notified: list[tuple[str, str]] = []
        self.holder = MessageHolder(self.store, self.runs, lambda *told: self.notified.append(told), lambda: self.now)
        self.answers: dict[str, bool] = {}
        self.threads: list[threading.Thread] = []

    def hold(self, *attempt_ids: str) -> None:
        for attempt_id in attempt_ids:
            thread = threading.Thread(target=self._hold, args=(attempt_id,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _hold(self, attempt_id: str) -> None:
        self.answers[attempt_id] = self.holder.hold(attempt_id)

    def begin(self, attempt_id: str) -> str:
        """A run of this process has claimed it."""
        token = self.runs.admit(attempt_id, "local", lambda _: True, alone=False)
        assert token is not None
        assert self.store.claim(attempt_id, token, 1.0) is not None
        return token

    def end(self, attempt_id: str, token: str) -> None:
        assert self.store.complete(attempt_id, token, result(attempt_id), 2.0)
        self.runs.leave(token)


@pytest.fixture
def place() -> Iterator[Place]:
    opened = Place()
    yield opened
    opened.holder.release()
    for thread in opened.threads:
        thread.join(20)
    opened.store.close()


def test_a_message_of_what_has_ended_or_is_another_processs_is_let_go_and_wakes_nobody(place: Place) -> None:
    done, theirs = first(add(place.store)), first(add(place.store))
    place.store.claim(done, "t", 1.0)
    place.store.complete(done, "t", result(done), 2.0)
    place.store.claim(theirs, "u", 1.0)
    for attempt_id in (done, theirs, "0" * 32):
        assert place.holder.hold(attempt_id)
    assert place.notified == []


def test_a_message_is_held_until_its_run_here_has_ended(place: Place) -> None:
    attempt_id = first(add(place.store))
    place.hold(attempt_id)
    until(lambda: (attempt_id, "local") in place.notified)
    token = place.begin(attempt_id)
    place.runs.move(token, Step.RESTORING)
    assert place.answers == {}
    place.end(attempt_id, token)
    until(lambda: place.answers == {attempt_id: True})


def test_one_look_serves_all_messages_that_want_one(place: Place) -> None:
    """It is what a worker did most: each of seven messages read its own row whenever anything moved."""
    ids = [first(add(place.store)) for _ in range(7)]
    place.store.may_look.clear()
    place.hold(*ids)
    until(lambda: len(place.store.looks) == 1)
    until(lambda: place.runs.waits == 7)
    place.store.may_look.set()
    until(lambda: {attempt_id for attempt_id, _ in place.notified} == set(ids))
    assert len(place.store.looks) == 2  # the one that had begun before the others came, and one for all of them
    assert place.store.looks[1] == set(ids)


def test_while_something_is_in_work_the_rows_rest_between_two_looks(place: Place) -> None:
    mine, waits = first(add(place.store)), first(add(place.store))
    token = place.begin(mine)
    place.hold(waits)
    until(lambda: place.notified == [(waits, "local")])
    looks = len(place.store.looks)
    for step in (Step.READY, Step.RESTORING, Step.RESTORED, Step.FINISHING, Step.RESTORING) * 4:
        place.runs.move(token, step)
    assert len(place.store.looks) == looks
    place.now += 1.0
    place.runs.move(token, Step.RESTORING)
    until(lambda: len(place.store.looks) == looks + 1)
    until(lambda: place.notified == [(waits, "local")] * 2)  # its first wake-up was spent on another one's turn


def test_an_idle_process_lets_go_at_once_what_another_one_took(place: Place) -> None:
    mine, theirs = first(add(place.store)), first(add(place.store))
    token = place.begin(mine)
    place.hold(theirs)
    until(lambda: place.notified)
    place.store.claim(theirs, "another", 1.0)
    place.end(mine, token)
    until(lambda: place.answers == {theirs: True})


def test_while_the_database_is_away_messages_are_held_and_then_looked_after(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.worker.message_holder.LOOK_SECONDS", 0.01)
    attempt_id = first(add(place.store))
    place.store.is_away = True
    place.hold(attempt_id)
    until(lambda: len(place.store.looks) > 2)
    assert place.answers == {}
    place.store.is_away = False
    until(lambda: (attempt_id, "local") in place.notified)


def test_at_the_end_what_waits_goes_back_into_the_broker(place: Place) -> None:
    ended, waits = first(add(place.store)), first(add(place.store))
    place.hold(ended, waits)
    until(lambda: {attempt_id for attempt_id, _ in place.notified} == {ended, waits})
    place.store.cancel_or_remove(ME, _job_of(place.store, ended), 2.0)
    place.holder.release()
    until(lambda: place.answers == {ended: True, waits: False})


def _job_of(store: SqlStore, attempt_id: str) -> str:
    attempt: Any = store.attempt(attempt_id)
    return str(attempt.job_id)
