"""The report of a worker: its words, its warm-ups, its end, and what happens while the database is away."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from app.errors import Conflict, Unavailable
from app.jobs.worker_reports import WarmUp, WorkerReport, WorkerReporter
from app.metrics import Metrics
from app.store import SqlStore
from app.threads import ThreadState
from tests.databases import Clock
from tests.harness import until

ROOT = Path(__file__).resolve().parents[1]
REPORT = WorkerReport(("local",), "busy", ("It is warm.",), 2, {"local": 3}, 1 << 30, {"device": "cpu", "models": []})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[SqlStore]:
    opened = SqlStore(f"sqlite:///{tmp_path}/jobs.sqlite3", clock=clock)
    opened.open()
    yield opened
    opened.close()


class Reporting:
    """A reporter whose warm-up waits until it is let go, and then ends as the test says."""

    def __init__(self, store: SqlStore) -> None:
        self.let_go, self.warmed = threading.Event(), 0
        self.ends: str | Exception = "net"
        self.reporter = WorkerReporter(
            store, Metrics(), name="host:1", host="host", look=lambda: REPORT, warm_up=self._warm_up
        )

    def _warm_up(self) -> str:
        self.warmed += 1
        assert self.let_go.wait(20)
        if isinstance(self.ends, Exception):
            raise self.ends
        return self.ends


@pytest.fixture
def reporting(store: SqlStore) -> Reporting:
    return Reporting(store)


def reported(store: SqlStore) -> WorkerReport:
    (worker,) = store.workers.live()
    return WorkerReport.from_facts(worker.report)


def test_what_it_says_comes_out_as_it_went_in(reporting: Reporting, store: SqlStore) -> None:
    reporting.reporter.tick()
    assert reported(store) == REPORT
    assert reported(store).version == app.__version__
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == app.__version__


def test_a_report_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert WorkerReport.from_facts({"status": "idle", "colour": "green"}) == WorkerReport(status="idle")
    assert WorkerReport.from_facts({"warm_up": {"asked_at": 3.0, "new": 1}}).warm_up == WarmUp(3.0, None)


def test_a_warm_up_runs_once_for_each_time_it_is_asked_beside_the_reports(
    reporting: Reporting, store: SqlStore, clock: Clock
) -> None:
    reporting.reporter.tick()
    asked_at = store.workers.ask_warm_up()
    for _ in range(3):
        reporting.reporter.tick()  # goes on while it warms up, and begins no second one
    assert reported(store).warm_up is None
    reporting.let_go.set()
    assert reporting.reporter.wait_warm_up(20)
    for _ in range(2):
        reporting.reporter.tick()
    assert reported(store).warm_up == WarmUp(asked_at, "net")
    assert reporting.warmed == 1
    clock.now += 1
    again = store.workers.ask_warm_up()
    reporting.reporter.tick()
    assert reporting.reporter.wait_warm_up(20)
    reporting.reporter.tick()
    assert reported(store).warm_up == WarmUp(again, "net")


@pytest.mark.parametrize(
    ("error", "sentence"), [(Conflict("no_card", "The card is away."), "The card is away."), (ValueError(), "log")]
)
def test_a_warm_up_that_fails_says_so(reporting: Reporting, store: SqlStore, error: Exception, sentence: str) -> None:
    reporting.ends = error
    reporting.let_go.set()
    reporting.reporter.tick()
    asked_at = store.workers.ask_warm_up()
    reporting.reporter.tick()
    assert reporting.reporter.wait_warm_up(20)
    reporting.reporter.tick()
    warm_up = reported(store).warm_up
    assert warm_up is not None
    assert (warm_up.asked_at, warm_up.model) == (asked_at, None)
    assert sentence in str(warm_up.error)


def test_its_thread_reports_and_after_its_end_it_is_off_the_list(reporting: Reporting, store: SqlStore) -> None:
    reporting.reporter.start()
    until(store.workers.live)
    assert reporting.reporter.state is ThreadState.RUNNING
    reporting.reporter.stop()
    assert store.workers.live() == []
    reporting.reporter.tick()  # a late one
    assert store.workers.live() == []


def test_a_database_that_is_away_harms_neither_the_thread_nor_the_stop(
    reporting: Reporting, store: SqlStore, caplog: pytest.LogCaptureFixture
) -> None:
    reporting.reporter.tick()
    store.close()
    with pytest.raises(Unavailable):
        reporting.reporter.tick()
    reporting.reporter.start()
    until(lambda: "could not report" in caplog.text)
    assert reporting.reporter.state is ThreadState.RUNNING
    reporting.reporter.stop()
    assert "could not be taken off the list" in caplog.text
