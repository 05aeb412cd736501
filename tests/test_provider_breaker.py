"""The breaker of the provider: when it opens and closes, and what the service does meanwhile."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.api.multipart_form import MAX_FIELDS
from app.backends.siliconflow import failures
from app.backends.siliconflow.backend import PROVIDER_WAIT_SECONDS, Account, SiliconFlowBackend, send_itself
from app.backends.siliconflow.breaker import MOST_FAILURES, PAUSE_SECONDS, TRIAL_SECONDS, ProviderBreaker
from app.backends.siliconflow.paid_result import FetchRetries
from app.errors import Cancelled, RestoreError, Unavailable
from app.images import Decoder, Picture
from app.options import FIELDS, RestoreOptions
from app.stages import Stage
from tests.harness import until
from tests.http_service import Service, assert_problem, describe, photo, running
from tests.picture_factory import vivid
from tests.provider_stand_in import HOST, KEY, MODEL, StandIn, Wire
from tests.test_siliconflow_service import CLOUD

ASKED = RestoreOptions(backend="siliconflow", scale=1.0)
TROUBLE = failures.unavailable()


class Clock:
    """A clock that a test moves; waiting moves it too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> ProviderBreaker:
    return ProviderBreaker(clock=clock)


def ask(breaker: ProviderBreaker, error: BaseException | None = None) -> bool:
    """One call with this outcome; False when it was not admitted."""
    if not breaker.admit():
        return False
    try:
        with breaker.call():
            if error is not None:
                raise error
    except (RestoreError, Cancelled):
        pass
    return True


def open_it(breaker: ProviderBreaker) -> None:
    for _ in range(MOST_FAILURES):
        assert ask(breaker, TROUBLE)


@pytest.mark.parametrize("error", [failures.unavailable(), failures.timeout()])
def test_several_failures_in_a_row_open_it_for_a_while(
    breaker: ProviderBreaker, clock: Clock, error: RestoreError
) -> None:
    for _ in range(MOST_FAILURES):
        assert breaker.retry_after_seconds() is None
        assert ask(breaker, error)
    assert breaker.retry_after_seconds() == PAUSE_SECONDS
    assert not ask(breaker)
    clock.wait(PAUSE_SECONDS - 1)
    assert not ask(breaker)
    clock.wait(1)
    assert ask(breaker)
    assert breaker.retry_after_seconds() is None


def test_failures_with_a_success_between_them_do_not_open_it(breaker: ProviderBreaker) -> None:
    for _ in range(MOST_FAILURES):
        assert ask(breaker, TROUBLE)
        assert ask(breaker, None)
    assert breaker.retry_after_seconds() is None


@pytest.mark.parametrize(
    "error",
    [
        failures.rejected(),
        failures.busy(),
        failures.configuration(),
        failures.model_gone("m"),
        failures.bad_answer(),
        Cancelled(),
        Unavailable("database_busy", "The job database is busy."),
    ],
)
def test_refusals_and_cancellations_never_open_it(breaker: ProviderBreaker, error: BaseException) -> None:
    for _ in range(5 * MOST_FAILURES):
        assert ask(breaker, error)


def test_after_the_pause_one_call_is_tried_alone_and_its_failure_opens_it_again(
    breaker: ProviderBreaker, clock: Clock
) -> None:
    open_it(breaker)
    clock.wait(PAUSE_SECONDS)
    assert breaker.retry_after_seconds() is None  # somebody must make the trial
    assert breaker.admit()
    assert breaker.retry_after_seconds() == TRIAL_SECONDS
    assert not breaker.admit()
    with pytest.raises(Unavailable), breaker.call():
        raise TROUBLE
    assert breaker.retry_after_seconds() == PAUSE_SECONDS


@pytest.mark.parametrize("error", [Cancelled(), Unavailable("database_busy", "The job database is busy.")])
def test_a_trial_that_learned_nothing_makes_room_for_the_next(
    breaker: ProviderBreaker, clock: Clock, error: Exception
) -> None:
    open_it(breaker)
    clock.wait(PAUSE_SECONDS)
    assert ask(breaker, error)
    assert breaker.admit()
    assert not breaker.admit()
    with breaker.call():
        pass
    assert breaker.retry_after_seconds() is None


def test_a_call_from_before_it_opened_says_nothing(breaker: ProviderBreaker, clock: Clock) -> None:
    assert breaker.admit()
    with breaker.call():
        open_it(breaker)
    assert breaker.retry_after_seconds() == PAUSE_SECONDS


def test_calls_run_beside_each_other(breaker: ProviderBreaker) -> None:
    met = threading.Barrier(2, timeout=5.0)

    def one() -> None:
        assert breaker.admit()
        with breaker.call():
            met.wait()

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not met.broken


# The backend.


def backend_of(provider: StandIn, decoder: Decoder, breaker: ProviderBreaker, clock: Clock) -> SiliconFlowBackend:
    return SiliconFlowBackend(
        Account(KEY, provider.api_url, MODEL, 60.0, (HOST,)),
        decoder.decode,
        provider.network,
        scratch=temporary_name,
        share=send_itself,
        retries=FetchRetries(0.0),
        breaker=breaker,
        clock=clock,
        pause=clock.wait,
    )


