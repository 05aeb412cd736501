"""The guard: who may come, from where, how often and with how much, judged before a body is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from app.api.admission import Admission
from app.api.auth.api_keys import ApiKeys, NamedKey
from app.api.auth.authentication import Authentication
from app.api.auth.origins import Origins
from app.api.auth.rate_limits import RateLimits, network_of, parse_rate
from app.api.auth.sessions import COOKIE_NAME, SESSION_SECONDS, Sessions
from app.api.middleware import request_context as frames
from app.api.middleware.access_control import AccessControlMiddleware, AccessRules
from app.api.middleware.request_body import MeteredBody, Pace
from app.errors import BadRequest, Forbidden, RestoreError, Unavailable
from app.metrics import Metrics
from app.storage import DiskStorage
from tests.http_service import BASE_URL, KEY, OTHER_KEY, Service, assert_problem, photo, running

UNSAFE = ("/enhance", "/api/v1/enhance", "/api/v1/enhance/batch")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("keyed"), key=f"{KEY},{OTHER_KEY}") as service:
        yield service


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("open"), cors_origins=("https://Friend.example/",)) as service:
        yield service


# Keys.


def test_everything_but_liveness_needs_the_key(keyed: Service) -> None:
    paths = keyed.app.openapi()["paths"]
    assert len(paths) > 15
    for path, methods in paths.items():
        for method in methods:
            form: dict[str, Any] = {"files": {"file": photo()}} if path in UNSAFE else {}
            for headers, code in (({"X-API-KEY": ""}, "wrong_key"), ({}, "key_required")):
                asked = keyed.client.build_request(method.upper(), path, **form, headers=headers)
                if not headers:
                    del asked.headers["x-api-key"]
                keyed.forget_rates()
                answer = keyed.client.send(asked)
                if path == "/health/live":
                    assert answer.status_code == 200
                elif path == "/api/v1/session" and not headers:
                    assert answer.status_code in (400, 204)
                else:
                    assert_problem(answer, 401, code)


def test_each_of_several_keys_opens_and_owns_its_own_jobs(keyed: Service) -> None:
    job_id = keyed.submit()
    keyed.finish(job_id)
    foreign = {"X-API-KEY": OTHER_KEY}
    for call in (
        f"/status/{job_id}",
        f"/api/v1/jobs/{job_id}",
        f"/api/v1/batch/{job_id}",
        f"/api/v1/jobs/{job_id}/result",
    ):
        assert keyed.client.get(call).status_code == 200
        assert_problem(keyed.client.get(call, headers=foreign), 404, "job_not_found")
    assert_problem(keyed.client.delete(f"/api/v1/jobs/{job_id}", headers=foreign), 404, "job_not_found")
    name = keyed.client.get(f"/status/{job_id}").json()["results"][0]["url"]
    assert keyed.client.get(name).status_code == 200
    assert_problem(keyed.client.get(name, headers=foreign), 404, "result_not_found")
    assert keyed.client.get("/api/v1/jobs", headers=foreign).json()["jobs"] == []


@pytest.mark.parametrize("key", [b"\xff\xfe\x00secret", "schlüssel".encode(), b"a" * 5000, KEY.upper().encode(), b" "])
def test_odd_keys_are_wrong_and_never_an_error(keyed: Service, key: bytes) -> None:
    keyed.forget_rates()
    asked = keyed.client.build_request("GET", "/api/v1/config", headers={b"X-API-KEY": key})
    assert_problem(keyed.client.send(asked), 401, "wrong_key")


def test_a_key_in_the_address_does_not_count(keyed: Service) -> None:
    answer = keyed.client.get("/api/v1/config", params={"api_key": KEY, "X-API-KEY": KEY}, headers={"X-API-KEY": "no"})
    assert_problem(answer, 401, "wrong_key")


def test_the_eleventh_wrong_key_in_a_minute_is_refused_with_a_time(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        wrong = {"X-API-KEY": "not-the-key-at-all"}
        codes = [service.client.get("/api/v1/config", headers=wrong).status_code for _ in range(11)]
        assert codes == [401] * 10 + [429]
        late = service.client.get("/api/v1/config", headers=wrong)
        assert_problem(late, 429, "too_many_wrong_keys")
        assert 1 <= int(late.headers["retry-after"]) <= 60
        body = service.client.post("/api/v1/session", json={"key": "guess"}, headers=wrong)
        assert body.status_code == 429
        assert service.client.get("/health/live").status_code == 200


def test_wrong_keys_never_lock_out_a_right_one_from_the_same_address(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        for _ in range(30):
            service.client.get("/api/v1/config", headers={"X-API-KEY": "not-the-key-at-all"})
        assert service.client.get("/api/v1/config").status_code == 200
        assert sign_in(service).startswith(COOKIE_NAME)
        wrong = service.client.get("/api/v1/config", headers={"X-API-KEY": "not-the-key-at-all"})
        assert_problem(wrong, 429, "too_many_wrong_keys")


@pytest.mark.parametrize("said", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
@pytest.mark.parametrize("key", ["", KEY])
def test_a_foreign_page_does_not_spend_the_users_rate(tmp_path: Path, said: dict[str, str], key: str) -> None:
    with running(tmp_path, rate_limit="5/minute", key=key) as service:
        cookie = sign_in(service) if key else "none=1"
        service.forget_rates()
        codes = [with_cookie(service, "GET", "/api/v1/jobs", cookie, headers=said).status_code for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3
        own = {"sec-fetch-site": "same-origin"}
        assert with_cookie(service, "GET", "/api/v1/jobs", cookie, headers=own).status_code == 200


# Sessions.


def sign_in(service: Service, key: str = KEY) -> str:
    asked = service.client.build_request("POST", "/api/v1/session", json={"key": key})
    del asked.headers["x-api-key"]
    answer = service.client.send(asked)
    assert answer.status_code == 200, answer.text
    cookie: str = answer.headers["set-cookie"]
    service.client.cookies.clear()
    return cookie


def with_cookie(service: Service, method: str, path: str, cookie: str, **more: Any) -> Any:
    headers = {"cookie": cookie.partition(";")[0].encode("latin-1"), **more.pop("headers", {})}
    asked = service.client.build_request(method, path, headers=headers, **more)
    asked.headers.pop("x-api-key", None)
    answer = service.client.send(asked)
    service.client.cookies.clear()
    return answer


def test_a_key_is_exchanged_for_a_strict_cookie_that_works_like_the_key(keyed: Service) -> None:
    cookie = sign_in(keyed)
    assert cookie.startswith(f"{COOKIE_NAME}=")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    assert KEY not in cookie
    job_id = keyed.submit()
    assert with_cookie(keyed, "GET", f"/api/v1/jobs/{job_id}", cookie).status_code == 200
    assert with_cookie(keyed, "GET", f"/api/v1/jobs/{job_id}", sign_in(keyed, OTHER_KEY)).status_code == 404


def test_a_forged_or_old_cookie_opens_nothing(keyed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = sign_in(keyed).partition(";")[0]
    assert_problem(with_cookie(keyed, "GET", "/api/v1/config", cookie[:-3] + "abc"), 401, "key_required")
    assert_problem(with_cookie(keyed, "GET", "/api/v1/config", f"{COOKIE_NAME}=local"), 401, "key_required")
    assert_problem(with_cookie(keyed, "GET", "/api/v1/config", f"{COOKIE_NAME}=\xff.\xff"), 401, "key_required")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SESSION_SECONDS + 5)
    assert_problem(with_cookie(keyed, "GET", "/api/v1/config", cookie), 401, "key_required")


def test_a_session_ends_when_its_key_is_taken_away() -> None:
    both, one = ApiKeys([NamedKey(KEY), NamedKey(OTHER_KEY)]), ApiKeys([NamedKey(OTHER_KEY)])
    caller = both.caller_of_key(KEY.encode())
    assert caller is not None
    cookie, life_seconds = Sessions(both).open(caller)
    session = Sessions(both).find(cookie)
    assert session is not None
    assert (session.caller, life_seconds) == (caller, SESSION_SECONDS)
    assert Sessions(one).find(cookie) is None
    assert Sessions(both, "a secret of all servers, 32 bytes").find(cookie) is None


def test_a_cookie_does_not_let_a_foreign_page_act(keyed: Service) -> None:
    cookie = sign_in(keyed)
    page = {"origin": "http://localhost:3000"}  # another port is the same site to SameSite, and another origin to us
    answer = with_cookie(keyed, "DELETE", "/api/v1/jobs/" + "0" * 32, cookie, headers=page)
    assert_problem(answer, 403, "foreign_origin")
    own = with_cookie(keyed, "DELETE", "/api/v1/jobs/" + "0" * 32, cookie, headers={"origin": BASE_URL})
    assert_problem(own, 404, "job_not_found")


def test_signing_out_takes_the_cookie_out_of_the_browser(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        browser = service.client
        del browser.headers["x-api-key"]
        assert browser.get("/api/v1/jobs").status_code == 401
        assert browser.post("/api/v1/session", json={"key": KEY}).status_code == 200
        assert browser.cookies.get("restore_session")
        assert browser.get("/api/v1/jobs").status_code == 200
        answer = browser.delete("/api/v1/session")
        assert answer.status_code == 204
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert browser.cookies.get("restore_session") is None
        assert browser.get("/api/v1/jobs").status_code == 401


def test_signing_out_ends_the_session_wherever_its_cookie_is_and_no_other(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        ended, other = sign_in(service), sign_in(service)
        assert with_cookie(service, "DELETE", "/api/v1/session", ended).status_code == 204
        assert_problem(with_cookie(service, "GET", "/api/v1/jobs", ended), 401, "key_required")
        assert with_cookie(service, "GET", "/api/v1/jobs", other).status_code == 200
        assert with_cookie(service, "DELETE", "/api/v1/session", ended).status_code == 204
    with running(tmp_path, key=KEY) as service:  # a restart revives nothing
        assert_problem(with_cookie(service, "GET", "/api/v1/jobs", ended), 401, "key_required")
        assert with_cookie(service, "GET", "/api/v1/jobs", other).status_code == 200


def test_a_cookie_alone_keeps_its_session_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else who copied a cookie would stay in after its user signed out, and for ever."""
    now = time.time()
    with running(tmp_path, key=KEY) as service:
        cookie = sign_in(service)
        monkeypatch.setattr(time, "time", lambda: now + 1000)
        kept = with_cookie(service, "POST", "/api/v1/session", cookie).headers["set-cookie"]
        assert kept.partition(";")[0] == cookie.partition(";")[0]
        life = int(kept.partition("Max-Age=")[2].partition(";")[0])
        assert SESSION_SECONDS - 1010 < life <= SESSION_SECONDS - 990
        assert with_cookie(service, "DELETE", "/api/v1/session", cookie).status_code == 204
        assert_problem(with_cookie(service, "GET", "/api/v1/jobs", kept), 401, "key_required")
        assert_problem(with_cookie(service, "POST", "/api/v1/session", kept), 400, "bad_request")


