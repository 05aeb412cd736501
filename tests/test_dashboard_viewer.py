"""The dashboard's comparison and its faces, its behaviour at phone width and under hostile names, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from app.main import STATIC_FOLDER
from tests.browser import PHONE, Fingers, Service, as_file, drop, faced_service, forget_jobs, photo, shoot, visit

WORK_MILLISECONDS = 240_000
SAMPLE = (STATIC_FOLDER / "sample.jpg").read_bytes()
HOSTILE = (
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "\"'><svg onload=window.hacked=1>",
    "javascript:window.hacked=1",
    "{{constructor.constructor('window.hacked=1')()}}",
    "&lt;b&gt;bold&lt;/b&gt;",
    "</title><base href=x>",
    "<style>*{display:none}</style>",
    "\u202egpj.exe",
    "a\u0000b\u001b[31m",
)


@pytest.fixture(scope="module")
def faced(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Service]:
    with faced_service(tmp_path_factory.mktemp("faced"), 0.01) as running:
        yield running


def restore(page: Page, *files: FilePayload) -> None:
    drop(page, *files)
    page.click("#restore")
    expect(page.locator(".card[data-status=completed]")).to_have_count(len(files), timeout=WORK_MILLISECONDS)


def look(page: Page) -> None:
    page.locator(".card-open").first.click()
    expect(page.locator(".stage[data-before=ready][data-after=ready]")).to_be_visible()


def now(page: Page) -> int:
    return int(page.locator(".handle").get_attribute("aria-valuenow") or -1)


def places(page: Page) -> list[dict[str, float]]:
    """Where the two pictures stand and how large they are, in CSS pixels relative to their panes."""
    found: list[dict[str, float]] = page.evaluate("""async () => {
      for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame);
      return [...document.querySelectorAll('.side')].map((side) => {
        const pane = side.getBoundingClientRect(), picture = side.querySelector('img').getBoundingClientRect();
        const [x, y] = [picture.x - pane.x, picture.y - pane.y];
        return { x: Math.round(x), y: Math.round(y), width: Math.round(picture.width) };
      });
    }""")
    return found


def test_the_slider_answers_keyboard_and_mouse_and_zoom_moves_both_sides(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        page.click("#sample")
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(1, timeout=WORK_MILLISECONDS)
        look(page)
        assert now(page) == 50
        page.locator(".handle").focus()
        for key, value in [("ArrowRight", 51), ("ArrowLeft", 50), ("PageDown", 40), ("Home", 0), ("End", 100)]:
            page.keyboard.press(key)
            expect(page.locator(".handle")).to_have_attribute("aria-valuenow", str(value))
        stage = page.locator(".stage").bounding_box()
        assert stage is not None
        middle = stage["y"] + stage["height"] / 2
        page.mouse.move(stage["x"] + stage["width"] - 2, middle)
        page.mouse.down()
        page.mouse.move(stage["x"] + 0.25 * stage["width"], middle, steps=4)
        page.mouse.up()
        expect(page.locator(".handle")).to_have_attribute("aria-valuenow", "25")
        expect(page.locator(".handle")).to_have_attribute("aria-valuetext", "25 % before, 75 % after")
        page.keyboard.press("PageUp")
        page.keyboard.press("PageUp")
        shoot(page, "06-compare-light", tmp_path)

        page.click("#zoom-100")
        assert [place["width"] for place in places(page)] == [800, 800]
        page.click("#zoom-400")
        before = places(page)
        assert [place["width"] for place in before] == [3200, 3200]
        assert before[0] == before[1]
        page.locator(".stage").focus()
        page.keyboard.press("ArrowRight")
        page.mouse.move(stage["x"] + 0.8 * stage["width"], middle)
        page.mouse.down()
        page.mouse.move(stage["x"] + 0.8 * stage["width"] - 90, middle - 50, steps=3)
        page.mouse.up()
        moved = places(page)
        assert moved[0] == moved[1]
        assert (moved[0]["x"], moved[0]["y"]) == (before[0]["x"] - 150, before[0]["y"] - 50)
        shoot(page, "07-compare-400-light", tmp_path)
        page.mouse.wheel(0, 400)
        expect(page.locator("#zoom-value")).not_to_have_text("400 %")
        assert places(page)[0] == places(page)[1]

        page.click("#zoom-fit")
        page.click("#mode-side")
        shoot(page, "08-side-by-side-light", tmp_path)
        assert places(page)[0] == places(page)[1]
        page.click("#mode-hold")
        expect(page.locator(".side-before")).to_be_hidden()
        page.locator("#hold-before").focus()
        page.keyboard.down("Space")
        expect(page.locator(".side-after")).to_be_hidden()
        expect(page.locator(".side-before")).to_be_visible()
        page.keyboard.up("Space")
        expect(page.locator(".side-after")).to_be_visible()
        facts = page.locator("#facts").inner_text().replace("\u00a0", " ")
        for words in ("200 × 150", "800 × 600 · 0.48 MP", "4× a side", "This machine, cpu", "not looked for"):
            assert words in facts
        page.keyboard.press("Escape")
        expect(page.locator("#viewer")).to_be_hidden()


def test_two_fingers_zoom_and_one_slides(browser: Browser, service: Service) -> None:
    with visit(browser, service.address, viewport=PHONE, has_touch=True, is_mobile=True) as seen:
        page = seen.open()
        restore(page, as_file("cat.jpg", SAMPLE))
        look(page)
        touch = Fingers(page)
        touch("touchStart", 0.5)
        touch("touchMove", 0.7)
        touch("touchEnd")
        expect(page.locator(".handle")).to_have_attribute("aria-valuenow", "70")
        small = places(page)[0]["width"]
        touch("touchStart", 0.4, 0.6)
        touch("touchMove", 0.2, 0.8)
        touch("touchEnd")
        page.wait_for_function(
            f"() => document.querySelector('.side img').getBoundingClientRect().width > {2.5 * small}"
        )
        assert places(page)[0] == places(page)[1]


def test_the_phone_needs_no_sideways_scrolling(browser: Browser, service: Service, tmp_path: Path) -> None:
    with visit(browser, service.address, viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark") as seen:
        page = seen.open()

        def narrow(state: str) -> None:
            shoot(page, f"phone-{state}-dark", tmp_path)
            wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1] == PHONE["width"], state

        narrow("1-empty")
        drop(
            page,
            as_file("a-very-long-name-without-any-space-" * 4 + ".jpg", SAMPLE),
            as_file("bad.gif", b"GIF89a....."),
        )
        expect(page.locator(".tile")).to_have_count(1)
        page.click("#settings > summary")
        narrow("2-tray")
        page.click("#settings > summary")
        page.click("#refused-clear")
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(1, timeout=WORK_MILLISECONDS)
        page.locator("#gallery").scroll_into_view_if_needed()
        narrow("3-restored")
        page.click("#service-chip")
        narrow("4-service")
        page.click("#service-chip")
        look(page)
        narrow("5-compare")
        page.go_back()
        expect(page.locator("#viewer")).to_be_hidden()


def test_fifty_names_full_of_markup_stay_texts(browser: Browser, service: Service) -> None:
    names = [f"{HOSTILE[number % len(HOSTILE)]}{number}.png" for number in range(50)]
    tiny = photo(12, 9, "PNG")
    with visit(browser, service.address) as seen:
        page = seen.open()
        page.on("dialog", lambda dialog: seen.errors.append("a dialog opened"))
        drop(page, *[as_file(name, tiny) for name in names], as_file("<img src=y onerror=window.hacked=1>.txt", b"no"))
        expect(page.locator(".tile")).to_have_count(50)
        shown = page.locator(".tile-name").all_text_contents()
        assert sorted(shown) == sorted(names)
        page.click("#restore")
        expect(page.locator(".card[data-status=completed]")).to_have_count(50, timeout=WORK_MILLISECONDS)
        # The service has cleaned the names; a page that leaned on that would fall with the first other service.
        page.route("**/api/v1/jobs?*", lambda route: route.fulfill(json=with_names(route.fetch().json(), names)))
        page.reload()
        expect(page.locator(".card")).to_have_count(50)
        assert sorted(page.locator(".card-name").all_text_contents()) == sorted(names)
        look(page)
        expect(page.locator("#viewer-title")).to_have_text(names[0])
        assert page.evaluate("window.hacked") is None
        assert page.locator("base, .card img[src=x], style").count() == 0


def with_names(page_of_jobs: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The same answer, with these names and messages in it as they are."""
    for attempt, name in zip(page_of_jobs["jobs"][0]["attempts"], names, strict=True):
        attempt["original_filename"] = name
        attempt["result"]["warnings"] = [{"code": "test", "message": name}]
    return page_of_jobs


