"""What the service counts, in the Prometheus text format."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import CONTENT_TYPE, ENDS, Metrics
from tests.http_service import free_port


def samples(metrics: Metrics) -> dict[str, float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        sample.name + "".join(f"|{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_route_template() -> None:
    metrics = Metrics()
    metrics.observe_request("GET", "/status/{job_id}", 200, 0.004)
    metrics.observe_request("GET", "/status/{job_id}", 404, 0.2)
    seen = samples(metrics)
    assert seen["restore_http_requests_total|GET|/status/{job_id}|200"] == 1
    assert seen["restore_http_requests_total|GET|/status/{job_id}|404"] == 1
    assert seen["restore_http_request_seconds_count|GET|/status/{job_id}"] == 2
    assert seen["restore_http_request_seconds_bucket|0.005|GET|/status/{job_id}"] == 1
    assert CONTENT_TYPE.startswith("text/plain")


def test_the_queue_is_asked_when_it_is_wanted() -> None:
    metrics, depth = Metrics(), [3.0, 1.0]
    metrics.follow_queue(lambda: depth[0], lambda: depth[1])
    assert samples(metrics)["restore_queued_attempts"] == 3
    depth[0] = 9.0
    assert samples(metrics)["restore_queued_attempts"] == 9
    assert samples(metrics)["restore_processing_attempts"] == 1


def test_two_services_in_one_process_do_not_mix() -> None:
    one, other = Metrics(), Metrics()
    one.janitor_removed("orphans", 4)
    one.thread_restarted("janitor")
    assert samples(one)["restore_janitor_removed_total|orphans"] == 4
    assert samples(one)["restore_thread_restarts_total|janitor"] == 1
    assert "restore_janitor_removed_total|orphans" not in samples(other)


def test_every_end_of_a_run_is_told_from_zero_on() -> None:
    """The first failure of a process is then an increase, and no new line that a rate does not see."""
    seen = samples(Metrics())
    assert [seen[f"restore_attempts_ended_total|{status}"] for status in ENDS] == [0.0] * len(ENDS)


def test_a_process_without_http_of_its_own_can_serve_them() -> None:
    metrics, port = Metrics(), free_port()
    metrics.attempt_ended("completed")
    stop = metrics.serve("127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        metrics.serve("127.0.0.1", port)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert b'restore_attempts_ended_total{status="completed"} 1.0' in answer.read()
    stop()
    metrics.serve("127.0.0.1", port)()  # the port is free again