def test_a_key_in_the_body_counts_more_than_a_cookie(keyed: Service) -> None:
    cookie = sign_in(keyed)
    wrong = with_cookie(keyed, "POST", "/api/v1/session", cookie, json={"key": "no such key, long enough"})
    assert_problem(wrong, 401, "wrong_key")
    assert_problem(with_cookie(keyed, "POST", "/api/v1/session", cookie, json={"key": 5}), 400, "bad_request")
    job_id = keyed.submit()
    other = with_cookie(keyed, "POST", "/api/v1/session", cookie, json={"key": OTHER_KEY}).headers["set-cookie"]
    assert with_cookie(keyed, "GET", f"/api/v1/jobs/{job_id}", cookie).status_code == 200
    assert with_cookie(keyed, "GET", f"/api/v1/jobs/{job_id}", other).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"key": 5}', b"[" * 30_000, b'"key"'])
def test_a_broken_sign_in_is_a_bad_request(keyed: Service, body: bytes) -> None:
    asked = keyed.client.build_request("POST", "/api/v1/session", content=body)
    del asked.headers["x-api-key"]
    assert_problem(keyed.client.send(asked), 400, "bad_request")


# Hosts and origins.


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8001", "127.0.0.1:8091", "127.9.9.9", "[::1]:8001", "LOCALHOST."]
)
def test_loopback_names_are_served(open_service: Service, host: str) -> None:
    assert open_service.client.get("/api/v1/config", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "8.8.8.8", "", "[::2]", "[", "127.0.0.1.evil"]
)
def test_a_name_that_is_not_ours_is_refused(open_service: Service, host: str) -> None:
    assert_problem(open_service.client.get("/api/v1/config", headers={"host": host}), 400, "host_not_allowed")
    assert open_service.client.get("/health/live", headers={"host": host}).status_code == 200  # a probe's address


