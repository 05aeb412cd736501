"""Pictures of the cards in a real browser: which is shown where they come late, and what becomes of one that fails."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from app.main import STATIC_FOLDER
from tests import browser as browsing
from tests.browser import Service, faced_service, visit
from tests.harness import until

SAMPLE = (STATIC_FOLDER / "sample.jpg").read_bytes()
RESULT_WIDTH = 400  # of the picture that a card shows of a result; the original itself has 200
SHOWN = ".card-picture:not(.arriving)"
FRAMES = "async (count) => { while (count--) await new Promise(requestAnimationFrame); }"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("pictures"), 0.01) as running:
        yield running


@pytest.fixture
def faced(slow: Service) -> Service:
    browsing.forget_jobs(slow)
    return slow


def restore_elsewhere(service: Service) -> None:
    """A photo that another page sent, so that this one has no small picture of it."""
    boundary = "of-this-test"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="cat.jpg"\r\n\r\n'
    request = urllib.request.Request(
        f"{service.address}/api/v1/enhance",
        head.encode() + SAMPLE + f"\r\n--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        address = f"{service.address}/api/v1/jobs/{json.load(answer)['job_id']}"

    def is_done() -> bool:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return bool(json.load(answer)["status"] == "completed")

    until(is_done)


def as_if_at_work(route: Route) -> None:
    """The list of jobs as it was before they ended; the WebSocket then tells that they did."""
    found = route.fetch().json()
    for job in found["jobs"]:
        job.update(status="processing", progress=0.5)
        for attempt in job["attempts"]:
            attempt.update(status="processing", stage="upscaling", progress=0.5, result=None)
    route.fulfill(json=found)


class HeldWords:
    """What the service says to the page over a socket, kept until it is let through; later words pass at once."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] | None = []

    def hold(self, socket: WebSocketRoute) -> None:
        service = socket.connect_to_server()
        service.on_message(lambda word: self._say(lambda: socket.send(word)))
        service.on_close(lambda code, reason: self._say(lambda: socket.close(code=code, reason=reason)))

    def _say(self, word: Callable[[], None]) -> None:
        if self._waiting is None:
            word()
        else:
            self._waiting.append(word)

    def let_through(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for word in waiting:
            word()


def shown_width(page: Page) -> int:
    return int(page.locator(SHOWN).evaluate("image => image.naturalWidth"))


def test_an_original_that_comes_after_its_result_is_not_shown(browser: Browser, faced: Service) -> None:
    restore_elsewhere(faced)
    with visit(browser, faced.address) as seen:
        held: list[Route] = []
        words = HeldWords()  # of the service, that the job has ended
        seen.page.route("**/api/v1/jobs?*", as_if_at_work)
        seen.page.route_web_socket(re.compile(r"/api/v1/jobs/[0-9a-f]{32}/status$"), words.hold)
        seen.page.route("**/original?preview=true*", lambda route: held.append(route))
        with seen.page.expect_request("**/original?preview=true*"):
            page = seen.open()
        words.let_through()
        expect(page.locator(".card[data-status=completed]")).to_have_count(1)
        expect(page.locator(SHOWN)).to_have_count(1)
        assert shown_width(page) == RESULT_WIDTH
        assert len(held) == 1, "it was asked for while the photo was at work"
        with page.expect_request_finished(lambda request: "/original?preview=true" in request.url):
            held[0].continue_()
        page.evaluate(FRAMES, 20)
        assert shown_width(page) == RESULT_WIDTH
        assert page.locator(".card-picture").count() == 1


def test_a_picture_that_failed_is_asked_for_again(browser: Browser, faced: Service) -> None:
    restore_elsewhere(faced)
    with visit(browser, faced.address) as seen:
        statuses = iter([None, 500])

        def fail(route: Route) -> None:
            status = next(statuses)
            route.abort() if status is None else route.fulfill(status=status)

        seen.page.route("**/preview?*", fail, times=2)
        page = seen.open()
        expect(page.locator(".card[data-status=completed]")).to_have_count(1)
        expect(page.locator(SHOWN)).to_have_js_property("naturalWidth", RESULT_WIDTH)
        assert len(seen.asked("/preview?")) == 3


def test_a_picture_that_does_not_exist_is_asked_for_once(browser: Browser, faced: Service) -> None:
    restore_elsewhere(faced)
    with visit(browser, faced.address) as seen:
        seen.page.route("**/preview?*", lambda route: route.fulfill(status=404))
        with seen.page.expect_response("**/preview?*"):
            page = seen.open()
        page.evaluate(FRAMES, 100)  # longer than the first pause
        assert page.locator(SHOWN).count() == 0
        assert len(seen.asked("/preview?")) == 1
