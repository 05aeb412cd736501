"""What the local backend does when a card fails, is full, comes back or has no work. Torch's answers are put in place.

The restorer stands in for one on a card: it has the real `Setup`, and raises what torch would.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from app.backends import local
from app.backends.local import CHOOSE_AGAIN_SECONDS, LocalBackend, open_local_backend
from app.commands import doctor
from app.commands.doctor_machine import WARNING
from app.errors import DeviceLost, OutOfMemory, Unavailable
from app.images import Picture
from app.main import create_app
from app.main import local_backend as backend_module
from app.options import RestoreOptions
from app.restoration import device, device_errors, device_probe
from app.restoration.device import Choice
from app.restoration.pipeline import Restorer
from app.results import RestorationResult
from app.settings import Settings
from app.stages import OnProgress
from benchmarks.random_weights import random_state
from tests.harness import until
from tests.http_service import BASE_URL, settings_for

PHOTO = Picture(np.zeros((8, 8, 3), np.uint8))
CARD = Choice("cuda:0", "NVIDIA H100 found")
FULL = Choice("cpu", "NVIDIA H100 is full: 100 MB of its memory are free", True, True)


class StandIn(Restorer):
    """A restorer on the chosen device whose work is `work(device, side)`."""

    def __init__(self, folder: Path, chosen: str | Choice, work: Callable[[str, int], None]) -> None:
        super().__init__(folder, device="cpu", allow_unverified=True)
        self.setup.device = CARD if isinstance(chosen, str) else chosen
        self._work = work
        self.released = 0

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        self._work(self.setup.device.value, picture.width)
        return RestorationResult(picture, "own", 0.1, {}, (), ())

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save({"params": random_state("realesr-animevideov3")}, tmp_path / "own.pth")
    return tmp_path


@pytest.fixture(autouse=True)
def cards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was prepared, and which card was current meanwhile; a device answers unless a test says otherwise."""
    seen: list[str] = []

    @contextlib.contextmanager
    def current(name: str) -> Iterator[None]:
        seen.append(f"current {name}")
        yield

    monkeypatch.setattr(device, "prepare", lambda name: seen.append(f"prepare {name}"))
    monkeypatch.setattr(device, "current_device", current)
    monkeypatch.setattr(local, "answers", lambda name: True)
    monkeypatch.setattr(local, "measure_full_precision_ratio", lambda name, dtype: 1.0)  # bf16 of a CPU is no card's
    return seen


def restore(backend: LocalBackend) -> RestorationResult:
    return backend.restore(PHOTO, RestoreOptions(model="own"), lambda fraction, stage: True)


def opened(folder: Path, work: Callable[[str, int], None], first: str | Choice = "auto", **more: Any) -> LocalBackend:
    """A backend whose first choice is `first`, and later ones a card, unless it is told a choice."""
    chosen = [first]

    def open_restorer(asked: str | Choice) -> StandIn:
        return StandIn(folder, chosen.pop() if chosen and asked == "auto" else asked, work)

    return LocalBackend(open_restorer, "auto", "fast", **more)


def problems(backend: LocalBackend) -> str:
    return " ".join(backend.describe()["problems"])


def test_a_card_without_room_for_the_default_model_leaves_the_work_to_the_cpu(folder: Path, cards: list[str]) -> None:
    def work(name: str, _side: int) -> None:
        if name != "cpu":
            raise OutOfMemory("out_of_memory", "The device has too little free memory to load the network.")

    backend = opened(folder, work)
    assert backend.load() == "own"
    facts = backend.describe()
    assert (facts["device"], facts["device_is_fallback"]) == ("cpu", True)
    assert "too little free memory" in facts["device_reason"]
    assert "The CPU restores: cuda:0 has too little free memory" in problems(backend)
    assert "tried again" in problems(backend)
    assert cards == ["current cuda:0", "prepare cuda:0", "current cpu", "prepare cpu"]
    assert restore(backend).model == "own"


