"""Photos and attempts against a model of plain dicts: every legal and every illegal move, in any order.

The model knows the two state machines of the design and nothing of SQL; after each step both must say the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.errors import Conflict, NotFound
from app.storage import new_id
from app.store import LEASE_SECONDS, NewPhoto, NewVersion, Result, SqlStore
from tests.databases import IMPLEMENTATIONS, Clock, needs_postgres
from tests.postgres_server import shared_server

OWNERS = ("ann", "bob")
CONTENTS = ("sea",)
MAX_TRIES, MAX_LAPSES = 3, 2
QUEUE_LIMIT = 1000
ACTIVE = ("queued", "processing")
MOST_PHOTOS = 4  # few, so that much happens to each
RARELY = st.sampled_from([False] * 7 + [True])


@dataclasses.dataclass
class ModelPhoto:
    """What the model knows of one photo."""

    owner: str
    content: str
    in_library: bool
    used_at: float
    created_at: float
    status: str = "uploaded"
    before: str = "uploaded"
    selected: str | None = None


@dataclasses.dataclass
class ModelAttempt:
    """What the model knows of one attempt."""

    photo: str
    job: str
    status: str = "queued"
    tries: int = 0
    lapses: int = 0
    token: str = ""
    ended_at: float | None = None
    version: int = 1


class PhotosModel(RuleBasedStateMachine):
    """Users, runs, crashes and the janitor."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = SqlStore(self.address(), clock=self.clock)
        self.store.open()
        self.library = self.store.library
        self.photos: dict[str, ModelPhoto] = {}  # in the order in which they came
        self.attempts: dict[str, ModelAttempt] = {}
        self.gone: list[tuple[str, str]] = []  # photos that were removed, with their owners
        self.now = 0.0

    def address(self) -> str:
        """Of an empty database."""
        return "sqlite://"

    def teardown(self) -> None:
        self.store.close()

    def tick(self) -> float:
        self.now += 1.0
        return self.now

    # What the model says.

    def of_photo(self, photo_id: str) -> dict[str, ModelAttempt]:
        return {key: row for key, row in self.attempts.items() if row.photo == photo_id}

    def busy(self, photo_id: str) -> bool:
        return any(row.status in ACTIVE for row in self.of_photo(photo_id).values())

    def pick(self, place: int) -> str:
        return list(self.photos)[place % len(self.photos)]

    def pick_attempt(self, place: int, status: str = "") -> str:
        """Mostly one in the state that the move is legal in; now and then any."""
        fitting = [key for key, row in self.attempts.items() if row.status == status and place % 8]
        candidates = fitting or list(self.attempts)
        return candidates[place % len(candidates)]

    def forget_attempts(self, ids: list[str]) -> None:
        for attempt_id in ids:
            photo = self.photos[self.attempts.pop(attempt_id).photo]
            if photo.selected == attempt_id:
                photo.selected = None

    def forget_photos(self, ids: list[str]) -> None:
        for photo_id in ids:
            self.gone.append((photo_id, self.photos.pop(photo_id).owner))

    def unused(self, photo_ids: set[str]) -> list[str]:
        return [key for key in photo_ids if not self.photos[key].in_library and not self.of_photo(key)]

    # Users.

    @rule(owner=st.sampled_from(OWNERS), content=st.sampled_from(CONTENTS))
    def upload(self, owner: str, content: str) -> None:
        new = _new_photo(content)
        known = [
            key for key, row in self.photos.items() if row.in_library and (row.owner, row.content) == (owner, content)
        ]
        photo, created = self.library.add(owner, new, self.tick())
        assert created is not bool(known)
        assert photo.id == (known[0] if known else new.id)
        if known:
            self.photos[photo.id].used_at = self.now
        else:
            self.photos[new.id] = ModelPhoto(owner, content, True, self.now, self.now)

    @precondition(lambda self: len(self.photos) < MOST_PHOTOS)
    @rule(owner=st.sampled_from(OWNERS), content=st.sampled_from(CONTENTS), number=st.integers(1, 2))
    def submit_a_job(self, owner: str, content: str, number: int) -> None:
        """A batch with the same photo twice is two photos, whatever the library holds."""
        new = [_new_photo(content) for _ in range(number)]
        job = self.store.add_job(owner, new, "{}", "local", QUEUE_LIMIT, self.tick())
        for photo, attempt in zip(new, job.attempts, strict=True):
            self.photos[photo.id] = ModelPhoto(owner, content, False, self.now, self.now)
            self.attempts[attempt.id] = ModelAttempt(photo.id, job.id)

    @precondition(lambda self: self.photos)
    @rule(place=st.integers(0, 99), foreign=RARELY)
    def restore(self, place: int, foreign: bool) -> None:
        photo_id = self.pick(place)
        photo, now = self.photos[photo_id], self.tick()
        owner = _other(photo.owner) if foreign else photo.owner
        code = "photo_not_found" if foreign else "photo_archived" if photo.status == "archived" else None
        code = code or ("photo_busy" if self.busy(photo_id) else None)
        if code is not None:
            with _refused(code):
                self.store.restore_photo(owner, photo_id, "{}", "local", QUEUE_LIMIT, now)
            return
        job, _ = self.store.restore_photo(owner, photo_id, "{}", "local", QUEUE_LIMIT, now)
        (attempt,) = job.attempts
        self.attempts[attempt.id] = ModelAttempt(photo_id, job.id)
        photo.used_at = now

    @precondition(lambda self: self.photos)
    @rule(place=st.integers(0, 99), which=st.integers(0, 99), foreign=RARELY)
    def select(self, place: int, which: int, foreign: bool) -> None:
        """Any attempt there is, mostly one of another photo or one that is not completed."""
        photo_id = self.pick(place)
        photo, now = self.photos[photo_id], self.tick()
        candidates = [*self.of_photo(photo_id), *self.attempts, new_id()]
        attempt_id = candidates[which % len(candidates)]
        owner = _other(photo.owner) if foreign else photo.owner
        row = self.of_photo(photo_id).get(attempt_id)
        code = "photo_not_found" if foreign else "photo_archived" if photo.status == "archived" else None
        code = code or ("attempt_not_found" if row is None else None)
        code = code or ("attempt_not_completed" if row is not None and row.status != "completed" else None)
        if code is not None:
            with _refused(code):
                self.library.select(owner, photo_id, attempt_id, now)
            return
        self.library.select(owner, photo_id, attempt_id, now)
        photo.selected, photo.used_at = attempt_id, now

    @precondition(lambda self: self.photos)
    @rule(place=st.integers(0, 99), foreign=RARELY)
    def archive(self, place: int, foreign: bool) -> None:
        photo_id = self.pick(place)
        photo, now = self.photos[photo_id], self.tick()
        owner = _other(photo.owner) if foreign else photo.owner
        busy = self.busy(photo_id)
        code = "photo_not_found" if foreign else "photo_busy" if busy else None
        code = code or ("photo_not_ready" if photo.status == "uploaded" else None)
        if code is not None:
            with _refused(code):
                self.library.archive(owner, photo_id, now)
            return
        self.library.archive(owner, photo_id, now)
        if photo.status == "ready":
            photo.status, photo.used_at = "archived", now

    @precondition(lambda self: self.photos)
    @rule(place=st.integers(0, 99), foreign=RARELY)
    def delete(self, place: int, foreign: bool) -> None:
        photo_id = self.pick(place)
        photo = self.photos[photo_id]
        owner = _other(photo.owner) if foreign else photo.owner
        code = "photo_not_found" if foreign else "photo_busy" if self.busy(photo_id) else None
        if code is not None:
            with _refused(code):
                self.library.remove(owner, photo_id)
            return
        own = self.of_photo(photo_id)
        jobs = {row.job for row in own.values()}
        gone = self.library.remove(owner, photo_id)
        assert gone.uploads == (photo_id,)
        assert sorted(gone.results) == sorted(_results(own))
        self.forget_attempts(list(own))
        self.forget_photos([photo_id])
        assert sorted(gone.jobs) == sorted(job for job in jobs if not self.of_job(job))

    @precondition(lambda self: self.gone)
    @rule(place=st.integers(0, 99))
    def a_removed_photo_stays_removed(self, place: int) -> None:
        photo_id, owner = self.gone[place % len(self.gone)]
        for move in (
            lambda: self.library.photo(owner, photo_id),
            lambda: self.library.remove(owner, photo_id),
            lambda: self.library.archive(owner, photo_id, self.now),
            lambda: self.library.select(owner, photo_id, new_id(), self.now),
            lambda: self.store.restore_photo(owner, photo_id, "{}", "local", QUEUE_LIMIT, self.now),
        ):
            with _refused("photo_not_found"):
                move()

    def of_job(self, job_id: str) -> dict[str, ModelAttempt]:
        return {key: row for key, row in self.attempts.items() if row.job == job_id}

    @precondition(lambda self: self.attempts)
    @rule(place=st.integers(0, 99))
    def cancel_or_remove_a_job(self, place: int) -> None:
        row = self.attempts[self.pick_attempt(place)]
        own = self.of_job(row.job)
        done = self.store.cancel_or_remove(self.photos[row.photo].owner, row.job, self.tick())
        active = [each for each in own.values() if each.status in ACTIVE]
        assert done.outcome == ("cancelled" if active else "removed")
        for each in active:
            self.end(each, "cancelled")
        if not active:
            self.forget_attempts(list(own))
            unused = self.unused({each.photo for each in own.values()})
            assert sorted(done.uploads) == sorted(unused)
            self.forget_photos(unused)

    # Runs.

    def end(self, row: ModelAttempt, status: str) -> None:
        """The attempt ends (or waits again), and its photo becomes what it was, or ready."""
        photo = self.photos[row.photo]
        if row.status == "processing":
            photo.status = "ready" if status == "completed" else photo.before
        row.status = status
        row.ended_at = None if status == "queued" else self.now

    @precondition(lambda self: self.attempts)
    @rule(place=st.integers(0, 99))
    def claim(self, place: int) -> None:
        attempt_id, token = self.pick_attempt(place, "queued"), new_id()
        row = self.attempts[attempt_id]
        claimed = self.store.claim(attempt_id, token, self.tick())
        assert (claimed is not None) is (row.status == "queued")
        if row.status == "queued":
            photo = self.photos[row.photo]
            row.status, row.token, row.tries = "processing", token, row.tries + 1
            photo.before, photo.status = photo.status, "processing"

    @precondition(lambda self: self.attempts)
    @rule(
        place=st.integers(0, 99),
        how=st.sampled_from(["complete", "complete", "complete", "fail", "give_back", "crashed"]),
        other=RARELY,
    )
    def end_a_run(self, place: int, how: str, other: bool) -> None:
        attempt_id, mine = self.pick_attempt(place, "processing"), not other
        row, now = self.attempts[attempt_id], self.tick()
        token = row.token if mine else new_id()
        moved = {
            "complete": lambda: self.store.complete(attempt_id, token, _result(attempt_id), now),
            "fail": lambda: self.store.fail(attempt_id, token, "code", "message", now),
            "give_back": lambda: self.store.give_back(attempt_id, token, now),
            "crashed": lambda: self.store.crashed(attempt_id, token, now, MAX_TRIES),
        }[how]()
        assert moved is (row.status == "processing" and mine)
        if not moved:
            return
        if how == "give_back":
            row.tries -= 1
        again = how == "give_back" or (how == "crashed" and row.tries - row.lapses < MAX_TRIES)
        self.end(row, "queued" if again else "completed" if how == "complete" else "failed")

    @precondition(lambda self: self.attempts)
    @rule(place=st.integers(0, 99), was=st.integers(1, 3))
    def blend_anew(self, place: int, was: int) -> None:
        attempt_id = self.pick_attempt(place, "completed")
        row = self.attempts[attempt_id]
        legal = row.status == "completed" and row.version == was
        assert self.store.new_version(attempt_id, was, NewVersion(f"{attempt_id}-v{was + 1}.png", 2, ())) is legal
        row.version += legal

    @rule()
    def crash_of_the_process(self) -> None:
        self.clock.now += LEASE_SECONDS + 1
        self.store.sweep_leases(self.tick(), max_lapses=MAX_LAPSES)
        for row in self.attempts.values():
            if row.status == "processing":
                row.lapses += 1
                self.end(row, "queued" if row.lapses < MAX_LAPSES else "failed")

    @rule(age=st.integers(0, 25))
    def expire(self, age: int) -> None:
        before = self.tick() - age

        def young(row: ModelAttempt) -> bool:
            return row.ended_at is None or row.ended_at >= before

        def kept(photo_id: str) -> bool:
            photo = self.photos[photo_id]
            used = photo.used_at >= before or any(young(row) for row in self.of_photo(photo_id).values())
            return photo.in_library and used

        jobs = {row.job for row in self.attempts.values()}
        old = {job for job in jobs if not any(young(row) or kept(row.photo) for row in self.of_job(job).values())}
        retired = [key for key, photo in self.photos.items() if photo.in_library and not kept(key)]
        gone = self.store.expire(before)
        assert set(gone.jobs) == old
        self.forget_attempts([key for key, row in self.attempts.items() if row.job in old])
        for photo_id in retired:
            self.photos[photo_id].in_library = False
        unused = self.unused(set(self.photos))
        assert sorted(gone.uploads) == sorted(unused)
        self.forget_photos(unused)

    # Both say the same.

    @invariant()
    def every_photo_is_what_the_model_says(self) -> None:
        for photo_id, row in self.photos.items():
            photo = self.library.photo(row.owner, photo_id)
            assert (photo.status.value, photo.selected_attempt_id) == (row.status, row.selected)
            assert (photo.used_at is not None) is row.in_library
            said = {a.id: (a.status.value, a.version) for a in photo.attempts}
            assert said == {key: (each.status, each.version) for key, each in self.of_photo(photo_id).items()}
            assert photo.busy is self.busy(photo_id)
            assert sum(a.status.value in ACTIVE for a in photo.attempts) <= 1
        assert self.store.named_files.photo_ids() == set(self.photos)

    @invariant()
    def lists_hold_the_library_newest_first(self) -> None:
        for owner in OWNERS:
            for archived in (False, True):
                expected = [
                    key
                    for key, row in self.photos.items()
                    if row.in_library and row.owner == owner and (row.status == "archived") is archived
                ]
                listed = [photo.id for photo in self.library.photos(owner, 999, archived=archived)]
                assert listed == expected[::-1]


