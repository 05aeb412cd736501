"""What the page reads of files before they are sent agrees with the service; cards, titles, drags of what is done."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from app.errors import RestoreError
from app.images import ImageLimits, read_header
from app.images.sniffing import sniff
from tests.browser import Service, as_file, drop, faced_service, grave_findings, photo, shoot, visit

READ = """
async (files) => {
  const { readImageHeader } = await import('/js/image_header.js');
  return Promise.all(files.map(async (data) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    const { format, width, height } = await readImageHeader(new Blob([bytes]));
    return [format, width, height];
  }));
}
"""
BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1", "avif", "avis", "crx", "mp42"]
WATCH_NOTICES = """
window.notices = [];
const RealNotification = Notification;
window.Notification = class extends RealNotification {
  constructor(title, options) { super(title, options); window.notices.push(title); }
};
"""


@pytest.fixture(scope="module")
def faced(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("turned"), 0.0) as running:
        yield running


def turned(kind: str, orientation: int) -> bytes:
    """90 x 60 pixels as stored, red at the top left of the stored picture."""
    image = Image.new("RGB", (90, 60), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    if kind == "TIFF":
        image.save(buffer, kind, tiffinfo={274: orientation})
    else:
        image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def head(brand: str, *compatible: str) -> bytes:
    words = b"".join(word.ljust(4).encode() for word in (brand, "\0\0\0\0", *compatible))
    return (8 + len(words)).to_bytes(4, "big") + b"ftyp" + words + bytes(64)


def read_by_page(page: Page, files: list[bytes]) -> list[tuple[Any, ...]]:
    found = page.evaluate(READ, [base64.b64encode(data).decode() for data in files])
    return [tuple(row) for row in found]


def kind_by_service(data: bytes) -> str | None:
    try:
        return sniff(data[:64])
    except RestoreError:
        return None


def test_the_page_reads_sizes_and_kinds_as_the_service_does(browser: Browser, faced: Service, tmp_path: Path) -> None:
    files = [turned(kind, way) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") for way in (1, 3, 5, 6, 7, 8)]
    expected = []
    for number, data in enumerate(files):
        (tmp_path / str(number)).write_bytes(data)
        header = read_header(tmp_path / str(number), ImageLimits())
        expected.append((header.format, header.width, header.height))
    assert {row[1:] for row in expected} == {(90, 60), (60, 90)}
    heads = [head(brand, *more) for brand in BRANDS for more in ((), ("mif1",), ("mif1", "avif"))]
    heads += [head("heic", *["abcd"] * 14, "avif"), b"II*\0\x10\0\0\0CR\2\0" + bytes(64), b"BM" + bytes(64)]
    with visit(browser, faced.address) as seen:
        page = seen.open()
        assert read_by_page(page, files) == expected
        assert [row[0] for row in read_by_page(page, heads)] == [kind_by_service(data) for data in heads]

        drop(page, as_file("turned.jpg", turned("JPEG", 6)))
        canvas = page.locator(".thumb[data-ready]")
        expect(canvas).to_be_attached()
        found = canvas.evaluate(
            "(canvas) => [canvas.width, canvas.height,"
            " ...canvas.getContext('2d').getImageData(canvas.width - 10, 10, 1, 1).data]"
        )
        assert found[0] < found[1]
        assert found[2] > 200 > 60 > found[4]  # the red corner is at the top right now
        expect(page.locator(".tile-note")).to_contain_text("60\u00a0×\u00a090")


def test_cards_of_tall_results_are_sharp_and_results_can_be_dragged_out(browser: Browser, faced: Service) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        page.fill("#scale", "2")
        drop(page, as_file("tall one.png", photo(60, 1200, "PNG")))
        page.click("#restore")
        card = page.locator(".card[data-status=completed]")
        expect(card).to_have_count(1)
        expect(card.locator("img").last).to_have_js_property("naturalHeight", 2048)
        given = card.locator(".card-open").evaluate(
            "(button) => { const dataTransfer = new DataTransfer();"
            " button.dispatchEvent(new DragEvent('dragstart', { bubbles: true, cancelable: true, dataTransfer }));"
            " return [dataTransfer.getData('DownloadURL'), dataTransfer.getData('text/uri-list')]; }"
        )
        kind, name, address = given[0].split(":", 2)
        assert (kind, name) == ("image/png", "tall one_restored.png")
        assert address == given[1]
        answer = page.request.get(address)
        assert answer.headers["content-type"] == "image/png"
        assert card.locator(".card-open").get_attribute("draggable") == "true"


def test_the_title_and_a_notification_tell_who_looks_elsewhere(
    browser: Browser, faced: Service, tmp_path: Path
) -> None:
    with visit(browser, faced.address) as seen:
        seen.page.add_init_script(WATCH_NOTICES)
        page = seen.open()
        name = page.title()
        page.evaluate(
            "async () => { const { Jobs } = await import('/js/jobs.js');"
            " const { FinishNotice } = await import('/js/finish_notice.js');"
            " window.fed = new Jobs(); new FinishNotice(window.fed);"
            " document.getElementById('gallery').hidden = false; }"
        )

        def feed(status: str, progress: float, seconds_left: float | None) -> None:
            attempts = [{"status": status}] * 2
            job = {"job_id": "a", "created_at": 1, "status": status, "progress": progress, "attempts": attempts}
            page.evaluate("(job) => window.fed.merge(job)", {**job, "seconds_left": seconds_left})

        feed("processing", 0.1, 5)
        expect(page).to_have_title(f"10 % · {name}")
        expect(page.locator("#notify")).to_be_hidden()  # not for a few seconds
        feed("processing", 0.42, 60)
        expect(page.locator("#notify")).to_be_visible()
        assert grave_findings(page) == []
        shoot(page, "32-notify-light", tmp_path)
        seen.context.grant_permissions(["notifications"])  # what pressing "Allow" does
        page.click("#notify-yes")
        expect(page.locator("#notify")).to_be_hidden()
        feed("processing", 0.6, 60)
        expect(page.locator("#notify")).to_be_hidden()
        page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
        feed("completed", 1, None)
        expect(page).to_have_title(f"2 photos restored · {name}")
        assert page.evaluate("window.notices") == ["2 photos restored"]
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        expect(page).to_have_title(name)
