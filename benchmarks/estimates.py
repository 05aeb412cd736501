"""How true the dashboard's times are: a written list of runs in a real browser on the real service with real weights.

`python -m benchmarks.estimates --weights FOLDER [--only 7]` sends each run's photos as a person would, and compares
what the page said before the start with what it took, and the countdown at half of that time with what was left. A run
counts as right within 30 % or 2 s. Figures of a machine that does other things too say little.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from benchmarks.request import Row
from benchmarks.table import as_table
from tests.browser import as_file, browser, drop, photo, restoring_service, visit

RIGHT_SHARE, RIGHT_SECONDS = 0.30, 2.0
HALF_TIME_SHARE = 0.25
ASKED_OF_TWENTY = 18
SETTLED_MILLISECONDS = 1500  # after which the page has heard of the queue
_UNIT_SECONDS = {"s": 1, "min": 60, "h": 3600}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s(s|min|h)\b")
X4PLUS, ANIME = "RealESRGAN_x4plus", "RealESRGAN_x4plus_anime_6B"

# Notes down what the newest job says ten times a second, until it has ended; [milliseconds since the click, words].
WATCH = """
(before) => {
  const began = performance.now();
  window.run = { seconds: null, words: [] };
  const timer = setInterval(() => {
    const jobs = document.querySelectorAll("#jobs > .job");
    if (jobs.length <= before) return;
    const since = (performance.now() - began) / 1000;
    window.run.words.push([since, jobs[0].querySelector(".job-words").innerText]);
    if (!["completed", "failed", "cancelled"].includes(jobs[0].dataset.status)) return;
    Object.assign(window.run, { seconds: since, status: jobs[0].dataset.status });
    clearInterval(timer);
  }, 100);
  document.getElementById("restore").click();
}
"""
UNTIL_TOLD = """
() => new Promise((resolve) => { const look = () =>
    document.getElementById("restore-time").textContent ? resolve() : setTimeout(look, 50);
  look(); })
"""
UNTIL_ENDED = """
() => new Promise((resolve) => { const look = () =>
    window.run.seconds !== null ? resolve(window.run) : setTimeout(look, 100);
  look(); })
"""
UNTIL_READY = """
() => new Promise((resolve) => { const look = () => fetch("/health/ready").then(
    (answer) => answer.ok ? resolve() : setTimeout(look, 200));
  look(); })
"""
CHOOSE = """
(fields) => {
  const form = document.getElementById("settings-form");
  for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
  form.elements.face_enhance.checked = false;
  form.dispatchEvent(new Event("input", { bubbles: true }));
}
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of the list.

    Attributes:
        sizes: (width, height) of each photo.
        quality, model, output_format: as chosen on the page; a model overrides the quality.
        ahead: photos that somebody else sent just before, with the fast model.
        fresh: the service is started anew, and nothing ran on it yet.
    """

    sizes: Sequence[tuple[int, int]]
    quality: str = "fast"
    model: str = ""
    output_format: str = "jpg"
    ahead: Sequence[tuple[int, int]] = ()
    fresh: bool = False

    @property
    def words(self) -> str:
        """The run in a few words."""
        photos = " + ".join(f"{width}x{height}" for width, height in self.sizes)
        parts = [photos if len(self.sizes) < 4 else f"{len(self.sizes)} photos", self.model or self.quality]
        parts += [self.output_format] if self.output_format != "jpg" else []
        parts += [f"{len(self.ahead)} ahead"] if self.ahead else []
        return ", ".join(parts + (["first"] if self.fresh else []))


MIXED = ((320, 240), (640, 480), (200, 300), (800, 600))
RUNS = (
    Run([(640, 480)], fresh=True),
    Run([(640, 480)]),
    Run([(1600, 1200)]),
    Run([(200, 150)]),
    Run(MIXED),
    Run([(1024, 768)], output_format="png"),
    Run([(1024, 768)], output_format="webp"),
    Run([(640, 480)], ahead=[(1024, 768), (640, 480)]),
    Run([(256, 256)], "balanced"),  # its network is loaded, the other one's pace is known
    Run([(320, 240)], "fast", X4PLUS),
    Run([(192, 144), (320, 240), (128, 128)], "balanced"),
    Run([(256, 192)], "balanced", ahead=[(1024, 768)]),
    Run([(256, 256)], "balanced", fresh=True),
    Run([(400, 300)], "balanced"),
    Run([(128, 128)], "best"),  # in full precision, eight times
    Run([(160, 120)], "best"),
    Run([(128, 128)], "best", fresh=True),
    Run([(256, 256)], "fast", ANIME),
    Run([(512, 384)], "fast", ANIME),
    Run([(320, 240)] * 10, ahead=[(640, 480)]),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the page said and what was true, in seconds. None: it said nothing."""

    run: Run
    told: float | None
    took: float
    left_told: float | None

    @property
    def is_right(self) -> bool:
        """Whether the estimate was within 30 % or 2 s of the truth."""
        return self.told is not None and self._within(self.told - self.took, self.took, RIGHT_SHARE)

    @property
    def is_right_at_half_time(self) -> bool:
        """Whether the countdown was within 25 % of what was left, or 2 s."""
        return self.left_told is not None and self._within(self.left_told - self._left, self._left, HALF_TIME_SHARE)

    def row(self, number: int) -> Row:
        """As a row of the table."""
        figures: dict[str, Any] = {"told_seconds": self.told, "took_seconds": self.took}
        if self.told is not None:
            figures |= {"error_seconds": self.told - self.took, "share_wrong": self.told / self.took - 1}
        figures |= {"right": "yes" if self.is_right else "NO", "half_time_told_seconds": self.left_told}
        if self.left_told is not None:
            figures |= {
                "half_time_error_seconds": self.left_told - self._left,
                "share_wrong_at_half_time": self.left_told / self._left - 1,
            }
        return Row("estimates", f"{number:2} {self.run.words}", figures)

    @property
    def _left(self) -> float:
        return self.took / 2

    @staticmethod
    def _within(error: float, truth: float, share: float) -> bool:
        return abs(error) <= max(RIGHT_SECONDS, share * truth)