def _new_photo(content: str) -> NewPhoto:
    return NewPhoto(new_id(), hashlib.sha256(content.encode()).hexdigest(), "n", "image/png", 1, 1, 1)


def _result(attempt_id: str) -> Result:
    return Result(f"{attempt_id}.png", "image/png", 1, 1, 1, "m", 1.0)


def _results(own: dict[str, ModelAttempt]) -> list[str]:
    done = {key: row.version for key, row in own.items() if row.status == "completed"}
    return [f"{key}.png" if version == 1 else f"{key}-v{version}.png" for key, version in done.items()]


def _other(owner: str) -> str:
    return OWNERS[1 - OWNERS.index(owner)]


STATES = (
    "uploaded",
    "uploaded waiting",
    "processing",
    "ready",
    "ready waiting",
    "processing again",
    "archived",
    "gone",
)
# What each move makes of each state, in the order of STATES: a state, or the code of the refusal.
BUSY, UNKNOWN, UNFINISHED = "photo_busy", "photo_not_found", "attempt_not_completed"
MOVES = {
    "restore": ("uploaded waiting", BUSY, BUSY, "ready waiting", BUSY, BUSY, "photo_archived", UNKNOWN),
    "select": (
        *("attempt_not_found", UNFINISHED, UNFINISHED),
        *("ready", "ready waiting", "processing again", "photo_archived", UNKNOWN),
    ),
    "archive": ("photo_not_ready", BUSY, BUSY, "archived", BUSY, BUSY, "archived", UNKNOWN),
    "delete": ("gone", BUSY, BUSY, "gone", BUSY, BUSY, "gone", UNKNOWN),
    "cancel": ("uploaded", "uploaded", "uploaded", "ready", "ready", "ready", "archived", UNKNOWN),
}


