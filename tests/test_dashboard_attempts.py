"""Two attempts at one photo beside each other, "Restore again" that answers where it is pressed, and the keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.main import STATIC_FOLDER
from tests import browser as browsing
from tests.browser import PHONE, Eyes, Service, as_file, drop, faced_service, photo, visit
from tests.dashboard_texts import catalog

STRIP_SECONDS = 0.1
TABLE = (
    (STATIC_FOLDER / "js" / "shortcuts.js").read_text(encoding="utf-8").split("SHORTCUTS = [", 1)[1].split("\n];", 1)[0]
)


@pytest.fixture(scope="module")
def faced(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("attempts"), STRIP_SECONDS) as running:
        yield running


def open_comparison(page: Page, name: str) -> None:
    drop(page, as_file(name, photo(72, 54)))
    page.click("#restore")
    page.get_by_role("button", name=f"Compare {name} before and after").first.click()
    expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()


def test_an_attempt_more_is_answered_at_its_button_and_both_are_compared(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        open_comparison(page, "twice.png")
        answer = page.locator("#viewer-answer")
        expect(page.locator("#compare-choice")).to_be_hidden()
        page.locator("#scale").evaluate(
            "field => { field.value = 2; field.dispatchEvent(new Event('input', { bubbles: true })); }"
        )
        page.click("#viewer-again")
        expect(answer).to_contain_text(re.compile("Asking for it|Restored again: "))
        expect(answer).to_contain_text("Restored again.")
        eyes.look("attempts-1-answer")
        answer.get_by_role("button", name="Compare both").click()
        left, right = page.locator("#compare-left"), page.locator("#compare-right")
        expect(page.locator("#compare-choice")).to_be_visible()
        assert [words[:1] for words in right.locator("option").all_text_contents()] == ["1", "2"]
        assert right.evaluate("field => field.selectedOptions[0].text").startswith("2: Fast · 2×")
        assert left.evaluate("field => field.selectedOptions[0].text").startswith("1: Fast · 4×")
        expect(page.locator(".side-before .side-tag")).to_contain_text("1: Fast · 4×")
        expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()
        assert sides(page) == [[288, 216], [144, 108]]
        expect(page.locator("#facts")).to_contain_text("2× a side")
        expect(page.locator(".handle")).to_have_attribute(
            "aria-valuetext", re.compile("^50 % 1: Fast · 4×.*2: Fast · 2×")
        )
        eyes.look("attempts-2-both")
        right.select_option(index=0)
        expect(page.locator(".side-before .side-tag")).to_contain_text("2: Fast")
        expect(page.locator("#facts")).to_contain_text("4× a side")
        left.select_option(label="Original")
        expect(page.locator(".side-before .side-tag")).to_have_text("Before")
        expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()
        assert sides(page) == [[72, 54], [288, 216]]
        page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        eyes.look("attempts-3-phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert eyes.found == [], "\n".join(eyes.found)


def sides(page: Page) -> list[list[int]]:
    """The size of the picture on each side."""
    found: list[list[int]] = page.evaluate(
        "[...document.querySelectorAll('.side img')].map((image) => [image.naturalWidth, image.naturalHeight])"
    )
    return found


def test_a_refused_attempt_says_why_at_its_button(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        open_comparison(page, "refused.png")
        browsing.forget_jobs(faced)  # as from another page: this one does not know of it
        page.click("#viewer-again")
        expect(page.locator("#viewer-answer")).to_contain_text("There is no such job")
        expect(page.locator("#viewer-answer")).to_have_attribute("data-tone", "bad")
        expect(page.locator("#message")).to_be_hidden()
        expect(page.locator("#viewer #announcer")).to_contain_text("There is no such job")  # none is heard from behind


def test_keys_work_wherever_the_focus_is_and_the_same_table_shows_them(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        open_comparison(page, "keys.png")
        for place in ("#viewer-download", "#mode-slider", ".viewer-side", "#viewer-close", ".stage"):
            page.locator(place).focus()
            for key, zoom in (("4", "400 %"), ("1", "100 %"), ("+", "125 %"), ("-", "100 %")):
                page.keyboard.press(key)
                expect(page.locator("#zoom-value")).to_have_text(zoom)
            page.keyboard.press("0")
            expect(page.locator("#zoom-fit")).to_have_attribute("aria-pressed", "true")
            page.keyboard.press("Home")
            if place == ".viewer-side":
                continue  # it may scroll
            page.keyboard.press("ArrowRight")
            expect(page.locator(".handle")).to_have_attribute("aria-valuenow", "1")
        page.locator("#zoom-fit").focus()
        page.keyboard.down("b")
        expect(page.locator(".stage")).to_have_attribute("data-held", "true")
        page.keyboard.up("b")
        expect(page.locator(".stage")).to_have_attribute("data-held", "false")
        page.keyboard.press("m")
        page.keyboard.press("m")
        expect(page.locator("#mode-hold")).to_have_attribute("aria-pressed", "true")
        held_at_every_zoom(page)

        page.keyboard.press("?")
        rows = page.locator("#shortcuts-list dt")
        words = re.findall(r'words: "(shortcut\.\w+)"', TABLE)
        assert page.locator("#shortcuts-list dd").all_text_contents() == [catalog("en")[key] for key in words]
        assert rows.first.inner_text() == "← → ↑ ↓"
        eyes.look("keys-1-dialog")
        page.locator("#shortcuts-on").uncheck()
        page.keyboard.press("Escape")
        expect(page.locator("#shortcuts")).to_be_hidden()
        expect(page.locator("#viewer")).to_be_visible()
        page.keyboard.press("4")
        page.keyboard.press("End")
        expect(page.locator("#zoom-fit")).to_have_attribute("aria-pressed", "true")
        page.click("#shortcuts-viewer")
        page.locator("#shortcuts-on").check()
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        expect(page.locator("#viewer")).to_be_hidden()
        page.evaluate("document.querySelector('main').append(document.createElement('textarea'))")
        page.locator("main > textarea").press_sequentially("what?")
        expect(page.locator("#shortcuts")).to_be_hidden()
        page.locator("#theme").focus()
        page.keyboard.press("?")
        expect(page.locator("#shortcuts")).to_be_visible()
        assert eyes.found == [], "\n".join(eyes.found)


def held_at_every_zoom(page: Page) -> None:
    """Pressing on the picture shows the one before, also where it is larger than the screen."""
    stage = page.locator(".stage").bounding_box()
    assert stage is not None
    for zoom in ("#zoom-fit", "#zoom-400"):
        page.click(zoom)
        page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
        page.mouse.down()
        expect(page.locator(".side-after")).to_be_hidden()
        page.mouse.up()
        expect(page.locator(".side-after")).to_be_visible()
    page.click("#zoom-fit")


def test_no_key_of_the_table_has_two_meanings() -> None:
    keys = [key.lower() for row in re.findall(r"keys: \[(.*?)\]", TABLE) for key in re.findall(r'"([^"]+)"', row)]
    assert len(keys) > 12
    assert len(keys) == len(set(keys))