def test_with_a_key_any_host_will_do_unless_hosts_are_listed() -> None:
    anything = Headers({"host": "photos.example"})
    Origins((), (), any_host=True).check_host(anything)
    Origins(("photos.example",), (), any_host=False).check_host(anything)
    with pytest.raises(BadRequest, match="ALLOWED_HOSTS"):
        Origins(("other.example",), (), any_host=False).check_host(anything)


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"origin": "http://[broken"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_without_a_key_other_pages_may_not_change_anything(open_service: Service, headers: dict[str, str]) -> None:
    answer = open_service.client.post("/enhance", files={"file": photo()}, headers=headers)
    assert_problem(answer, 403, "foreign_origin")


@pytest.mark.parametrize(
    "headers",
    [{"origin": BASE_URL}, {"origin": "https://friend.example"}, {"sec-fetch-site": "same-origin"}, {}],
)
def test_our_own_page_and_friends_may(open_service: Service, headers: dict[str, str]) -> None:
    assert open_service.client.post("/enhance", files={"file": photo()}, headers=headers).status_code == 202


def test_only_listed_origins_may_read(open_service: Service) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-KEY"}
    friend = open_service.client.options("/enhance", headers={"origin": "https://friend.example", **asked})
    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    stranger = open_service.client.options("/enhance", headers={"origin": "https://evil.example", **asked})
    assert "access-control-allow-origin" not in stranger.headers
    refused = open_service.client.get("/nowhere", headers={"origin": "https://friend.example"})
    assert refused.headers["access-control-allow-origin"] == "https://friend.example"
    assert {"Link", "Location", "Retry-After"} <= set(refused.headers["access-control-expose-headers"].split(", "))


