"""Sending from the dashboard: what a press means while photos wait for room, are on their way, or do not arrive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect

from tests import browser as browsing
from tests.browser import Service, Visit, as_file, drop, faced_service, photo, visit

SUBMIT = "**/api/v1/enhance/batch"
STATUS = "**/api/v1/status"


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("sending"), 0.0, max_batch_size=2, max_output_megapixels=1) as running:
        yield running


@pytest.fixture
def faced(holding: Service) -> Service:
    browsing.forget_jobs(holding)
    return holding


def small(name: str, seed: int = 0) -> FilePayload:
    """A photo that fits the service at every scale."""
    return as_file(name, photo(40, 30, seed=seed))


class Queue:
    """What the page hears of the queue: full until `free`."""

    def __init__(self, page: Page) -> None:
        self.free = False
        page.route(STATUS, self._answer)

    def _answer(self, route: Route) -> None:
        state = route.fetch().json()
        if not self.free:
            state["queue"]["queued"] = state["queue"]["limit"]
        route.fulfill(json=state)


def held_submits(page: Page) -> list[Route]:
    """The submissions that the page makes from now on; each waits until it is continued."""
    held: list[Route] = []
    page.route(SUBMIT, lambda route: held.append(route))  # Playwright marks the function
    return held


def until_held(page: Page, held: list[Route], count: int) -> Route:
    for _ in range(browsing.PATIENCE_MILLISECONDS // 50):
        if len(held) >= count:
            return held[count - 1]
        page.wait_for_timeout(50)  # lets the browser's events come in
    raise AssertionError("nothing was sent")


def submits(seen: Visit) -> list[Request]:
    return [request for request in seen.asked("/enhance/batch") if request.method == "POST"]


def names(page: Page) -> list[str]:
    return page.locator(".card-name").all_inner_texts()


def first_job(page: Page, service: Service) -> dict[str, Any]:
    """The newest job as the service has it."""
    found: dict[str, Any] = page.request.get(f"{service.address}/api/v1/jobs").json()["jobs"][0]
    return found


def test_photos_dropped_while_others_are_sent_wait_for_a_press_of_their_own(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        held = held_submits(page)
        drop(page, small("chosen.jpg"))
        page.click("#restore")
        sent = until_held(page, held, 1)
        drop(page, small("late.jpg", 1))
        page.locator("#scale").fill("2")
        sent.continue_()
        expect(page.locator(".card[data-status=completed]")).to_have_count(1)
        expect(page.locator("#sending")).to_be_hidden()
        expect(page.locator(".tile-name")).to_have_text(["late.jpg"])
        assert len(submits(seen)) == 1
        page.click("#restore")
        until_held(page, held, 2).continue_()
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        assert first_job(page, faced)["options"]["scale"] == 2


def test_photos_are_sent_with_the_settings_of_the_press_also_where_later_ones_do_not_fit(
    browser: Browser, faced: Service
) -> None:
    with visit(browser, faced.address) as seen:
        queue = Queue(seen.page)
        page = seen.open()
        page.locator("#scale").fill("2")
        drop(page, *[as_file(f"{number}.jpg", photo(400, 300, seed=number)) for number in range(3)])
        page.click("#restore")
        expect(page.locator("#sending-words")).to_contain_text("Waiting for room")
        page.locator("#scale").fill("4")
        expect(page.locator(".tile.too-large")).to_have_count(3)
        queue.free = True
        expect(page.locator(".card[data-status=completed]")).to_have_count(3)
        assert first_job(page, faced)["options"]["scale"] == 2
