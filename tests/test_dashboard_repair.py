"""Repairing scratches on the page, in a browser in front of the real service with a network that finds white."""

from __future__ import annotations

import io
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from app.options import Repair
from app.restoration.repair.mask import THRESHOLDS
from tests.browser import PHONE, Eyes, Fingers, Service, as_file, drop, restoring_service, visit
from tests.damage_network import install, white_is_damage

WORK_MILLISECONDS = 240_000
WIDTH, HEIGHT = 160, 120
PIXELS = WIDTH * HEIGHT
SCRATCH, FAINT = (slice(40, 44), slice(20, 120)), (slice(80, 83), slice(30, 130))  # of the rows and columns
# Whether a pixel of the photo lies under red.
RED = """
([x, y]) => document.querySelector('.damage-layer').getContext('2d').getImageData(x, y, 1, 1).data[3] > 0
"""
# Try again a photo that came with a mask, as if it had failed.
TRY_AGAIN = """
async ([jobId, id]) => {
  const { JobActions } = await import("/js/job_actions.js");
  const pressed = { button: document.createElement("button"), line: document.createElement("p") };
  const actions = new JobActions({ get: () => null, merge: () => {} });
  await actions.retry(pressed, jobId, { id, own_mask: true, original_filename: "a.png" });
}
"""


