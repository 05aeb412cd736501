"""The WebSocket of a job: every change, only the newest state, and an orderly end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from starlette.websockets import WebSocketDisconnect

from app.api import schemas
from app.api.connections import Connections
from app.api.job_events import JobEvents
from app.api.routes import websocket
from app.events import LocalEvents
from tests.harness import until
from tests.http_service import KEY, OTHER_KEY, Service, assert_problem, photo, running
from tests.test_guard import sign_in

NOBODY = "0" * 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("live"), key=f"{KEY},{OTHER_KEY}") as found:
        yield found


def connect(service: Service, job_id: str, **headers: str) -> Any:
    return service.client.websocket_connect(
        f"/api/v1/jobs/{job_id}/status", headers={"host": "localhost:8001", **headers}
    )


def follow(service: Service, job_id: str, **headers: str) -> tuple[list[dict[str, Any]], WebSocketDisconnect]:
    """All messages of a job and how the connection was closed."""
    messages: list[dict[str, Any]] = []
    with connect(service, job_id, **headers) as socket:
        try:
            while True:
                messages.append(json.loads(socket.receive_text()))
        except WebSocketDisconnect as closed:
            return messages, closed


def test_a_job_is_told_from_the_queue_to_its_end(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    threading.Timer(0.6, service.backend.gate.set).start()
    messages, closed = follow(service, job_id)
    assert (closed.code, closed.reason) == (1000, "ended")
    for message in messages:
        schemas.LiveShape.model_validate(message)
    assert messages[-1]["status"] == "completed"
    assert messages[-1]["progress"] == 1.0
    assert "upscaling" in {message["stage"] for message in messages}
    progress = [message["progress"] for message in messages]
    assert progress == sorted(progress)
    assert all(a != b for a, b in itertools.pairwise(messages))


def test_an_ended_job_is_told_once(service: Service) -> None:
    job_id = service.submit()
    service.finish(job_id)
    messages, closed = follow(service, job_id)
    assert (len(messages), closed.code) == (1, 1000)


@pytest.mark.parametrize("job_id", [NOBODY, "x", "a" * 200])
def test_an_unknown_job_closes_with_4404(service: Service, job_id: str) -> None:
    messages, closed = follow(service, job_id)
    assert (messages, closed.code, closed.reason) == ([], 4404, "job_not_found")


def test_another_keys_job_is_unknown(service: Service) -> None:
    assert follow(service, service.submit(), **{"X-API-KEY": OTHER_KEY})[1].code == 4404


@pytest.mark.parametrize(
    ("headers", "code", "reason"),
    [
        ({"X-API-KEY": "wrong"}, 4401, "wrong_key"),
        ({"Origin": "https://evil.example"}, 1000, "ended"),  # the header proves that no page sent it
    ],
)
def test_a_key_in_the_header_decides(service: Service, headers: dict[str, str], code: int, reason: str) -> None:
    job_id = service.submit()
    service.finish(job_id)
    closed = follow(service, job_id, **headers)[1]
    assert (closed.code, closed.reason) == (code, reason)


def test_a_cookie_counts_only_from_our_own_page(service: Service) -> None:
    cookie = sign_in(service).partition(";")[0]
    job_id = service.submit()
    service.finish(job_id)
    header = service.client.headers.pop("X-API-KEY")
    try:
        own = {"cookie": cookie, "origin": "http://localhost:8001"}
        assert follow(service, job_id, **own)[1].code == 1000
        assert follow(service, job_id, **{**own, "origin": "https://evil.example"})[1].code == 4403
        assert follow(service, job_id)[1].code == 4401
    finally:
        service.client.headers["X-API-KEY"] = header


def test_a_removed_job_ends_its_connection(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    service.wait_for(job_id, "processing")
    threading.Timer(0.3, lambda: service.client.delete(f"/api/v1/jobs/{job_id}")).start()
    messages, closed = follow(service, job_id)
    service.backend.gate.set()
    assert closed.code == 1000
    assert messages[-1]["status"] == "cancelled"


def test_a_talkative_client_is_let_go(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    with connect(service, job_id) as socket:
        for _ in range(websocket.MOST_INCOMING_MESSAGES):
            socket.send_text("hello")
        threading.Timer(3, service.backend.gate.set).start()  # an end also for a service that would listen for ever
        while (message := socket.receive())["type"] != "websocket.close":
            pass
    service.backend.gate.set()
    assert message["code"] == websocket.TALKATIVE_CLOSE


def test_a_client_that_leaves_frees_its_place(service: Service) -> None:
    service.backend.gate.clear()
    job_id = service.submit()
    for _ in range(20):
        with connect(service, job_id) as socket:
            socket.receive_text()
    service.backend.gate.set()
    service.finish(job_id)
    assert service.context.connections.total == 0
    assert service.context.job_events._watchers == {}


def test_one_owner_holds_only_so_many(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        service.context.connections = Connections(most=5, most_of_one=1)
        service.backend.gate.clear()
        job_id = service.submit()
        with connect(service, job_id) as first:
            first.receive_text()
            _, closed = follow(service, job_id)
            assert (closed.code, closed.reason) == (4429, "too_many_connections")


def test_places_are_counted_in_all_and_for_each_owner() -> None:
    places = Connections(most=3, most_of_one=2)
    with (
        places.acquire("a") as one,
        places.acquire("a") as two,
        places.acquire("a") as three,
        places.acquire("b") as four,
    ):
        assert [one, two, three, four] == [True, True, False, True]
        with places.acquire("c") as five:
            assert five is False
    assert places.total == 0


def test_signing_out_ends_what_is_followed_in_that_session_and_nothing_else(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        service.backend.gate.clear()
        job_id = service.submit()
        mine, other = (sign_in(service).partition(";")[0] for _ in range(2))
        del service.client.headers["x-api-key"]
        with connect(service, job_id, cookie=other) as stays, connect(service, job_id, cookie=mine) as ends:
            stays.receive_text()
            ends.receive_text()
            assert service.client.delete("/api/v1/session", headers={"cookie": mine}).status_code == 204
            closed = until_closed(ends)
            assert (closed.code, closed.reason) == (4401, "signed_out")
            service.backend.gate.set()
            assert until_closed(stays).reason == "ended"


def test_signing_out_ends_a_wait_in_that_session(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service, concurrent.futures.ThreadPoolExecutor(1) as pool:
        service.backend.gate.clear()
        cookie = sign_in(service).partition(";")[0]
        del service.client.headers["x-api-key"]
        headers = {"cookie": cookie, "prefer": "wait=30"}
        waiting = pool.submit(service.client.post, "/api/v1/enhance", files={"file": photo()}, headers=headers)
        until(lambda: service.context.store.counts().processing == 1)
        until(lambda: bool(service.context.job_events._watchers))
        service.client.delete("/api/v1/session", headers={"cookie": cookie})
        assert_problem(waiting.result(10), 401, "key_required")
        service.backend.gate.set()


def until_closed(socket: Any) -> WebSocketDisconnect:
    try:
        while True:
            socket.receive_text()
    except WebSocketDisconnect as closed:
        return closed


def test_a_reader_that_does_not_read_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "SEND_TIMEOUT_SECONDS", 0.05)
    with running(tmp_path) as service:
        service.backend.gate.clear()
        job_id = service.submit()

        async def scenario() -> Any:
            class Stuck:
                scope: ClassVar[Any] = {"state": {"session_id": None}}

                async def send_text(self, text: str) -> None:
                    await asyncio.sleep(60)

            return await websocket._send_updates(service.context, Stuck(), "local", job_id)  # type: ignore[arg-type]

        assert service.client.portal.call(scenario) == (websocket.SLOW_CLOSE, "too_slow")  # type: ignore[union-attr]


def test_the_hub_wakes_from_any_thread_and_only_who_watches() -> None:
    async def scenario() -> None:
        job_events, events = JobEvents(), LocalEvents()
        job_events.start(events)
        assert not events.has_listeners()  # the store asks for the jobs that wait only where somebody listens
        with job_events.watch("a") as first, job_events.watch("a") as second, job_events.watch("b") as other:
            threading.Thread(target=events.publish, args=(["a"],)).start()
            await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), 5)
            assert not other.is_set()
            assert events.has_listeners()
            job_events.stop()
            assert other.is_set()
            assert job_events.closing
        assert not events.has_listeners()
        assert job_events._watchers == {}

    asyncio.run(scenario())