class _Stage:
    """One photo, brought into a state by the moves that lead there."""

    def __init__(self, state: str, address: str) -> None:
        self.store = SqlStore(address)
        self.store.open()
        self.photo_id = self.store.library.add("ann", _new_photo("sea"), 1.0)[0].id
        self.jobs: list[str] = []
        self.attempts: list[str] = []
        if state in ("ready", "ready waiting", "processing again", "archived", "gone"):
            self.run(complete=True)
        if state == "archived":
            self.store.library.archive("ann", self.photo_id, 2.0)
        elif state == "gone":
            self.store.library.remove("ann", self.photo_id)
        elif state in ("uploaded waiting", "ready waiting"):
            self.start()
        elif state in ("processing", "processing again"):
            self.run(complete=False)

    def start(self) -> str:
        job, _ = self.store.restore_photo("ann", self.photo_id, "{}", "local", QUEUE_LIMIT, 2.0)
        self.jobs.append(job.id)
        self.attempts.append(job.attempts[0].id)
        return self.attempts[-1]

    def run(self, *, complete: bool) -> None:
        attempt_id = self.start()
        assert self.store.claim(attempt_id, "t", 3.0) is not None
        if complete:
            assert self.store.complete(attempt_id, "t", _result(attempt_id), 4.0)

    def move(self, name: str) -> None:
        library = self.store.library
        if name == "restore":
            self.start()
        elif name == "select":
            library.select("ann", self.photo_id, (self.attempts or [new_id()])[0], 5.0)
        elif name == "archive":
            library.archive("ann", self.photo_id, 5.0)
        elif name == "delete":
            library.remove("ann", self.photo_id)
        elif name == "cancel" and any(a.status.value in ACTIVE for a in library.photo("ann", self.photo_id).attempts):
            self.store.cancel_or_remove("ann", self.jobs[-1], 5.0)
        else:
            library.photo("ann", self.photo_id)

    @property
    def state(self) -> str:
        try:
            photo = self.store.library.photo("ann", self.photo_id)
        except NotFound:
            return "gone"
        waiting = any(attempt.status.value == "queued" for attempt in photo.attempts)
        again = photo.status.value == "processing" and len(photo.attempts) > 1
        return photo.status.value + (" waiting" if waiting else " again" if again else "")


