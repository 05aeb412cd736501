"""What an API server knows from the reports of workers: what they have together, their health, their warm-ups."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api.catalog import LOCAL_BACKEND, Catalog
from app.api.workers_catalog import NO_WORKER, POOL_KEPT_SECONDS, WARM_UP_SECONDS, WorkersCatalog
from app.errors import Conflict, Unavailable, Unprocessable
from app.health_reasons import HealthReason, as_causes, as_reason
from app.jobs.worker_pool import backends_of, describe_pool, members_of
from app.jobs.worker_reports import WarmUp, WorkerReport
from app.main.cluster import report_of
from app.memory_limit import budget_bytes
from app.notices import NoticeKind, say
from app.options import BackendName, Fallback, RestoreOptions
from app.store import LIVE_SECONDS, SqlStore
from app.time_estimate import machine_of
from tests.databases import IMPLEMENTATIONS, Clock
from tests.http_service import running

CLOUD_ROW = {"name": "siliconflow", "available": False, "reason": "no key"}


def model(name: str, *, installed: bool = True) -> dict[str, Any]:
    cost = {"architecture": "ESRGAN", "megamacs_per_pixel": 1.0}
    return {"name": name, "file": f"{name}.pth", "bytes": 9, "installed": installed, "note": None, **cost}


def description(seconds: float | None, default: str, *models: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "default_model": default,
        "warm_run": None if seconds is None else {"model": default, "pixels": 100, "seconds": seconds},
        "models": list(models),
        "face_models": [],
        "problems": [],
        "notes": [],
        **more,
    }


SLOW = description(40.0, "small", model("small"), model("large", installed=False), problems=["It is hot."])
FAST = description(
    2.0,
    "large",
    *(model("large"), model("old"), model("rare", installed=False)),
    problems=["It is hot."],
    notes=["It is new."],
)


def report(described: dict[str, Any], status: str = "idle", **more: Any) -> WorkerReport:
    return WorkerReport(("local",), status, description=described, backend_rows=(LOCAL_BACKEND, CLOUD_ROW), **more)


CLOUD = WorkerReport(("siliconflow",), "idle", backend_rows=({**CLOUD_ROW, "available": True, "reason": None},))


class Pool:
    """An API server's catalog over a store in which tests let workers report."""

    def __init__(self, store: SqlStore, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.pauses: list[float] = []
        self.catalog = WorkersCatalog(store.workers, clock, self.pause)

    def pause(self, seconds: float) -> None:
        """What happens while the catalog waits for a warm-up."""
        self.clock.now += seconds
        self.pauses.append(seconds)

    def failure(self) -> str | None:
        return self.catalog.failure

    def says(self, name: str, said: WorkerReport) -> float | None:
        return self.store.workers.report(name, name, said.as_facts())

    def later(self, seconds: float = POOL_KEPT_SECONDS + 0.1) -> None:
        self.clock.now += seconds


@pytest.fixture(params=IMPLEMENTATIONS)
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    clock = Clock()
    store = SqlStore(IMPLEMENTATIONS[request.param](tmp_path), clock=clock)
    store.open()
    yield Pool(store, clock)
    store.close()


def test_models_are_the_union_and_the_fastest_worker_gives_what_there_is_only_one_of(pool: Pool) -> None:
    pool.says("a:1", report(SLOW))
    pool.says("b:2", report(FAST))
    pool.says("c:3", report(description(None, "small", model("small"), model("rare"))))
    described = pool.catalog.description()
    assert {row["name"]: row["installed"] for row in described["models"]} == dict.fromkeys(
        ("large", "old", "rare", "small"), True
    )
    assert described["default_model"] == "large"
    assert (machine_of(described).workers, machine_of(described).warm) == (3, ("large", 100, 2.0))
    assert described["problems"] == ["b:2, a:1: It is hot."]
    assert described["notes"] == ["b:2: It is new."]
    assert describe_pool(members_of(pool.store.workers.live())[:1])["problems"] == ["It is hot."]
    assert describe_pool([]) == {}


def test_what_workers_say_keeps_its_codes_and_values_on_the_way_to_other_servers(pool: Pool) -> None:
    """The page translates by them; what an old worker says stays the text that it is."""
    why = say(HealthReason.CPU_INSTEAD, "The CPU restores: {why}", why="it is full")
    missing = say(NoticeKind.FACE_MODEL_MISSING, "Faces: {why}", why="gone", file="x.pth")
    new = report(description(None, "small", problems=[why], notes=[missing, "plain"]), reasons=(why,))
    pool.says("a:1", new)
    described = pool.catalog.description()
    assert as_causes(described["notes"])[0] == missing.as_facts()
    assert as_causes(described["problems"]) == [why.as_facts()]
    assert as_reason(described["notes"][1]).code == HealthReason.OTHER
    old = new.as_facts() | {"description": {**SLOW, "problem_causes": [3, {"code": 1}], "note_causes": "x"}}
    del old["causes"]
    pool.store.workers.report("b:2", "b:2", old)
    pool.later()
    (mine, other) = map(as_reason, pool.catalog.health().reasons)
    assert mine.as_facts() == {
        "code": "cpu_instead",
        "message": "a:1: The CPU restores: it is full",
        "values": {"why": "it is full", "worker": "a:1"},
    }
    assert (other.code, other.values) == ("worker_trouble", {"worker": "b:2", "reason": str(why)})
    coded = map(as_reason, pool.catalog.description()["problems"])
    problems = {reason.code: reason.values.get("worker") for reason in coded}
    assert problems == {"cpu_instead": "a:1", "worker_trouble": "b:2"}


def test_options_are_checked_against_what_live_workers_have(pool: Pool) -> None:
    pool.says("a:1", report(SLOW))
    pool.catalog.check(RestoreOptions(model="small"))
    with pytest.raises(Conflict, match="not installed"):
        pool.catalog.check(RestoreOptions(model="large"))
    with pytest.raises(Unprocessable, match="There is no model 'old'"):
        pool.catalog.check(RestoreOptions(model="old"))
    with pytest.raises(Conflict, match="no key"):
        pool.catalog.check(RestoreOptions(backend=BackendName.SILICONFLOW))
    pool.says("b:2", report(FAST))
    pool.says("cloud:3", CLOUD)
    pool.later()
    for asked in ({"model": "large"}, {"model": "old"}, {"backend": BackendName.SILICONFLOW}):
        pool.catalog.check(RestoreOptions(**asked))
    assert [row["available"] for row in backends_of(pool.catalog.members())] == [True, True]


def test_without_a_worker_jobs_are_taken_and_readiness_says_that_none_is_there(pool: Pool) -> None:
    assert pool.failure() == NO_WORKER
    assert not pool.catalog.loading
    assert pool.catalog.backends() == [LOCAL_BACKEND]
    pool.catalog.check(RestoreOptions(model="any"))
    pool.says("a:1", report(SLOW))
    pool.later()
    assert pool.failure() is None
    pool.later(LIVE_SECONDS)
    assert pool.failure() == NO_WORKER
    assert pool.catalog.description()["default_model"] == "small"  # forms still know what was there
    pool.catalog.check(RestoreOptions(model="any"))


def test_it_starts_as_long_as_every_worker_does(pool: Pool) -> None:
    pool.says("a:1", WorkerReport(("local",), "starting"))
    assert pool.catalog.loading
    assert pool.catalog.description() == {}
    pool.says("b:2", report(FAST))
    pool.later()
    assert not pool.catalog.loading


def test_workers_that_only_wait_for_a_provider_leave_the_networks_unavailable(pool: Pool) -> None:
    pool.says("cloud:1", WorkerReport(("siliconflow",), "idle", backend_rows=(LOCAL_BACKEND, *CLOUD.backend_rows)))
    assert pool.failure() is None
    assert pool.catalog.can_restore()
    assert {row["name"]: row["available"] for row in pool.catalog.backends()} == {"local": False, "siliconflow": True}
    with pytest.raises(Conflict, match="no worker with networks"):
        pool.catalog.check(RestoreOptions())
    pool.says("a:2", report(description(1.0, "", model("large", installed=False))))
    pool.later()
    assert not pool.catalog.can_restore()


def test_health_is_that_of_all_workers(pool: Pool) -> None:
    pool.says("a:1", report(SLOW, "failing", reasons=("It hangs.",)))
    assert (pool.catalog.health().status, pool.catalog.health().reasons) == ("failing", ("a:1: It hangs.",))
    pool.says("b:2", report(FAST, "busy", in_work=2))
    pool.later()
    assert (pool.catalog.health().status, pool.catalog.health().reasons) == ("busy", ("a:1: It hangs.",))
    rows = {row["name"]: row for row in pool.catalog.workers()}
    assert (rows["b:2"]["status"], rows["b:2"]["in_work"], rows["a:1"]["reasons"]) == ("busy", 2, ["It hangs."])


def test_a_store_that_is_away_leaves_what_was_known(pool: Pool) -> None:
    pool.says("a:1", report(SLOW))
    assert pool.failure() is None
    pool.later()
    pool.store.close()
    assert pool.failure() is None
    assert pool.catalog.description()["default_model"] == "small"


# Warm-ups: asked for by a row, seen by the workers with their next report.


class Answering(Pool):
    """Workers that hear of a warm-up with their next report, and end it with these outcomes (None: they do not)."""

    outcomes: dict[str, WarmUp | None] = {}

    def pause(self, seconds: float) -> None:
        super().pause(seconds)
        for name, outcome in self.outcomes.items():
            asked_at = self.says(name, report(FAST))
            if outcome is not None and asked_at is not None:
                done = WarmUp(asked_at, outcome.model, outcome.error)
                self.says(name, report(FAST, warm_up=done))


@pytest.mark.parametrize(
    ("outcomes", "model_name"),
    [
        ({"a:1": WarmUp(0, "large"), "b:2": WarmUp(0, "large")}, "large"),
        ({"a:1": WarmUp(0, None, "The card is away."), "b:2": WarmUp(0, "large")}, "large"),
        ({"a:1": WarmUp(0, None)}, None),
    ],
)
def test_a_warm_up_waits_for_all_workers(
    pool: Pool, outcomes: dict[str, WarmUp | None], model_name: str | None
) -> None:
    answering = Answering(pool.store, pool.clock)
    answering.outcomes = outcomes
    for name in outcomes:
        answering.says(name, report(FAST))
    answering.says("cloud:3", CLOUD)
    assert answering.catalog.warm_up() == model_name
    assert len(answering.pauses) == 1


def test_a_warm_up_says_why_it_did_not_come_about(pool: Pool) -> None:
    with pytest.raises(Unavailable, match="No worker is running"):
        pool.catalog.warm_up()
    answering = Answering(pool.store, pool.clock)
    answering.outcomes = {"a:1": WarmUp(0, None, "The card is away.")}
    answering.says("a:1", report(FAST))
    with pytest.raises(Unavailable, match="The card is away"):
        answering.catalog.warm_up()
    answering.outcomes = {"a:1": None}
    began = pool.clock.now
    with pytest.raises(Unavailable, match="ask again in a moment") as pending:
        answering.catalog.warm_up()
    assert pending.value.code == "warm_up_pending"
    assert WARM_UP_SECONDS <= pool.clock.now - began <= WARM_UP_SECONDS + 1
    answering.outcomes = {}
    with pytest.raises(Unavailable) as gone:  # it died meanwhile
        answering.catalog.warm_up()
    assert gone.value.code == "no_worker"


def test_the_smallest_worker_with_networks_says_which_photos_fit(pool: Pool) -> None:
    assert pool.catalog.memory_bytes() is None
    pool.says("a:1", report(FAST, memory_limit_bytes=8 << 30))
    pool.says("b:2", report(SLOW, memory_limit_bytes=2 << 30))
    pool.says("c:3", report(SLOW))
    pool.says("d:4", dataclasses.replace(CLOUD, memory_limit_bytes=1 << 30))
    pool.later()
    assert pool.catalog.memory_bytes() == 2 << 30
    pool.store.workers.forget("b:2")
    pool.later()
    assert pool.catalog.memory_bytes() == 8 << 30


def test_the_provider_is_in_trouble_when_it_is_for_each_worker_that_asks_it(pool: Pool) -> None:
    asked = RestoreOptions(backend=BackendName.SILICONFLOW)
    pool.says("a:1", report(FAST))
    pool.says("b:2", dataclasses.replace(CLOUD, provider_pause_seconds=25.0))
    with pytest.raises(Unavailable) as raised:
        pool.catalog.check(asked)
    assert (raised.value.code, raised.value.retry_after_seconds) == ("provider_unavailable", 25)
    assert "25 seconds" in str(pool.catalog.provider_problem())
    local = dataclasses.replace(asked, fallback=Fallback.LOCAL)
    assert pool.catalog.check(local) == BackendName.LOCAL
    pool.later(10)
    assert pool.catalog.provider_pause_seconds() == 15.0  # a silent worker's time goes on
    pool.says("c:3", CLOUD)
    pool.later()
    assert pool.catalog.check(asked) == BackendName.SILICONFLOW
    assert pool.catalog.provider_problem() is None


def test_a_worker_reports_the_limit_of_its_control_groups_and_its_breaker(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        restoring = service.app.state.service.restoring
        catalog = Catalog(dict, lambda: None, provider_pause_seconds=lambda: 7.0, memory_bytes=3 << 30)
        said = report_of(restoring.worker, catalog)
        assert (said.memory_limit_bytes, said.provider_pause_seconds) == (3 << 30, 7.0)
        assert restoring.catalog.memory_bytes() == budget_bytes()
