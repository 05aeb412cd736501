"""Traces from the request over the row to the result, received by a collector, without a word of a user in them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.backends.protocol import Backend
from app.errors import Cancelled
from app.images import Picture
from app.main.tracing import open_tracer
from app.options import RestoreOptions
from app.process_names import own_process_name
from app.results import RestorationResult
from app.settings import Settings
from app.stages import OnProgress, Stage
from app.store import JobOrigin
from app.tracing import NO_TRACER, trace_id_of
from app.tracing.calls import traced
from tests.harness import OWNER, Harness, photo_bytes
from tests.http_service import KEY, TILES, GatedBackend, photo, running
from tests.otlp_collector import Collector, collecting

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = f"00-{TRACE}-{SPAN}-01"
SECRET_NAME = "Grandmother-in-Sopot"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


class Staged(GatedBackend):
    """Goes through the stages of a provider."""

    name = "siliconflow"

    def restore(self, picture: Picture, options: RestoreOptions, on_progress: OnProgress) -> RestorationResult:
        for stage in (Stage.PREPARING, Stage.SENDING, Stage.PROVIDER, Stage.PROVIDER, Stage.DOWNLOADING):
            if not on_progress(0.5, stage):
                raise Cancelled
        return super().restore(picture, options, on_progress)


def test_one_trace_leads_from_the_request_to_the_result(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, key=KEY, otel_exporter_otlp_endpoint=collector.endpoint) as service:
        answer = service.client.post(
            "/api/v1/enhance?secret=hunter2",
            files={"file": (f"{SECRET_NAME}.png", photo())},
            headers={"traceparent": CALLER, "X-Request-ID": "my-request"},
        )
        job_id = answer.json()["job_id"]
        job = service.finish(job_id)
        service.client.get("/health/ready")
        service.client.get(f"/no/such/{SECRET_NAME}")
    mine = [span for span in collector.spans if span.trace_id == TRACE]
    by_name = {span.name: span for span in mine}
    request = by_name["POST /api/v1/enhance"]
    assert request.parent_id == SPAN
    assert (request.facts["http.route"], request.facts["http.response.status_code"]) == ("/api/v1/enhance", 202)
    for step in ("queued", "decode", "restore", "encode"):
        assert by_name[step].parent_id == request.span_id, step
    for step in ("decode", "restore", "encode"):
        facts = by_name[step].facts
        assert facts["job"] == job_id
        assert facts["attempt"] == job["attempts"][0]["id"]
        assert facts["worker"] == str(own_process_name())
    assert by_name["restore"].facts["model"] == "lanczos"
    assert by_name["restore"].facts["faces"] == 0
    tiles = by_name["upscaling"]
    assert (tiles.parent_id, tiles.facts["tiles"]) == (by_name["restore"].span_id, TILES)
    assert by_name["store submit"].parent_id == request.span_id
    assert by_name["storage commit"].parent_id == request.span_id
    assert by_name["storage upload fetch"].parent_id == by_name["decode"].span_id
    assert by_name["storage publish"].parent_id == by_name["encode"].span_id
    assert by_name["store complete"].parent_id == by_name["encode"].span_id
    assert all(span.resource["service.name"] == "neural-image-restore" for span in collector.spans)
    assert all(span.resource["service.instance.id"] == str(own_process_name()) for span in collector.spans)
    assert not [name for name in collector.names() if "health" in name]
    for word in (SECRET_NAME, KEY, "hunter2", "my-request", "localhost:8001"):
        assert word.encode() not in collector.raw, word


def test_the_stages_of_a_provider_are_spans(tmp_path: Path, collector: Collector) -> None:
    cloud: Backend = Staged()
    endpoint = collector.endpoint
    with running(tmp_path, others={"siliconflow": cloud}, otel_exporter_otlp_endpoint=endpoint) as service:
        service.context.submission.check_options = lambda options: options.backend
        service.finish(service.submit(backend="siliconflow"))
    restore = collector.named("restore")
    stages = {"preparing": 1, "sending": 1, "provider": 2, "downloading": 1}
    assert {name: collector.named(name).facts["steps"] for name in stages} == stages
    assert {collector.named(name).parent_id for name in stages} == {restore.span_id}
    assert restore.facts["backend"] == "siliconflow"


def test_a_run_on_another_host_goes_on_with_the_trace_of_the_row(tmp_path: Path, collector: Collector) -> None:
    """The row alone carries it: this process never saw the request."""
    tracer = open_tracer(Settings(otel_exporter_otlp_endpoint=collector.endpoint))
    harness = Harness(tmp_path, tracer=tracer)
    harness.open()
    new = harness.upload(photo_bytes())
    origin = JobOrigin("r", CALLER)
    job, _ = harness.store.submit(OWNER, [new], "{}", "local", 9, time.time() - 5, origin=origin)
    harness.runner.run_attempt(job.attempts[0].id)
    tracer.close()
    harness.close()
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert {collector.named(name).parent_id for name in ("queued", "decode", "restore", "encode")} == {SPAN}
    assert 4 < collector.named("queued").seconds < 60


def test_a_row_without_a_trace_gets_one_of_its_own(tmp_path: Path, collector: Collector) -> None:
    tracer = open_tracer(Settings(otel_exporter_otlp_endpoint=collector.endpoint))
    harness = Harness(tmp_path, tracer=tracer)
    harness.open()
    job = harness.submit()
    harness.runner.run_attempt(job.attempts[0].id)
    tracer.close()
    harness.close()
    assert {span.trace_id for span in collector.spans} == {job.attempts[0].id}


def test_a_failed_run_says_its_code_and_no_text(tmp_path: Path, collector: Collector) -> None:
    with running(tmp_path, otel_exporter_otlp_endpoint=collector.endpoint) as service:
        service.finish(service.submit(prompt="fail"))
    restore = collector.named("restore")
    assert restore.failed
    assert restore.facts["error.type"] == "undecodable_image"
    assert restore.events == 0
    assert b"asked to fail" not in collector.raw


def test_a_collector_that_is_away_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="requirements-tracing.txt is not installed")
    tracer = open_tracer(Settings(otel_exporter_otlp_endpoint="http://127.0.0.1:9"))
    with tracer.span("alone"):
        assert trace_id_of(tracer.traceparent()) is not None
    began = time.monotonic()
    tracer.close()
    assert time.monotonic() - began < 8


def test_off_nothing_is_loaded_wrapped_or_kept(tmp_path: Path) -> None:
    store = object()
    assert traced(store, "store", NO_TRACER) is store
    assert NO_TRACER.span("a") is NO_TRACER.span("b", parent=CALLER, x=1)
    with running(tmp_path) as service:
        job_id = service.submit()
        service.finish(job_id)
        attempt = service.context.store.job("local", job_id).attempts[0]
        assert attempt.trace is None
        assert type(service.context.store).__name__ == "SqlStore"
    script = (
        "import sys; from app.main import create_app; from app.settings import Settings;"
        f"create_app(Settings(database_url='sqlite:///{tmp_path}/x.sqlite3'), backends={{}});"
        "print([n for n in sys.modules if n.startswith(('opentelemetry.sdk', 'opentelemetry.exporter', "
        "'app.tracing.otlp', 'google.protobuf', 'requests'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("given", [None, "", "00-1-2-01", "nonsense"])
def test_only_a_whole_traceparent_has_an_id(given: str | None) -> None:
    assert trace_id_of(given) is None
    assert trace_id_of(CALLER) == TRACE


def test_the_endpoint_must_be_an_address() -> None:
    for wrong in ("127.0.0.1:4318", "grpc://collector:4317"):
        with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
            Settings(otel_exporter_otlp_endpoint=wrong)