@pytest.mark.parametrize("database", IMPLEMENTATIONS)
@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("state", STATES)
def test_every_move_from_every_state_is_legal_or_refused_with_its_reason(
    state: str, move: str, database: str, tmp_path: Path
) -> None:
    stage = _Stage(state, IMPLEMENTATIONS[database](tmp_path))
    assert stage.state == state
    expected = MOVES[move][STATES.index(state)]
    if expected in STATES:
        stage.move(move)
        assert stage.state == expected
    else:
        with _refused(expected):
            stage.move(move)
        assert stage.state == state
    stage.store.close()


class _refused:  # noqa: N801 - reads as a phrase
    """The block must raise a refusal of this code."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._raises: Any = pytest.raises((Conflict, NotFound))

    def __enter__(self) -> None:
        self._caught = self._raises.__enter__()

    def __exit__(self, *error: Any) -> bool:
        swallowed = bool(self._raises.__exit__(*error))
        assert self._caught.value.code == self._code
        return swallowed


PhotosModel.TestCase.settings = settings(max_examples=15, stateful_step_count=50, deadline=None)
TestPhotosModel = PhotosModel.TestCase


class PhotosModelOnPostgres(PhotosModel):
    """The same on a real server."""

    def address(self) -> str:
        return shared_server().new_database()


PhotosModelOnPostgres.TestCase.settings = settings(max_examples=10, stateful_step_count=40, deadline=None)
TestPhotosModelOnPostgres = needs_postgres(PhotosModelOnPostgres.TestCase)
