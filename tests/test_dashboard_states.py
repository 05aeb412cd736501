"""Every state of the dashboard under the eyes of axe, light and dark; no serious or critical finding is allowed.

The states are those of the real service around a stand-in backend that can be held; the sign-in box is looked at in
`test_dashboard_flow`, where a key is set. A picture of each state is written (see `browser.shoot`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.main import STATIC_FOLDER
from tests import browser as browsing
from tests.browser import PHONE, Eyes, Service, as_file, drop, faced_service, photo, visit

SAMPLE = (STATIC_FOLDER / "sample.jpg").read_bytes()
STRIP_SECONDS = 0.5  # a photo has four: the state of work lasts long enough to be looked at
MANY = 24
FAIL = """
async () => {
  const form = new FormData();
  const bytes = await (await fetch('sample.jpg')).blob();
  form.append('files', bytes, 'will-fail.jpg');
  form.append('prompt', 'fail');
  await fetch('/api/v1/enhance/batch', { method: 'POST', body: form });
}
"""

# As another client would: the page is not told of this job.
SEND_FOUR = """
async () => {
  const form = new FormData();
  const bytes = await (await fetch('sample.jpg')).blob();
  for (const number of [1, 2, 3, 4]) form.append('files', bytes, `other ${number}.jpg`);
  await fetch('/api/v1/enhance/batch', { method: 'POST', body: form });
}
"""
CHIP_MILLISECONDS = 4000  # it is true within a second; a test machine may be busy, but not for a whole pause of ten


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("states"), STRIP_SECONDS) as running:
        yield running


@pytest.fixture
def faced(holding: Service) -> Service:
    browsing.forget_jobs(holding)
    return holding


def test_axe_finds_nothing_grave_in_any_state(browser: Browser, faced: Service, tmp_path: Path) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        eyes.look("state-1-empty")
        page.click("#service-chip")
        eyes.look("state-2-service")
        page.click("#service-chip")
        drop(page, *[as_file(f"cat {n}.jpg", SAMPLE) for n in range(MANY)], as_file("letter.txt", b"no"))
        expect(page.locator(".tile")).to_have_count(MANY)
        page.click(".more summary")
        eyes.look("state-3-tray")
        page.click("#restore")
        expect(page.locator(".card[data-status=processing]").first).to_be_visible()
        eyes.look("state-4-working")
        expect(page.locator("#service-word")).to_have_text("Restoring")
        expect(page.locator("#service-waiting")).to_have_text(re.compile(r"^\d+ photos waiting$"))
        page.get_by_role("button", name=f"Cancel: {MANY} photos").click()
        expect(page.locator(".card[data-status=cancelled]").first).to_be_visible()
        page.evaluate(FAIL)
        drop(page, as_file("faces.jpg", SAMPLE))
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]").last).to_be_visible()
        page.reload()
        expect(page.locator(".card[data-status=failed]")).to_be_visible()
        eyes.look("state-5-ended")
        page.get_by_role("button", name="Compare faces.jpg before and after").click()
        expect(page.locator(".face")).to_have_count(3)
        expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()
        eyes.look("state-6-compare")
        page.click("#mode-side")
        eyes.look("state-7-side-by-side")
        assert eyes.found == [], "\n".join(eyes.found)


def test_the_chip_follows_what_others_send_and_a_waiting_job_says_how_many_are_ahead(
    browser: Browser, faced: Service
) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        with page.expect_response("**/api/v1/status"):
            pass  # the next look is a whole pause away
        page.evaluate(SEND_FOUR)
        expect(page.locator("#service-word")).to_have_text("Restoring", timeout=CHIP_MILLISECONDS)
        expect(page.locator("#service-waiting")).to_have_text("3 photos waiting", timeout=CHIP_MILLISECONDS)
        drop(page, as_file("own.jpg", SAMPLE))
        page.click("#restore")
        expect(page.locator(".job-state").first).to_have_text(
            re.compile(r"^\d photos? ahead, (about \d+ s|longer than expected)$")
        )
        expect(page.locator(".job-time").first).to_have_text("")


COUNTDOWN = """
async (looks) => {
  const { RemainingTime } = await import('/js/estimate.js');
  const remaining = new RemainingTime();
  const job = { job_id: 'one', status: 'processing' };
  return looks.map(([now, seconds_left, progress]) => remaining.words({ ...job, seconds_left, progress }, now));
}
"""


def test_a_countdown_says_that_it_was_wrong_only_when_it_was(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        words = page.evaluate(
            COUNTDOWN, [[0, 0.8, 0.1], [0.4, 0.8, 0.5], [0.7, 0.8, 0.95], [1.7, 0.8, 0.5], [2, 0.8, 0.5]]
        )
        assert words == ["about 1 s left"] * 2 + ["nearly done", "about 1 s left", "longer than expected"]
        words = page.evaluate(COUNTDOWN, [[0, 5, 0.1], [1, 9, 0.2], [9.5, 9, 0.6]])
        assert words == ["about 5 s left", "longer than expected, about 9 s left", "about 1 s left"]


def test_axe_finds_nothing_grave_on_a_phone_and_beside_the_notice(
    browser: Browser, restoring: Service, tmp_path: Path
) -> None:
    browsing.forget_jobs(restoring)
    with visit(browser, restoring.address, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        expect(page.locator("#notice p")).to_have_count(3)  # what works, faces, and what to do: each once
        expect(page.locator("#notice p").last).to_contain_text(
            "the files that are missing into the weights folder by hand"
        )
        expect(page.locator(".drop-purpose")).to_be_visible()
        eyes.look("state-8-phone-notice")
        page.click("#settings > summary")
        eyes.look("state-9-phone-settings")
        assert eyes.found == []


def test_the_page_can_be_used_with_the_keyboard_alone(browser: Browser, faced: Service) -> None:
    """From the first Tab to a comparison and back, with the focus where one expects it."""
    with visit(browser, faced.address) as seen:
        page = seen.open()
        page.keyboard.press("Tab")
        assert focused(page) == "Skip to the photos"
        page.keyboard.press("Enter")
        for _ in range(3):
            page.keyboard.press("Tab")
        assert focused(page) == "sample"
        page.keyboard.press("Enter")
        expect(page.locator(".tile")).to_have_count(1)
        page.locator("#restore").focus()
        page.keyboard.press("Enter")
        expect(page.locator(".card[data-status=completed]").first).to_be_visible()
        card = page.get_by_role("button", name="Compare sample.jpg before and after").first
        card.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#viewer")).to_be_visible()
        for _ in range(40):  # the focus never leaves the open comparison for the page behind it
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement === document.body || viewer.contains(document.activeElement)")
        page.locator("#viewer-close").focus()  # the last Tab may have led to the browser's own buttons
        page.keyboard.press("Escape")
        expect(page.locator("#viewer")).to_be_hidden()
        expect(card).to_be_focused()


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def test_a_picture_from_the_clipboard_and_a_folder_come_in(browser: Browser, faced: Service, tmp_path: Path) -> None:
    folder = tmp_path / "album" / "inner"
    folder.mkdir(parents=True)
    (folder / "deep.png").write_bytes(photo(20, 20, "PNG"))
    (folder.parent / "top.jpg").write_bytes(photo(20, 20))
    (folder.parent / "Thumbs.db").write_bytes(b"no photo, and nobody asked for it")
    with visit(browser, faced.address) as seen:
        page = seen.open()
        page.set_input_files("#choose-folder", folder.parent)
        expect(page.locator(".tile")).to_have_count(2)
        expect(page.locator("#refused")).to_be_hidden()
        page.evaluate("""async () => {
          const bytes = await (await fetch('sample.jpg')).blob();
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], 'image.png', { type: 'image/jpeg' }));
          document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true }));
        }""")
        expect(page.locator(".tile-name", has_text="pasted")).to_have_count(1)
        page.get_by_role("button", name="Take top.jpg out").click()
        expect(page.locator(".tile")).to_have_count(2)
