"""Nobody's request waits behind another's work: each attack beside requests that have to be answered at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.images import decoder as decoders
from tests.harness import until
from tests.http_service import KEY, Service, assert_problem, photo, running

OTHER_KEY = KEY[::-1]
AT_ONCE_SECONDS = 3.0  # on a machine that is busy with other tests


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path, key=f"{KEY},{OTHER_KEY}") as found:
        yield found


def answered_at_once(service: Service) -> None:
    """Health, a list, a submission and a cancellation of another owner."""
    other = {"X-API-KEY": OTHER_KEY}
    began = time.monotonic()
    assert service.client.get("/api/v1/health", headers=other).status_code == 200
    assert service.client.get("/api/v1/jobs", headers=other).status_code == 200
    sent = service.client.post("/enhance", files={"files": photo()}, headers=other)
    assert sent.status_code == 202
    job_id = sent.json()["job_id"]
    assert service.client.get(f"/status/{job_id}", headers=other).status_code == 200
    assert service.client.delete(f"/api/v1/jobs/{job_id}", headers=other).status_code == 200
    assert time.monotonic() - began < AT_ONCE_SECONDS


@contextlib.contextmanager
def flood(call: Callable[[], Any], number: int, started: Callable[[], bool], let_go: threading.Event) -> Iterator[None]:
    """Many calls at once, which hang until the block is over."""
    with ThreadPoolExecutor(number) as clients:
        calls = [clients.submit(call) for _ in range(number)]
        until(started)
        try:
            yield
        finally:
            let_go.set()
        assert {made.result(20).status_code for made in calls} == {200}


def held(work: Callable[..., Any], let_go: threading.Event, begun: list[int]) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        begun.append(1)
        assert let_go.wait(20)
        return work(*arguments, **named)

    return slow


def test_warm_ups_join_the_one_that_runs(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go, begun = threading.Event(), list[int]()
    monkeypatch.setattr(service.context.catalog, "warm_up", held(lambda: "lanczos", let_go, begun))
    ask = lambda: service.client.post("/api/v1/models/warmup")  # noqa: E731
    with flood(ask, 12, lambda: bool(begun), let_go):
        answered_at_once(service)
        assert service.client.get("/api/v1/status").status_code == 200
    assert len(begun) == 1


def test_previews_are_made_once_and_nobody_waits_for_them(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = service.submit()
    service.finish(job_id)
    let_go, begun = threading.Event(), list[int]()
    inspectors = service.context.inspectors
    monkeypatch.setattr(inspectors, "preview", held(inspectors.preview, let_go, begun))
    sizes = iter(range(16, 400))
    ask = lambda: service.client.get(f"/api/v1/jobs/{job_id}/preview?size={next(sizes)}")  # noqa: E731
    with flood(ask, 30, lambda: len(begun) == 2, let_go):
        answered_at_once(service)
        assert len(begun) == 2  # the owner's share
    for _ in range(3):
        assert service.client.get(f"/api/v1/jobs/{job_id}/preview?size=16").status_code == 200
    assert len(begun) == 30


def test_a_hostile_header_hangs_its_own_decoder_and_nobody_else(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "HEADER_TIMEOUT_SECONDS", 1.0)
    begun, read_header = threading.Event(), decoders.Decoder.read_header

    def told(decoder: decoders.Decoder, path: Path) -> Any:
        begun.set()
        return read_header(decoder, path)

    monkeypatch.setattr(decoders.Decoder, "read_header", told)
    (child,) = service.context.inspectors.child_pids
    os.kill(child, signal.SIGSTOP)
    answers: list[Any] = []
    attack = threading.Thread(target=lambda: answers.append(service.client.post("/enhance", files={"files": photo()})))
    attack.start()
    assert begun.wait(20)  # it has the child that hangs
    answered_at_once(service)
    attack.join(20)
    assert_problem(answers[0], 422, "decode_timeout")
    assert child not in service.context.inspectors.child_pids
    assert service.finish(service.submit())["status"] == "completed"


def test_one_key_never_shuts_others_out(tmp_path: Path) -> None:
    with running(tmp_path, key=f"{KEY},{OTHER_KEY}", queue_limit=30, queue_limit_per_owner=4) as service:
        service.backend.gate.clear()
        other = {"X-API-KEY": OTHER_KEY}
        greedy = [service.client.post("/enhance", files={"files": photo()}).status_code for _ in range(12)]
        assert set(greedy[-3:]) == {429}
        assert 4 <= greedy.count(202) <= 7  # up to three are in work
        refused = service.client.post("/enhance", files={"files": photo()})
        assert_problem(refused, 429, "owner_queue_full")
        assert int(refused.headers["retry-after"]) > 0
        answer = service.client.post("/enhance", files=[("files", photo())] * 5, headers=other)
        assert answer.status_code == 202
        assert answer.json()["queue_position"] <= 2
        service.backend.gate.set()


def test_a_long_list_leaves_out_what_is_known_of_many_photos(service: Service) -> None:
    sizes = [6, 5, 1]
    for size in sizes:
        files = [("files", (f"{number}.png", photo())) for number in range(size)]
        service.finish(service.client.post("/enhance", files=files).json()["job_id"])
    short, long = (service.client.get(f"/api/v1/jobs?limit={limit}").json()["jobs"] for limit in (20, 21))
    assert [row["photos"] for row in short] == [row["photos"] for row in long] == sizes[::-1]
    assert short[:2] == long[:2]
    left_out = {"attempts": None, "results": None, "errors": None}
    assert long[2] == {**short[2], **left_out}


def test_a_long_list_sums_up_jobs_in_every_state(service: Service) -> None:
    service.backend.gate.clear()
    files = [("files", (f"{number}.png", photo())) for number in range(6)]
    active, waiting = (service.client.post("/enhance", files=files).json()["job_id"] for _ in range(2))
    until(lambda: service.client.get(f"/api/v1/jobs/{active}").json()["stage"] == "upscaling")
    rows = {row["job_id"]: row for row in service.client.get("/api/v1/jobs?limit=100").json()["jobs"]}
    for job_id in (active, waiting):
        whole = service.client.get(f"/api/v1/jobs/{job_id}").json()
        same = ("status", "queue_position", "created_at", "expires_at", "options")
        assert {name: rows[job_id][name] for name in same} == {name: whole[name] for name in same}
        assert rows[job_id]["attempts"] is None
    assert rows[waiting]["stage"] == "waiting"
    service.client.delete(f"/api/v1/jobs/{active}")
    service.client.delete(f"/api/v1/jobs/{waiting}")
    rows = {row["job_id"]: row for row in service.client.get("/api/v1/jobs?limit=100").json()["jobs"]}
    assert rows[waiting]["status"] == rows[waiting]["stage"] == "cancelled"
    assert rows[waiting]["progress"] == 1.0
