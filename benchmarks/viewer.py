"""How the dashboard's viewer does with a result of hundreds of megapixels: time to open, frames while panning, memory.

`python -m benchmarks.viewer [--megapixels 400] [--format jpg]` restores one photo with the Lanczos stand-in behind the
real service and looks at it in Chromium, which draws without a card. Figures of a machine that does other things too
are too high.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.browser import browser, drop, faced_service, visit

SCALE = 4
WORK_MILLISECONDS = 900_000
PAN_SECONDS = 20
OPEN_GOAL_SECONDS, FRAME_GOAL_MILLISECONDS = 2.0, 100.0
MEBIBYTE = 1024 * 1024
# Collects the time between frames, in milliseconds.
WATCH_FRAMES = """
() => { window.frames_ms = []; let last = performance.now();
  const step = (now) => {
    window.frames_ms.push(now - last); last = now;
    if (!window.stop_frames) requestAnimationFrame(step);
  };
  window.stop_frames = false; requestAnimationFrame(step); }
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="time, frames and memory of the viewer on one very large result")
    parser.add_argument("--megapixels", type=float, default=400)
    parser.add_argument("--format", default="jpg", choices=("jpg", "png", "tiff"))
    parser.add_argument("--screenshot", type=Path, help="where to write a picture of the page at 100 %%")
    chosen = parser.parse_args()
    side = int((chosen.megapixels * 1e6) ** 0.5 / SCALE)
    with (
        tempfile.TemporaryDirectory() as folder,
        faced_service(Path(folder), 0.0) as service,
        browser() as started,
        visit(started, service.address) as seen,
    ):
        page = seen.open()
        restore(page, side, chosen.format)
        rows = measure(page, chosen.screenshot)
    print(f"{side * SCALE} x {side * SCALE} pixels as {chosen.format}")
    for what, measured, asked in rows:
        print(f"{what:44} {measured:>36}  {asked}")


def photo(side: int) -> bytes:
    """A JPEG with detail everywhere, so that tiles have the size that those of photos have."""
    small = np.random.default_rng(1).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def restore(page: Page, side: int, output_format: str) -> None:
    """One photo by the page, without faces, whose layers would be as large as a face of 400 megapixels."""
    page.locator("#settings").evaluate(
        "(box) => { for (const part of [box, ...box.querySelectorAll('details')]) part.open = true }"
    )
    page.fill("#scale", str(SCALE))
    page.uncheck("[name=face_enhance]")
    page.select_option("[name=output_format]", output_format)
    drop(page, {"name": "large.jpg", "mimeType": "image/jpeg", "buffer": photo(side)})
    page.click("#restore")
    expect(page.locator(".card[data-status=completed]")).to_have_count(1, timeout=WORK_MILLISECONDS)
    expect(page.locator(".card-picture").last).to_have_js_property("complete", True, timeout=WORK_MILLISECONDS)


def measure(page: Page, screenshot: Path | None) -> list[tuple[str, str, str]]:
    """Rows of the table."""
    shown_cold, sharp_cold = opened(page)
    page.click("#viewer-close")
    shown, sharp_warm = opened(page)
    page.click("#zoom-100")
    sharp(page)
    if screenshot:
        page.screenshot(path=screenshot)
    frames, memory = panned(page)
    kept = page.locator(".side-after .tiles-canvas").get_attribute("data-kept")
    first, last = statistics.median(memory[:5]), statistics.median(memory[-5:])
    return [
        ("opens, first time", f"{shown_cold:.2f} s", f"{OPEN_GOAL_SECONDS:g} s"),
        ("sharp, first time (cut into tiles)", f"{sharp_cold:.1f} s", ""),
        ("opens again", f"{shown:.2f} s", f"{OPEN_GOAL_SECONDS:g} s"),
        ("sharp again", f"{sharp_warm:.2f} s", f"{OPEN_GOAL_SECONDS:g} s"),
        (f"longest of {len(frames)} frames of panning", f"{max(frames):.0f} ms", f"{FRAME_GOAL_MILLISECONDS:g} ms"),
        ("99 of 100 frames", f"{statistics.quantiles(frames, n=100)[98]:.0f} ms", ""),
        ("memory of the tab, first and last seconds", f"{first:.0f} and {last:.0f} MB, peak {max(memory):.0f}", "flat"),
        ("tiles kept", str(kept), "40"),
    ]


def opened(page: Page) -> tuple[float, float]:
    """Seconds from the click until both pictures are seen, and until every pixel of the screen has its own."""
    started = time.monotonic()
    page.locator(".card-open").first.click()
    expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()
    shown = time.monotonic() - started
    sharp(page)
    return shown, time.monotonic() - started


def sharp(page: Page) -> Locator:
    """The result's tiles, once all that are wanted have come."""
    canvas = page.locator(".side-after .tiles-canvas")
    expect(canvas).to_have_attribute("data-sharp", "true", timeout=WORK_MILLISECONDS)
    return canvas


def panned(page: Page) -> tuple[list[float], list[float]]:
    """Milliseconds of each frame and megabytes of the tab, while the picture is dragged to and fro."""
    stage: Any = page.locator(".stage").bounding_box()
    middle = stage["y"] + stage["height"] / 2
    page.evaluate(WATCH_FRAMES)
    memory, ends, way = [tab_megabytes(page)], time.monotonic() + PAN_SECONDS, 1
    while time.monotonic() < ends:
        for _ in range(8):
            near, far = stage["x"] + 0.15 * stage["width"], stage["x"] + 0.9 * stage["width"]
            start, end = (far, near) if way > 0 else (near, far)
            page.mouse.move(start, middle + 120)
            page.mouse.down()
            page.mouse.move(end, middle - 120, steps=25)
            page.mouse.up()
        memory.append(tab_megabytes(page))
        way = -way if len(memory) % 3 == 0 else way
    page.evaluate("window.stop_frames = true")
    frames: list[float] = page.evaluate("window.frames_ms")
    return frames[1:], memory


def tab_megabytes(page: Page) -> float:
    """Resident memory of the largest process that draws pages."""
    renderers = [
        child.memory_info().rss
        for child in psutil.Process().children(recursive=True)
        if any("--type=renderer" in word for word in child.cmdline())
    ]
    return max(renderers) / MEBIBYTE


if __name__ == "__main__":
    main()
