"""The store against a model of plain dicts: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from app.errors import NotFound, Unavailable
from app.events import LocalEvents
from app.storage import new_id
from app.store import Attempt, NewPhoto, Result, SqlStore
from tests.databases import Clock, needs_postgres
from tests.postgres_server import shared_server

OWNERS = ("ann", "bob")
QUEUE_LIMIT = 6
MAX_TRIES, MAX_LAPSES = 3, 2
LEASE_SECONDS = 60.0


@dataclasses.dataclass
class Row:
    """What the model knows of one attempt."""

    job: str
    owner: str
    photo: str
    status: str = "queued"
    tries: int = 0
    lapses: int = 0
    token: str | None = None
    leased_until: float = 0.0
    ended_at: float | None = None


class StoreModel(RuleBasedStateMachine):
    """Moves of users, runs, crashes and the janitor, in any order."""

    jobs = Bundle("jobs")
    alone = True  # whether a start knows that no other process lives
    runs = Bundle("runs")  # (attempt, token) of every run that ever was: most have lost their claim

    def __init__(self) -> None:
        super().__init__()
        events = LocalEvents()
        self.clock = Clock()
        self.store = SqlStore(self.address(), events, clock=self.clock, lease_seconds=LEASE_SECONDS)
        self.store.open()
        self.rows: dict[str, Row] = {}  # in the order of submission
        self.served_at: dict[str, float] = {}  # by owner
        self.now = 0.0
        self.heard: set[str] = set()
        events.subscribe(self.heard.add)

    def address(self) -> str:
        """Of an empty database."""
        return "sqlite://"

    def teardown(self) -> None:
        self.store.close()

    def tick(self) -> float:
        self.now += 1.0
        self.clock.now += 0.001
        return self.now

    def status_of(self, *words: str) -> list[str]:
        return [attempt for attempt, row in self.rows.items() if row.status in words]

    def queue(self) -> list[str]:
        """Waiting attempts: the owners' first ones, then their second ones; who was served least recently leads."""
        turns: Counter[str] = Counter()
        places = []
        for number, attempt in enumerate(self.status_of("queued")):
            owner = self.rows[attempt].owner
            turns[owner] += 1
            places.append((turns[owner], self.served_at.get(owner, 0.0), number, attempt))
        return [attempt for *_, attempt in sorted(places)]

    @rule(target=jobs, owner=st.sampled_from(OWNERS), number=st.integers(1, 4))
    def submit(self, owner: str, number: int) -> Any:
        photos = [NewPhoto(new_id(), "0" * 64, "n", "image/png", 1, 1, 1) for _ in range(number)]
        full = len(self.status_of("queued")) + number > QUEUE_LIMIT
        if full:
            with pytest.raises(Unavailable, match="queue is full"):
                self.store.add_job(owner, photos, "{}", "local", QUEUE_LIMIT, self.tick())
            return multiple()
        job = self.store.add_job(owner, photos, "{}", "local", QUEUE_LIMIT, self.tick())
        for attempt in job.attempts:
            self.rows[attempt.id] = Row(job.id, owner, attempt.photo_id)
        return job.id

    @rule(target=runs, place=st.integers(0, 3))
    def claim_in_order_or_not(self, place: int) -> Any:
        queued = self.queue()
        assert self.store.queued_ids() == queued
        if place >= len(queued):
            return multiple()
        attempt_id, token = queued[place], new_id()
        claimed = self.store.claim(attempt_id, token, self.tick())
        self.claimed(attempt_id, token)
        row = self.rows[attempt_id]
        assert isinstance(claimed, Attempt)
        assert (claimed.tries, claimed.claim, claimed.lease_until) == (row.tries, token, row.leased_until)
        return attempt_id, token

    def claimed(self, attempt_id: str, token: str) -> None:
        row = self.rows[attempt_id]
        row.status, row.tries, row.token = "processing", row.tries + 1, token
        self.served_at[row.owner] = self.clock.now  # whatever becomes of the run
        row.leased_until = self.clock.now + LEASE_SECONDS

    @rule(run=runs)
    def claim_again(self, run: tuple[str, str]) -> None:
        if run[0] not in self.status_of("queued"):
            assert self.store.claim(run[0], new_id(), self.tick()) is None

    @rule(run=runs, how=st.sampled_from(["report", "complete", "fail", "give_back", "crashed"]))
    def end(self, run: tuple[str, str], how: str) -> None:
        attempt_id, token = run
        row = self.rows.get(attempt_id)
        held = row is not None and row.status == "processing" and row.token == token
        assert self.store.holds(attempt_id, token) is held
        assert self.do(how, attempt_id, token) is held
        if row is None or not held:
            return
        if how == "complete":
            row.status, row.ended_at = "completed", self.now
        elif how == "fail" or (how == "crashed" and row.tries - row.lapses >= MAX_TRIES):
            row.status, row.ended_at = "failed", self.now
        elif how != "report":
            row.status, row.tries = "queued", row.tries - (how == "give_back")

    def do(self, how: str, attempt_id: str, token: str) -> bool:
        now, store = self.tick(), self.store
        if how == "report":
            return store.report_progress(attempt_id, token, 0.5, "upscaling")
        if how == "complete":
            result = Result(f"{attempt_id}.png", "image/png", 1, 1, 1, "m", 1.0)
            return store.complete(attempt_id, token, result, now)
        if how == "fail":
            return store.fail(attempt_id, token, "code", "message", now)
        return store.give_back(attempt_id, token, now) if how == "give_back" else store.crashed(attempt_id, token, now)

    @rule(burn_try=st.booleans())
    def end_of_the_process(self, burn_try: bool) -> None:
        waiting = self.store.recover(self.tick(), MAX_TRIES, burn_try=burn_try)
        if self.alone:
            for attempt_id in self.status_of("processing"):
                row = self.rows[attempt_id]
                self.cut_short(row, over=burn_try and row.tries - row.lapses >= MAX_TRIES)
                row.tries -= not burn_try
        assert waiting == self.queue()

    @rule(renewed=st.sets(st.integers(0, 5)), seconds=st.sampled_from([LEASE_SECONDS / 2, LEASE_SECONDS + 1]))
    def time_goes_by_and_some_leases_are_renewed(self, renewed: set[int], seconds: float) -> None:
        """A lease is renewed until it is swept, even after its time."""
        self.clock.now += seconds
        held = self.status_of("processing")
        kept = [attempt for place, attempt in enumerate(held) if place in renewed]
        tokens = {str(self.rows[attempt].token): attempt for attempt in kept}
        assert self.store.renew_leases(tokens) == set(tokens)
        for attempt in kept:
            self.rows[attempt].leased_until = self.clock.now + LEASE_SECONDS
        lost = [attempt for attempt in held if self.rows[attempt].leased_until < self.clock.now]
        assert list(self.store.sweep_leases(self.tick(), max_lapses=MAX_LAPSES).lapsed) == lost
        for attempt_id in lost:
            row = self.rows[attempt_id]
            row.lapses += 1
            self.cut_short(row, over=row.lapses >= MAX_LAPSES)

    def cut_short(self, row: Row, *, over: bool) -> None:
        row.status = "failed" if over else "queued"
        row.ended_at = self.now if over else None

    @rule(target=runs)
    def claim_the_next(self) -> Any:
        untried = [attempt for attempt in self.queue() if self.rows[attempt].tries == 0]
        token = new_id()
        claimed = self.store.claim_next(token, self.tick())
        if not untried:
            assert claimed is None
            return multiple()
        assert claimed is not None
        assert claimed.id == untried[0]
        self.claimed(claimed.id, token)
        return claimed.id, token

    @rule(job=jobs, owner=st.sampled_from(OWNERS))
    def cancel_or_remove(self, job: str, owner: str) -> None:
        own = {attempt: row for attempt, row in self.rows.items() if row.job == job and row.owner == owner}
        if not own:
            with pytest.raises(NotFound):
                self.store.cancel_or_remove(owner, job, self.tick())
            return
        active = [row for row in own.values() if row.status in ("queued", "processing")]
        done = self.store.cancel_or_remove(owner, job, self.tick())
        assert done.outcome == ("cancelled" if active else "removed")
        for row in active:
            row.status, row.ended_at = "cancelled", self.now
        if not active:
            assert sorted(done.uploads) == sorted(row.photo for row in own.values())
            assert sorted(done.results) == sorted(self.results(own))
            for attempt in own:
                del self.rows[attempt]

    @rule(age=st.integers(0, 30))
    def expire(self, age: int) -> None:
        before = self.now - age
        by_job: dict[str, dict[str, Row]] = {}
        for attempt, row in self.rows.items():
            by_job.setdefault(row.job, {})[attempt] = row
        old = {
            job: own
            for job, own in by_job.items()
            if all(row.ended_at is not None and row.ended_at < before for row in own.values())
        }
        gone = self.store.expire(before)
        assert list(gone.jobs) == list(old)
        assert sorted(gone.results) == sorted(name for own in old.values() for name in self.results(own))
        assert sorted(gone.uploads) == sorted(row.photo for own in old.values() for row in own.values())
        for own in old.values():
            for attempt in own:
                del self.rows[attempt]

    @rule(job=consumes(jobs))
    def look_at_a_job(self, job: str) -> None:
        own = [row for row in self.rows.values() if row.job == job]
        queued = self.queue()
        mine = [place for place, attempt in enumerate(queued, 1) if self.rows[attempt].job == job]
        assert self.store.queue_position(job) == (mine[0] if mine else 0)
        assert job in self.heard
        if own:
            assert [a.status.value for a in self.store.job(own[0].owner, job).attempts] == [row.status for row in own]

    def results(self, own: dict[str, Row]) -> list[str]:
        return [f"{attempt}.png" for attempt, row in own.items() if row.status == "completed"]

    @invariant()
    def both_say_the_same(self) -> None:
        counts = dataclasses.asdict(self.store.counts())
        assert 0 <= counts.pop("read_ahead") <= counts["processing"]
        assert counts == {word: len(self.status_of(word)) for word in counts}
        assert self.store.named_files.active_ids() == set(self.status_of("queued", "processing"))
        assert self.store.named_files.photo_ids() == {row.photo for row in self.rows.values()}
        assert self.store.named_files.result_names() == set(self.results(self.rows))
        query = "SELECT id, status FROM photos"
        said = self.store._database.read(lambda connection: connection.exec_driver_sql(query).all())
        words = {"processing": "processing", "completed": "ready"}
        assert {row[0]: row[1] for row in said} == {
            row.photo: words.get(row.status, "uploaded") for row in self.rows.values()
        }


class StoreModelOnPostgres(StoreModel):
    """The same on a real server."""

    alone = False

    def address(self) -> str:
        return shared_server().new_database()


StoreModel.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
StoreModelOnPostgres.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestStoreModel = StoreModel.TestCase
TestStoreModelOnPostgres = needs_postgres(StoreModelOnPostgres.TestCase)
