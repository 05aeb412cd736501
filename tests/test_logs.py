"""JSON log lines carry what they are about, in every thread that works at it, and no secret."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app import logs
from app.api.auth.api_keys import ApiKeys, NamedKey
from app.process_names import own_process_name
from tests.http_service import KEY, photo, running
from tests.otlp_collector import collecting

log = logging.getLogger("tests.logs")


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged as JSON while the test runs."""
    found: list[dict[str, Any]] = []

    class Keeping(logging.StreamHandler[io.StringIO]):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(self.format(record)))

    handler = Keeping(io.StringIO())
    handler.setFormatter(logs.RedactingFormatter("json", [KEY]))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield found
    root.removeHandler(handler)
    root.setLevel(level)


def test_facts_hold_in_their_block_and_thread_only(lines: list[dict[str, Any]]) -> None:
    with logs.bind(job="j", request_id=None):
        with logs.bind(attempt="a"):
            logs.add(owner="o")
            log.info("inner")
        log.info("outer")
        other = threading.Thread(target=log.info, args=("elsewhere",))
        other.start()
        other.join()
    log.info("after")
    facts = [{k: v for k, v in line.items() if k in ("job", "attempt", "owner", "request_id")} for line in lines]
    assert facts == [{"job": "j", "attempt": "a", "owner": "o"}, {"job": "j"}, {}, {}]


def owner_of(key: str) -> str:
    """The owner behind a key, as rows name it."""
    caller = ApiKeys([NamedKey(key, "", None)]).caller_of_key(key.encode())
    assert caller is not None
    return caller.owner


def test_the_lines_of_a_run_say_request_job_attempt_owner_and_worker(
    tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    with running(tmp_path, key=KEY) as service:
        backend = service.backend.restore

        def speaking(*args: Any) -> Any:
            log.warning("the backend speaks of %s", KEY)
            return backend(*args)

        service.backend.restore = speaking  # type: ignore[method-assign, assignment]
        service.client.headers["X-Request-ID"] = "my-request"
        job_id = service.submit()
        job = service.finish(job_id)
        owner = owner_of(KEY)
    (said,) = [line for line in lines if line["message"].startswith("the backend speaks")]
    assert said["message"] == "the backend speaks of [hidden]"
    assert said["request_id"] == "my-request"
    assert (said["job"], said["attempt"]) == (job_id, job["attempts"][0]["id"])
    assert (said["owner"], said["worker"]) == (owner, str(own_process_name()))


def test_the_lines_of_a_request_carry_its_id_and_owner_into_the_pool(
    tmp_path: Path, lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, key=KEY) as service:
        store = service.context.store

        def speaking(*_: Any) -> Any:
            log.info("read in a thread of the pool")
            return None

        monkeypatch.setattr(store, "seconds_per_megapixel", speaking)
        service.client.get("/api/v1/status", headers={"X-Request-ID": "asked-1"}).raise_for_status()
        owner = owner_of(KEY)
    (said,) = [line for line in lines if line["message"].startswith("read in a thread")]
    assert (said["request_id"], said["owner"]) == ("asked-1", owner)
    assert said["caller"].startswith("key-")
    assert "trace_id" not in said


def test_with_traces_on_the_lines_of_a_run_carry_the_trace(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    with collecting() as collector, running(tmp_path, otel_exporter_otlp_endpoint=collector.endpoint) as service:
        backend = service.backend.restore

        def speaking(*args: Any) -> Any:
            log.warning("traced")
            return backend(*args)

        service.backend.restore = speaking  # type: ignore[method-assign, assignment]
        answer = service.client.post(
            "/api/v1/enhance", files={"file": photo()}, headers={"traceparent": f"00-{'c' * 32}-{'d' * 16}-01"}
        )
        service.finish(answer.json()["job_id"])
    (said,) = [line for line in lines if line["message"] == "traced"]
    assert said["trace_id"] == "c" * 32
