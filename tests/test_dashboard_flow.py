"""The dashboard in a real browser, in front of the real service with a real network: from drop to download."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import jwt
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.browser import DESKTOP, Service, as_file, drop, faced_service, grave_findings, photo, shoot, visit
from tests.cut_proxy import CutProxy, cut_proxy
from tests.harness import until
from tests.token_issuer import AUDIENCE, ISSUER, SECRET, claims

KEY = "0123456789abcdef0123456789abcdef"
WORK_MILLISECONDS = 240_000


# A JPEG of 101 megabytes: too large for the wire between a test and its browser.
DROP_HEAVY = """
async () => {
  const head = await (await fetch('sample.jpg')).arrayBuffer();
  const transfer = new DataTransfer();
  transfer.items.add(new File([head, new ArrayBuffer(101 * 2 ** 20)], 'heavy.jpg', { type: 'image/jpeg' }));
  document.querySelector('.drop').dispatchEvent(
    new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: transfer }));
}
"""


def small(name: str, seed: int = 0) -> FilePayload:
    kind = "PNG" if name.endswith(".png") else "TIFF" if name.endswith(".tif") else "JPEG"
    return as_file(name, photo(72, 54, kind, seed))


def lasting(name: str) -> FilePayload:
    """A photo that takes some seconds, together with quality best."""
    return as_file(name, photo(160, 120))


def choose_best(page: Page) -> None:
    if page.locator("#settings").get_attribute("open") is None:
        page.click("#settings > summary")
    page.check("input[name=quality][value=best]")


def wait_restored(page: Page, count: int) -> None:
    expect(page.locator(".card[data-status=completed]")).to_have_count(count, timeout=WORK_MILLISECONDS)


def test_three_photos_from_drop_to_download_one_bad_file_among_them(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        shoot(page, "01-empty-light", tmp_path)
        drop(page, small("one.jpg"), small("two.png", 1), as_file("letter.txt", b"no photo"), small("three.tif", 2))
        expect(page.locator("#refused-list li")).to_contain_text("letter.txt")
        expect(page.locator("#refused-list li")).to_contain_text("Not a photo this service can open")
        assert not seen.asked("/enhance"), "the bad file was refused before anything was sent"
        expect(page.locator(".tile")).to_have_count(3)
        expect(page.locator(".tile canvas[data-ready]")).to_have_count(2)  # no browser opens a TIFF
        expect(page.locator(".tile-photo[data-format=TIFF] canvas[data-blank]")).to_have_count(1)
        expect(page.locator("#restore-time")).to_contain_text("about")
        shoot(page, "02-tray-light", tmp_path)
        page.click("#restore")
        wait_restored(page, 3)
        expect(page.locator(".card[data-status=completed] img[src^=blob]")).to_have_count(3)
        expect(page.locator(".job-time")).to_contain_text("deleted at")
        shoot(page, "03-restored-light", tmp_path)
        with page.expect_download() as one:
            page.get_by_role("link", name="Download two.png").click()
        with Image.open(one.value.path(), formats=("PNG",)) as image:
            assert image.size == (288, 216)
        assert one.value.suggested_filename == "two_x4.png"
        with page.expect_download() as all_of_them:
            page.get_by_role("link", name="Download all (ZIP): 3 photos").click()
        with zipfile.ZipFile(io.BytesIO(Path(all_of_them.value.path()).read_bytes())) as archive:
            assert archive.testzip() is None
            assert sorted(archive.namelist()) == ["one.jpg", "three.tif", "two.png"]
        page.get_by_role("button", name="Delete now: 3 photos").click()
        expect(page.locator(".job")).to_have_count(1)  # the first press only asks
        page.get_by_role("button", name="Really delete? 3 photos").click()
        expect(page.locator("#gallery")).to_be_hidden()


def test_what_the_service_refuses_leaves_the_tray_and_the_rest_is_restored(browser: Browser, service: Service) -> None:
    """A damaged photo looks well from its first bytes; the service names it, and the page sends the others again."""
    broken = photo(300, 200, "PNG")[:36]
    with visit(browser, service.address) as seen:
        page = seen.open()
        drop(page, small("same.png"), as_file("same.png", broken), small("other.jpg", 3))
        page.click("#restore")
        wait_restored(page, 2)
        expect(page.locator("#refused-list li")).to_contain_text("not a readable PNG")
        expect(page.locator(".tile")).to_have_count(0)


def test_limits_of_the_service_are_told_before_sending(browser: Browser, service: Service) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        header = photo(8, 8, "PNG")
        wide = header[:16] + (20_000).to_bytes(4, "big") + (10).to_bytes(4, "big") + header[24:]
        many = header[:16] + (9_000).to_bytes(4, "big") + (9_000).to_bytes(4, "big") + header[24:]
        large = header[:16] + (6_000).to_bytes(4, "big") + (6_000).to_bytes(4, "big") + header[24:]
        files = [("wide.png", wide), ("many.png", many), ("empty.jpg", b""), ("large.png", large)]
        page.set_input_files("#choose-files", [as_file(*file) for file in files])
        page.evaluate(DROP_HEAVY)
        rows = page.locator("#refused-list li")
        expect(rows).to_have_count(4)
        said = " ".join(rows.all_inner_texts())
        for words in ("20,000 pixels", "81 megapixels, and 40 are allowed", "empty", "101 MB, and 100 MB are allowed"):
            assert words in said.replace("\u00a0", " "), said
        expect(page.locator(".too-large .tile-note")).to_contain_text("choose 3× or less")
        expect(page.locator("#restore")).to_be_disabled()
        page.locator("#scale").fill("3")
        expect(page.locator(".too-large")).to_have_count(0)
        expect(page.locator("#restore")).to_be_enabled()
        assert not seen.asked("/enhance")


def test_a_job_is_cancelled_and_tried_again(browser: Browser, service: Service, tmp_path: Path) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        choose_best(page)
        drop(page, lasting("slow.jpg"))
        page.click("#restore")
        expect(page.locator(".card[data-status=processing]")).to_be_visible()
        shoot(page, "04-working-light", tmp_path)
        page.get_by_role("button", name="Cancel: slow.jpg").click()
        expect(page.locator(".card[data-status=cancelled]")).to_be_visible(timeout=WORK_MILLISECONDS)
        page.get_by_role("button", name="Try again: slow.jpg").click()
        expect(page.locator(".job")).to_have_count(2)
        expect(page.locator(".card:is([data-status=processing], [data-status=queued])")).to_have_count(1)


def test_a_reload_in_the_middle_of_a_job_loses_nothing(browser: Browser, service: Service) -> None:
    with visit(browser, service.address) as seen:
        page = seen.open()
        choose_best(page)
        page.locator("#scale").fill("2")
        page.uncheck("input[name=face_enhance]")
        drop(page, lasting("kept.jpg"))
        page.click("#restore")
        expect(page.locator(".card[data-status=processing]")).to_be_visible()
        page.reload()
        expect(page.locator(".card[data-status=processing]")).to_be_visible()
        assert page.locator(".card-name").inner_text() == "kept.jpg"
        wait_restored(page, 1)
        assert page.locator("input[name=quality][value=best]").is_checked(), "settings are remembered"
        assert page.locator("#scale").input_value() == "2"
        assert not page.locator("input[name=face_enhance]").is_checked()


def wait_for_cut(page: Page, proxy: CutProxy) -> None:
    """A card may be shown as in progress before the page's WebSocket is open."""

    def is_cut() -> bool:
        page.wait_for_timeout(20)  # lets the browser's events come in, as a plain sleep would not
        return proxy.sockets_cut > 0

    until(is_cut)