def main() -> int:
    """Run the list, or one of it, and print; 1 where fewer are right than asked."""
    parser = argparse.ArgumentParser(description="the dashboard's estimates and countdowns against the truth")
    parser.add_argument("--weights", type=Path, default=os.environ.get("NIR_TEST_WEIGHTS"))
    parser.add_argument("--only", type=int, help="one run of the list, from 1, as the first one of a fresh service")
    chosen = parser.parse_args()
    if chosen.weights is None:
        parser.error("name a folder with weight files: --weights FOLDER")
    numbered = list(enumerate(RUNS, 1))
    if chosen.only is not None:
        numbered = [(chosen.only, dataclasses.replace(RUNS[chosen.only - 1], fresh=True))]
    outcomes: list[tuple[int, Outcome]] = []
    with browser() as started:
        for together in _by_service(numbered):
            with _page(started, chosen.weights) as page:
                for number, run in together:
                    outcomes.append((number, measure(page, run)))
                    print(as_table([outcomes[-1][1].row(number)]), flush=True)
    print()
    print(as_table([outcome.row(number) for number, outcome in outcomes]))
    right = sum(outcome.is_right for _, outcome in outcomes)
    halves = sum(outcome.is_right_at_half_time for _, outcome in outcomes)
    print(f"{right} of {len(outcomes)} estimates within 30 % or 2 s; asked: {ASKED_OF_TWENTY} of 20")
    print(f"{halves} of {len(outcomes)} countdowns within 25 % or 2 s of what was left at half-time")
    print(f"load average {os.getloadavg()[0]:.1f}")
    return int(right < len(outcomes) * ASKED_OF_TWENTY / 20)


def measure(page: Page, run: Run) -> Outcome:
    """Send one run as a person would, and listen to the page."""
    origin = page.evaluate("location.origin")
    for size in run.ahead:
        sent = page.request.post(
            f"{origin}/api/v1/enhance",
            multipart={"file": as_file("ahead.jpg", photo(*size)), "quality": "fast", "face_enhance": "false"},
        )
        assert sent.status == 202, sent.text()
    fields = {"quality": run.quality, "model": run.model, "output_format": run.output_format, "scale": "4"}
    page.evaluate(CHOOSE, fields)
    drop(page, *(as_file(f"{place}.jpg", photo(*size, seed=place)) for place, size in enumerate(run.sizes)))
    page.evaluate(UNTIL_TOLD)
    page.wait_for_timeout(SETTLED_MILLISECONDS)
    told = seconds_of(page.inner_text("#restore-time"))
    page.evaluate(WATCH, page.locator("#jobs > .job").count())
    seen = page.evaluate(UNTIL_ENDED)
    assert seen["status"] == "completed", seen
    half = seen["seconds"] / 2
    words = min(seen["words"], key=lambda row: abs(row[0] - half))[1]
    return Outcome(run, told, seen["seconds"], seconds_of(words))


def seconds_of(words: str) -> float | None:
    """The last time span in words of the page ("26 photos ahead, about 7 s"); None where there is none."""
    if "nearly done" in words:
        return 0.0
    found = _TIME.findall(words)
    return float(found[-1][0]) * _UNIT_SECONDS[found[-1][1]] if found else None


def _by_service(numbered: Sequence[tuple[int, Run]]) -> Iterator[list[tuple[int, Run]]]:
    """The runs that follow each other on one service."""
    together: list[tuple[int, Run]] = []
    for number, run in numbered:
        if run.fresh and together:
            yield together
            together = []
        together.append((number, run))
    yield together


@contextlib.contextmanager
def _page(started: Browser, weights: Path) -> Iterator[Page]:
    """The dashboard of a service that was just started and is ready."""
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "models"
        mine.mkdir()
        for file in weights.iterdir():
            (mine / file.name).symlink_to(file)
        settings = {"WEIGHTS_FOLDER": str(mine), "RESULT_CACHE": "off"}
        with (
            restoring_service(Path(folder) / "service", **settings) as service,
            visit(started, service.address, locale="en-GB") as seen,
        ):
            page = seen.open()
            page.evaluate(UNTIL_READY)
            yield page


if __name__ == "__main__":
    sys.exit(main())