@contextlib.contextmanager
def temporary_name() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "result"


def picture() -> Picture:
    return Picture(vivid())


def test_a_photo_waits_half_a_minute_and_fails_without_being_sent(
    provider: StandIn, decoder: Decoder, clock: Clock
) -> None:
    breaker = ProviderBreaker(pause_seconds=1000, clock=clock)
    open_it(breaker)
    stages: list[Stage] = []

    def tell(fraction: float, stage: Stage) -> bool:
        stages.append(stage)
        return True

    began = clock.now
    with pytest.raises(Unavailable) as raised:
        backend_of(provider, decoder, breaker, clock).restore(picture(), ASKED, tell)
    assert raised.value.code == "provider_unavailable"
    assert PROVIDER_WAIT_SECONDS <= clock.now - began <= PROVIDER_WAIT_SECONDS + 1
    assert Stage.SENDING not in stages  # else its row would say that money was spent
    assert len(stages) > 10  # signs of life
    assert provider.asked("api") == []


def test_a_photo_that_waits_is_sent_when_the_provider_is_tried_again(
    provider: StandIn, decoder: Decoder, clock: Clock
) -> None:
    breaker = ProviderBreaker(pause_seconds=10, clock=clock)
    open_it(breaker)
    backend = backend_of(provider, decoder, breaker, clock)
    backend.restore(picture(), ASKED, lambda *_: True)
    assert len(provider.asked("api")) == 1
    assert breaker.retry_after_seconds() is None


def test_a_photo_that_waits_can_be_cancelled(provider: StandIn, decoder: Decoder, clock: Clock) -> None:
    breaker = ProviderBreaker(pause_seconds=1000, clock=clock)
    open_it(breaker)
    words = iter([True, True, False])
    with pytest.raises(Cancelled):
        backend_of(provider, decoder, breaker, clock).restore(picture(), ASKED, lambda *_: next(words))


# The service.


@pytest.fixture
def service(tmp_path: Path, provider: StandIn, decoder: Decoder, breaker: ProviderBreaker) -> Iterator[Service]:
    cloud = provider.backend(decoder.decode, breaker=breaker)
    told = {key: value for key, value in describe().items() if key != "backends"}
    with running(tmp_path, others={"siliconflow": cloud}, describe=lambda: told) as found:
        yield found


def fail_until_open(service: Service, provider: StandIn) -> None:
    def refuse(wire: Wire) -> None:
        wire.json(503, {"message": "overloaded"})

    provider.api = refuse
    for _ in range(MOST_FAILURES):
        job = service.finish(service.submit(None, "cat.png", **CLOUD))
        assert job["attempts"][0]["error"]["code"] == "provider_unavailable"
    assert len(provider.asked("api")) == MOST_FAILURES


def metric(service: Service) -> str:
    lines = service.client.get("/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("restore_provider_breaker_open"))


def test_while_it_is_open_submits_are_refused_and_nothing_is_sent(
    service: Service, provider: StandIn, clock: Clock
) -> None:
    assert metric(service).endswith(" 0.0")
    fail_until_open(service, provider)
    kept = service.uploads()
    answer = service.client.post("/api/v1/enhance", files={"file": ("a.png", photo())}, data=CLOUD)
    assert_problem(answer, 503, "provider_unavailable")
    assert answer.headers["retry-after"] == "30"
    assert service.uploads() == kept
    assert metric(service).endswith(" 1.0")
    health = service.client.get("/api/v1/health").json()
    assert health["status"] == "degraded"
    assert "SiliconFlow" in str(health["reasons"])
    assert service.client.get("/health/ready").status_code == 200
    service.finish(service.submit())  # the local lane goes on
    assert len(provider.asked("api")) == MOST_FAILURES

    provider.api = provider.paint
    clock.wait(PAUSE_SECONDS)
    assert service.finish(service.submit(None, "cat.png", **CLOUD))["status"] == "completed"
    assert metric(service).endswith(" 0.0")


def test_with_the_fallback_this_machine_restores_and_says_so(service: Service, provider: StandIn) -> None:
    fail_until_open(service, provider)
    job = service.finish(service.submit(None, "cat.png", **CLOUD, fallback="local"))
    (attempt,) = job["attempts"]
    assert (attempt["status"], attempt["backend"]) == ("completed", "local")
    assert "restored_locally" in [warning["code"] for warning in attempt["result"]["warnings"]]
    assert len(provider.asked("api")) == MOST_FAILURES


def test_the_fallback_waits_for_trouble(service: Service, provider: StandIn) -> None:
    job = service.finish(service.submit(None, "cat.png", **CLOUD, fallback="local"))
    (attempt,) = job["attempts"]
    assert (attempt["status"], attempt["backend"]) == ("completed", "siliconflow")
    assert "restored_locally" not in [warning["code"] for warning in attempt["result"]["warnings"]]
    until(lambda: len(provider.asked("api")) == 1)


def test_a_form_has_room_for_all_options_and_a_wrong_one() -> None:
    assert len(FIELDS) * 1.5 < MAX_FIELDS