@pytest.mark.parametrize(("is_alive", "said"), [(True, True), (False, False)])
def test_a_card_that_fails_at_the_default_model_is_tried_again_only_if_it_still_computes(
    is_alive: bool, said: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(name: str, _side: int) -> None:
        if name != "cpu":
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    monkeypatch.setattr(local, "answers", lambda name: is_alive)
    backend = opened(folder, work)
    assert backend.load() == "own"
    assert "an illegal memory access was encountered." in problems(backend)
    assert ("tried again" in problems(backend)) is said


def test_what_fails_on_the_cpu_too_leaves_a_backend_that_answers_and_says_so(folder: Path) -> None:
    broken = [True]

    def work(_name: str, _side: int) -> None:
        if broken:
            raise RuntimeError("could not create a primitive")

    backend = opened(folder, work)
    assert backend.load() is None
    assert "could not be run" in problems(backend)
    broken.clear()
    assert restore(backend).model == "own"


def test_a_damaged_file_is_an_error_of_its_own_on_a_card_too(folder: Path) -> None:
    def work(_name: str, _side: int) -> None:
        raise Unavailable("weights_unreadable", "own.pth is no network.")

    with pytest.raises(Unavailable):
        opened(folder, work).load()


def test_a_busy_card_is_tried_again_now_and_then_and_taken_when_it_is_free(folder: Path, cards: list[str]) -> None:
    now, full = [0.0], [True]

    def open_restorer(asked: str | Choice) -> StandIn:
        return StandIn(folder, FULL if full else CARD, lambda name, side: None)

    backend = LocalBackend(open_restorer, "auto", "fast", clock=lambda: now[0])
    backend.load()
    assert FULL.reason in problems(backend)
    now[0] = CHOOSE_AGAIN_SECONDS
    restore(backend)  # tried, and still full
    assert backend.describe()["device"] == "cpu"
    full.clear()
    now[0] += CHOOSE_AGAIN_SECONDS - 1
    restore(backend)  # too early
    assert backend.describe()["device"] == "cpu"
    cards.clear()
    now[0] += 1
    restore(backend)
    assert backend.describe()["device"] == "cuda:0"
    assert problems(backend).count("The CPU restores") == 0
    assert cards == ["current cuda:0", "prepare cuda:0", "current cuda:0"]


def test_a_card_that_is_lost_ends_the_run_with_that_and_other_errors_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = RuntimeError("CUDA error: device-side assert triggered")

    def work(_name: str, side: int) -> None:
        if side == PHOTO.width:
            raise error

    backend = opened(folder, work)
    backend.load()
    monkeypatch.setattr(device_errors, "answers", lambda name: True)
    with pytest.raises(RuntimeError, match="device-side assert"):
        restore(backend)
    monkeypatch.setattr(device_errors, "answers", lambda name: False)
    with pytest.raises(DeviceLost):
        restore(backend)


def test_a_card_that_is_lost_at_a_warm_up_is_told_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = False

    def work(_name: str, _side: int) -> None:
        if fails:
            raise RuntimeError("CUDA error: device-side assert triggered")

    backend = opened(folder, work)
    backend.load()
    fails = True
    monkeypatch.setattr(device_errors, "answers", lambda name: True)
    with pytest.raises(RuntimeError, match="device-side assert"):
        backend.warm_up()
    monkeypatch.setattr(device_errors, "answers", lambda name: False)
    with pytest.raises(DeviceLost):
        backend.warm_up()


def test_a_card_without_work_gives_its_memory_back_once_and_a_cpu_never(folder: Path) -> None:
    now = [0.0]
    made: list[StandIn] = []

    def open_restorer(asked: str | Choice) -> StandIn:
        made.append(StandIn(folder, CARD, lambda name, side: None))
        return made[-1]

    backend = LocalBackend(open_restorer, "auto", "fast", idle_release_seconds=600.0, clock=lambda: now[0])
    backend.load()
    assert not backend.release_if_idle(599.0)
    assert backend.release_if_idle(600.0)
    assert not backend.release_if_idle(9999.0)
    now[0] = 10_000.0
    restore(backend)
    assert not backend.release_if_idle(10_599.0)
    assert backend.release_if_idle(10_600.0)
    assert made[0].released == 2
    made[0].setup.device = FULL
    assert backend.may_release_when_idle
    made[0].setup.device = Choice("cpu", "asked for by DEVICE")
    assert [backend.may_release_when_idle, backend.release_if_idle(99_999.0)] == [False, False]


def test_zero_minutes_never_give_memory_back(folder: Path) -> None:
    backend = LocalBackend(lambda asked: StandIn(folder, CARD, lambda name, side: None), "auto", "fast")
    assert not backend.may_release_when_idle
    assert not backend.release_if_idle(1e9)


def test_the_pace_of_a_card_is_measured_on_a_shape_it_has_seen(folder: Path) -> None:
    sides: list[int] = []
    LocalBackend(lambda asked: StandIn(folder, CARD, lambda name, side: sides.append(side)), "auto", "fast").load()
    assert sides == [64, 192, 192]
    sides.clear()
    on_cpu = Choice("cpu", "asked for by DEVICE")
    LocalBackend(lambda asked: StandIn(folder, on_cpu, lambda name, side: sides.append(side)), "auto", "fast").load()
    assert sides == [64, 192]


def test_released_networks_are_loaded_again_and_give_the_same_bytes(folder: Path) -> None:
    restorer = Restorer(folder, device="cpu", precision="fp32", allow_unverified=True)
    picture = Picture(np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8))

    def run() -> Any:
        return restorer.restore(picture, RestoreOptions(model="own"), lambda fraction, stage: True).picture.rgb

    def loaded() -> Any:
        return restorer.setup.registry.load(restorer.setup.registry.find("own"), None, "cpu", "fp32")

    before, network = run(), loaded()
    restorer.release()
    np.testing.assert_array_equal(run(), before)
    assert loaded() is not network


def test_doctor_says_why_a_card_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(name: str) -> None:
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda d=None: "NVIDIA H100")
    monkeypatch.setattr(device_probe, "run_test_kernel", busy)
    backend = open_local_backend(folder, allow_unverified=True)
    monkeypatch.setattr(doctor, "open_backend", lambda settings: backend)
    settings = Settings().model_copy(update={"weights_folder": folder})
    found = {result.what: result for result in doctor.check_restoration(settings)}
    assert found["device"].word == WARNING
    assert "NVIDIA H100 is busy" in found["device"].text


@pytest.mark.parametrize("may_release", [True, False])
def test_a_thread_looks_for_idle_time_only_where_a_card_may_be_in_use(
    may_release: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()
    monkeypatch.setattr(backend_module, "IDLE_CHECK_SECONDS", 0.01)
    monkeypatch.setattr(LocalBackend, "may_release_when_idle", may_release)
    monkeypatch.setattr(LocalBackend, "release_if_idle", lambda self, now: looked.set())
    app = create_app(settings_for(tmp_path, device="cpu"))
    with TestClient(app, base_url=BASE_URL):
        assert app.state.service.loaded.wait(60)
        assert looked.wait(10 if may_release else 0.1) is may_release
        assert any(thread.name == "idle-release" for thread in threading.enumerate()) is may_release
    until(lambda: all(thread.name != "idle-release" for thread in threading.enumerate()))