def test_each_face_is_blended_anew_by_its_slider(browser: Browser, faced: Service, tmp_path: Path) -> None:
    with visit(browser, faced.address) as seen:
        page = seen.open()
        restore(page, as_file("faces.jpg", SAMPLE))
        look(page)
        expect(page.locator(".face")).to_have_count(3)
        expect(page.locator(".face").nth(2)).to_contain_text("too small to restore")
        expect(page.locator(".face input")).to_have_count(2)
        expect(page.locator("#facts")).to_contain_text("2 of 3 faces restored")
        page.wait_for_function(
            "() => [...document.querySelectorAll('.face img')].every((image) => image.naturalWidth > 0)"
        )
        first = page.locator("#viewer-download").get_attribute("href")
        before = brightness(page)
        shoot(page, "09-faces-light", tmp_path)
        slider = page.get_by_role("slider", name="Strength of face 1")
        slider.focus()
        page.keyboard.press("Home")
        expect(slider).to_have_attribute("aria-valuetext", "0 %")
        expect(page.locator("#viewer-download")).not_to_have_attribute("href", str(first))
        page.wait_for_function("before => window.measured() < before - 10", arg=before)
        assert len(seen.asked("/faces?attempt=")) == 1, "moving it once asks once"
        page.get_by_role("button", name="Look at face 2").click()
        expect(page.locator(".face-marker")).to_be_visible()
        assert places(page)[0] == places(page)[1]
        shoot(page, "10-face-close-light", tmp_path)
        page.keyboard.press("Escape")
        page.wait_for_function("() => !history.state?.viewer")  # a step back on its way would call off the reload
        page.reload()
        page.wait_for_selector("body[data-state=started]")
        look(page)
        expect(page.get_by_role("slider", name="Strength of face 1")).to_have_value("0")
        expect(page.get_by_role("slider", name="Strength of face 2")).to_have_value("100")


