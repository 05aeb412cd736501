"""The dashboard's viewer on a result of more pixels than a browser should decode: true pixels, in little memory."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect

from app.images.pyramid import level_sizes
from tests.browser import PHONE, Service, as_file, drop, faced_service, shoot, visit

WIDTH, HEIGHT = 4200, 2000  # at scale 2 more than 32 megapixels
WORK_MILLISECONDS = 240_000
ANY_LARGE = re.compile("size=4096")
SIZES = [(1, 1), (1024, 1024), (1025, 3), (20_000, 20_000), (33_333, 777)]


@pytest.fixture(scope="module")
def faced(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("large"), 0.0) as running:
        yield running


def noise() -> bytes:
    """Squares of 4 pixels in all colours: at a lower resolution they would be a grey blur."""
    rows = np.random.default_rng(7).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rows.repeat(4, axis=0).repeat(4, axis=1)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def sharp(page: Page, level: int, side: str = "after") -> Locator:
    canvas = page.locator(f".side-{side} .tiles-canvas")
    expect(canvas).to_have_attribute("data-level", str(level))
    expect(canvas).to_have_attribute("data-sharp", "true")
    return canvas


def drawn(canvas: Locator) -> NDArray[np.uint8]:
    """(H, W, 4) uint8, what is on the canvas."""
    address: str = canvas.evaluate("(canvas) => canvas.toDataURL('image/png')")
    with Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])), formats=("PNG",)) as image:
        return np.asarray(image)


def corner(page: Page) -> tuple[int, int]:
    """The pixel of the picture that is drawn at the top left of the stage, at 100 %."""
    place = page.locator(".side-after .side-canvas").evaluate(
        "(side) => { const at = new DOMMatrix(getComputedStyle(side).transform); return [at.e, at.f]; }"
    )
    return round(-place[0]), round(-place[1])


def test_a_large_result_is_shown_at_its_true_pixels(browser: Browser, faced: Service, tmp_path: Path) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        sizes = page.evaluate(
            "async (all) => { const { levelSizes } = await import('/js/tile_grid.js');"
            " return all.map(([width, height]) => levelSizes(width, height)); }",
            SIZES,
        )
        assert [[tuple(level) for level in levels] for levels in sizes] == [level_sizes(*size) for size in SIZES]

        page.fill("#scale", "2")
        drop(page, as_file("large.jpg", noise()))
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(1, timeout=WORK_MILLISECONDS)
        held: list[Route] = []
        page.route("**/original?*", lambda route: held.append(route))  # that of a large photo may take long
        page.locator(".card-open").first.click()
        sharp(page, 3)  # an eighth of 8400 pixels fill the 1024 of the stage
        for route in held:
            route.continue_()
        page.unroute("**/original?*")
        expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()
        expect(page.locator(".side-after img")).to_have_css("opacity", "0")  # it would cost as much as the tiles
        expect(page.locator("#reduced")).to_be_hidden()
        page.click("#zoom-100")
        canvas = sharp(page, 0)
        sharp(page, 0, "before")
        shoot(page, "30-tiles-100-light", tmp_path)
        with Image.open(io.BytesIO(page.request.get(result_address(page)).body()), formats=("JPEG",)) as result:
            truth = np.asarray(result.convert("RGB"))
        x, y = corner(page)
        found = drawn(canvas)
        height, width = found.shape[:2]
        assert found[..., 3].min() == 255
        error = np.abs(found[..., :3].astype(int) - truth[y : y + height, x : x + width]).mean()
        assert error < 8, error

        page.locator(".stage").focus()
        for _ in range(40):
            page.keyboard.press("ArrowRight")
        for _ in range(60):
            page.keyboard.press("ArrowDown")
        canvas = sharp(page, 0)
        assert int(canvas.get_attribute("data-kept") or 0) <= 40
        page.click("#zoom-fit")
        sharp(page, 3)
        page.click("#viewer-close")
        assert canvas.evaluate("(canvas) => canvas.width") == 0


def result_address(page: Page) -> str:
    address = page.locator("#viewer-download").get_attribute("href")
    assert address is not None
    origin: str = page.evaluate("location.origin")
    return origin + address


def test_without_tiles_the_largest_rendition_is_shown_and_said(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address, viewport=PHONE, color_scheme="dark") as seen:
        page = seen.open()
        page.route("**/tile?*", lambda route: route.fulfill(status=404, body="{}"))
        page.locator(".card-open").first.click()
        expect(page.locator("#reduced")).to_have_text("Shown reduced; the download has all pixels.")
        page.click("#zoom-100")
        expect(page.locator(".side-after img")).to_have_attribute("src", ANY_LARGE)
        expect(page.locator(".side-before img")).to_have_attribute("src", ANY_LARGE)
        expect(page.locator(".side-after img")).to_have_css("opacity", "1")
        shoot(page, "31-no-tiles-phone-dark", tmp_path)
