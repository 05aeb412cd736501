"""Server-sent events of a job: the messages of the WebSocket, ids to come back with, limits, and an orderly end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.api import schemas
from app.api.connections import Connections
from app.api.routes import events
from tests.harness import until
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, running
from tests.test_guard import sign_in, with_cookie


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("events"), key=f"{KEY},{OTHER_KEY}") as found:
        yield found


def address(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/events"


def parse(text: str) -> list[dict[str, str]]:
    """The events of a stream as their fields; comments stand under an empty name."""
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = (line.partition(": ") for line in block.split("\n"))
        found.append({name: value for name, _, value in fields})
    return found


def states(found: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [json.loads(one["data"]) for one in found if "id" in one]


class Stream(threading.Thread):
    """A client that reads a whole stream, beside the test."""

    def __init__(self, service: Service, job_id: str, cookie: str = "") -> None:
        super().__init__(daemon=True)
        self._service, self._job_id, self._cookie = service, job_id, cookie
        self.found: list[dict[str, str]] = []
        self.status = 0
        self.start()

    def run(self) -> None:
        if self._cookie:
            answer = with_cookie(self._service, "GET", address(self._job_id), self._cookie)
        else:
            answer = self._service.client.get(address(self._job_id))
        self.status, self.found = answer.status_code, parse(answer.text)


def test_a_job_is_told_from_the_queue_to_its_end(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    stream = Stream(service, job_id)
    until(lambda: service.context.connections.total == 1)
    service.wait_for(job_id, "processing")
    service.backend.gate.set()
    stream.join(20)
    assert stream.found[0] == {"retry": str(events.RECONNECT_MILLISECONDS)}
    told = states(stream.found)
    for state in told:
        schemas.LiveShape.model_validate(state)
    assert told[-1]["status"] == "completed"
    assert [state["progress"] for state in told] == sorted(state["progress"] for state in told)
    assert len({one["id"] for one in stream.found if "id" in one}) == len(told) > 1
    assert stream.found[-1] == {"event": "end", "data": '{"reason": "ended"}'}
    assert service.context.connections.total == 0


def test_the_headers_keep_proxies_from_buffering(service: Service) -> None:
    job_id = service.submit()
    service.finish(job_id)
    answer = service.client.get(address(job_id))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    assert "no-store" in answer.headers["cache-control"]


def test_who_knows_the_last_state_is_not_told_again(service: Service) -> None:
    job_id = service.submit()
    service.finish(job_id)
    (state,) = (one for one in parse(service.client.get(address(job_id)).text) if "id" in one)
    back = service.client.get(address(job_id), headers={"Last-Event-ID": state["id"]})
    assert (back.status_code, back.content) == (204, b"")
    other = service.client.get(address(job_id), headers={"Last-Event-ID": "0" * 16})
    assert states(parse(other.text)) == [json.loads(state["data"])]


def test_who_comes_back_to_a_running_job_hears_only_what_is_new(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    service.wait_for(job_id, "processing")
    first = Stream(service, job_id)
    until(lambda: service.context.connections.total == 1)
    service.backend.gate.set()
    first.join(20)
    known = [one["id"] for one in first.found if "id" in one]
    assert len(known) == len(set(known))


@pytest.mark.parametrize("job_id", ["0" * 32, "x"])
def test_an_unknown_job_is_a_problem_and_no_stream(service: Service, job_id: str) -> None:
    assert_problem(service.client.get(address(job_id)), 404, "job_not_found")
    mine = service.submit()
    service.finish(mine)
    foreign = service.client.get(address(mine), headers={"X-API-KEY": OTHER_KEY})
    assert_problem(foreign, 404, "job_not_found")


def test_a_removed_job_ends_its_stream(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    stream = Stream(service, job_id)
    until(lambda: service.context.connections.total == 1)
    service.client.delete(f"/api/v1/jobs/{job_id}")
    stream.join(20)
    service.backend.gate.set()
    assert states(stream.found)[-1]["status"] == "cancelled"
    assert stream.found[-1]["event"] == "end"


def test_signing_out_ends_the_streams_of_the_session_and_no_others(service: Service) -> None:
    cookie = sign_in(service)
    service.backend.gate.clear()
    job_id = service.submit()
    mine, other = Stream(service, job_id, cookie), Stream(service, job_id)
    until(lambda: service.context.connections.total == 2)
    assert with_cookie(
        service, "DELETE", "/api/v1/session", cookie, headers={"origin": "http://localhost:8001"}
    ).is_success
    mine.join(20)
    assert mine.found[-1] == {"event": "end", "data": '{"reason": "signed_out"}'}
    assert other.is_alive()
    service.backend.gate.set()
    other.join(20)
    assert other.found[-1]["data"] == '{"reason": "ended"}'


def test_one_owner_holds_only_so_many(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.context.connections = Connections(most=5, most_of_one=1)
        service.backend.gate.clear()
        job_id = service.submit()
        first = Stream(service, job_id)
        until(lambda: service.context.connections.total == 1)
        refused = service.client.get(address(job_id))
        assert_problem(refused, 429, "too_many_connections")
        assert refused.headers["retry-after"] == "15"
        service.backend.gate.set()
        first.join(20)


def test_a_silent_stream_shows_that_it_lives(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP_ALIVE_SECONDS", 0.02)
    service.backend.gate.clear()
    job_id = service.submit()
    service.wait_for(job_id, "processing")
    stream = Stream(service, job_id)
    until(lambda: service.context.connections.total == 1)
    threading.Timer(0.5, service.backend.gate.set).start()
    stream.join(20)
    assert {"": "still here"} in stream.found
    assert states(stream.found)[-1]["status"] == "completed"


def test_a_service_that_stops_lets_its_clients_go_without_an_end(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.backend.gate.clear()
        stream = Stream(service, service.submit())
        until(lambda: service.context.connections.total == 1)
        service.client.portal.call(service.context.job_events.stop)  # type: ignore[union-attr]
        stream.join(20)
        assert stream.status == 200
        assert all(one.get("event") != "end" for one in stream.found)
