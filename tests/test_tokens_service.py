"""A whole service with tokens, set up as the documentation says for Keycloak: calls, sessions, roles, outages.

This is also the runnable example: keys are made here, their public halves are served on loopback, and the service
fetches them as it would from Keycloak.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from app.api.auth import key_set
from app.api.auth.api_keys import ApiKeys
from app.api.auth.sessions import COOKIE_NAME, SESSION_SECONDS, Sessions
from app.errors import Conflict
from app.jobs import change_watch
from app.main import create_app
from tests.databases import IMPLEMENTATIONS
from tests.harness import until
from tests.http_service import KEY, Service, assert_problem, photo, running, settings_for
from tests.token_issuer import ADMIN_CLAIM, AUDIENCE, ISSUER, SECRET, Issuer, claims, serving

ROOT = Path(__file__).resolve().parents[1]
RULES: dict[str, Any] = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_admin_claim": ADMIN_CLAIM}
SESSION_SECRET = "what signs the sessions of all servers"


@dataclasses.dataclass
class Place:
    """A service and the issuer of its tokens."""

    service: Service
    issuer: Issuer

    def call(self, method: str, path: str, token: str | None = None, **more: Any) -> Any:
        """One request with a token in its header (None: without any), no cookie and no key beside it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers |= more.pop("headers", {})
        self.service.client.cookies.clear()
        self.service.forget_rates()
        return self.service.client.request(method, path, headers=headers, **more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    issuer = Issuer()
    with serving(issuer) as address:
        settings: dict[str, Any] = {"jwt_jwks_url": address, "session_secret": SESSION_SECRET, **RULES}
        with running(tmp_path_factory.mktemp("tokens"), key=KEY, **settings) as service:
            del service.client.headers["x-api-key"]
            yield Place(service, issuer)


def sign_in(place: Place, token: str) -> str:
    answer = place.call("POST", "/api/v1/session", token)
    assert answer.status_code == 200, answer.text
    place.service.client.cookies.clear()
    cookie: str = answer.headers["set-cookie"]
    return cookie


def with_cookie(place: Place, cookie: str, path: str = "/api/v1/me", method: str = "GET") -> Any:
    return place.call(method, path, headers={"cookie": cookie.partition(";")[0]})


# Calls.


def test_a_user_works_with_tokens_from_the_upload_to_the_result(place: Place) -> None:
    first, later = place.issuer.token("rsa-1", subject="kay"), place.issuer.token("ec-1", subject="kay", jti="2")
    accepted = place.call("POST", "/api/v1/enhance", first, files={"file": ("cat.png", photo())})
    assert accepted.status_code == 202
    job = f"/api/v1/jobs/{accepted.json()['job_id']}"
    until(lambda: place.call("GET", job, later).json()["status"] == "completed")
    assert place.call("GET", f"{job}/result", later).headers["content-type"] == "image/png"
    with place.service.client.websocket_connect(f"{job}/status", headers={"Authorization": f"bearer {later}"}) as live:
        assert live.receive_json()["status"] == "completed"
    assert_problem(place.call("GET", job, place.issuer.token(subject="lee")), 404, "job_not_found")
    assert_problem(place.call("GET", job, headers={"x-api-key": KEY}), 404, "job_not_found")


def test_users_of_one_name_are_told_apart_and_each_stays_the_same_with_every_token(place: Place) -> None:
    names = {"preferred_username": "kay"}
    tokens = [place.issuer.token(subject=subject, **names) for subject in ("kay-1", "kay-1", "kay-2")]
    callers = [place.call("GET", "/api/v1/me", token).json() for token in tokens]
    assert {caller["name"] for caller in callers} == {"kay"}
    first, again, other = (caller["owner"] for caller in callers)
    assert first == again != other


def test_a_key_works_beside_tokens_but_not_in_one_request(place: Place) -> None:
    assert place.call("GET", "/api/v1/me", headers={"x-api-key": KEY}).json()["role"] == "admin"
    both = place.call("GET", "/api/v1/me", place.issuer.token(), headers={"x-api-key": KEY})
    assert_problem(both, 400, "two_credentials")
    two = [("Authorization", f"Bearer {place.issuer.token(subject=name)}") for name in ("kay", "lee")]
    assert_problem(place.service.client.get("/api/v1/me", headers=two), 400, "two_credentials")


def test_without_a_token_or_with_another_scheme_nothing_is_open(place: Place) -> None:
    assert_problem(place.call("GET", "/api/v1/me"), 401, "key_required")
    basic = place.call("GET", "/api/v1/me", headers={"Authorization": "Basic a2F5OmtheQ=="})
    assert_problem(basic, 401, "key_required")
    empty = place.call("GET", "/api/v1/me", headers={"Authorization": "Bearer"})
    assert_problem(empty, 401, "wrong_token")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": int(time.time()) - 100}, "token_expired"),
        ({"aud": "another-service"}, "wrong_token"),
        ({"nbf": int(time.time()) + 3600}, "wrong_token"),
        ({"iss": "https://evil.example"}, "wrong_token"),
        ({"note": "x" * 20_000}, "wrong_token"),
    ],
    ids=["expired", "for others", "of the future", "of another issuer", "huge"],
)
def test_each_bad_token_has_its_answer(place: Place, changes: dict[str, Any], code: str) -> None:
    answer = place.call("GET", "/api/v1/me", place.issuer.token(**changes))
    assert_problem(answer, 401, code)
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