def test_a_cut_websocket_falls_back_to_asking_and_a_lost_service_is_found_again(
    browser: Browser, service: Service
) -> None:
    with cut_proxy(service.port) as proxy, visit(browser, proxy.address) as seen:
        page = seen.open()
        choose_best(page)
        drop(page, lasting("cut.jpg"))
        page.click("#restore")
        expect(page.locator(".card[data-status=processing]")).to_be_visible()
        proxy.cut_now(only_sockets=True)
        wait_for_cut(page, proxy)
        asked_before = len([r for r in seen.requests if re.search(r"/api/v1/jobs/[0-9a-f]{32}$", r.url)])
        wait_restored(page, 1)
        asked = len([r for r in seen.requests if re.search(r"/api/v1/jobs/[0-9a-f]{32}$", r.url)])
        assert asked > asked_before, "the page asked for the job instead"
        proxy.cut_now(only_sockets=False)
        expect(page.locator("#service-word")).to_have_text("Not reachable", timeout=WORK_MILLISECONDS)
        expect(page.locator("#trouble")).to_contain_text("keeps trying")
        proxy.mend()
        expect(page.locator("#service-word")).to_have_text("Ready", timeout=WORK_MILLISECONDS)
        expect(page.locator("#trouble")).to_be_hidden()


