"""The local backend: restores on this machine, behind the same border as every other backend.

It joins a `Restorer` to the border's types and describes what is installed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from app.backends.device_turns import DeviceTurns
from app.backends.installed import (
    describe_faces,
    describe_model,
    describe_partners,
    describe_qualities,
    describe_repair,
)
from app.backends.patch_restoring import PatchRestoring
from app.backends.photo_repair import Mask
from app.errors import Cancelled, OutOfMemory, RestoreError
from app.health_reasons import NO_MODEL, HealthReason
from app.images import Picture
from app.notices import NoticeKind, Sentence, say
from app.options import BackendName, EngineName, RestoreOptions
from app.restoration import device as devices
from app.restoration.device import DTYPES, Choice, profile_of
from app.restoration.device_errors import answers, first_line, is_out_of_memory, raise_if_lost
from app.restoration.device_probe import measure_full_precision_ratio
from app.restoration.models.table import EMBEDDED_MODEL, QUALITY_MODELS
from app.restoration.pipeline import PhotoRestorer, Restorer, warm_up
from app.restoration.setup import EMBEDDED_RESTORES
from app.results import RestorationResult
from app.stages import OnProgress, Stage

log = logging.getLogger(__name__)

CHOOSE_AGAIN_SECONDS = 60.0
PACE_SIDE_PIXELS = 192  # about one tile: a smaller picture would cost nearly as much and say little


class LocalBackend(PatchRestoring):
    """Restores pictures with the networks in the weights folder; several photos take turns on the one device.

    A card that fails, or is full, while the default model is loaded leaves the work to the CPU. Where that may pass,
    the card is tried again before a photo, at most once in `CHOOSE_AGAIN_SECONDS`.

    Args:
        open_restorer: makes a restorer for a device as DEVICE names it, or for a choice that was made already.
        device: what DEVICE says.
        engine: its name, for the record.
        idle_release_seconds: after so long without work the memory of a card is given back; 0: never.
        clock: monotonic seconds.
    """

    name = BackendName.LOCAL.value
    shares_device = True

    def __init__(
        self,
        open_restorer: Callable[[str | Choice], PhotoRestorer],
        device: str,
        engine: str,
        *,
        idle_release_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_restorer, self._asked, self._engine = open_restorer, device, engine
        self._idle_release_seconds, self._clock = idle_release_seconds, clock
        self._restorer = open_restorer(device)
        self._turns = DeviceTurns()
        self._warm_run: dict[str, Any] | None = None
        self._full_precision_ratio = 1.0
        self._problem: Sentence | None = None
        self._is_released = False
        self._chosen_at = self._used_at = clock()

    def load(self) -> str | None:
        """Tune the process, load the default model and run it, the last time for its pace.

        Returns the model's name, None with nothing installed, or when it could not be run at all: then `describe` says
        so, and each photo tries again.

        Raises:
            RestoreError: the default model's file cannot be used.
        """
        with self._turns.photo():
            return self._load()

    def warm_up(self) -> str | None:
        """Run the default model once on a small picture; returns its name, None with nothing installed.

        Raises:
            DeviceLost: the card computes no more in this process.
        """
        with self._turns.photo(), self._watched():
            return warm_up(self._restorer)

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        """Restore one picture; see `Backend`.

        Raises:
            DeviceLost: the card computes no more in this process.
        """
        return self._in_turn(picture, options, on_progress)

    def _in_turn(
        self, picture: Picture, options: RestoreOptions, on_progress: OnProgress, mask: Mask | None = None
    ) -> RestorationResult:
        with self._turns.photo(lambda: on_progress(0.0, Stage.WAITING)) as turn:
            self._choose_again()
            result = self._in_order(picture, options, turn.paced(on_progress), mask)
        own_seconds = max(0.0, result.seconds - turn.lent_seconds)
        return dataclasses.replace(result, params={"engine": self._engine, **result.params}, seconds=own_seconds)

    def expecting_photo(self) -> AbstractContextManager[None]:
        """See `DeviceSharing`; a card computes elsewhere than the decoder, so it goes on."""
        uses_card = profile_of(self._restorer.setup.device.value).released_when_idle
        return contextlib.nullcontext() if uses_card else self._turns.expecting()

    def result_facts(self, options: RestoreOptions) -> dict[str, Any] | None:
        """See `Repeatable`; None when the options cannot be served. Hashes a weight file once."""
        try:
            return {"engine": self._engine, **self._restorer.setup.result_facts(options)}
        except (OSError, RestoreError):
            return None

    @property
    def may_release_when_idle(self) -> bool:
        """Whether `release_if_idle` can ever have something to do."""
        choice = self._restorer.setup.device
        uses_card = profile_of(choice.value).released_when_idle or choice.may_pass
        return self._idle_release_seconds > 0 and uses_card

    def release_if_idle(self, now: float) -> bool:
        """Give the card's memory back when it had no work for long enough at the monotonic time `now`."""
        uses_card = profile_of(self._restorer.setup.device.value).released_when_idle
        if not (uses_card and self.may_release_when_idle):
            return False
        with self._turns.if_free() as is_free:
            is_due = is_free and not self._is_released and now - self._used_at >= self._idle_release_seconds
            if is_due:
                self._restorer.release()
                self._is_released = True
                log.info("the card had no work for %.0f s, so its memory was given back", now - self._used_at)
            return is_due

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[None]:
        """Work on this thread's card; the time without work begins at its end."""
        self._is_released = False
        try:
            with devices.current_device(self._restorer.setup.device.value):
                yield
        finally:
            self._used_at = self._clock()

    def _restored(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        with self._watched():
            return self._restorer.restore(picture, options, on_progress)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Work on this thread's card; raises `DeviceLost` when the card was lost at it."""
        try:
            with self._in_use():
                yield
        except (RestoreError, Cancelled):
            raise
        except Exception as error:
            raise_if_lost(self._restorer.setup.device.value, error)
            raise

    def _load(self) -> str | None:
        """Run the default model on the chosen device, or where a card fails at it on the CPU."""
        self._problem = None
        device = self._restorer.setup.device.value
        try:
            with self._in_use():
                return self._run_default(device)
        except Exception as error:
            is_about_a_file = isinstance(error, RestoreError) and not isinstance(error, OutOfMemory)
            if is_about_a_file:
                raise
            log.exception("the default model could not be run on %s", device)
            if not profile_of(device).has_fallback:
                words = "The default model could not be run; the log says why, and each photo tries again."
                self._problem = say(HealthReason.DEFAULT_MODEL_FAILED, words)
                return None
            instead = _instead_of(device, error)
        # Outside the handler, whose traceback would keep the tensors alive.
        self._restorer.release()
        self._restorer = self._open_restorer(instead)
        return self._load()

    def _run_default(self, device: str) -> str | None:
        devices.prepare(device)
        name = warm_up(self._restorer)
        if name is not None:
            if profile_of(device).plans_by_shape:
                warm_up(self._restorer, PACE_SIDE_PIXELS)
            began = time.monotonic()
            warm_up(self._restorer, PACE_SIDE_PIXELS)
            self._warm_run = {"model": name, "pixels": PACE_SIDE_PIXELS**2, "seconds": time.monotonic() - began}
            precision = DTYPES[self._restorer.setup.precision.value]
            self._full_precision_ratio = measure_full_precision_ratio(device, precision)
        return name

    def _choose_again(self) -> None:
        """Try the card again that was full or busy, now and then."""
        before, now = self._restorer.setup.device, self._clock()
        if not before.may_pass or now - self._chosen_at < CHOOSE_AGAIN_SECONDS:
            return
        self._chosen_at = now
        try:
            again = self._open_restorer(self._asked)
            if again.setup.device.value == before.value:
                self._restorer.setup.device = again.setup.device  # its networks are loaded; only the reason may differ
                return
            self._restorer = again
            self._load()
        except RestoreError as error:  # the card has gone, or a damaged file, of which each photo says its own
            log.warning("after the device was chosen again: %s", error.detail)

    def describe(self) -> dict[str, Any]:
        """What this machine restores with, JSON-ready; hashes a weight file the first time it is seen."""
        setup = self._restorer.setup
        models = [describe_model(setup.registry, row) for row in setup.registry.rows()]
        usable = [row["name"] for row in models if row["installed"]]
        noted = [row for row in models if row["note"] and row["present"]]
        problems = [say(HealthReason.MODEL_UNREADABLE, "{why}", why=row["note"], file=row["file"]) for row in noted]
        if not usable:
            problems.append(say(HealthReason.NO_MODEL, NO_MODEL))
        wanted = QUALITY_MODELS[setup.default_quality]
        default = setup.choose(RestoreOptions())[0].name if usable else None
        problems += self._device_problems()
        notes: list[str] = []
        if default == EMBEDDED_MODEL:
            notes.append(say(NoticeKind.EMBEDDED_MODEL, EMBEDDED_RESTORES, wanted=wanted, found=EMBEDDED_MODEL))
        elif usable and wanted not in usable:
            words = "{wanted} is not installed, so {found} restores; get it with: {command}"
            command = f"python3 run.py models download {wanted}.pth"
            problems.append(
                say(HealthReason.MODEL_STANDS_IN, words, wanted=wanted, found=str(default), command=command)
            )
        return {
            "engine": self._engine,
            "device": setup.device.value,
            "device_reason": setup.device.reason,
            "device_is_fallback": setup.device.is_fallback,
            **self._pace_facts(),
            "precision_reason": setup.precision.reason,
            "precision_is_slow": setup.precision.is_slow,
            "default_model": default,
            "embedded_model": default == EMBEDDED_MODEL,
            "qualities": describe_qualities(setup) if usable else [],
            "models": models,
            "partner_models": describe_partners(setup.registry),
            **describe_faces(setup.face_models, notes),
            "repair": describe_repair(setup),
            "problems": problems,
            "notes": notes,
        }

    def describe_pace(self, options: RestoreOptions) -> dict[str, Any]:
        """The part of `describe` that the time of such photos hangs on; only the model that runs is looked at.

        Raises what the choice of a model raises.
        """
        setup = self._restorer.setup
        row = setup.choose(options)[0]
        quality = options.quality or setup.default_quality
        return {
            **self._pace_facts(),
            "models": [describe_model(setup.registry, row)],
            "qualities": [{"quality": quality, "model": row.name}],
        }

    def _pace_facts(self) -> dict[str, Any]:
        setup = self._restorer.setup
        return {
            "precision": setup.precision.value,
            "default_quality": setup.default_quality,
            "warm_run": self._warm_run,
            "full_precision_ratio": round(self._full_precision_ratio, 2),
            "loaded_models": setup.registry.loaded(),
        }

    def _device_problems(self) -> list[Sentence]:
        """Why the CPU works where a card could, and what went wrong at the start."""
        choice = self._restorer.setup.device
        again = " The card is tried again before a photo, at most once a minute." if choice.may_pass else ""
        why = f"{choice.reason}.{again}"
        fallback = [say(HealthReason.CPU_INSTEAD, "The CPU restores: {why}", why=why)] if choice.is_fallback else []
        return fallback + ([self._problem] if self._problem else [])


def _instead_of(device: str, error: Exception) -> Choice:
    """The CPU, after the default model could not be run on a card; it may pass unless the card computes no more."""
    if isinstance(error, OutOfMemory) or is_out_of_memory(error):
        return Choice("cpu", f"{device} has too little free memory for the default model", True, True)
    reason = f"{device} failed while the default model was loaded: {first_line(error)}"
    return Choice("cpu", reason, True, answers(device))


def open_local_backend(
    weights_folder: Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    tile_size: int = 0,
    engine: str = EngineName.FAST,
    default_quality: str = "auto",
    allow_unverified: bool = False,
    face_detector: str = "auto",
    idle_release_seconds: float = 0.0,
) -> LocalBackend:
    """Choose device and precision and look at the weights folder; networks load at `load` or first use."""
    make: Callable[..., PhotoRestorer] = Restorer
    if engine == EngineName.REFERENCE:  # upstream's packages: slow, and not on every Python
        from app.restoration.reference.upscaling import ReferenceRestorer

        make = ReferenceRestorer

    def open_restorer(chosen: str | Choice) -> PhotoRestorer:
        restorer = make(
            weights_folder,
            device=chosen,
            precision=precision,
            tile=tile_size,
            default_quality=default_quality,
            allow_unverified=allow_unverified,
            face_detector=face_detector,
        )
        log.info("device %s (%s)", restorer.setup.device.value, restorer.setup.device.reason)
        precision_level = logging.WARNING if restorer.setup.precision.is_slow else logging.INFO
        log.log(precision_level, "precision %s (%s)", restorer.setup.precision.value, restorer.setup.precision.reason)
        return restorer

    return LocalBackend(open_restorer, device, engine, idle_release_seconds=idle_release_seconds)
