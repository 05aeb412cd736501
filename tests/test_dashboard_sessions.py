"""Sessions that end with the page open, in a real browser: the same one goes on, and another one finds nothing."""

from __future__ import annotations

import http.cookies
import json
import urllib.request
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.api.auth.sessions import COOKIE_NAME
from tests.browser import Service, Visit, as_file, drop, faced_service, photo, visit

STRIP_SECONDS = 60.0  # what is sent stays at work
ANN, BEN = "ann-0123456789abcdef", "ben-0123456789abcdef"
SIGNED_OUT = {"status": 401, "code": "key_required", "detail": "A key is required."}
REMEMBER = """
() => {
  window.sameLoad = true;
  const field = document.querySelector('[name=prompt]');
  field.value = 'a private wish';
  field.dispatchEvent(new Event('input', { bubbles: true }));
}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    keys = f"ann:user:{ANN},ben:user:{BEN}"
    with faced_service(tmp_path_factory.mktemp("sessions"), STRIP_SECONDS, keys) as running:
        yield running


def sign_in(page: Page, key: str) -> None:
    expect(page.locator("#signin")).to_be_visible()
    page.fill("#signin-key", key)
    page.keyboard.press("Enter")


def session_of(service: Service, key: str) -> str:
    """The cookie's value of a sign-in elsewhere."""
    body = json.dumps({"key": key}).encode()
    with urllib.request.urlopen(f"{service.address}/api/v1/session", body, timeout=30) as answer:
        cookie = http.cookies.SimpleCookie(answer.headers["Set-Cookie"])
    return cookie[COOKIE_NAME].value


def open_as_ann(seen: Visit) -> Page:
    seen.page.goto(seen.address)
    sign_in(seen.page, ANN)
    expect(seen.page.locator("#signin")).to_be_hidden()
    expect(seen.page.locator("#account")).to_contain_text("ann", use_inner_text=False)
    return seen.page


def send(page: Page, name: str) -> None:
    drop(page, as_file(name, photo(72, 54)))
    page.click("#restore")
    expect(page.locator(".card-name", has_text=name)).to_have_count(1)


def test_the_same_one_goes_on_with_all_that_is_at_work(browser: Browser, shared: Service) -> None:
    def newest_only(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=20", "limit=1"))

    with visit(browser, shared.address) as seen:
        page = open_as_ann(seen)
        send(page, "first.png")
        send(page, "second.png")
        page.evaluate(REMEMBER)
        page.route("**/api/v1/jobs?limit=20*", newest_only)
        followed: list[str] = []
        page.on("websocket", lambda socket: followed.append(socket.url))
        seen.context.clear_cookies()
        sign_in(page, ANN)
        expect(page.locator("#signin")).to_be_hidden()
        while len(set(followed)) < 2:
            followed.append(page.wait_for_event("websocket").url)
        assert page.evaluate("window.sameLoad")
        page.route("**/original?preview=true*", lambda route: route.fulfill(status=401, json=SIGNED_OUT), times=1)
        page.reload()  # which has no small pictures from the tray
        sign_in(page, ANN)
        expect(page.locator(".card-picture:not(.arriving)")).to_have_count(1)


def test_another_one_finds_nothing_of_the_one_before(browser: Browser, shared: Service) -> None:
    with visit(browser, shared.address) as seen:
        page = open_as_ann(seen)
        send(page, "of ann.png")
        drop(page, as_file("chosen by ann.png", photo(72, 54)))
        page.evaluate(REMEMBER)
        seen.context.clear_cookies()
        sign_in(page, BEN)
        page.wait_for_function("() => !window.sameLoad && document.body.dataset.state === 'started'")
        expect(page.locator("#signin")).to_be_hidden()
        assert page.locator(".card, .tile").count() == 0
        assert "a private wish" not in page.evaluate("JSON.stringify({...localStorage})")
        assert page.locator("[name=prompt]").input_value() == ""


def test_one_who_signs_in_in_another_tab_finds_nothing_in_this_one(browser: Browser, shared: Service) -> None:
    with visit(browser, shared.address) as seen:
        page = open_as_ann(seen)
        send(page, "left open.png")
        page.evaluate(REMEMBER)
        seen.context.add_cookies([{"name": COOKIE_NAME, "value": session_of(shared, BEN), "url": shared.address}])
        page.wait_for_function("() => !window.sameLoad && document.body.dataset.state === 'started'")
        assert page.locator(".card, .tile").count() == 0