@pytest.fixture(scope="module")
def repairing(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("repairing")
    weights = folder / "of-this-test"
    install(weights, white_is_damage(steepness=40 / 3, limit=0.9))
    with restoring_service(folder / "service", WEIGHTS_FOLDER=str(weights)) as running:
        yield running


def print_of(name: str, *, scratched: bool) -> FilePayload:
    """A dim photo; scratched it has a white line that is found, and a paler one that is found only when asked to."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    grey = (90 + 40 * np.sin(columns / 17) * np.cos(rows / 13)).astype(np.uint8)
    if scratched:
        grey[SCRATCH] = 255
        grey[FAINT] = 228  # 0.44 of the network
    buffer = io.BytesIO()
    Image.fromarray(np.stack([grey] * 3, axis=2)).save(buffer, "PNG")
    return as_file(name, buffer.getvalue())


def restored(page: Page, count: int) -> None:
    page.click("#restore")
    expect(page.locator(".card[data-status=completed]")).to_have_count(count, timeout=WORK_MILLISECONDS)


def look(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Compare {name} before and after").click()
    expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()


def open_damage(page: Page) -> None:
    page.click("#damage-open")
    expect(page.locator(".damage-state")).to_contain_text("of the photo is marked")


def share_of(page: Page) -> float:
    """The marked part of the photo as the page tells it, in percent."""
    found = re.match(r"([\d.]+) %", page.locator(".damage-state").inner_text().replace("\u00a0", " "))
    assert found is not None
    return float(found[1])


def told(pixels: int) -> float:
    """As the page rounds it."""
    percent = 100 * pixels / PIXELS
    return round(percent, 1 if percent >= 1 else 2)


def mask_kept(service: Service, job_id: str, attempt_id: str) -> NDArray[np.bool_]:
    address = f"{service.address}/api/v1/jobs/{job_id}/damage?attempt={attempt_id}&show=mask"
    with urllib.request.urlopen(address, timeout=30) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read()))) > 0


def jobs_of(service: Service) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{service.address}/api/v1/jobs", timeout=30) as answer:
        found: list[dict[str, Any]] = json.load(answer)["jobs"]
    return found


def test_a_scratched_photo_is_found_repaired_and_repaired_again_with_a_mask_of_ones_own(
    browser: Browser, repairing: Service, tmp_path: Path
) -> None:
    with visit(browser, repairing.address) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        page.locator("#scale").fill("2")
        drop(page, print_of("old.png", scratched=True), print_of("good.png", scratched=False))
        offer = page.locator("#repair-offer")
        expect(offer).to_contain_text("old.png looks scratched or dusty.")
        eyes.look("repair-1-offer")
        page.get_by_role("button", name="Repair only this one").click()
        expect(offer).to_be_hidden()
        expect(page.locator(".tile-own:visible")).to_have_text("Own: Repair scratches: Carefully")
        expect(page.locator("#restore")).to_be_focused()
        restored(page, 2)
        look(page, "old.png")
        facts = page.locator("#facts")
        expect(facts).to_contain_text(f"{told(400)} % filled in")
        assert not [request for request in seen.requests if "damage_panel" in request.url], "it comes when it is opened"

        open_damage(page)
        assert share_of(page) == told(400)
        expect(page.locator(".side-after")).to_be_hidden()
        expect(page.get_by_role("button", name="Repair with this mask")).to_be_disabled()  # so it was repaired
        page.wait_for_function(RED, arg=[60, 41])
        assert not page.evaluate(RED, [60, 81])
        eyes.look("repair-2-found")
        slider = page.locator("#damage-threshold")
        expect(slider).to_have_value(str(100 - round(100 * THRESHOLDS[Repair.AUTO])))
        slider.fill("62")
        assert share_of(page) == told(700)
        page.wait_for_function(RED, arg=[60, 81])  # drawn with the next frame
        page.keyboard.press("z")
        assert share_of(page) == told(400)
        page.keyboard.press("y")
        expect(slider).to_have_value("62")

        page.get_by_role("button", name="Take away").click()
        page.locator(".stage").focus()
        page.keyboard.press("[")
        expect(page.locator("#damage-size")).to_have_value("22")
        page.keyboard.press("]")
        page.keyboard.press("Enter")  # in the middle of the picture, where nothing is marked
        assert share_of(page) == told(700)
        page.keyboard.press("x")
        page.keyboard.press("Enter")
        after_dab = share_of(page)
        page.keyboard.press("Shift+ArrowDown")
        assert told(700) < after_dab < share_of(page)
        page.keyboard.press("Control+z")
        assert share_of(page) == after_dab
        box = page.locator(".stage").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x - 60, y - 40)
        page.mouse.down()
        page.mouse.move(x + 60, y - 40, steps=5)
        page.mouse.up()
        painted = share_of(page)
        assert painted > after_dab
        page.mouse.wheel(0, -240)  # it still zooms, and paints nothing
        expect(page.locator("#zoom-fit")).to_have_attribute("aria-pressed", "false")
        assert share_of(page) == painted
        hold = page.get_by_role("button", name="Hold to see the result")
        hold.dispatch_event("pointerdown")
        expect(page.locator(".side-before")).to_be_hidden()
        hold.dispatch_event("pointerup")
        eyes.look("repair-3-painted")

        page.keyboard.press("Escape")  # the panel first
        expect(page.locator("#damage")).to_be_hidden()
        expect(page.locator("#viewer")).to_be_visible()
        page.locator(".stage").focus()
        page.keyboard.press("d")
        expect(page.locator(".damage-state")).to_be_visible()
        assert share_of(page) == painted, "what was painted is still there"
        page.get_by_role("button", name="Repair with this mask").click()
        answer = page.locator("#viewer-answer")
        expect(answer).to_contain_text("Restored again.", timeout=WORK_MILLISECONDS)
        expect(page.locator("#damage")).to_be_hidden()
        answer.get_by_role("button", name="Compare both").click()
        expect(facts).to_contain_text(f"{painted} % filled in")
        newest = jobs_of(repairing)[0]
        (attempt,) = newest["attempts"]
        assert attempt["result"]["params"]["repair"]["own_mask"] is True
        mask = mask_kept(repairing, newest["job_id"], attempt["id"])
        assert mask.shape == (HEIGHT, WIDTH)
        assert told(int(mask.sum())) == painted
        assert mask[SCRATCH].all()
        assert mask[FAINT].all()
        assert newest["options"]["scale"] == 2
        open_damage(page)
        assert share_of(page) == painted
        expect(slider).to_be_hidden()  # nobody looked for anything
        eyes.look("repair-4-own")
        page.evaluate(TRY_AGAIN, [newest["job_id"], attempt["id"]])
        again = jobs_of(repairing)[0]
        assert again["job_id"] != newest["job_id"]
        assert again["attempts"][0]["own_mask"] is True
        assert eyes.found == [], "\n".join(eyes.found)


def test_on_a_phone_a_finger_paints_two_zoom_and_the_offer_can_be_declined(
    browser: Browser, repairing: Service, tmp_path: Path
) -> None:
    with visit(browser, repairing.address, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        eyes = Eyes(page, tmp_path)
        drop(page, print_of("alone.png", scratched=True))
        offer = page.locator("#repair-offer")
        expect(offer.get_by_role("button")).to_have_count(2)
        eyes.look("repair-5-phone")
        offer.get_by_role("button", name="Leave them as they are").click()
        expect(offer).to_be_hidden()
        page.click("#settings > summary")
        assert page.get_by_role("radio", name="Off").is_checked()
        page.get_by_role("radio", name="Strongly").check()
        expect(page.locator("#preset-sets")).to_be_visible()
        page.get_by_role("radio", name="Off").check()
        page.locator("#scale").fill("1")
        restored(page, page.locator(".card").count() + 1)
        look(page, "alone.png")
        page.click("#damage-open")  # nobody was asked to repair it, so nothing is marked
        expect(page.locator(".damage-state")).to_contain_text("0 % of the photo is marked")
        assert not seen.asked("show="), "nothing is asked for that cannot be there"
        page.get_by_role("button", name="Add", exact=True).click()
        touch = Fingers(page)
        touch("touchStart", 0.3)
        touch("touchMove", 0.6)
        touch("touchEnd")
        painted = share_of(page)
        assert painted > 1
        zoom = page.evaluate("document.querySelector('.side-before img').getBoundingClientRect().width")
        touch("touchStart", 0.8)  # where nothing is marked
        touch("touchStart", 0.8, 0.6)
        touch("touchMove", 0.95, 0.45)
        touch("touchEnd")
        grown = "(zoom) => document.querySelector('.side-before img').getBoundingClientRect().width > 2 * zoom"
        page.wait_for_function(grown, arg=zoom)
        assert share_of(page) == painted, "the first finger of two has painted nothing"
        wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1] == PHONE["width"]
        eyes.look("repair-6-phone-painted")
        page.get_by_role("button", name="Repair with this mask").click()
        expect(page.locator("#viewer-answer")).to_contain_text("Restored again.", timeout=WORK_MILLISECONDS)
        newest = jobs_of(repairing)[0]
        assert newest["options"]["repair"] == "auto"
        assert told(int(mask_kept(repairing, newest["job_id"], newest["attempts"][0]["id"]).sum())) == painted
        assert eyes.found == [], "\n".join(eyes.found)


def test_where_nothing_can_be_repaired_nothing_is_offered_and_what_was_wished_is_told(
    browser: Browser, repairing: Service
) -> None:
    def without_network(route: Route) -> None:
        """As a service answers that has no network for damage."""
        config = route.fetch().json()
        route.fulfill(json={**config, "repair": {**config["repair"], "available": False}})

    with visit(browser, repairing.address) as seen:
        page = seen.open()
        page.get_by_role("radio", name="Carefully").check()
        page.route("**/api/v1/config", without_network)
        page.reload()
        expect(page.locator("#gone")).to_contain_text("Repair scratches: Carefully is gone; instead: Off.")
        expect(page.locator("#repair-row")).to_be_hidden()
        looks = len(seen.asked("/api/v1/damage"))
        drop(page, print_of("c.png", scratched=True))
        expect(page.locator("#restore-time")).to_contain_text("about")
        assert (len(seen.asked("/api/v1/damage")), len(seen.asked("repair_offer.js"))) == (looks, 0)
        page.unroute("**/api/v1/config")
        page.reload()
        page.wait_for_selector("body[data-state=started]")
        expect(page.get_by_role("radio", name="Carefully")).to_be_checked()  # it has come back


def test_a_refusal_stays_with_the_photo_that_it_is_about(browser: Browser, repairing: Service) -> None:
    problem = {"status": 409, "code": "of_this_test", "detail": "Not this one."}
    held: list[Route] = []
    with visit(browser, repairing.address) as seen:
        page = seen.open()
        page.locator("#scale").fill("2")
        before = page.locator(".card[data-status=completed]").count()
        drop(page, print_of("one.png", scratched=False), print_of("two.png", scratched=False))
        restored(page, before + 2)
        look(page, "one.png")
        open_damage(page)
        send, line = page.get_by_role("button", name="Repair with this mask"), page.locator("#damage .answer")

        def dab_and_send() -> None:
            page.get_by_role("button", name="Add").click()
            page.locator(".stage").focus()
            page.keyboard.press("Enter")
            send.click()

        page.route("**/damage", lambda route: route.fulfill(status=409, json=problem), times=1)
        dab_and_send()
        expect(line).to_have_text("Not this one.")
        page.click("#viewer-next")
        open_damage(page)
        expect(line).to_be_hidden()
        page.route("**/damage", lambda route: held.append(route), times=1)
        dab_and_send()
        expect(line).to_be_visible()
        page.click("#viewer-previous")
        open_damage(page)
        held[0].fulfill(status=409, json=problem)
        expect(send).not_to_have_attribute("aria-busy", "true")
        expect(line).to_be_hidden()
