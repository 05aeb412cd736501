"""Batches in the dashboard: one photo cancelled or deleted, the rest again, everything as ZIP, time that runs out."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests import browser as browsing
from tests.browser import PHONE, Eyes, Service, as_file, drop, faced_service, photo, visit

STRIP_SECONDS = 0.2  # a photo has four: the last of a batch can be cancelled while the first is at work
RETENTION_SECONDS = 6
SMALL = photo(72, 54)  # without faces
HEAVY = photo(400, 300, "PNG")  # its result has more than a megabyte


# Measures the countdown with what it can say, and keeps every sentence that screen readers are told.
RECORD = """
() => {
  window.said = [];
  const left = document.querySelector('.job[data-many=true] .job-left');
  const region = document.getElementById('announcer');
  const spoken = left.textContent;
  window.widths = ['in 60 min', 'in 2 min', 'in 89 s', 'in 9 s', 'in 1 s'].map((words) => {
    left.textContent = words;
    return left.getBoundingClientRect().width;
  });
  left.textContent = spoken;
  new MutationObserver(() => region.textContent && window.said.push(region.textContent))
    .observe(region, { childList: true, characterData: true, subtree: true });
}
"""


@pytest.fixture(scope="module")
def holding(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("batches"), STRIP_SECONDS, keep_limit_mb_per_owner=1) as running:
        yield running


@pytest.fixture
def faced(holding: Service) -> Service:
    browsing.forget_jobs(holding)
    return holding


def send(page: Page, *names: str, data: bytes = SMALL) -> Locator:
    """Send photos as one job; gives that job on the page."""
    drop(page, *[as_file(name, data) for name in names])
    page.click("#restore")
    job = page.locator(".job", has_text=names[0]).first
    expect(job.locator(".card")).to_have_count(len(names))
    return job


def test_a_batch_cut_short_says_which_photos_are_missing_and_tries_them_again(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        send(page, "a.jpg", "b.jpg", "c.jpg")
        batch = page.locator(".job[data-many=true]")
        batch.get_by_role("button", name="Cancel c.jpg").click()
        expect(batch.locator(".card[data-status=cancelled] .card-name")).to_have_text("c.jpg")
        expect(batch.locator(".card[data-status=completed]")).to_have_count(2)
        expect(batch.locator(".job-state")).to_have_text("Cut short: 2 of 3 restored, 1 cancelled")
        expect(batch.locator(".job-missing")).to_have_text("Not restored: c.jpg")
        eyes.look("batch-1-cut-short")
        batch.get_by_role("button", name="Try the rest again: 3 photos").click()
        expect(batch.locator(".job-head .answer")).to_have_text("1 photo is restored again.")
        expect(page.locator(".job")).to_have_count(2)
        expect(batch.locator(".job-missing")).to_have_text("")
        expect(batch.get_by_role("button", name="Try the rest again")).to_have_count(0)
        delete = batch.get_by_role("button", name="Delete a.jpg")
        delete.focus()
        page.keyboard.press("Enter")
        expect(batch.locator(".card .answer").first).to_have_text("Press again to delete.")
        expect(batch.locator(".card")).to_have_count(3)
        eyes.look("batch-2-asked")
        expect(delete).not_to_have_attribute("data-asked", "true")  # nobody answered
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        expect(batch.locator(".card")).to_have_count(2)
        expect(batch.locator(".job-title")).to_contain_text("2 photos")
        expect(batch.get_by_role("button", name="Compare b.jpg before and after")).to_be_focused()
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
        eyes.look("batch-3-phone")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert eyes.found == [], "\n".join(eyes.found)


def test_everything_is_one_press_also_where_it_is_several_files(browser: Browser, faced: Service) -> None:
    def with_next(route: Route) -> None:
        """Say that there is more, as the service does after 200 results; both archives are its own."""
        answer = route.fetch()
        link = {"link": f'<{route.request.url.partition(faced.address)[2]}?again=1>; rel="next"'}
        route.fulfill(response=answer, headers={**answer.headers, **link})

    with visit(browser, faced.address) as seen:
        page = seen.open()
        send(page, "a.jpg", "b.jpg")
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        with page.expect_download() as whole:
            page.get_by_role("button", name="Download everything (ZIP)").click()
        assert names_in(whole.value.path()) == ["a.jpg", "b.jpg"]
        expect(page.locator("#everything-answer")).to_have_text("The download has begun.")
        page.route(re.compile(r"/api/v1/results$"), with_next)
        with page.expect_download(lambda download: "again=1" in download.url) as second:
            page.click("#everything")
        assert names_in(second.value.path()) == ["a.jpg", "b.jpg"]
        expect(page.locator("#everything-answer")).to_contain_text("Everything is in 2 files")
        assert page.locator("#everything-answer a").count() == 2
        page.unroute_all()
        browsing.forget_jobs(faced)  # as from another page: this one does not know of it
        page.click("#everything")
        expect(page.locator("#everything-answer")).to_contain_text("there is nothing to download")
        expect(page.locator("#everything-answer")).to_have_attribute("data-tone", "bad")


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert archive.testzip() is None
        return sorted(archive.namelist())


def test_a_job_is_kept_and_let_go_and_a_refusal_stands_beside_the_button(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        small = send(page, "small.jpg")
        small.get_by_role("button", name="Keep: small.jpg").click()
        expect(small.locator(".job-until")).to_contain_text("kept until you delete it")
        expect(small.locator(".job-head .answer")).to_contain_text("Kept.")
        expect(small.get_by_role("button", name="Keep no longer: small.jpg")).to_be_focused()
        heavy = send(page, "heavy.png", data=HEAVY)
        heavy.get_by_role("button", name="Keep: heavy.png").click()
        refused = heavy.locator(".job-head .answer")
        expect(refused).to_contain_text("MB would be kept, and 1 MB may be")
        expect(refused).to_have_attribute("data-tone", "bad")
        expect(page.locator("#message")).to_be_hidden()
        eyes.look("keep-1-refused")
        small.get_by_role("button", name="Keep no longer: small.jpg").click()
        expect(small.locator(".job-until")).to_contain_text(re.compile(r"deleted at .*, in \d+ min"))
        page.reload()
        expect(page.get_by_role("button", name="Keep: ")).to_have_count(2)
        assert eyes.found == [], "\n".join(eyes.found)


def test_time_runs_out_with_the_page_open(browser: Browser, tmp_path: Path) -> None:
    short = {"retention_minutes": RETENTION_SECONDS / 60, "janitor_interval_minutes": 0.5 / 60}
    with (
        faced_service(tmp_path / "short", 0.01, "", **short) as brief,
        visit(browser, brief.address) as seen,
    ):
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        kept = send(page, "kept.jpg")
        kept.get_by_role("button", name="Keep: ").click()
        expect(kept.locator(".job-until")).to_contain_text("kept")
        lost = send(page, "lost.jpg", "lost too.jpg")
        left = lost.locator(".job-left")
        expect(left).to_have_text(re.compile(r"^in \d s$"))
        page.evaluate(RECORD)
        page.get_by_role("button", name="Compare lost.jpg before and after").click()
        expect(page.locator("#viewer-gone")).to_be_hidden()
        expect(page.locator("#viewer-gone")).to_be_visible()
        expect(page.locator("#viewer-download")).to_be_hidden()
        expect(page.locator("#viewer-again")).to_be_hidden()
        eyes.look("expiry-1-viewer")
        page.keyboard.press("Escape")
        expect(lost.locator(".job-state")).to_have_text("Deleted")
        expect(lost.locator(".card[data-status=gone]")).to_have_count(2)
        expect(lost.locator(".card-open").first).to_be_disabled()
        assert lost.locator("a").count() == 0
        assert [one.inner_text() for one in lost.locator("button:enabled").all()] == ["Take off this page"]
        expect(kept.locator(".card[data-status=completed]")).to_have_count(1)
        eyes.look("expiry-2-gone")
        lost.get_by_role("button", name="Take off this page").click()
        expect(page.locator(".job")).to_have_count(1)
        said, widths = page.evaluate("[window.said, window.widths]")
        assert len(set(widths)) == 1, "nothing moves while it counts"
        assert len([words for words in said if "will be deleted" in words]) <= 1, "nobody hears it count"
        assert eyes.found == [], "\n".join(eyes.found)


def test_older_jobs_are_reached_also_when_the_last_that_is_shown_was_deleted(browser: Browser, faced: Service) -> None:
    def two_a_page(route: Route) -> None:
        route.continue_(url=route.request.url.replace("limit=20", "limit=2"))

    def delete(name: str) -> None:
        page.get_by_role("button", name=f"Delete now: {name}").click()
        page.get_by_role("button", name=f"Really delete? {name}").click()
        expect(page.locator(".job", has_text=name)).to_have_count(0)

    names = ["oldest.png", "older.png", "newer.png", "newest.png"]
    with visit(browser, faced.address) as seen:
        page, cards = seen.open(), seen.page.locator(".card")
        for name in names:
            send(page, name)
        expect(page.locator(".card[data-status=completed]")).to_have_count(4)
        page.route("**/api/v1/jobs?limit=20*", two_a_page)
        page.reload()
        expect(cards).to_have_count(2)
        delete("newer.png")
        page.click("#older")
        expect(cards).to_have_count(3)
        expect(page.locator(".card-name")).to_have_text(["newest.png", "older.png", "oldest.png"])
        expect(page.locator("#older-answer")).to_be_hidden()
        page.reload()
        expect(cards).to_have_count(2)
        delete("older.png")
        delete("newest.png")
        page.click("#older")  # though nothing else is shown
        expect(page.locator(".card-name")).to_have_text(["oldest.png"])
        delete("oldest.png")
        expect(page.locator("#gallery")).to_be_hidden()
