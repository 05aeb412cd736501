"""What a process that restores says of itself, every few seconds, for servers that do not restore themselves.

The report is also how it is asked for something: the answer of the store says when a warm-up was wanted. Time is passed
in.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from app import __version__
from app.errors import RestoreError
from app.health_reasons import as_causes, with_causes
from app.metrics import Metrics
from app.store import Store
from app.threads import PeriodicThread

log = logging.getLogger(__name__)

REPORT_SECONDS = 5.0
_SAID = {"problems": "problem_causes", "notes": "note_causes"}  # lists of sentences in a description
_FAILED_WARM_UP = "The default model could not be run; the worker's log says why."


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """The last warm-up that a worker ended: the one asked for at `asked_at` (epoch seconds by the database's clock).

    `model` is None with nothing installed; `error` is one plain sentence when it failed.
    """

    asked_at: float
    model: str | None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class WorkerReport:
    """A worker in words and numbers, JSON-ready.

    Attributes:
        backends: names of the backends whose attempts it takes.
        backend_rows: what it means to choose each backend (see `Catalog.backends`).
        status: `starting`, `idle`, `busy`, `draining`, `failing` or `stopped`.
        reasons: plain sentences, empty when all is well; those of the house with their codes.
        in_work: attempts that it holds now.
        lanes: how many attempts each of its lanes holds at most.
        memory_limit_bytes: what its process may use in all, by its control groups; None when unknown.
        description: what the local backend says of itself: device, precision, models, faces, default quality, pace.
        warm_up: the last one that ended.
        provider_pause_seconds: for how long it does not ask the provider, which is in trouble; None: it does.
    """

    backends: tuple[str, ...] = ()
    status: str = "starting"
    reasons: tuple[str, ...] = ()
    in_work: int = 0
    lanes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    memory_limit_bytes: int | None = None
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warm_up: WarmUp | None = None
    backend_rows: tuple[Mapping[str, Any], ...] = ()
    version: str = __version__
    provider_pause_seconds: float | None = None

    def as_facts(self) -> dict[str, Any]:
        """The report as the store keeps it: beside each list of sentences one of their codes and values."""
        description = dict(self.description)
        for texts, causes in _SAID.items():
            description[causes] = as_causes(description.get(texts, ()))
        facts = dataclasses.asdict(dataclasses.replace(self, description=description))
        return {**facts, "causes": as_causes(self.reasons)}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> WorkerReport:
        """A report that this or another version wrote: what is missing has its default, what is unknown is left out."""
        known = {field.name: facts[field.name] for field in dataclasses.fields(cls) if field.name in facts}
        for name in ("backends", "backend_rows"):
            known[name] = tuple(known.get(name) or ())
        known["reasons"] = with_causes(known.get("reasons"), facts.get("causes"))
        known["description"] = dict(known.get("description") or {})
        for texts, causes in _SAID.items():
            coded = known["description"].pop(causes, None)
            if texts in known["description"]:
                known["description"][texts] = list(with_causes(known["description"][texts], coded))
        warm_up = known.get("warm_up")
        known["warm_up"] = (
            WarmUp(**{key: warm_up.get(key) for key in ("asked_at", "model", "error")}) if warm_up else None
        )
        return cls(**known)


class WorkerReporter(PeriodicThread):
    """Reports by call (`tick`) or in its own supervised thread (`start`), and runs the warm-ups that it is asked for.

    Args:
        store, metrics: where the report goes, and where a death of the thread is counted.
        name: host and process, as it stands beside the claims.
        host: the machine, for people.
        look: gives the report of this moment; its `warm_up` is filled in here.
        warm_up: loads and runs the default model once; its name, None with nothing installed.
    """

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        *,
        name: str,
        host: str,
        look: Callable[[], WorkerReport],
        warm_up: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._metrics, self._name, self._host = store, metrics, name, host
        self._look, self._warm_up = look, warm_up
        self._is_known = False
        self._answered: WarmUp | None = None
        self._warming: threading.Thread | None = None
        self._stopping = threading.Lock()
        self._stopped = False
        super().__init__(
            "worker-reports",
            self.tick,
            REPORT_SECONDS,
            trouble="this worker could not report",
            on_restart=metrics.thread_restarted,
            clock=clock,
        )

    def tick(self) -> None:
        """Report once, and begin the warm-up that was asked for. Raises `Unavailable` without a store."""
        report = dataclasses.replace(self._look(), warm_up=self._answered)
        with self._stopping:  # no report may come after the row is removed
            if self._stopped:
                return
            asked_at = self._store.workers.report(
                self._name, self._host, report.as_facts(), starting=not self._is_known
            )
            self._is_known = True
        done = self._answered is not None and asked_at is not None and self._answered.asked_at >= asked_at
        if asked_at is not None and not done and self.wait_warm_up(0.0):
            self._warming = threading.Thread(target=self._answer, args=(asked_at,), name="warm-up", daemon=True)
            self._warming.start()  # beside the reports, which go on while a model loads

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the thread and take the worker off the list of those that live; harmless when it was never started."""
        super().stop(timeout_seconds)
        with self._stopping:
            self._stopped = True
            if self._is_known:
                try:
                    self._store.workers.forget(self._name)
                except RestoreError as error:  # its row is soon too old
                    log.warning("the worker could not be taken off the list: %s", error.detail)

    def wait_warm_up(self, timeout_seconds: float) -> bool:
        """Wait for a warm-up that runs; False when it still does after the timeout."""
        if self._warming is not None:
            self._warming.join(timeout_seconds)
        return self._warming is None or not self._warming.is_alive()

    def _answer(self, asked_at: float) -> None:
        try:
            self._answered = WarmUp(asked_at, self._warm_up())
        except RestoreError as error:
            self._answered = WarmUp(asked_at, None, error.detail)
        except Exception:
            log.exception("the default model could not be run")
            self._answered = WarmUp(asked_at, None, _FAILED_WARM_UP)