def test_a_missing_origin_and_host_do_not_match_each_other() -> None:
    with pytest.raises(Forbidden):
        Origins((), (), any_host=True).check_page(Headers({"origin": ""}))


# Rates.


def test_over_the_rate_comes_429_with_a_time(tmp_path: Path) -> None:
    with running(tmp_path, rate_limit="3/minute") as service:
        codes = [service.client.get("/api/v1/health").status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]
        answer = service.client.get("/api/v1/health")
        assert_problem(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert service.client.get("/health/live").status_code == 200


def test_rates_are_counted_for_each_key_alone(tmp_path: Path) -> None:
    with running(tmp_path, rate_limit="2/minute", key=f"{KEY},{OTHER_KEY}") as service:
        assert [service.client.get("/api/v1/health").status_code for _ in range(3)] == [200, 200, 429]
        assert service.client.get("/api/v1/health", headers={"X-API-KEY": OTHER_KEY}).status_code == 200


def test_a_rate_is_written_like_600_a_minute() -> None:
    assert parse_rate("0") is None
    item = parse_rate("10/second")
    assert item is not None
    assert (item.amount, item.get_expiry()) == (10, 1)
    with pytest.raises(ValueError, match="600/minute"):
        parse_rate("often")


def test_an_ipv6_client_counts_by_its_network() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") == "2001:db8::/64"
    assert network_of("192.0.2.7") == "192.0.2.7"
    assert network_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert network_of("testclient") == "testclient"


# Lengths, before and on the wire.


class Wire:
    """An ASGI client side that counts how much of its endless body was read."""

    def __init__(self, chunk: int = 16 * 1024, delay: float = 0.0) -> None:
        self.read = 0
        self.sent: list[Message] = []
        self._chunk, self._delay = chunk, delay

    async def receive(self) -> Message:
        await asyncio.sleep(self._delay)
        self.read += self._chunk
        assert self.read < 10_000_000, "nothing stops the reading"
        return {"type": "http.request", "body": bytes(self._chunk), "more_body": True}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    def header(self, name: str) -> str | None:
        return Headers(raw=self.sent[0]["headers"]).get(name)


async def call(app: Any, wire: Wire, path: str, headers: dict[str, str], method: str = "POST") -> None:
    raw = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": raw, "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8001), "scheme": "http",
        "http_version": "1.1", "root_path": "", "asgi": {"version": "3.0"},
    }  # fmt: skip
    await app(scope, wire.receive, wire.send)


FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**FORM, "content-length": "1000000000"}, 401),
        ({**FORM, "transfer-encoding": "chunked"}, 401),
        ({**FORM, "x-api-key": "wrong", "content-length": "1000000000"}, 401),
        ({**FORM, "x-api-key": KEY, "content-length": "1000000000"}, 413),
        ({**FORM, "x-api-key": KEY, "content-length": "-1"}, 400),
        ({**FORM, "x-api-key": KEY, "content-length": "1" * 5000}, 400),
        ({"content-type": "application/json", "x-api-key": KEY, "content-length": "500"}, 415),
        ({"x-api-key": KEY, "transfer-encoding": "chunked"}, 415),
    ],
)
def test_what_is_refused_by_its_head_is_not_read_at_all(keyed: Service, headers: dict[str, str], status: int) -> None:
    wire = Wire()
    keyed.forget_rates()
    keyed.client.portal.call(call, keyed.app, wire, "/api/v1/enhance", headers)  # type: ignore[union-attr]
    assert (wire.status, wire.read) == (status, 0)
    assert wire.header("connection") == "close"


def guarded(tmp_path: Path, app: Any, **rules: Any) -> Any:
    """The guard alone around an app, without a key, with a limit of 100 kB for submissions."""
    admission = Admission(DiskStorage(tmp_path / "u", tmp_path / "r"), 10, _none_waits, time.monotonic)
    known: dict[str, Any] = {
        "authentication": Authentication(ApiKeys([]), Sessions(ApiKeys([])), RateLimits("0")),
        "origins": Origins((), (), any_host=False), "rate_limits": RateLimits("0"),
        "submit_limits": {"/enhance": 100_000}, **rules,
    }  # fmt: skip
    return frames.RequestContextMiddleware(AccessControlMiddleware(app, AccessRules(**known), admission), Metrics())


async def _none_waits() -> int:
    return 0


