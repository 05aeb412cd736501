"""Who follows a job is let go when its token ends: streams, WebSockets and waits, by a clock that the test moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest
from starlette.requests import HTTPConnection

from app.api import following
from app.api.auth.caller import CLOCK_LEEWAY_SECONDS, Caller, Role
from app.api.dependencies import get_context
from app.api.following import SignInEnd, sign_in_end
from tests.harness import until
from tests.http_service import KEY, Service, photo, running
from tests.test_event_stream import address, parse
from tests.test_live import connect, until_closed
from tests.token_issuer import AUDIENCE, ISSUER, SECRET, claims

LIFE_SECONDS = 600
FAR_AWAY_SECONDS = 3600.0  # a timer of this length never ends in a test


class Place:
    """A service where new photos wait, a user's token, and the clock that it ends by; real time judges new calls."""

    def __init__(self, service: Service) -> None:
        self.service, self.now, self.ends_at = service, time.time(), int(time.time()) + LIFE_SECONDS
        service.context.wall = lambda: self.now
        self.token = jwt.encode(claims("kay", exp=self.ends_at), SECRET, "HS256")
        self.bearer = {"Authorization": f"Bearer {self.token}"}
        del service.client.headers["x-api-key"]
        service.backend.gate.clear()
        for _ in range(2):  # one in work and one read ahead: what comes now waits, and nothing of it changes
            self.submit()
        until(lambda: service.context.store.counts().processing == 2)

    def credentials(self, kind: str) -> dict[str, str]:
        """The token in its header, or as a session's cookie."""
        if kind == "token":
            return self.bearer
        answer = self.service.client.post("/api/v1/session", headers=self.bearer)
        self.service.client.cookies.clear()
        return {"cookie": answer.headers["set-cookie"].partition(";")[0]}

    def submit(self, **headers: str) -> Any:
        return self.service.client.post("/api/v1/enhance", files={"file": photo()}, headers=self.bearer | headers)

    def last_moment(self, kind: str) -> float:
        """When a request with these credentials would be refused."""
        return self.ends_at + (CLOCK_LEEWAY_SECONDS if kind == "token" else 0)

    def wake(self) -> None:
        self.service.client.portal.call(self.service.context.job_events.wake_all)  # type: ignore[union-attr]

    def is_watched(self) -> bool:
        return bool(self.service.context.events.has_listeners())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    rules: dict[str, Any] = {"jwt_secret": SECRET, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    with running(tmp_path, key=KEY, **rules) as service:
        yield Place(service)


@pytest.fixture
def pool(place: Place) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made
        place.service.backend.gate.set()  # which ends whoever follows still


def streamed(place: Place, pool: ThreadPoolExecutor, **headers: str) -> Future[list[dict[str, str]]]:
    """The events of a stream, once it has ended; it has begun."""
    job_id = place.submit().json()["job_id"]
    get = place.service.client.get
    reading = pool.submit(lambda: parse(get(address(job_id), headers=headers).text))
    until(place.is_watched)
    return reading


@pytest.fixture(params=["at a change", "by itself"])
def let_see(request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have those who follow look at the clock: as a change of their job wakes them, or as they do of themselves."""
    by_itself = request.param == "by itself"
    monkeypatch.setattr(following, "LONGEST_SLEEP_SECONDS", 0.01 if by_itself else FAR_AWAY_SECONDS)
    return (lambda: None) if by_itself else place.wake


@pytest.mark.parametrize("kind", ["token", "session"])
def test_a_caller_is_signed_in_until_a_new_request_would_be_refused(kind: str, place: Place) -> None:
    caller = Caller("kay", "kay", Role.USER, "token", place.ends_at)
    state = {"caller": caller, "session_id": "of kay" if kind == "session" else None}
    connection = HTTPConnection({"type": "http", "headers": [], "app": place.service.app, "state": state})
    context = get_context(connection)
    place.now = place.last_moment(kind) - 1
    assert sign_in_end(context, connection) is None
    place.now += 1
    assert sign_in_end(context, connection) is SignInEnd.EXPIRED
    place.service.context.authentication.sessions.forget(["of kay"])
    assert sign_in_end(context, connection) is (SignInEnd.SIGNED_OUT if kind == "session" else SignInEnd.EXPIRED)


@pytest.mark.parametrize("kind", ["token", "session"])
def test_a_stream_ends_with_the_token(
    kind: str, place: Place, pool: ThreadPoolExecutor, let_see: Callable[[], None]
) -> None:
    reading = streamed(place, pool, **place.credentials(kind))
    place.now = place.last_moment(kind)
    let_see()
    assert reading.result(10)[-1] == {"event": "end", "data": '{"reason": "token_expired"}'}


@pytest.mark.parametrize("kind", ["token", "session"])
def test_a_websocket_ends_with_the_token(
    kind: str, place: Place, pool: ThreadPoolExecutor, let_see: Callable[[], None]
) -> None:
    job_id = place.submit().json()["job_id"]
    with connect(place.service, job_id, **place.credentials(kind)) as socket:
        socket.receive_text()
        place.now = place.last_moment(kind)
        let_see()
        closed = pool.submit(until_closed, socket).result(10)
        assert (closed.code, closed.reason) == (4401, "token_expired")


def test_a_wait_ends_with_the_token_and_the_job_is_accepted_all_the_same(
    place: Place, pool: ThreadPoolExecutor, let_see: Callable[[], None]
) -> None:
    waiting = pool.submit(place.submit, prefer="wait=300")
    until(place.is_watched)
    place.now = place.last_moment("token")
    let_see()
    answer = waiting.result(10)
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/api/v1/jobs/{answer.json()['job_id']}"


def test_who_comes_with_a_key_follows_to_the_end(place: Place, pool: ThreadPoolExecutor) -> None:
    place.bearer = {"X-API-KEY": KEY}
    reading = streamed(place, pool, **place.bearer)
    place.now += 1e9
    place.wake()
    place.service.backend.gate.set()
    assert reading.result(20)[-1]["data"] == '{"reason": "ended"}'
