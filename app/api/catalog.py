"""What this machine restores with, as main describes it: models, backends, device, and how far the loading is.

The description is JSON-ready and comes from a callable, so that the API never imports the rooms of restoration. It is
kept for some seconds, because looking at the weights folder costs.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.errors import Conflict, Unavailable, Unprocessable
from app.health_reasons import HealthReason
from app.notices import say
from app.options import BackendName, Fallback, Repair, RestoreOptions

LOCAL_BACKEND = {
    "name": BackendName.LOCAL.value,
    "available": True,
    "reason": None,
    "leaves_machine": None,
    "price_note": None,
}
KEPT_SECONDS = 30.0
LOOK_AGAIN_SECONDS = (
    2.0  # before a name is refused, the folder is looked at again: a file may just have been dropped in
)
_STARTING_RETRY_SECONDS = 5
# What of a description a page builds its choices from.
_OFFERED = (
    "models",
    "partner_models",
    "face_models",
    "faces",
    "repair",
    "qualities",
    "default_model",
    "default_quality",
    "problems",
    "notes",
)


def _no_trouble() -> None:
    """What a service without a provider knows of its troubles."""


class Catalog:
    """The description and the state of loading. Usable from any thread; calls may take a moment, so not in the loop.

    `provider_pause_seconds` says for how long the provider is not asked, because it is in trouble; None: it may be.
    `memory_bytes` is what the process that restores may use in all; None: unknown.
    """

    def __init__(
        self,
        describe: Callable[[], Mapping[str, Any]],
        warm_up: Callable[[], str | None],
        clock: Callable[[], float] = time.monotonic,
        backends: Sequence[Mapping[str, Any]] = (),
        provider_pause_seconds: Callable[[], float | None] = _no_trouble,
        memory_bytes: int | None = None,
    ) -> None:
        self._loading = True
        self._failure: str | None = None
        self._describe, self._warm_up, self._clock = describe, warm_up, clock
        self._provider_pause_seconds, self._memory_bytes = provider_pause_seconds, memory_bytes
        self._backends = [dict(row) for row in backends or (LOCAL_BACKEND,)]
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._looked_at = float("-inf")

    @property
    def loading(self) -> bool:
        """True until the default network is loaded (or could not be)."""
        return self._loading

    @property
    def failure(self) -> str | None:
        """One plain sentence when the backends could not be opened at all."""
        return self._failure

    def description(self, max_age_seconds: float = KEPT_SECONDS) -> dict[str, Any]:
        """The description, at most so old; empty while nothing is known yet."""
        if self.loading or self.failure is not None:
            return self._known
        if self._clock() - self._looked_at <= max_age_seconds:
            return self._known
        if self._lock.acquire(blocking=not self._known):  # while one looks (and hashes, say), the others know enough
            try:
                if self._clock() - self._looked_at > max_age_seconds:
                    self._describe_now()
            finally:
                self._lock.release()
        return self._known

    def look_again(self) -> dict[str, Any]:
        """Describe anew, whoever else looks just now: something in the weights folder has changed."""
        with self._lock:
            self._describe_now()
            return self._known

    def _describe_now(self) -> None:
        self._known = dict(self._describe())
        self._looked_at = self._clock()

    def revision(self) -> str:
        """A short word that changes with what is installed and what is said about it, so that pages ask again."""
        told = {name: value for name, value in self.description().items() if name in _OFFERED}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def loaded(self, failure: str | None = None) -> None:
        """Loading has ended, with a sentence when it failed."""
        self._failure = failure
        self._loading = False

    def models(self) -> list[dict[str, Any]]:
        """The rows of the model table."""
        return list(self.description().get("models", ()))

    def backends(self) -> list[dict[str, Any]]:
        """One row a backend: name, available, reason, leaves_machine, price_note; known before anything is loaded."""
        return list(self._backends)

    def can_restore(self) -> bool:
        """Whether anything is installed to restore with."""
        return _installed(self.models(), None)

    def workers(self) -> list[dict[str, Any]]:
        """One row a worker that reports to this server; none where it restores by itself."""
        return []

    def warm_up(self) -> str | None:
        """Load and run the default model once; its name, None with nothing installed."""
        self.require_loaded()
        return self._warm_up()

    def memory_bytes(self) -> int | None:
        """What a process that may be given a photo can use in all; None: unknown."""
        return self._memory_bytes

    def provider_pause_seconds(self) -> float | None:
        """For how long the provider is not asked, because it is in trouble; None: it may be asked."""
        return self._provider_pause_seconds()

    def require_loaded(self) -> None:
        """Raises `Unavailable` `starting` or `backend_failed`."""
        if self.loading:
            raise Unavailable(
                "starting",
                "The service is still loading; try again shortly.",
                retry_after_seconds=_STARTING_RETRY_SECONDS,
            )
        if self.failure is not None:
            raise Unavailable("backend_failed", self.failure)

    def provider_problem(self) -> str | None:
        """One sentence while the provider is not asked, because it is in trouble."""
        pause = self.provider_pause_seconds()
        if pause is None:
            return None
        words = "SiliconFlow does not answer as it should; it is tried again in about {seconds} seconds."
        return say(HealthReason.PROVIDER_AWAY, words, seconds=math.ceil(pause))

    def check(self, options: RestoreOptions) -> str:
        """Which backend serves these options now: the asked one, or where they allow it the local one in its place.

        While the service still loads, a job is taken and checked as it runs.

        Raises:
            Unavailable: `backend_failed`; `no_model` when nothing at all is installed; `provider_unavailable`.
            Conflict: `backend_unavailable`; `model_not_installed`; `repair_unavailable`.
            Unprocessable: `unknown_model`.
        """
        self._check_backend(options.backend)
        backend = self._in_place_of(options)
        if not self.loading:
            self.require_loaded()
            if backend == BackendName.LOCAL:
                self._check_model(options.model)
                self._check_repair(options.repair)
        return backend

    def _in_place_of(self, options: RestoreOptions) -> str:
        if options.backend != BackendName.SILICONFLOW or (pause := self.provider_pause_seconds()) is None:
            return options.backend
        if options.fallback == Fallback.LOCAL:
            return BackendName.LOCAL.value
        raise Unavailable(
            "provider_unavailable",
            "SiliconFlow is in trouble and is not asked just now; send this again later, or with fallback=local.",
            retry_after_seconds=math.ceil(pause),
        )

    def _check_backend(self, name: str) -> None:
        rows = {row["name"]: row for row in self.backends()}
        row = rows.get(name, {"available": name == BackendName.LOCAL, "reason": "it is not part of this service"})
        if not row["available"]:
            raise Conflict(
                "backend_unavailable", f"Backend '{name}' cannot be used here: {row.get('reason') or 'it is off'}."
            )

    def _check_model(self, name: str | None) -> None:
        if _installed(self.models(), name):
            return
        models = list(self.description(LOOK_AGAIN_SECONDS).get("models", ()))
        if _installed(models, name):
            return
        if name is None:
            raise Unavailable(
                "no_model", "No model is installed yet; the operator can run: python3 run.py models download"
            )
        rows = {row["name"]: row for row in models}
        if name not in rows:
            known = ", ".join(rows) or "none"
            raise Unprocessable("unknown_model", f"There is no model '{name}'; known models are {known}.")
        remedy = f"Model '{name}' is not installed; run: python3 run.py models download {rows[name]['file']}"
        raise Conflict("model_not_installed", str(rows[name].get("note") or remedy))

    def _check_repair(self, mode: str) -> None:
        if mode == Repair.OFF or any(_repairs(self.description(age)) for age in (KEPT_SECONDS, LOOK_AGAIN_SECONDS)):
            return
        why = "Damage cannot be repaired here, since the network that finds it is not installed"
        raise Conflict("repair_unavailable", f"{why}; set repair to off.")


def _installed(models: list[dict[str, Any]], name: str | None) -> bool:
    return any(row["installed"] and name in (None, row["name"]) for row in models)


def _repairs(described: Mapping[str, Any]) -> bool:
    return bool((described.get("repair") or {}).get("available"))
