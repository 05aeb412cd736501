"""Before photos are sent: a preview in each quality, turning, sizes of results, and a model in place of a quality."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from app.options import output_size
from tests import browser as browsing
from tests.browser import PHONE, Service, as_file, drop, grave_findings, photo, restoring_service, shoot, visit
from tests.command_line import MODEL

LARGE = "RealESRGAN_x4plus"
# Counts the pictures of the page that are open.
COUNT_ADDRESSES = """
window.open_addresses = new Set();
for (const [name, keep] of [['createObjectURL', true], ['revokeObjectURL', false]]) {
  const real = URL[name].bind(URL);
  URL[name] = (given) => {
    const found = real(given);
    if (keep) window.open_addresses.add(found); else window.open_addresses.delete(given);
    return found;
  };
}
"""
SIZES = """
async (rows) => {
  const { resultSize } = await import('/js/result_size.js');
  return rows.map(([width, height, scale]) => Object.values(resultSize({ width, height }, scale)));
}
"""


ESTIMATE_OF_MANY = """
async () => {
  const { PlannedTime } = await import('/js/estimate.js');
  const planned = new PlannedTime();
  const told = new Promise((resolve) => planned.addEventListener('change', resolve));
  planned.ask({}, [{ options: {}, photos: Array(51).fill({ width: 9, height: 9 }) }]);
  await told;
  return planned.seconds;
}
"""
ESTIMATE = {"seconds_ahead": 0, "loading_seconds": 0, "measured": True, "model": MODEL, "qualities": [], "results": []}


@pytest.fixture(scope="module")
def three_qualities(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    """The real service with small random networks in the place of all that the qualities mean."""
    import torch

    from benchmarks.random_weights import random_state

    folder = tmp_path_factory.mktemp("three") / "service"
    weights = folder.parent / "weights"
    weights.mkdir()
    whole = random_state("realesr-animevideov3")
    ends = {"body.0": "body.0", "body.1": "body.1", "body.34": "body.2"}  # without the 16 convolutions in between
    state = {
        name.replace(old, new): part
        for old, new in ends.items()
        for name, part in whole.items()
        if name.rpartition(".")[0] == old
    }
    for model in (MODEL, LARGE):
        torch.save({"params": state}, weights / f"{model}.pth")
    with restoring_service(folder, WEIGHTS_FOLDER=str(weights)) as running:
        yield running


@pytest.fixture
def three(three_qualities: Service) -> Service:
    browsing.forget_jobs(three_qualities)
    return three_qualities


def cornered() -> bytes:
    """A PNG of 90 x 60 pixels, blue but for a red corner at the top left."""
    image = Image.new("RGB", (90, 60), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 30, 30))
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def has_red(page: Page, selector: str, x: float, y: float) -> bool:
    """Whether the canvas is red at this place, in fractions of its sides."""
    found = page.locator(selector).evaluate(
        "(canvas, [x, y]) => [...canvas.getContext('2d')"
        ".getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data]",
        [x, y],
    )
    return bool(found[0] > 200 > 60 > found[2])


def ready(page: Page, count: int) -> None:
    expect(page.locator(".patch[data-state=ready]")).to_have_count(count)


def test_a_preview_shows_each_quality_beside_the_untouched_part_and_one_is_chosen(
    browser: Browser, three: Service, tmp_path: Path
) -> None:
    with visit(browser, three.address) as seen:
        seen.page.add_init_script(COUNT_ADDRESSES)
        page = seen.open()
        expect(page.locator("#preview-open")).to_be_hidden()
        drop(page, as_file("large.jpg", photo(320, 280)))
        expect(page.locator(".tile-note")).to_contain_text("320\u00a0×\u00a0280 to 1280\u00a0×\u00a01120")
        page.click("#preview-open")
        ready(page, 4)
        assert [row.get_attribute("data-key") for row in page.locator(".patch").all()] == [
            "original",
            "fast",
            "balanced",
            "best",
        ]
        boxes = [image.bounding_box() for image in page.locator(".patch img").all()]
        assert len({(box["width"], box["height"]) for box in boxes if box}) == 1, "one zoom for all"
        expect(page.locator("#preview-state")).to_contain_text("most detail")
        expect(page.locator(".patch[data-key=balanced] .patch-note")).to_have_text(LARGE)
        expect(page.locator(".place-marker")).to_be_visible()
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            shoot(page, f"40-preview-{theme}", tmp_path)
            assert grave_findings(page) == []
        zoomed = page.locator(".patch img").first.bounding_box()
        page.click("#preview-fit")
        expect(page.locator("#preview-fit")).to_have_attribute("aria-pressed", "true")
        fitted = page.locator(".patch img").first.bounding_box()
        assert zoomed is not None
        assert fitted is not None
        assert fitted["width"] < zoomed["width"]
        page.locator("#preview-photo").click(position={"x": 3, "y": 3})
        expect(page.locator("#preview-state")).to_contain_text("you chose")
        ready(page, 4)
        marker = page.locator(".place-marker").evaluate("(one) => [one.style.left, one.style.top]")
        assert marker == ["0%", "0%"]
        page.locator("#preview-photo").focus()
        page.keyboard.press("ArrowRight")  # half a part
        page.keyboard.press("Enter")
        expect(page.locator(".place-marker")).to_have_attribute("style", re.compile("left: 20%"))
        ready(page, 4)
        expect(page.locator("#preview-state")).to_contain_text("you chose")
        assert page.evaluate("window.open_addresses.size") == 4
        page.get_by_role("button", name="Use Best").click()
        expect(page.locator("#preview")).to_be_hidden()
        expect(page.locator("input[name=quality][value=best]")).to_be_checked()
        expect(page.locator("#announcer")).to_have_text("Best is chosen.")
        assert page.evaluate("window.open_addresses.size") == 0


def test_a_preview_is_cancelled_by_closing_and_says_in_words_what_stands_in_its_way(
    browser: Browser, three: Service, tmp_path: Path
) -> None:
    busy = json.dumps({"status": 503, "code": "preview_busy", "detail": "The service is busy; ask again."})
    busy_answer = {"status": 503, "content_type": "application/problem+json", "body": busy}
    with visit(browser, three.address, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        drop(page, as_file("one.jpg", photo(320, 280)), as_file("scan.tif", photo(300, 280, "TIFF")))
        held: list[Route] = []
        page.route("**/api/v1/preview", lambda route: held.append(route))
        page.get_by_role("button", name="Preview of one.jpg").click()
        expect(page.locator("#preview-state")).to_contain_text("Sending the photo")
        with page.expect_event("requestfailed", lambda request: "preview" in request.url):  # closing ends it
            page.click("#preview-close")
        expect(page.locator("#preview")).to_be_hidden()
        page.unroute("**/api/v1/preview")
        page.route("**/api/v1/preview", lambda route: route.fulfill(**busy_answer))
        page.get_by_role("button", name="Preview of one.jpg").click()
        expect(page.locator("#preview-state")).to_have_text("The service is busy; ask again.")
        assert grave_findings(page) == []
        page.unroute("**/api/v1/preview")
        page.click("#preview-again")
        ready(page, 4)
        expect(page.locator("#preview-again")).to_be_hidden()
        shoot(page, "41-preview-phone", tmp_path)
        page.click("#preview-close")
        page.get_by_role("button", name="Preview of scan.tif").click()
        expect(page.locator("#preview-blind")).to_be_visible()  # no browser opens a TIFF; the service does
        ready(page, 4)


def test_a_preview_is_offered_before_a_long_wait_and_waits_for_the_one_before(browser: Browser, three: Service) -> None:
    """One at a time: the page asks again by itself when another part is wanted while the one before is still made."""
    late = json.dumps({"status": 429, "code": "too_many_previews", "detail": "Another preview is being made."})
    answers, seconds = iter([True]), [19.0]
    with visit(browser, three.address) as seen:
        seen.page.route("**/api/v1/estimate?*", lambda route: route.fulfill(json=ESTIMATE | {"seconds": seconds[0]}))
        page = seen.open()
        drop(page, as_file("one.jpg", photo(300, 280)))
        expect(page.locator("#restore-time")).to_have_text("about 19 s")
        expect(page.locator("#preview-offer")).to_be_hidden()
        seconds[0] = 35.0
        page.locator("#scale").fill("3")
        expect(page.locator("#preview-offer")).to_be_visible()
        assert page.evaluate(ESTIMATE_OF_MANY) == 70, "more photos than one question takes"

        def answer(route: Route) -> None:
            if next(answers, False):
                headers = {"Retry-After": "1", "Content-Type": "application/problem+json"}
                return route.fulfill(status=429, headers=headers, body=late)
            return route.continue_()

        page.route("**/api/v1/preview", answer)
        page.click("#preview-open")
        expect(page.locator("#preview-state")).to_contain_text("still being finished")
        ready(page, 4)


def test_photos_are_turned_before_they_are_sent_and_sizes_follow(
    browser: Browser, three: Service, tmp_path: Path
) -> None:
    with visit(browser, three.address) as seen:
        page = seen.open()
        rows = [(3, 5, 1.5), (101, 103, 1.5), (1, 1, 1.0), (960, 640, 4.0), (333, 77, 2.5)]
        assert page.evaluate(SIZES, rows) == [list(output_size(*row)) for row in rows]
        drop(page, as_file("left.png", cornered()), as_file("as it is.png", cornered()))
        expect(page.locator(".thumb[data-ready]")).to_have_count(2)
        page.locator("#scale").fill("2.5")
        note = page.locator(".tile-note").first
        expect(note).to_contain_text("90\u00a0×\u00a060 to 225\u00a0×\u00a0150")
        thumb = ".tile:first-child .thumb"
        assert has_red(page, thumb, 0.1, 0.1)
        page.get_by_role("button", name="Turn left.png to the right").click()
        expect(note).to_contain_text("60\u00a0×\u00a090 to 150\u00a0×\u00a0225")
        assert has_red(page, thumb, 0.9, 0.1)
        for _ in range(2):
            page.get_by_role("button", name="Turn left.png to the left").click()
        assert has_red(page, thumb, 0.1, 0.9)
        assert grave_findings(page) == []
        shoot(page, "42-turned-light", tmp_path)
        header = photo(8, 8, "PNG")
        wide = header[:16] + (9_000).to_bytes(4, "big") + (40).to_bytes(4, "big") + header[24:]
        drop(page, as_file("wide.png", wide))
        page.select_option("#format", "webp")
        expect(page.locator(".too-large .tile-note")).to_contain_text("more than WEBP holds; choose 1.5× or less")
        page.locator("#scale").fill("1.5")
        expect(page.locator(".too-large")).to_have_count(0)
        page.get_by_role("button", name="Take wide.png out").click()
        page.select_option("#format", "auto")
        page.locator("#scale").fill("2")
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        words = [card.inner_text().replace("\u00a0", " ") for card in page.locator(".card").all()]
        assert "120 × 180" in words[0], "one job, and each photo in it as it was turned"
        assert "180 × 120" in words[1]
        page.get_by_role("button", name="Compare left.png").click()
        expect(page.locator("#facts")).to_contain_text("60\u00a0×\u00a090")
        page.click("#viewer-again")
        expect(page.locator(".card[data-status=completed]")).to_have_count(3)
        expect(page.locator(".card").first).to_contain_text("120\u00a0×\u00a0180")  # turned as before


def test_a_model_by_name_stands_in_place_of_a_quality_and_never_beside_it(
    browser: Browser, three: Service, tmp_path: Path
) -> None:
    with visit(browser, three.address) as seen:
        page = seen.open()
        checked = page.locator("input[name=quality]:checked")
        expect(page.locator("#model-choice")).to_be_hidden()
        page.check("input[name=quality][value=best]")
        page.click(".more summary")
        page.select_option("#model", MODEL)
        expect(page.locator("#model-choice")).to_be_visible()
        expect(checked).to_have_value("")
        expect(page.locator("#model-choice-name")).to_have_text(MODEL)
        page.locator("#model-choice").scroll_into_view_if_needed()
        shoot(page, "43-model-choice-light", tmp_path)
        assert grave_findings(page) == []
        page.reload()
        expect(page.locator("#model-choice-name")).to_have_text(MODEL)
        drop(page, as_file("one.png", photo(300, 280, "PNG")))
        page.click("#preview-open")
        ready(page, 5)
        assert page.locator(".patch").nth(1).get_attribute("data-key") == "model"
        page.get_by_role("button", name=f"Keep {MODEL}").click()
        expect(page.locator("#model-choice")).to_be_visible()
        page.click("#restore")
        expect(page.locator(".job-title").first).to_contain_text(MODEL)
        page.check("input[name=quality][value=fast]")
        expect(page.locator("#model-choice")).to_be_hidden()
        expect(page.locator("#model")).to_have_value("")
        if page.locator("#model").is_hidden():
            page.click(".more summary")
        page.select_option("#model", MODEL)
        page.select_option("#model", "")
        expect(checked).to_have_value("fast")  # what it was before


def test_a_quality_chosen_in_a_preview_is_that_photos_own_where_it_has_settings_of_its_own(
    browser: Browser, three: Service
) -> None:
    with visit(browser, three.address) as seen:
        page = seen.open()
        drop(page, as_file("own.png", photo(60, 40, "PNG")), as_file("other.png", photo(60, 40, "PNG", 1)))
        page.get_by_role("button", name="Settings for own.png only").click()
        page.locator("#scale").fill("2")
        page.click("#photo-settings-save")
        expect(page.locator(".tile-note").first).to_contain_text("to 120\u00a0×\u00a080")
        expect(page.locator(".tile-note").last).to_contain_text("to 240\u00a0×\u00a0160")
        page.get_by_role("button", name="Turn own.png to the right").click()
        page.get_by_role("button", name="Preview of own.png").click()
        ready(page, 4)
        page.get_by_role("button", name="Use Best").click()
        expect(page.locator("input[name=quality]:checked")).to_have_value("fast")
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(2)
        job = page.request.get(f"{three.address}/api/v1/jobs").json()["jobs"][0]
        used = {row["original_filename"]: {**job["options"], **row["own_options"]} for row in job["attempts"]}
        found = {name: [options[key] for key in ("quality", "scale", "rotate")] for name, options in used.items()}
        assert found == {"own.png": ["best", 2, 90], "other.png": ["fast", 4, 0]}
        expect(page.locator(".card").filter(has_text="own.png")).to_contain_text("80\u00a0×\u00a0120")