def test_sign_in_with_a_wrong_key_then_the_right_one(browser: Browser, tmp_path: Path) -> None:
    with (
        faced_service(tmp_path / "service", 0.01, KEY) as locked,
        visit(browser, locked.address) as seen,
    ):
        page = seen.page
        page.goto(locked.address)
        expect(page.locator("#signin")).to_be_visible()
        shoot(page, "05-sign-in-light", tmp_path)
        assert grave_findings(page) == []
        page.emulate_media(color_scheme="dark")
        shoot(page, "05-sign-in-dark", tmp_path)
        assert grave_findings(page) == []
        for _ in range(3):  # browsers let the second Escape through
            page.keyboard.press("Escape")
            page.mouse.click(5, 5)
        expect(page.locator("#signin-key")).to_be_visible()
        page.evaluate("document.getElementById('signin').close()")  # as a step back does on a phone
        expect(page.locator("#signin-key")).to_be_focused()
        page.fill("#signin-key", "wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#signin-problem")).to_contain_text("not valid")
        page.fill("#signin-key", KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#signin")).to_be_hidden()
        drop(page, small("mine.png"))
        page.click("#restore")
        wait_restored(page, 1)
        expect(page.locator(".card img[src^=blob]")).to_have_count(1)
        assert all(KEY not in request.url for request in seen.requests)
        assert KEY not in page.evaluate("JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})")
        page.reload()
        wait_restored(page, 1)
        page.evaluate(
            "const field = document.querySelector('[name=prompt]'); field.value = 'a private wish';"
            " field.dispatchEvent(new Event('input', { bubbles: true }))"
        )
        assert "a private wish" in page.evaluate("JSON.stringify({...localStorage})")
        place = page.locator("#sign-out").bounding_box()
        assert place is not None
        assert place["y"] < 60
        assert place["x"] + place["width"] > DESKTOP["width"] - 60, "at the top right"
        shoot(page, "05-sign-out-light", tmp_path)
        with page.expect_navigation():  # the page loads anew, after the form shows
            page.click("#sign-out")
        expect(page.locator("#signin")).to_be_visible()
        assert "a private wish" not in page.evaluate("JSON.stringify({...localStorage})")
        assert page.locator(".card").count() == 0


def test_the_page_says_who_is_signed_in_and_what_is_left_of_the_day(browser: Browser, tmp_path: Path) -> None:
    shares = {"quota_photos_per_day": 2, "jwt_secret": SECRET, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
    with (
        faced_service(tmp_path / "service", 0.01, KEY, **shares) as shared,
        visit(browser, shared.address) as seen,
    ):
        page = seen.page
        page.goto(shared.address)
        page.fill("#signin-key", jwt.encode(claims("kay"), SECRET, "HS256")[:-3] + "AAA")
        page.keyboard.press("Enter")
        expect(page.locator("#signin-problem")).to_contain_text("This token is not valid")
        page.fill("#signin-key", jwt.encode(claims("kay"), SECRET, "HS256"))
        page.keyboard.press("Enter")
        expect(page.locator("#signin")).to_be_hidden()
        page.click("#service-chip")
        expect(page.locator("#account")).to_contain_text("Signed in as kay. 2 photos of 2 left today, until")
        drop(page, small("one.png"))
        page.click("#restore")
        wait_restored(page, 1)
        expect(page.locator("#account")).to_contain_text("1 photo of 2 left today")
        if page.locator("#account").is_hidden():
            page.click("#service-chip")
        shoot(page, "06-account-light", tmp_path)
        assert grave_findings(page) == []
        page.emulate_media(color_scheme="dark")
        shoot(page, "06-account-dark", tmp_path)
        assert grave_findings(page) == []
        drop(page, small("two.png"), small("three.png"))
        page.click("#restore")
        expect(page.locator("#restore-answer")).to_contain_text("2 photos a day, and 1 of today's is left")


def test_what_is_not_installed_is_said_beside_the_choice(browser: Browser, service: Service, tmp_path: Path) -> None:
    """With nothing but the model that ships with the project, no quality promises what cannot run."""
    with visit(browser, service.address) as seen:
        page = seen.open()
        expect(page.locator("#note-fast")).to_have_text("nir-embedded-x4, until realesr-general-x4v3 is installed.")
        expect(page.locator("#note-balanced")).to_have_text("nir-embedded-x4, until RealESRGAN_x4plus is installed.")
        expect(page.locator("#note-best")).to_contain_text("averaged over eight passes, until RealESRGAN_x4plus")
        faces = page.get_by_role("switch", name="Restore faces")
        expect(faces).to_have_accessible_description(re.compile("Not installed yet"))
        expect(page.locator("#face-strength-row")).to_be_hidden()
        faces.uncheck()
        expect(page.locator("#faces-missing")).to_be_hidden()
        faces.check()
        shoot(page, "settings-of-a-first-start", tmp_path)


def test_the_first_paint_is_light(browser: Browser, service: Service) -> None:
    with visit(browser, service.address) as seen:
        sizes: list[float] = []
        wire = seen.context.new_cdp_session(seen.page)
        wire.send("Network.enable")
        wire.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
        page = seen.open()
        page.wait_for_load_state("networkidle")
        assert len(sizes) > 25
        print(f"first paint: {sum(sizes) / 1024:.0f} KB in {len(sizes)} answers")
        assert sum(sizes) <= 150 * 1024
