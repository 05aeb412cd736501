"""What every `Store` keeps: whole submissions, guarded moves, order, limits, expiry and listeners."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.errors import Conflict, NotFound, TooLarge, TooManyRequests, Unavailable
from app.events import LocalEvents
from app.notices import Notice
from app.stages import Stage
from app.storage import new_id
from app.store import Attempt, AttemptStatus, Job, JobSummary, NewPhoto, Result, SqlStore, Store
from app.store.queries import RECENT_ATTEMPTS
from tests.databases import IMPLEMENTATIONS

ME = "me"


def photo() -> NewPhoto:
    return NewPhoto(new_id(), "a" * 64, "old.jpg", "image/jpeg", 30, 20, 1234)


def result(attempt_id: str, seconds: float = 2.0) -> Result:
    facts = ({"box": [1, 2, 3, 4]},), (Notice("c", "m"),), {"tile": 128}
    return Result(f"{attempt_id}.png", "image/png", 1000, 500, 99, "net", seconds, *facts)


def add(store: Store, photos: int = 1, owner: str = ME, limit: int = 1000, now: float = 100.0) -> Job:
    return store.add_job(owner, [photo() for _ in range(photos)], '{"scale": 4}', "local", limit, now)


def first(job: Job) -> str:
    return job.attempts[0].id


def status_of(store: Store, attempt_id: str) -> str:
    attempt = store.attempt(attempt_id)
    assert attempt is not None
    return attempt.status.value


def finish(store: Store, attempt_id: str, now: float = 110.0, seconds: float = 2.0) -> None:
    assert store.claim(attempt_id, "t", now)
    assert store.complete(attempt_id, "t", result(attempt_id, seconds), now)


@pytest.fixture
def events() -> LocalEvents:
    return LocalEvents()


@pytest.fixture(params=IMPLEMENTATIONS)
def store(request: pytest.FixtureRequest, tmp_path: Path, events: LocalEvents) -> Iterator[Store]:
    opened = SqlStore(IMPLEMENTATIONS[request.param](tmp_path), events)
    opened.open()
    yield opened
    opened.close()


def test_a_job_is_written_whole_and_read_back(store: Store) -> None:
    job = add(store, photos=3, now=123.0)
    again = store.job(ME, job.id)
    assert again == job
    assert [a.position for a in job.attempts] == [0, 1, 2]
    assert job.created_at == 123.0
    assert job.status is AttemptStatus.QUEUED
    attempt = job.attempts[1]
    assert (attempt.original_filename, attempt.photo_width, attempt.photo_height) == ("old.jpg", 30, 20)
    assert (attempt.stage, attempt.progress, attempt.tries, attempt.claim) == ("waiting", 0.0, 0, None)


def test_another_owner_cannot_see_list_cancel_or_fetch_it(store: Store) -> None:
    job = add(store)
    finish(store, first(job))
    name = f"{first(job)}.png"
    for call in (
        lambda: store.job("other", job.id),
        lambda: store.cancel_or_remove("other", job.id, 1.0),
        lambda: store.result_attempt("other", name),
        lambda: store.jobs("other", 10, before=job.id),
        lambda: store.job(ME, "0" * 32),
    ):
        with pytest.raises(NotFound):
            call()
    assert store.jobs("other", 10) == []
    assert store.result_attempt(ME, name).id == first(job)
    with pytest.raises(NotFound, match="expired"):
        store.result_attempt(ME, f"{first(job)}.jpg")


def test_a_job_larger_than_the_whole_queue_is_too_large_not_too_early(store: Store) -> None:
    with pytest.raises(TooLarge) as refused:
        add(store, photos=5, limit=4)
    assert refused.value.code == "too_many_files"


def test_parallel_submissions_never_pass_the_limit(store: Store) -> None:
    accepted: list[Job] = []
    refused: list[str] = []

    def submit() -> None:
        for _ in range(5):
            try:
                accepted.append(add(store, photos=2, limit=50))
            except Unavailable as error:
                refused.append(error.code)

    threads = [threading.Thread(target=submit) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(accepted) == 25
    assert set(refused) == {"queue_full"}
    assert store.counts().queued == 50


def test_a_photo_that_was_read_ahead_counts_as_waiting_until_it_is_worked_at(store: Store) -> None:
    job = add(store, photos=2)
    store.claim(first(job), "t", 1.0)
    store.report_progress(first(job), "t", 0.0, Stage.WAITING)
    found = store.counts()
    assert (found.queued, found.processing, found.read_ahead) == (1, 1, 1)
    store.report_progress(first(job), "t", 0.1, "upscaling")
    assert store.counts().read_ahead == 0


def test_places_in_the_queue_follow_the_order_of_submission(store: Store) -> None:
    jobs = [add(store, photos=2, now=100.0 - n) for n in range(3)]  # the clock runs backwards; the order stays
    assert [store.queue_position(job.id) for job in jobs] == [1, 3, 5]
    assert store.queued_ids() == [a.id for job in jobs for a in job.attempts]
    assert store.queued_ids(limit=1) == [first(jobs[0])]
    store.claim(first(jobs[0]), "t", 1.0)
    assert [store.queue_position(job.id) for job in jobs] == [1, 2, 4]
    store.cancel_or_remove(ME, jobs[0].id, 1.0)
    assert [store.queue_position(job.id) for job in jobs] == [0, 1, 3]
    assert store.queue_position("0" * 32) == 0


def test_pages_go_from_the_newest_to_the_oldest(store: Store) -> None:
    ids = [add(store, photos=2).id for _ in range(5)]
    page = store.jobs(ME, 2)
    assert [job.id for job in page] == [ids[4], ids[3]]
    assert [job.id for job in store.jobs(ME, 9, before=page[-1].id)] == [ids[2], ids[1], ids[0]]
    assert all(len(job.attempts) == 2 for job in page)


def test_the_pace_is_read_from_the_newest_attempts(store: Store) -> None:
    finished = [first(add(store)) for _ in range(RECENT_ATTEMPTS + 5)]
    for attempt_id in finished:
        finish(store, attempt_id)
    assert [attempt.id for attempt in store.recent_completed()] == finished[: -RECENT_ATTEMPTS - 1 : -1]


def test_a_waiting_attempt_is_claimed_exactly_once(store: Store) -> None:
    attempt_id = first(add(store))
    claims: list[Attempt | None] = []
    barrier = threading.Barrier(8)

    def claim(token: str) -> None:
        barrier.wait()
        claims.append(store.claim(attempt_id, token, 5.0))

    threads = [threading.Thread(target=claim, args=(str(n),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [attempt for attempt in claims if attempt is not None]
    assert len(won) == 1
    assert (won[0].status, won[0].tries, won[0].started_at) == (AttemptStatus.PROCESSING, 1, 5.0)
    assert won[0].claim is not None
    assert store.holds(attempt_id, won[0].claim)


Move = Callable[[Store, str, str], bool]


MOVES: dict[str, Move] = {
    "report": lambda s, a, t: s.report_progress(a, t, 0.5, "x"),
    "holds": lambda s, a, t: s.holds(a, t),
    "complete": lambda s, a, t: s.complete(a, t, result(a), 9.0),
    "fail": lambda s, a, t: s.fail(a, t, "code", "message", 9.0),
    "give_back": lambda s, a, t: s.give_back(a, t, 9.0),
    "crashed": lambda s, a, t: s.crashed(a, t, 9.0),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES.keys())
def test_a_run_without_its_claim_changes_nothing(store: Store, move: Move) -> None:
    job = add(store)
    attempt_id = first(job)
    assert not move(store, attempt_id, "t")  # still waiting
    store.claim(attempt_id, "t", 1.0)
    assert not move(store, attempt_id, "another")
    store.give_back(attempt_id, "t", 9.0)
    store.claim(attempt_id, "second", 2.0)
    before = store.attempt(attempt_id)
    assert not move(store, attempt_id, "t")  # a stale run
    assert store.attempt(attempt_id) == before
    store.cancel_or_remove(ME, job.id, 3.0)
    before = store.attempt(attempt_id)
    assert not move(store, attempt_id, "second")  # cancelled under it
    assert store.attempt(attempt_id) == before
    assert not move(store, new_id(), "t")


def test_cancelling_is_immediate_for_waiting_and_running_and_spares_the_ended(store: Store) -> None:
    job = add(store, photos=3)
    finish(store, job.attempts[0].id)
    store.claim(job.attempts[1].id, "t", 1.0)
    done = store.cancel_or_remove(ME, job.id, 50.0)
    assert (done.outcome, done.uploads, done.results) == ("cancelled", (), ())
    assert [a.status.value for a in store.job(ME, job.id).attempts] == ["completed", "cancelled", "cancelled"]
    assert not store.holds(job.attempts[1].id, "t")
    gone = store.cancel_or_remove(ME, job.id, 51.0)
    assert gone.outcome == "removed"
    assert set(gone.uploads) == {a.photo_id for a in job.attempts}
    assert gone.results == (f"{first(job)}.png",)
    with pytest.raises(NotFound):
        store.job(ME, job.id)
    assert store.named_files.photo_ids() == set()


def test_a_long_list_sums_up_jobs_of_many_photos(store: Store) -> None:
    small, large = add(store, photos=2), add(store, photos=3)
    foreign = store.page("somebody else", 9, None, 2)
    failed, running, _ = (attempt.id for attempt in large.attempts)
    store.claim(failed, "a", 5.0)
    store.fail(failed, "a", "code", "message", 6.0)
    store.claim(running, "b", 7.0)
    store.report_progress(running, "b", 0.5, "upscaling")
    summed, whole = store.page(ME, 9, None, 2)
    assert isinstance(summed, JobSummary)
    assert whole == store.job(ME, small.id)
    same = store.job(ME, large.id)
    assert (summed.id, summed.status, summed.progress) == (same.id, same.status, same.progress)
    assert (summed.stage, summed.ended_at, summed.photos) == ("upscaling", 6.0, 3)
    assert store.page(ME, 9, summed.id, 1) == [store.page(ME, 9, None, 1)[1]]
    assert foreign == []


def submit(store: Store, owner: str, photos: int = 1, owner_limit: int | None = None) -> Job:
    new = [photo() for _ in range(photos)]
    return store.submit(owner, new, "{}", "local", 1000, 0.0, owner_limit=owner_limit)[0]


def test_an_owner_has_a_share_of_the_queue(store: Store) -> None:
    whole = submit(store, "greedy", 7, owner_limit=5)  # one submission may be larger
    with pytest.raises(TooManyRequests) as refused:
        submit(store, "greedy", owner_limit=5)
    assert refused.value.code == "owner_queue_full"
    assert refused.value.retry_after_seconds
    submit(store, "modest", 5, owner_limit=5)
    for attempt in whole.attempts[:3]:
        store.claim(attempt.id, attempt.id, 1.0)
    submit(store, "greedy", owner_limit=5)
    with pytest.raises(TooManyRequests):
        submit(store, "greedy", owner_limit=5)
    submit(store, "greedy", 9)


def test_owners_are_served_in_turn(store: Store) -> None:
    greedy = submit(store, "greedy", 4)
    late = submit(store, "greedy")
    modest, third = submit(store, "modest", 2), submit(store, "third")
    names = {attempt.id: job.owner[0] for job in (greedy, late, modest, third) for attempt in job.attempts}
    assert "".join(names[one] for one in store.queued_ids()) == "gmtgmggg"
    for left_out, rest in ((["greedy"], "mtm"), (["greedy", "third", "nobody"], "mm"), (["modest"], "gtgggg")):
        assert "".join(names[one] for one in store.queued_ids(owners_but=left_out)) == rest
    assert [names[one] for one in store.queued_ids(1, but=("cloud",), owners_but=("greedy",))] == ["m"]
    assert [store.queue_position(job.id) for job in (greedy, modest, third, late)] == [1, 2, 3, 8]
    served, now = "", 1.0
    while waiting := store.queued_ids(1):
        now += 1
        assert store.claim(waiting[0], "t", now)
        store.fail(waiting[0], "t", "code", "message", now)
        served += names[waiting[0]]
    assert served == "gmtgmggg"


def test_texts_of_others_are_stored_without_what_no_database_takes(store: Store) -> None:
    failed, completed = first(add(store)), first(add(store))
    store.claim(failed, "a", 1.0)
    assert store.fail(failed, "a", "provider_rejected", "half \ud800 and nul \0 end", 2.0)
    store.claim(completed, "b", 1.0)
    done = Result(f"{completed}.png", "image/png", 1, 1, 1, "m", 1.0, params={"prompt": "\udc00", "pace": math.nan})
    assert store.complete(completed, "b", done, 2.0)
    said = store.attempt(failed)
    kept = store.attempt(completed)
    assert said is not None
    assert kept is not None
    assert said.error_message == "half ? and nul  end"
    assert kept.params == {"prompt": "?", "pace": None}


def test_a_run_that_died_alone_is_repeated_twice_too(store: Store) -> None:
    attempt_id = first(add(store))
    for token, state in (("a", "queued"), ("b", "queued"), ("c", "failed")):
        store.claim(attempt_id, token, 1.0)
        assert store.crashed(attempt_id, token, 2.0)
        assert status_of(store, attempt_id) == state


def test_expiry_takes_whole_ended_jobs_and_never_an_active_one(store: Store) -> None:
    old, young, half, waiting = (add(store, photos=2) for _ in range(4))
    for attempt in old.attempts:
        finish(store, attempt.id, now=200.0)
    for attempt in young.attempts:
        finish(store, attempt.id, now=900.0)
    finish(store, first(half), now=200.0)
    gone = store.expire(before=500.0)
    assert gone.jobs == (old.id,)
    assert set(gone.uploads) == {a.photo_id for a in old.attempts}
    assert set(gone.results) == {f"{a.id}.png" for a in old.attempts}
    assert [job.id for job in store.jobs(ME, 9)] == [waiting.id, half.id, young.id]
    assert store.expire(before=500.0).jobs == ()
    assert store.expire(before=1e12).jobs == (young.id,)


def test_expiry_works_in_bounded_bites(store: Store) -> None:
    for _ in range(3):
        finish(store, first(add(store)), now=1.0)
    assert [len(store.expire(before=50.0, limit=2).jobs) for _ in range(3)] == [2, 1, 0]


def test_listeners_hear_after_the_commit_and_a_faulty_one_harms_nobody(
    store: Store, events: LocalEvents, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, str]] = []

    def listen(job_id: str) -> None:
        heard.append((job_id, store.job(ME, job_id).status.value))

    def faulty(_job_id: str) -> None:
        raise RuntimeError("listener")

    events.subscribe(faulty)
    unsubscribe = events.subscribe(listen)
    job, other = add(store), add(store)
    assert heard == [(job.id, "queued"), (other.id, "queued")]
    heard.clear()
    store.claim(first(job), "t", 1.0)
    assert heard == [(job.id, "processing"), (other.id, "queued")]  # the other's place in the queue moved
    heard.clear()
    store.complete(first(job), "wrong", result(first(job)), 2.0)
    assert heard == []
    store.complete(first(job), "t", result(first(job)), 2.0)
    unsubscribe()
    store.cancel_or_remove(ME, other.id, 3.0)
    assert heard == [(job.id, "completed")]
    assert "listener of job changes failed" in caplog.text


def test_equal_bytes_of_one_owner_are_one_photo(store: Store) -> None:
    kept, is_new = store.library.add(ME, photo(), 100.0)
    again, second_is_new = store.library.add(ME, photo(), 101.0)
    others, third_is_new = store.library.add("other", photo(), 102.0)
    assert (is_new, second_is_new, third_is_new) == (True, False, True)
    assert again.id == kept.id != others.id


def test_the_library_shows_each_owner_its_photos_from_the_newest_in_pages(store: Store) -> None:
    photos = [dataclasses.replace(photo(), sha256=letter * 64) for letter in "abc"]
    for number, new in enumerate(photos):
        store.library.add(ME, new, 100.0 + number)
    page = store.library.photos(ME, 2)
    rest = store.library.photos(ME, 2, before=page[-1].id)
    assert [one.id for one in page + rest] == [new.id for new in reversed(photos)]
    assert store.library.photos("other", 2) == []
    with pytest.raises(NotFound):
        store.library.photo("other", photos[0].id)
    with pytest.raises(NotFound):
        store.library.photos(ME, 2, before=new_id())


def test_a_photo_in_work_is_not_removed_and_one_at_rest_takes_its_files_along(store: Store) -> None:
    kept, _ = store.library.add(ME, photo(), 100.0)
    assert kept.id in store.named_files.photo_ids()
    with pytest.raises(NotFound):
        store.library.remove("other", kept.id)
    removal = store.library.remove(ME, kept.id)
    assert removal.uploads == (kept.id,)
    assert kept.id not in store.named_files.photo_ids()
    job = add(store)
    with pytest.raises(Conflict):
        store.library.remove(ME, job.attempts[0].photo_id)
