"""How the dashboard's viewer does with a result of hundreds of megapixels: time from the card's word that it is done to
the whole picture, time to open it again, frames while panning, memory.

`python -m benchmarks.viewer [--megapixels 400] [--format jpg]` restores one photo with the Lanczos stand-in behind the
real service and looks at it in Chromium, which draws without a card. Figures of a machine that does other things too
are too high.
"""

from __future__ import annotations

import argparse
import io
import os
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
# Marks, in seconds since then: the card says done; it has its picture; a side has every pixel that its screen can show.
WATCH_CARD = """
() => { window.marks = {}; const step = () => {
    const card = document.querySelector(".card[data-status=completed]");
    if (card) window.marks.done ??= performance.now();
    const picture = card?.querySelector("img.card-picture:not(.arriving)");
    if (picture?.naturalWidth) return void (window.marks.card = performance.now());
    requestAnimationFrame(step);
  }; step(); }
"""
UNTIL_MARKED = """
(name) => new Promise((resolve) => { const look = () =>
    window.marks[name] ? resolve() : setTimeout(look, 20);
  look(); })
"""
MARK_SHARP = """
([name, sides, level]) => new Promise((resolve) => { const step = () => {
    const all = sides.every((side) => {
      const { hidden, dataset } = document.querySelector(`.side-${side} .tiles-canvas`);
      if (hidden) return side === "before"; // an original of ordinary size is shown whole
      return dataset.sharp === "true" && (level === null || dataset.level === String(level));
    });
    if (!all) return void requestAnimationFrame(step);
    requestAnimationFrame(() => resolve(window.marks[name] = performance.now())); // it is painted
  }; step(); })
"""
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
    page.evaluate(WATCH_CARD)
    page.click("#restore")
    page.evaluate(UNTIL_MARKED, "done")


def first_look(page: Page) -> dict[str, float]:
    """Open the photo at once, look at it at fit and at 100 %; seconds from the moment when its card said done."""
    page.locator(".card-open").first.click()
    for name, sides, level in (("fit", ["after"], None), ("both", ["before", "after"], None)):
        page.evaluate(MARK_SHARP, [name, sides, level])
    page.evaluate("window.marks.pressed = performance.now()")
    page.click("#zoom-100")
    page.evaluate(MARK_SHARP, ["full", ["after"], 0])
    page.evaluate(UNTIL_MARKED, "card")
    marks: dict[str, float] = page.evaluate("window.marks")
    seconds = {name: (mark - marks["done"]) / 1000 for name, mark in marks.items()}
    return {**seconds, "full": seconds["full"] - seconds["pressed"]}


def measure(page: Page, screenshot: Path | None) -> list[tuple[str, str, str]]:
    """Rows of the table."""
    first = first_look(page)
    page.click("#viewer-close")
    shown, sharp_again = opened(page)
    page.click("#zoom-100")
    sharp(page)
    if screenshot:
        page.screenshot(path=screenshot)
    frames, memory = panned(page)
    kept = page.locator(".side-after .tiles-canvas").get_attribute("data-kept")
    start, end = statistics.median(memory[:5]), statistics.median(memory[-5:])
    longest = sorted(frames)[-5:][::-1]
    return [
        ("card done to its picture", f"{first['card']:.2f} s", ""),
        ("card done to the whole result at fit", f"{first['fit']:.2f} s", f"{OPEN_GOAL_SECONDS:g} s"),
        ("card done to both pictures at fit", f"{first['both']:.2f} s", ""),
        ("from there to 100 %", f"{first['full']:.2f} s", ""),
        ("opens again", f"{shown:.2f} s", f"{OPEN_GOAL_SECONDS:g} s"),
        ("every pixel at fit again", f"{sharp_again:.2f} s", f"{OPEN_GOAL_SECONDS:g} s"),
        (f"longest of {len(frames)} frames of panning", f"{max(frames):.0f} ms", f"{FRAME_GOAL_MILLISECONDS:g} ms"),
        ("the five longest", ", ".join(f"{frame:.0f}" for frame in longest) + " ms", ""),
        ("99 of 100 frames", f"{statistics.quantiles(frames, n=100)[98]:.0f} ms", ""),
        ("memory of the tab, first and last seconds", f"{start:.0f} and {end:.0f} MB, peak {max(memory):.0f}", "flat"),
        ("tiles kept", str(kept), "40"),
        ("load average", f"{os.getloadavg()[0]:.1f}", ""),
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