def test_wrong_tokens_count_against_their_address_and_expired_ones_do_not(place: Place) -> None:
    expired = place.issuer.token(exp=int(time.time()) - 100)
    place.call("GET", "/api/v1/me")

    def send(token: str) -> int:
        return int(place.service.client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"}).status_code)

    assert {send(expired) for _ in range(15)} == {401}
    assert [send("a.b.c") for _ in range(11)] == [401] * 10 + [429]
    assert send(place.issuer.token()) == 200
    assert send(expired) == 401


def test_a_foreign_page_with_a_token_may_act_and_one_with_a_cookie_may_not(place: Place) -> None:
    nowhere = "/api/v1/jobs/" + "0" * 32
    page = {"origin": "https://friend.example"}
    assert_problem(place.call("DELETE", nowhere, place.issuer.token(), headers=page), 404, "job_not_found")
    cookie = sign_in(place, place.issuer.token()).partition(";")[0]
    assert_problem(place.call("DELETE", nowhere, headers={**page, "cookie": cookie}), 403, "foreign_origin")


# Roles.


def test_an_admin_by_claim_may_what_a_user_may_not(place: Place) -> None:
    admin = place.issuer.token(subject="root", realm_access={"roles": ["restore-admin"]})
    for method, path in (("GET", "/metrics"), ("POST", "/api/v1/models/warmup")):
        assert_problem(place.call(method, path, place.issuer.token()), 403, "admin_required")
        assert place.call(method, path, admin).status_code == 200
    metrics = place.call("GET", "/metrics", admin).text
    assert 'restore_caller_requests_total{caller="token",status="403"}' in metrics
    assert "root" not in metrics
    assert place.call("GET", "/api/v1/me", admin).json()["role"] == "admin"


# Sessions.


def test_a_token_is_exchanged_for_a_session_that_ends_with_it(place: Place) -> None:
    cookie = sign_in(place, place.issuer.token(subject="kay", exp=int(time.time()) + 120))
    assert {"HttpOnly", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
    life = int(cookie.partition("Max-Age=")[2].partition(";")[0])
    assert 100 < life <= 120
    me = with_cookie(place, cookie).json()
    assert (me["name"], me["role"]) == ("kay", "user")
    assert me["expires_at"] <= time.time() + 120
    again = place.call("POST", "/api/v1/session", headers={"cookie": cookie.partition(";")[0]})
    assert again.headers["set-cookie"].partition(";")[0] == cookie.partition(";")[0]  # the same session, as signed then
    renewed = int(again.headers["set-cookie"].partition("Max-Age=")[2].partition(";")[0])
    assert renewed <= life  # a session cannot be stretched beyond its token


def test_the_server_itself_ends_the_session_with_the_token(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = sign_in(place, place.issuer.token(exp=int(time.time()) + 120))
    assert with_cookie(place, cookie).status_code == 200
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 121)
    assert_problem(with_cookie(place, cookie), 401, "key_required")


def test_a_long_token_gives_no_longer_session_than_a_key(place: Place) -> None:
    cookie = sign_in(place, place.issuer.token(exp=int(time.time()) + 90 * 86_400))
    assert f"Max-Age={SESSION_SECONDS}" in cookie


def test_a_token_in_its_last_seconds_of_grace_opens_no_session(place: Place) -> None:
    late = place.issuer.token(exp=int(time.time()) - 5)
    assert place.call("GET", "/api/v1/me", late).status_code == 200
    assert_problem(place.call("POST", "/api/v1/session", late), 401, "token_expired")


def test_a_token_in_the_body_opens_a_session_too(place: Place) -> None:
    answer = place.call("POST", "/api/v1/session", json={"token": place.issuer.token(subject="kay")})
    assert answer.status_code == 200
    assert with_cookie(place, answer.headers["set-cookie"]).json()["name"] == "kay"
    assert_problem(place.call("POST", "/api/v1/session", json={"token": "a.b.c"}), 401, "wrong_token")
    assert_problem(place.call("POST", "/api/v1/session", json={"token": 5}), 400, "bad_request")


def test_a_session_has_the_jobs_of_its_user(place: Place) -> None:
    token = place.issuer.token(subject="mo")
    job_id = place.call("POST", "/api/v1/enhance", token, files={"file": ("a.png", photo())}).json()["job_id"]
    assert with_cookie(place, sign_in(place, token), f"/status/{job_id}").status_code == 200
    stranger = sign_in(place, place.issuer.token(subject="lee"))
    assert with_cookie(place, stranger, f"/status/{job_id}").status_code == 404


def test_signing_out_ends_a_session_on_the_server_also_after_a_restart(place: Place) -> None:
    token = place.issuer.token()
    ended, other = sign_in(place, token), sign_in(place, token)
    assert with_cookie(place, ended, "/api/v1/session", "DELETE").status_code == 204
    assert_problem(with_cookie(place, ended), 401, "key_required")
    assert with_cookie(place, other).status_code == 200
    assert len(place.service.context.store.accounts.ended_sessions(time.time())) >= 1


@pytest.mark.parametrize("forged", ["jwt-", "jwt-e30", "jwt-W10.x.y", "jwt-!!.a.b"])
def test_a_forged_session_opens_nothing(place: Place, forged: str) -> None:
    assert_problem(with_cookie(place, f"{COOKIE_NAME}={forged}"), 401, "key_required")


def test_servers_with_one_session_secret_share_sessions_and_others_do_not(place: Place) -> None:
    cookie = sign_in(place, place.issuer.token(subject="kay")).partition(";")[0].partition("=")[2]
    issuer = f"{ISSUER}\n{AUDIENCE}"
    elsewhere = Sessions(ApiKeys([]), SESSION_SECRET, issuer).find(cookie)
    assert elsewhere is not None
    assert elsewhere.caller.name == "kay"
    for secret, name in (("another secret of another service", issuer), ("", issuer), (SESSION_SECRET, "other")):
        assert Sessions(ApiKeys([]), secret, name).find(cookie) is None
    assert Sessions(ApiKeys([]), SESSION_SECRET).find(cookie) is None


# Outages.


def test_before_the_first_keys_the_answer_is_503_and_then_all_is_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_set, "AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(key_set, "REFRESH_SECONDS", 0.1)
    issuer = Issuer()
    issuer.answer = 500, b""
    with serving(issuer) as address, running(tmp_path, jwt_jwks_url=address, **RULES) as service:
        token = {"Authorization": f"Bearer {issuer.token()}"}
        answer = service.client.get("/api/v1/me", headers=token)
        assert_problem(answer, 503, "token_keys_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert service.client.get("/health/live").status_code == 200
        issuer.answer = None
        until(lambda: service.client.get("/api/v1/me", headers=token).status_code == 200)
        issuer.answer = 500, b""
        until(lambda: service.context.authentication.problem)
        assert service.client.get("/api/v1/me", headers=token).status_code == 200  # the last good set is kept
        health = service.client.get("/api/v1/health", headers=token).json()
        assert health["status"] == "degraded"
        assert any("JWT_JWKS_URL" in reason for reason in health["reasons"])


def test_a_shared_secret_needs_no_network(tmp_path: Path) -> None:
    with running(tmp_path, jwt_secret=SECRET, **RULES) as service:
        token = jwt.encode(claims("kay"), SECRET, "HS256")
        me = service.client.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})
        assert me.json()["name"] == "kay"
        assert_problem(service.client.get("/api/v1/me"), 401, "key_required")


# Sign-outs on other servers.


def test_a_session_of_a_token_that_ended_on_one_server_ends_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_watch, "SESSIONS_SECONDS", 0.05)
    url = IMPLEMENTATIONS["postgres"](tmp_path)
    shared: dict[str, Any] = {"database_url": url, "jwt_secret": SECRET, **RULES}
    with running(tmp_path / "one", **shared) as one, running(tmp_path / "two", **shared) as two:
        token = {"Authorization": f"Bearer {jwt.encode(claims('kay'), SECRET, 'HS256')}"}
        cookie = one.client.post("/api/v1/session", headers=token).headers["set-cookie"].partition(";")[0]
        for service in (one, two):
            service.client.cookies.clear()
        assert two.client.get("/api/v1/me", headers={"cookie": cookie}).status_code == 200
        assert one.client.delete("/api/v1/session", headers={"cookie": cookie}).status_code == 204
        until(lambda: two.client.get("/api/v1/me", headers={"cookie": cookie}).status_code == 401)