def brightness(page: Page) -> float:
    """Mean red of the first face's rectangle in the picture that is shown as restored."""
    return float(
        page.evaluate("""() => {
      window.measured = () => {
        const image = document.querySelector('.side-after img');
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const pen = canvas.getContext('2d');
        pen.drawImage(image, 0, 0);
        const [w, h] = [canvas.width, canvas.height];
        const { data } = pen.getImageData(0.2 * w, 0.3 * h, 0.15 * w, 0.3 * h);
        let sum = 0;
        for (let at = 0; at < data.length; at += 4) sum += data[at];
        return sum / (data.length / 4);
      };
      return window.measured();
    }""")
    )


def refuse_next_blend(page: Page, status: int, **headers: str) -> None:
    problem = {"status": status, "code": "of_this_test", "detail": "Not now."}
    page.route("**/faces?attempt=*", lambda route: route.fulfill(status=status, headers=headers, json=problem), times=1)


def test_a_refused_strength_is_asked_for_again_or_taken_back_and_its_reason_goes(
    browser: Browser, faced: Service
) -> None:
    forget_jobs(faced)
    with visit(browser, faced.address) as seen:
        page = seen.open()
        restore(page, as_file("faces.jpg", SAMPLE))
        look(page)
        slider, answer = page.get_by_role("slider", name="Strength of face 1"), page.locator("#faces-answer")
        download = page.locator("#viewer-download")
        first = str(download.get_attribute("href"))
        refuse_next_blend(page, 429, **{"Retry-After": "2"})
        slider.focus()
        page.keyboard.press("Home")
        expect(answer).to_have_text("Not now.")
        expect(slider).to_have_value("0")
        expect(download).not_to_have_attribute("href", first)  # asked for again
        expect(answer).to_be_hidden()
        refuse_next_blend(page, 500)
        page.keyboard.press("End")
        expect(answer).to_have_text("Not now.")
        expect(slider).to_have_value("0")  # as the result is
        expect(slider).to_have_attribute("aria-valuetext", "0 %")
        page.keyboard.press("Escape")
        look(page)
        expect(page.locator(".face")).to_have_count(3)
        expect(answer).to_be_hidden()


def test_in_the_second_half_two_fingers_zoom_what_lies_between_them(browser: Browser, faced: Service) -> None:
    forget_jobs(faced)
    with visit(browser, faced.address, has_touch=True) as seen:
        page = seen.open()
        restore(page, as_file("faces.jpg", SAMPLE))
        look(page)
        page.click("#mode-side")
        page.click("#zoom-100")
        before, _ = places(page)
        touch = Fingers(page)
        touch("touchStart", 0.7, 0.8)
        touch("touchMove", 0.65, 0.85)
        touch("touchEnd")
        page.wait_for_function("() => document.querySelector('#zoom-value').textContent.replace(/\\D/g, '') === '200'")
        after, other = places(page)
        assert after == other
        middle = page.locator(".side-after").evaluate("pane => pane.getBoundingClientRect().width / 2")
        assert abs((middle - after["x"]) / after["width"] - (middle - before["x"]) / before["width"]) < 0.05
