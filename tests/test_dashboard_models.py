"""The models panel in a browser, against the real service and a loopback mirror that waits until it is let go.

Installed from the notice, followed, cancelled and resumed, refused without the licence, damaged, put into the
folder by hand; every state is looked at by axe, light and dark, at desktop and phone width.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from app.restoration.models import weights
from benchmarks.random_weights import put_weights
from tests.browser import PHONE, Service, grave_findings, models_service, shoot, visit
from tests.weights_mirror import WeightsMirror, serving_weights

FAST, DRAWINGS = "realesr-general-x4v3", "realesr-animevideov3"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[WeightsMirror]:
    """A mirror with small files under the names of all official ones; the one for drawings arrives damaged."""
    folder = tmp_path / "service" / "mirror"
    folder.mkdir(parents=True)
    for row in weights.MANIFEST:
        (folder / row.file).write_bytes(row.file.encode() * 30_000)
    put_weights(folder, None, (FAST, DRAWINGS))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files[f"{DRAWINGS}.pth"] = b"x" * len(files[f"{DRAWINGS}.pth"])
    with serving_weights(files) as found:
        yield found


@pytest.fixture
def service(mirror: WeightsMirror, tmp_path: Path, browser: Browser) -> Iterator[Service]:
    with models_service(tmp_path / "service", f"{mirror.address}/slow") as running:
        yield running


class Panel:
    """The open panel, and what was found on it."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.found: list[str] = []

    def row(self, name: str) -> Locator:
        return self.page.locator(f'.model[data-file="{name}.pth"]')

    def look(self, state: str) -> None:
        expect(self.page.locator("#models-body")).not_to_contain_text("false")
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)
            expect(self.page.locator("html")).to_have_attribute("data-theme", theme)
            shoot(self.page, f"models-{state}-{theme}", self.folder)
            self.found += [f"{state}, {theme}: {line}" for line in grave_findings(self.page)]


def test_models_are_installed_from_the_page(
    browser: Browser, service: Service, mirror: WeightsMirror, tmp_path: Path
) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        panel = Panel(page, tmp_path)
        notice = page.locator("#notice")
        expect(notice).to_contain_text("Working with the small built-in model. Larger ones give cleaner results.")
        panel.look("1-notice")
        notice.locator("[data-act=default]").click()
        expect(notice.locator("[data-act=default]")).to_contain_text("Installing")
        notice.locator("[data-act=default]").click()
        expect(panel.row("RealESRGAN_x4plus").locator("progress")).to_be_visible()
        expect(panel.row(FAST).locator(".model-state")).to_have_text("Waiting for the one before it")
        panel.look("2-running")

        page.get_by_role("button", name="Cancel: RealESRGAN_x4plus", exact=True).click()
        expect(panel.row("RealESRGAN_x4plus").get_by_role("button")).to_contain_text("Resume")
        expect(panel.row("RealESRGAN_x4plus").get_by_role("button")).to_be_focused()
        mirror.gate.set()
        expect(panel.row(FAST).locator(".model-state")).to_contain_text("In use for Fast")
        expect(page.locator("#service-model")).to_contain_text(FAST)
        expect(notice).not_to_contain_text("small built-in model")
        panel.row("RealESRGAN_x4plus").get_by_role("button").click()
        expect(panel.row("RealESRGAN_x4plus").get_by_role("button")).to_have_count(0)

        page.get_by_role("button", name="Install all for faces").click()
        licence = page.get_by_role("group", name="Licence")
        expect(licence).to_contain_text("NVIDIA, non-commercial")
        expect(licence.get_by_role("button", name="Accept and install")).to_be_focused()
        panel.look("3-licence")
        licence.get_by_role("button", name="Not now").click()
        expect(licence).to_have_count(0)
        assert all(not path.name.startswith("GFPGAN") for path in (tmp_path / "service" / "weights").iterdir())
        page.get_by_role("button", name="Install all for faces").click()
        licence.get_by_role("button", name="Accept and install").click()
        for file in weights.FACES:
            expect(panel.row(Path(file).stem).locator(".model-state")).to_have_text("In use for faces")
        expect(notice).to_be_hidden()

        panel.row(DRAWINGS).get_by_role("button").click()
        expect(panel.row(DRAWINGS)).to_contain_text("arrived damaged")
        expect(panel.row(DRAWINGS).get_by_role("button")).to_have_text("Try again")
        own = tmp_path / "service" / "weights" / "my-own.pth"
        shutil.copy(tmp_path / "service" / "mirror" / f"{DRAWINGS}.pth", own)
        expect(panel.row("my-own").locator(".model-state")).to_have_text("Installed")
        panel.look("4-installed")
        page.click("#models-close")
        expect(page.locator("#model option[value=my-own]")).to_have_count(1)
        own.unlink()
        expect(page.locator("#model option[value=my-own]")).to_have_count(0)
        assert panel.found == [], "\n".join(panel.found)


def test_the_notice_can_be_dismissed_and_the_panel_fits_a_phone(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    with visit(browser, service.address, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        panel = Panel(page, tmp_path)
        expect(page.locator("#notice")).to_be_visible()
        page.click("#service-chip")
        page.click("#models-open")
        expect(panel.row(FAST)).to_be_visible()
        panel.look("5-phone")
        page.click("#models-close")
        page.click("#service-chip")
        page.get_by_role("button", name="Dismiss this notice").click()
        expect(page.locator("#notice")).to_be_hidden()
        page.reload()
        page.wait_for_selector("body[data-state=started]")
        expect(page.locator("#notice")).to_be_hidden()
        assert panel.found == [], "\n".join(panel.found)
