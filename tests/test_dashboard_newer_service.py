"""What the dashboard shows for words that are newer than the page, as after an update under an open tab.

A real service runs behind it; between both, the browser's own interception replaces the words in HTTP answers and
WebSocket messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute, expect

from app.main import STATIC_FOLDER
from tests import browser as browsing
from tests.browser import Service, as_file, drop, faced_service, photo, shoot, visit

SAMPLE = (STATIC_FOLDER / "sample.jpg").read_bytes()
STRIP_SECONDS = 0.5  # a photo has four: long enough to be seen at work
UPLOAD_BYTES_PER_SECOND = 60_000
NEWER_WORDS = [
    (re.compile(r'("stage": ?)"\w+"'), r'\1"colour_matching"'),
    (re.compile(r'("reason": ?)"too_small"'), r'\1"looks_away"'),
    (re.compile(r'^(\{"status": ?)"(?:ready|busy)"'), r'\1"throttled"'),
]
# Keeps every sentence that stands under the tray while photos are sent.
RECORD = """
() => {
  window.sentences = [];
  const words = document.getElementById('sending-words');
  const keep = () => window.sentences.push(words.textContent);
  new MutationObserver(keep).observe(words, { childList: true, characterData: true, subtree: true });
}
"""


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("newer"), STRIP_SECONDS) as running:
        yield running


@pytest.fixture
def faced(holding: Service) -> Service:
    browsing.forget_jobs(holding)
    return holding


def newer(text: str) -> str:
    for pattern, replacement in NEWER_WORDS:
        text = pattern.sub(replacement, text)
    return text


def speak_newer_words(page: Page) -> None:
    """Put the interception between a page that is not loaded yet and its service."""

    def answer(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=newer(response.text()))

    def relay(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        server.on_message(lambda message: socket.send(newer(str(message))))

    page.route(re.compile(r"/api/v1/(status$|jobs\?|jobs/[0-9a-f]{32}(/faces)?$)"), answer)
    page.route_web_socket(re.compile(r"/api/v1/jobs/[0-9a-f]{32}/status$"), relay)


def test_newer_words_are_shown_in_plain_letters_and_break_nothing(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address) as seen:
        speak_newer_words(seen.page)
        page = seen.open()
        expect(page.locator("#service-word")).to_have_text("Throttled")
        drop(page, as_file("faces.jpg", SAMPLE))
        page.click("#restore")
        expect(page.locator(".card[data-status=processing] .card-words")).to_have_text("Colour matching")
        expect(page.locator(".job-state")).to_have_text(re.compile(r"^Colour matching · \d+ %$"))
        shoot(page, "newer-1-stage", tmp_path)
        expect(page.locator(".card[data-status=completed]")).to_be_visible()
        expect(page.locator(".job-state")).to_have_text("Restored")
        page.get_by_role("button", name="Compare faces.jpg before and after").click()
        expect(page.locator(".face")).to_have_count(3)
        expect(page.locator(".face-note")).to_have_text("looks away")
        shoot(page, "newer-2-reason", tmp_path)


def test_the_page_says_how_far_an_upload_is(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        network = seen.context.new_cdp_session(page)
        network.send("Network.enable")
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": UPLOAD_BYTES_PER_SECOND}
        network.send("Network.emulateNetworkConditions", slow)
        drop(page, *[as_file(f"{seed}.png", photo(200, 150, "PNG", seed)) for seed in range(2)])
        page.evaluate(RECORD)
        page.click("#restore")
        expect(page.locator(".card")).to_have_count(2)
        sentences = page.evaluate("window.sentences")
        assert "Sending…" in sentences
        assert [text for text in sentences if re.fullmatch(r"Sending 2 photos: \d+ %", text)], sentences