# Optional.


def test_without_tokens_nothing_of_theirs_is_loaded_and_with_them_a_missing_package_is_named(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from app.main import create_app
from tests.http_service import settings_for
create_app(settings_for(Path({str(tmp_path)!r}), key={KEY!r}), backends={{}})
print([name for name in ("jwt", "cryptography", "app.api.auth.tokens", "app.api.auth.key_set") if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert told.stdout == "[]\n", told.stderr
    with pytest.MonkeyPatch.context() as patch:
        for name in ("jwt", "app.api.auth.tokens", "app.api.auth.key_set"):
            patch.delitem(sys.modules, name, raising=False)
        patch.setitem(sys.modules, "jwt", None)
        with pytest.raises(Conflict, match="requirements-users"):
            create_app(settings_for(tmp_path, jwt_secret=SECRET, **RULES), backends={})


def test_without_tokens_an_authorization_header_means_nothing(tmp_path: Path) -> None:
    with running(tmp_path, key=KEY) as service:
        proxied = {"Authorization": "Bearer of-a-proxy"}
        assert service.client.get("/api/v1/me", headers=proxied).status_code == 200
        del service.client.headers["x-api-key"]
        assert_problem(service.client.get("/api/v1/me", headers=proxied), 401, "key_required")
        assert_problem(service.client.post("/api/v1/session", json={"token": "a.b.c"}), 400, "bad_request")