async def _read_all(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


def test_a_body_without_a_length_is_counted_on_the_wire(tmp_path: Path) -> None:
    wire = Wire()
    chunked = {**FORM, "transfer-encoding": "chunked"}
    asyncio.run(call(guarded(tmp_path, _read_all), wire, "/enhance", chunked))
    assert wire.status == 413
    assert 100_000 < wire.read <= 100_000 + 16 * 1024
    assert wire.header("connection") == "close"


def test_other_calls_take_only_a_small_body(tmp_path: Path) -> None:
    wire = Wire()
    asyncio.run(call(guarded(tmp_path, _read_all), wire, "/api/v1/session", {"transfer-encoding": "chunked"}))
    assert wire.status == 413
    assert wire.read <= 64 * 1024 + 16 * 1024


@pytest.mark.parametrize(
    "pace",
    [Pace(silence_seconds=0.02), Pace(grace_seconds=0.05, least_bytes_per_second=1e9)],
    ids=["a silence", "a trickle"],
)
def test_a_slow_body_ends_with_408(tmp_path: Path, pace: Pace) -> None:
    wire = Wire(chunk=10, delay=0.03)
    app = guarded(tmp_path, _read_all, pace=pace)
    asyncio.run(asyncio.wait_for(call(app, wire, "/enhance", {**FORM, "transfer-encoding": "chunked"}), 5))
    assert wire.status == 408
    assert wire.header("connection") == "close"


def test_after_the_whole_body_a_wait_has_no_deadline() -> None:
    async def scenario() -> Message:
        messages: list[Message] = [{"type": "http.request", "body": b"x"}, {"type": "http.disconnect"}]

        async def receive() -> Message:
            if len(messages) == 1:
                await asyncio.sleep(0.05)
            return messages.pop(0)

        body = MeteredBody(receive, {}, 10, Pace(silence_seconds=0.01))
        await body()
        return await body()

    assert asyncio.run(scenario())["type"] == "http.disconnect"


# Admission.


def test_no_new_photo_is_read_while_draining_or_without_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path) as service:
        monkeypatch.setattr(service.context.storage, "free_disk_ok", lambda: False)
        wire = Wire()
        service.client.portal.call(call, service.app, wire, "/enhance", {**FORM, "content-length": "900"})  # type: ignore[union-attr]
        assert (wire.status, wire.read) == (503, 0)
        answer = service.client.post("/enhance", files={"file": photo()})
        assert_problem(answer, 503, "storage_full")
        assert int(answer.headers["retry-after"]) > 0
        monkeypatch.undo()
        service.context.admission.draining = True
        answer = service.client.post("/enhance", files={"file": photo()})
        assert_problem(answer, 503, "draining")
        assert int(answer.headers["retry-after"]) > 0
        assert service.client.get("/api/v1/jobs").status_code == 200
        assert service.client.get("/api/v1/health").json()["status"] == "draining"


def test_a_full_queue_is_seen_before_the_body_is_read_and_only_by_the_count_now(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        now, queued, codes = [0.0], [10], list[str]()

        async def count() -> int:
            return queued[0]

        async def ask() -> None:
            try:
                await admission.check()
                codes.append("taken")
            except RestoreError as error:
                codes.append(f"{error.code} {error.retry_after_seconds}")

        admission = Admission(DiskStorage(tmp_path / "u", tmp_path / "r"), 10, count, lambda: now[0])
        await ask()
        admission.update_retry_after(Unavailable("queue_full", "Full.", retry_after_seconds=77))
        await ask()
        queued[0], now[0] = 0, 12.0  # long after the last look the queue is empty
        await ask()
        queued[0] = 10
        await ask()  # counted a moment ago
        now[0] = 13.0
        await ask()
        return codes

    assert asyncio.run(scenario()) == ["queue_full 5", "queue_full 77", "taken", "taken", "queue_full 77"]


# The frame.


def test_every_answer_carries_its_id_and_the_safe_headers(open_service: Service) -> None:
    for path in ("/health/live", "/nowhere", "/metrics"):
        answer = open_service.client.get(path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "private, no-store"
        assert len(answer.headers["x-request-id"]) == 16
    named = open_service.client.get("/health/live", headers={"X-Request-ID": "order-7.b"})
    assert named.headers["x-request-id"] == "order-7.b"
    odd = open_service.client.get("/health/live", headers={"X-Request-ID": "a b\tc" * 30})
    assert len(odd.headers["x-request-id"]) == 16


def test_a_surprise_is_a_plain_500_with_a_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with running(tmp_path) as service:

        def broken(*_: Any) -> None:
            raise ZeroDivisionError("a secret path /tmp/x")

        monkeypatch.setattr(service.context.store, "job", broken)
        answer = service.client.get("/status/" + "0" * 32)
        body = assert_problem(answer, 500, "internal_error")
        assert "secret" not in answer.text
        assert any(body["request_id"] in record.getMessage() and record.exc_info for record in caplog.records)


def test_requests_are_counted_by_template(open_service: Service) -> None:
    open_service.client.get("/status/" + "0" * 32)
    open_service.client.get("/nowhere/else")
    text = open_service.client.get("/metrics").text
    assert 'restore_http_requests_total{method="GET",route="/status/{job_id}",status="404"}' in text
    assert 'route="none",status="404"' in text
    assert "0000000000" not in text
    assert "nowhere" not in text
