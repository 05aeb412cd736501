"""Sending from the dashboard: what a press means while photos wait for room, are on their way, or do not arrive."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from playwright.sync_api import Browser, FilePayload, Page, Request, Route, expect

from tests import browser as browsing
from tests.browser import Service, Visit, as_file, drop, faced_service, grave_findings, photo, visit
from tests.token_issuer import AUDIENCE, ISSUER, SECRET, claims

KEY = "0123456789abcdef0123456789abcdef"
SUBMIT = "**/api/v1/enhance/batch"
STATUS = "**/api/v1/status"
JOB = re.compile(r"/api/v1/jobs/[0-9a-f]{32}$")
# The answer to the first upload is lost on its way.
LOSE_AN_ANSWER = """
const send = XMLHttpRequest.prototype.send;
let lost = false;
XMLHttpRequest.prototype.send = function (body) {
  const { onload, onerror } = this;
  this.onload = (event) => {
    if (lost) return onload(event);
    lost = true;
    onerror(event);
  };
  send.call(this, body);
};
"""


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
    """What the page hears of the queue: full until `free()`."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked = 0
        page.route(STATUS, self._answer)

    def free(self) -> None:
        """From now on it hears the truth."""
        self.page.unroute_all(behavior="wait")

    def _answer(self, route: Route) -> None:
        self.asked += 1
        state = route.fetch().json()
        state["queue"]["completed"] += self.asked  # something has always changed
        state["queue"]["queued"] = state["queue"]["limit"]
        route.fulfill(json=state)


def held_submits(page: Page) -> list[Route]:
    """The submissions that the page makes from now on; each waits until it is continued."""
    held: list[Route] = []
    page.route(SUBMIT, lambda route: held.append(route))  # Playwright marks the function
    return held


def until_held(page: Page, held: list[Route], count: int) -> Route:
    until_true(page, lambda: len(held) >= count)
    return held[count - 1]


def until_true(page: Page, is_so: Callable[[], bool]) -> None:
    for _ in range(browsing.PATIENCE_MILLISECONDS // 50):
        if is_so():
            return
        page.wait_for_timeout(50)  # lets the browser's events come in
    raise AssertionError("it did not come so far")


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
        queue.free()
        expect(page.locator(".card[data-status=completed]")).to_have_count(3)
        assert first_job(page, faced)["options"]["scale"] == 2


def test_neither_a_lost_question_nor_a_broken_upload_ends_the_sending(browser: Browser, faced: Service) -> None:
    lost: list[str] = []

    def lose_status(route: Route) -> None:
        lost.append("status")
        route.abort()

    def break_two_uploads(route: Route) -> None:
        tries = len(submits(seen))
        if tries == 1:
            return route.abort()
        return route.fulfill(status=502, body="<html>Bad Gateway</html>") if tries == 2 else route.continue_()

    with visit(browser, faced.address) as seen:
        page = seen.open()
        page.route(STATUS, lose_status)
        page.route(SUBMIT, break_two_uploads)
        drop(page, small("one.jpg"), small("two.jpg", 1))
        page.click("#restore")
        expect(page.locator("#sending-words")).to_contain_text("cannot be reached")
        until_true(page, lambda: len(lost) > 1)
        page.unroute(STATUS)
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        expect(page.locator("#restore-answer")).to_be_hidden()
        assert len(submits(seen)) == 3


def test_estimates_rest_while_photos_are_sent(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        queue = Queue(seen.page)
        page = seen.open()
        drop(page, small("one.jpg"))
        until_true(page, lambda: len(seen.asked("size=40x30")) > 0)
        page.click("#restore")
        expect(page.locator("#sending-words")).to_contain_text("Waiting for room")
        known, asked = len(seen.asked("/estimate")), queue.asked
        until_true(page, lambda: queue.asked >= asked + 6)
        queue.free()
        assert len(seen.asked("/estimate")) <= known + 1


def test_a_batch_whose_answer_is_lost_is_taken_once_and_leaves_the_tray_before_it_is_shown(
    browser: Browser, faced: Service
) -> None:
    there = False

    def withhold(route: Route) -> None:
        return route.continue_() if there else route.fulfill(status=429, headers={"Retry-After": "1"}, json={})

    with visit(browser, faced.address) as seen:
        seen.context.add_init_script(LOSE_AN_ANSWER)
        page = seen.open()
        page.route(JOB, withhold)
        drop(page, small("one.jpg"), small("two.jpg", 1))
        page.click("#restore")
        expect(page.locator(".tile")).to_have_count(0)
        expect(page.locator("#sending")).to_be_hidden()
        assert page.locator(".card").count() == 0
        there = True
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        expect(page.locator(".card img[src^=blob]")).to_have_count(2)
        assert len({request.headers["idempotency-key"] for request in submits(seen)}) == 1
        assert len(submits(seen)) == 2
        assert len(page.request.get(f"{faced.address}/api/v1/jobs").json()["jobs"]) == 1


def test_what_is_changed_while_photos_wait_for_room_is_sent_as_it_then_stands(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        queue = Queue(seen.page)
        page = seen.open()
        drop(page, small("gone.jpg"), small("turned.jpg", 1))
        page.click("#restore")
        expect(page.locator("#sending-words")).to_contain_text("Waiting for room")
        page.get_by_role("button", name="Take gone.jpg out").click()
        page.get_by_role("button", name="Turn turned.jpg to the right").click()
        queue.free()
        expect(page.locator(".card[data-status=completed]")).to_have_count(1)
        assert names(page) == ["turned.jpg"]
        assert first_job(page, faced)["attempts"][0]["own_options"] == {"rotate": 90}


def test_photos_on_their_way_cannot_be_changed_and_the_sending_can_be_stopped(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        held = held_submits(page)
        drop(page, small("one.jpg"))
        page.click("#restore")
        until_held(page, held, 1)
        expect(page.locator(".tile[inert]")).to_have_count(1)
        assert grave_findings(page) == []
        page.locator("#sending-stop").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#restore-answer")).to_have_text("Stopped. What was not sent is still here.")
        expect(page.locator(".tile[inert]")).to_have_count(0)
        expect(page.locator("#restore")).to_be_focused()
        page.keyboard.press("Enter")
        until_held(page, held, 2).continue_()
        expect(page.locator(".card[data-status=completed]")).to_have_count(1)
        assert len({request.headers["idempotency-key"] for request in submits(seen)}) == 1


def test_a_file_that_was_changed_after_it_was_chosen_is_named_and_the_others_are_sent(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    paths = [tmp_path / "changed.jpg", tmp_path / "same.jpg"]
    for seed, path in enumerate(paths):
        path.write_bytes(photo(40, 30, seed=seed))
    with visit(browser, faced.address) as seen:
        page = seen.open()
        page.set_input_files("#choose-files", paths)
        expect(page.locator(".thumb[data-ready]")).to_have_count(2)
        paths[0].write_bytes(photo(50, 30))
        os.utime(paths[0], (1_000_000_000, 1_000_000_000))
        page.click("#restore")
        expect(page.locator("#refused-list li")).to_have_text(
            "changed.jpg It was changed, moved or taken away after it was chosen; add it again."
        )
        expect(page.locator(".card[data-status=completed]")).to_have_count(1)
        assert names(page) == ["same.jpg"]


def test_with_a_share_of_the_queue_nothing_is_sent_before_there_is_room_in_it(browser: Browser, tmp_path: Path) -> None:
    shares = {"queue_limit_per_owner": 3, "jwt_secret": SECRET, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    with (
        faced_service(tmp_path / "service", 0.5, KEY, **shares) as shared,
        visit(browser, shared.address) as seen,
    ):
        page, answers = seen.page, list[int]()
        page.on("response", lambda answer: answers.append(answer.status) if "/enhance" in answer.url else None)
        page.goto(shared.address)
        page.fill("#signin-key", jwt.encode(claims("kay"), SECRET, "HS256"))
        page.keyboard.press("Enter")
        expect(page.locator("#signin")).to_be_hidden()
        drop(page, *[small(f"{number}.jpg", number) for number in range(7)])
        page.click("#restore")
        expect(page.locator("#sending-words")).to_contain_text("of your photos")
        expect(page.locator(".card")).to_have_count(7)
        expect(page.locator(".job")).to_have_count(3)
        assert answers == [202, 202, 202]
